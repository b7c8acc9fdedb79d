"""The request of an ingest, and where its renditions go: beside, in a mirrored tree, or in place."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.keys import MASTER, SET_EXTENSION
from hevcq.domain.profile import Container, Profile
from hevcq.errors import ConfigError, UsageError
from hevcq.library.own_files import MAX_NAME_BYTES, SET_SUFFIX
from hevcq.ports.catalog import Mode
from hevcq.settings.libraries import KEEP_DAYS, Library
from hevcq.settings.profile_files import pick
from hevcq.util.capacity import nearest_existing
from hevcq.util.text import printable

ROOM_FOR_COMPANIONS = 40
"""Bytes of a name kept free for the suffixes of the certificate and temporary files beside it."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where renditions go. `output` is the folder of mode MIRROR; `keep_days` is for REPLACE."""

    mode: Mode
    output: Path | None = None
    keep_days: float = KEEP_DAYS

    def has(self, mode: Mode, target: Path) -> bool:
        """Return whether a rendition placed in `mode` at `target` is where this ingest would place it."""
        below = self.output is None or self.output in target.parents
        return mode is self.mode and below

    def target(
        self, source: Path, root: Path, profile: str, extension: str, *, whole_name: bool = False
    ) -> Path:
        """Return the path of a rendition; for a set, that of its master playlist in a folder of its own.

        Beside and mirrored it is `<stem>.<profile>.<extension>`; `whole_name` keeps the source's
        suffix in it (`a.avi.hevc.mkv`), so that `a.avi` and `a.mkv` do not clash. A replaced source
        keeps its name, with the suffix of the new container.
        """
        if self.mode is Mode.REPLACE:
            return source.with_name(_name(_stem(source), f".{_suffix(source, extension)}"))
        kept = source.name if whole_name else _stem(source)
        folder = source.parent
        if self.mode is Mode.MIRROR and self.output is not None:
            folder = self.output / source.parent.relative_to(root)
        if extension == SET_EXTENSION:
            ending = SET_SUFFIX if f".{profile}" == SET_SUFFIX else f".{profile}{SET_SUFFIX}"
            return folder / _name(kept, ending) / MASTER
        return folder / _name(kept, f".{profile}.{extension}")


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """What to ingest and how. `roots` and `output` are absolute, with links resolved.

    - `profiles`: names; empty means those of the setting `ingest.profiles`.
    - `keep_days`: days to keep a replaced original; None means KEEP_DAYS.
    - `no_wait`: only queue. `collect_only`: only put finished renditions in place.
    - `free_bytes`, `budget_s`, `max_cost`: by the forecast, the bytes to save, and the most seconds and
      (on AWS) dollars to spend; 0 means no limit.
    - `fit_bytes`, `half`: choose the CRF so that all renditions fit these bytes, or half of their sources.
    - `sample_s`: seconds of sampling to narrow the forecast. `watch`: stay and ingest new files.
    - `library`: the library of the settings to ingest; its rules choose among its profiles and their own.
    """

    roots: tuple[Path, ...]
    profiles: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    output: Path | None = None
    replace: bool = False
    keep_days: float | None = None
    no_wait: bool = False
    collect_only: bool = False
    watch: bool = False
    library: Library | None = None
    largest_saving_first: bool = False
    free_bytes: int = 0
    budget_s: float = 0.0
    max_cost: float = 0.0
    fit_bytes: int = 0
    half: bool = False
    sample_s: float = 0.0

    def chosen_profiles(self, known: Mapping[str, Profile], usual: Sequence[str]) -> list[Profile]:
        """Return the named profiles, or the `usual` ones; all with `collect_only`.

        Raises UnknownProfile, or ConfigError if a usual profile does not exist.
        """
        if self.library is not None:
            return self._of_library(self.library, known, usual)
        if self.profiles:
            return pick(known, list(dict.fromkeys(self.profiles)))
        if self.collect_only:
            return list(known.values())
        return _named_profiles(known, usual, "The setting ingest.profiles")

    def _of_library(
        self, library: Library, known: Mapping[str, Profile], usual: Sequence[str]
    ) -> list[Profile]:
        names = tuple(dict.fromkeys((*(library.profiles or usual), *library.chosen)))
        profiles = _named_profiles(known, names, f"Library {library.name}")
        if library.place == "replace" and len(library.profiles or usual) != 1:
            raise ConfigError(
                f"Library {library.name} replaces originals, which needs exactly one profile.",
                remedy="Set its `profiles` to one name.",
            )
        return profiles

    def destination(self, profiles: Sequence[Profile]) -> Destination:
        """Return where renditions go; raise UsageError if these profiles cannot go there."""
        if self.replace:
            _require_files(profiles)
            if len(profiles) != 1 and self.library is None:
                names = ", ".join(profile.name for profile in profiles)
                raise UsageError(
                    f"--replace needs exactly one profile, not {len(profiles)} ({names}); name one with"
                    " --profile."
                )
            days = KEEP_DAYS if self.keep_days is None else self.keep_days
            return Destination(Mode.REPLACE, keep_days=days)
        if self.output is not None:
            self._require_apart(self.output)
            return Destination(Mode.MIRROR, output=self.output)
        return Destination(Mode.BESIDE)

    def _require_apart(self, output: Path) -> None:
        """Raise UsageError unless `output` is a folder that holds no ingested folder."""
        if not nearest_existing(output).is_dir():
            raise UsageError(f"--output {output} is not a folder.")
        for root in self.roots:
            if root.is_relative_to(output):
                raise UsageError(
                    f"--output {output} contains the ingested folder {root}; choose another folder, or"
                    " omit --output to put renditions beside their originals."
                )


