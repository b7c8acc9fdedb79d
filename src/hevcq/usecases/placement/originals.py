"""List the originals that replacements kept, and free those whose time has come or that a person names."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hevcq.errors import HevcqError
from hevcq.library.filesystem import size_of
from hevcq.library.names import is_own, kept_folder
from hevcq.library.replacement.journal import Record
from hevcq.library.replacement.retention import Expired, Expiry
from hevcq.library.replacement.swap import Swap
from hevcq.ports.catalog import PlacementState
from hevcq.usecases.context import LibraryPorts
from hevcq.usecases.placement.lived_time import kept_s, lived_s
from hevcq.usecases.placement.lock import placing
from hevcq.usecases.placement.moved import follow_replaced
from hevcq.util.log import get_logger
from hevcq.util.text import printable

LOOK_EVERY_S, FIRST_S = 3600.0, 60.0
"""Seconds between a worker's looks for originals whose retention ended, and until its first one: an
ingest has just looked, and a short run needs none."""
FREED = "Freed on request."


@dataclass(frozen=True, slots=True)
class KeptOriginal:
    """One kept original of the library `root`; `size` is in bytes, 0 if the file is gone."""

    root: Path
    record: Record
    size: int


@dataclass(frozen=True, slots=True)
class Freed:
    """What became of one original: its outcome, or the error of its library folder."""

    path: Path
    outcome: Expiry | None
    reason: str
    size: int = 0

    @property
    def is_gone(self) -> bool:
        return self.outcome is not None and self.outcome.is_gone


def kept_originals(
    ports: LibraryPorts, paths: Sequence[Path] = (), *, follow: bool = False
) -> Iterator[KeptOriginal]:
    """Yield the kept originals, oldest first; only those whose video is at or below `paths`, if any.

    With `paths` or `follow`, renamed videos are looked for first, which may list the library. Raises
    StorageError if a record cannot be read, and OSError.
    """
    found = []
    folders = library_folders(ports, paths)
    if paths or follow:
        follow_replaced(ports, folders)
    for root in folders:
        for record in ports.open_swap(root).kept():
            if not paths or is_below(record, paths):
                found.append(KeptOriginal(root, record, size_of(record.retained)))
    yield from sorted(found, key=lambda kept: (kept.record.created_at, kept.record.job_id))


def free_originals(
    ports: LibraryPorts, paths: Sequence[Path] = (), *, at_once: bool = False
) -> Iterator[Freed]:
    """Delete the kept originals whose retention ended, in all libraries or those of `paths`.

    `at_once` deletes those at or below `paths` whatever their retention. An original stays while its
    rendition is damaged or on a disk that may be away. The error of one library does not stop the others.
    """
    lived = lived_s(ports.catalog, ports.clock)
    folders = library_folders(ports, paths)
    if at_once:
        follow_replaced(ports, folders)
    for root in folders:
        swap = ports.open_swap(root)
        try:
            if at_once:
                done: Iterable[Expired] = swap.free(lambda r: not paths or is_below(r, paths))
            else:
                done = _due(swap, ports, lived)
            for each in done:
                asked = at_once and each.outcome is Expiry.REMOVED
                reason = FREED if asked else each.reason
                note_freed(each, ports, FREED if at_once else "")
                yield Freed(each.record.source, each.outcome, reason, each.freed)
        except HevcqError as error:
            yield Freed(root, None, str(error))


def free_due(ports: LibraryPorts) -> None:
    """Delete the originals whose retention ended, in every library that this machine knows; log each."""
    for each in free_originals(ports):
        if each.is_gone or each.outcome is None:
            get_logger().info(
                "original_freed", path=printable(each.path), reason=each.reason, size=each.size
            )


def expire(swap: Swap, ports: LibraryPorts, lived: float) -> Iterator[Expired]:
    """Delete the originals of one library whose retention ended; record and yield each."""
    for each in _due(swap, ports, lived):
        note_freed(each, ports)
        yield each


def _due(swap: Swap, ports: LibraryPorts, lived: float) -> Iterable[Expired]:
    return swap.expire(ports.clock.now(), partial(kept_s, ports.catalog, lived))


def note_freed(each: Expired, ports: LibraryPorts, why: str = "") -> None:
    """Record in the catalog that a replaced video's original is gone."""
    if not each.outcome.is_gone:
        return
    with placing(ports):
        placement = ports.catalog.placement(each.record.job_id)
        if placement is not None and placement.state is PlacementState.REPLACED:
            now = ports.clock.now()
            gone = replace(
                placement, state=PlacementState.EXPIRED, detail=why, retained=None, updated_at=now
            )
            ports.catalog.record_placements([gone])


def library_folders(ports: LibraryPorts, paths: Sequence[Path]) -> list[Path]:
    """Return the library roots that may keep originals: those of the catalog, and those with records
    at, above or below `paths`."""
    found: set[Path] = set()
    for under in paths or (None,):
        states = frozenset({PlacementState.REPLACED})
        for placement in ports.catalog.placements(states=states, under=under):
            found.add(placement.root)
    kept = {folder for folder in found if kept_folder(folder).is_dir()}
    return sorted(kept | folders_with_records(paths))


def folders_with_records(paths: Iterable[Path]) -> set[Path]:
    """Return the library roots with records at, above or below `paths`."""
    around = (folder for path in paths for folder in (*_folders_in(path), *path.parents))
    return {folder for folder in around if kept_folder(folder).is_dir()}


def _folders_in(path: Path) -> Iterator[Path]:
    """Yield a folder and those below it: a subfolder may have been ingested by itself."""
    for folder, names, _files in os.walk(path):
        yield Path(folder)
        names[:] = [name for name in names if not is_own(name)]


def is_below(record: Record, paths: Sequence[Path]) -> bool:
    """Return whether a replaced video or its rendition is at or below one of `paths`."""
    places = {record.source, record.target}
    return any(path in {place, *place.parents} for path in paths for place in places)
