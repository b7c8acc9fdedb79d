"""Names of the files that hevcq creates in a user's folders, and finding certificates among them.

- `.hevcq/` at a library root: lock, journal, certificates, kept originals and their records.
- `.hevcq-…`: a temporary file beside its final name; the next start removes leftovers.

A certificate is found by content, wherever the files were moved to: its name holds the sizes of
rendition and source, so one listing shows which few of them must be read.
"""

import os
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.certificate import Certificate
from hevcq.domain.keys import MASTER, is_set_version
from hevcq.errors import VerificationFailed
from hevcq.library.filesystem import open_regular, record_names

OWN_FOLDER = ".hevcq"
OWN_PREFIX = ".hevcq-"
CERTIFICATE_NAME = r"[0-9a-f]{32}\.([0-9]{1,19})\.([0-9]{1,19})\.\w{1,64}\.json"
"""The name of a certificate in a library's `.hevcq`: the head of the rendition's SHA-256, the sizes
of rendition and source in bytes, and the job."""
SET_SUFFIX = ".hls"
"""The end of the name of a folder that holds a set of files."""
MAX_NAME_BYTES = 255
"""NAME_MAX of ext4, XFS, btrfs, APFS and NTFS."""


def shown_path(target: Path) -> Path:
    """Return what a person sees of a rendition: its file, or a set's folder instead of its playlist."""
    return target.parent if target.name == MASTER else target


def holds_own_set(folder: Path) -> bool:
    """Return whether a folder is a set of files that hevcq placed there: none of them is a video to take.

    By its name, and a master playlist beside the folder of a job's files.
    """
    if not folder.name.endswith(SET_SUFFIX):
        return False
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names only
    except OSError:
        return False
    return MASTER in names and any(is_set_version(name) for name in names)


def is_own(name: str) -> bool:
    """Return whether a name is one of hevcq's own folders or temporary files."""
    return name == OWN_FOLDER or name.startswith(OWN_PREFIX)


RECORDS = ("busy", "certificates", "journal", "kept", "undone")
"""Folders of records in `.hevcq`. `originals` is not among them: it may be a link to another disk."""


def own_folder(root: Path) -> Path:
    """Return the folder of hevcq's records at a library root."""
    return root / OWN_FOLDER


def kept_folder(root: Path) -> Path:
    """Return the folder of the records of a library's kept originals."""
    return own_folder(root) / "kept"


def temp_beside(target: Path, job_id: str) -> Path:
    """Return the temporary name of a job's rendition beside its target."""
    return target.with_name(f"{OWN_PREFIX}{job_id}.part")


def aside_beside(source: Path, job_id: str) -> Path:
    """Return the temporary name of an original that is being moved away."""
    return source.with_name(f"{OWN_PREFIX}{job_id}.original")


def certificates_folder(root: Path) -> Path:
    return own_folder(root) / "certificates"


def certificate_path(root: Path, sha256: str, sizes: tuple[int, int], job_id: str) -> Path:
    """Return the path of a rendition's certificate, named by its content (see CERTIFICATE_NAME).

    `sizes` are those of rendition and source in bytes. It stays right when the library is moved or
    its files are renamed.
    """
    return certificates_folder(root) / f"{sha256[:32]}.{sizes[0]}.{sizes[1]}.{job_id}.json"


def truncate(raw: bytes, size: int) -> bytes:
    """Return at most `size` bytes of a name, never splitting a UTF-8 character."""
    if len(raw) <= size:
        return raw
    while size > 0 and raw[size] & 0xC0 == 0x80:
        size -= 1
    return raw[:size]


def case_twin(name: str, names: list[str]) -> str | None:
    """Return a name of the folder that differs from `name` only by case, or None."""
    folded = name.casefold()
    return next((other for other in names if other != name and other.casefold() == folded), None)


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