def _named_profiles(
    known: Mapping[str, Profile], names: Sequence[str], where: str
) -> list[Profile]:
    """Return the profiles that a setting names. Raises ConfigError."""
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{where} names the profile {printable(name)!r}, but there is no such profile.",
                remedy=f"Available: {', '.join(sorted(known))}.",
            )
    return pick(known, list(names))


def _require_files(profiles: Sequence[Profile]) -> None:
    for profile in profiles:
        if profile.container is Container.HLS:
            raise UsageError(
                f"The profile {profile.name} makes a folder of files, which cannot replace an original.",
                remedy="Choose a profile of one file, such as hevc. `hevcq ingest` puts such a folder beside"
                " each video.",
            )


def library_request(
    library: Library, *, no_wait: bool = False, watch: bool = False
) -> IngestRequest:
    """Return the request that ingests a library, with links in its path resolved."""
    return IngestRequest(
        roots=(library.place_on_disk,),
        include=library.include,
        exclude=library.exclude,
        output=Path(os.path.realpath(library.output)) if library.output is not None else None,
        replace=library.place == "replace",
        keep_days=library.keep_originals if library.place == "replace" else None,
        library=library,
        no_wait=no_wait,
        watch=watch,
    )


def _stem(source: Path) -> str:
    return source.stem or source.name


def _suffix(source: Path, extension: str) -> str:
    """Return the source's own suffix if it stands for the same container, else `extension`."""
    own = source.suffix.removeprefix(".")
    same = {"m4v": "mp4", "qt": "mov"}.get(own.lower(), own.lower())
    return own if same == extension else extension


def _name(stem: str, ending: str) -> str:
    """Return stem and ending; a stem too long for the file system is cut and gets a digest."""
    room = MAX_NAME_BYTES - ROOM_FOR_COMPANIONS - len(os.fsencode(ending))
    raw = os.fsencode(stem)
    if len(raw) <= room:
        return stem + ending
    digest = hashlib.sha256(raw).hexdigest()[:12]
    head = raw[: room - len(digest) - 1].decode("utf-8", "ignore")
    return f"{head}~{digest}{ending}"
