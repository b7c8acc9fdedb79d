"""Find the certificate of a rendition or a source by content, wherever the files were moved to.

Certificates are in `<root>/.hevcq/certificates`. Their names hold the sizes of rendition and source,
so one listing shows which few of them must be read.
"""

import os
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.certificate import Certificate
from hevcq.errors import VerificationFailed
from hevcq.library.filesystem import open_regular, record_names
from hevcq.library.names import (
    CERTIFICATE_NAME,
    RECORDS,
    certificates_folder,
    own_folder,
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A certificate's file, with the sizes that its name holds (in bytes)."""

    path: Path
    rendition_size: int
    source_size: int


class Certificates:
    """The certificates of some library roots, listed once each: make one for every scan.

    Besides `homes`, the `.hevcq` folders above a file are looked into.
    """

    def __init__(self, homes: Iterable[Path] = ()) -> None:
        self._homes = tuple(homes)
        self._listed: dict[Path, tuple[_Entry, ...]] = {}
        self._above: dict[Path, tuple[Path, ...]] = {}
        self._behind_link: dict[Path, bool] = {}

    def of_rendition(self, path: Path, size: int) -> Iterator[Certificate]:
        """Yield the valid certificates that may be of the rendition at `path` with `size` bytes.

        Only the size was compared: the caller must compare the digest where it matters.
        """
        yield from _read(self.paths_of_rendition(path, size))

    def paths_of_rendition(self, path: Path, size: int) -> Iterator[Path]:
        """Yield the files in the libraries' `.hevcq` that may certify the rendition at `path`."""
        for home in self._homes_of(path):
            yield from (e.path for e in self._entries(home) if e.rendition_size == size)

    def of_source(self, path: Path, size: int) -> Iterator[Certificate]:
        """Yield the valid certificates of renditions of a source at `path` with `size` bytes.

        Only the size was compared.
        """
        for home in self._homes_of(path):
            yield from _read(e.path for e in self._entries(home) if e.source_size == size)

    def of_jobs(self, path: Path, heads: Container[str]) -> Iterator[tuple[Path, Certificate]]:
        """Yield the valid certificates above `path`, with their files, of jobs whose ids begin so."""
        for home in self._homes_of(path):
            for entry in self._entries(home):
                if entry.path.name.split(".")[3][:8] in heads:
                    yield from ((entry.path, proof) for proof in _read([entry.path]))

    def behind_link(self, path: Path) -> bool:
        """Return whether the records of a library above `path` are behind a symbolic link.

        Nothing can be put in place there: whoever made the link would choose what is written where.
        """
        return any(self._linked(home) for home in path.parents)

    def _linked(self, home: Path) -> bool:
        if home not in self._behind_link:
            own = own_folder(home)
            places = (own, *(own / name for name in RECORDS))
            self._behind_link[home] = any(place.is_symlink() for place in places)
        return self._behind_link[home]

    def _homes_of(self, path: Path) -> tuple[Path, ...]:
        folder = path.parent
        if folder not in self._above:
            homes = dict.fromkeys((folder, *folder.parents, *self._homes))
            self._above[folder] = tuple(home for home in homes if self._entries(home))
        return self._above[folder]

    def _entries(self, home: Path) -> tuple[_Entry, ...]:
        if home not in self._listed:
            self._listed[home] = tuple(_listed(home))
        return self._listed[home]


def certificate_at(path: Path) -> Certificate:
    """Return the certificate at a path in a user's folder.

    Raises OSError, and VerificationFailed if it is not a certificate. Pipes and huge files are not
    read: they would block the reader or fill the memory.
    """
    with os.fdopen(open_regular(path), "rb") as reading:
        return Certificate.read(reading)


def _listed(home: Path) -> Iterator[_Entry]:
    folder = certificates_folder(home)
    for name in record_names(folder):
        sizes = re.fullmatch(CERTIFICATE_NAME, name)
        if sizes is not None:
            yield _Entry(folder / name, int(sizes[1]), int(sizes[2]))


def _read(paths: Iterable[Path]) -> Iterator[Certificate]:
    for path in paths:
        try:
            yield certificate_at(path)
        except (OSError, VerificationFailed):
            continue
