"""Kept originals: list and delete them, follow those that were moved, recover interrupted swaps.

Certificates in the library's `.hevcq` find placed renditions by content. A waiting job and a rendition
that is not in place yet follow their file to its new path.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.errors import HevcqError
from hevcq.library.filesystem import has_subseconds, size_of
from hevcq.library.own_files import is_own, kept_folder
from hevcq.library.replacement.journal import Record
from hevcq.library.replacement.retention import Expired, Expiry
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.replacement.swap import Recovery, Swap
from hevcq.ports.catalog import UNPLACED, Fingerprint, Mode, Placement, PlacementState
from hevcq.sql.catalog import Catalog
from hevcq.usecases.context import LibraryPorts, placing
from hevcq.usecases.placement.collect import kept_s, library_root_of, lived_s
from hevcq.util.log import get_logger
from hevcq.util.text import counted, printable, size

LOOK_EVERY_S, FIRST_S = 3600.0, 60.0
"""Seconds between a worker's checks for originals whose retention ended, and until its first check, which
a short run after an ingest does not need."""
FREED = "Freed on request."


@dataclass(frozen=True, slots=True)
class KeptOriginal:
    """One kept original of the library `root`; `size` is in bytes, 0 if the file is gone."""

    root: Path
    record: Record
    size: int


@dataclass(frozen=True, slots=True)
class Freed:
    """The outcome for one original, or the error (`reason`) of its library folder."""

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
    """Yield the kept originals, oldest first; with `paths` those of videos at or below them.

    With `paths` or `follow`, renamed videos are searched first, which may list the whole library. Raises
    StorageError if a record cannot be read, and OSError.
    """
    folders = library_folders(ports, paths)
    if paths or follow:
        follow_replaced(ports, folders)
    originals = [
        KeptOriginal(root, record, size_of(record.retained))
        for root in folders
        for record in ports.open_swap(root).kept()
        if not paths or is_below(record, paths)
    ]
    yield from sorted(originals, key=lambda kept: (kept.record.created_at, kept.record.job_id))


def free_originals(
    ports: LibraryPorts, paths: Sequence[Path] = (), *, at_once: bool = False
) -> Iterator[Freed]:
    """Delete the kept originals whose retention ended, in all libraries or those of `paths`.

    `at_once` deletes all at or below `paths` before their retention ends. An original stays while its
    rendition is damaged or its disk may be away. An error of one library does not stop the others.
    """
    lived = lived_s(ports.catalog, ports.clock)
    folders = library_folders(ports, paths)
    if at_once:
        follow_replaced(ports, folders)
    for root in folders:
        swap = ports.open_swap(root)
        try:
            if at_once:
                results: Iterable[Expired] = swap.free(lambda r: not paths or is_below(r, paths))
            else:
                results = _expire(swap, ports, lived)
            for each in results:
                on_request = at_once and each.outcome is Expiry.REMOVED
                reason = FREED if on_request else each.reason
                _record_freed(each, ports, FREED if at_once else "")
                yield Freed(each.record.source, each.outcome, reason, each.freed)
        except HevcqError as error:
            yield Freed(root, None, str(error))


def free_due(ports: LibraryPorts) -> None:
    """Delete the originals whose retention ended, in every library of this machine's catalog; log each."""
    for each in free_originals(ports):
        if each.is_gone or each.outcome is None:
            get_logger().info(
                "original_freed", path=printable(each.path), reason=each.reason, size=each.size
            )


def _expire(swap: Swap, ports: LibraryPorts, lived: float) -> Iterable[Expired]:
    return swap.expire(ports.clock.now(), partial(kept_s, ports.catalog, lived))


def _record_freed(each: Expired, ports: LibraryPorts, why: str = "") -> None:
    if not each.outcome.is_gone:
        return
    with placing(ports) as require:
        placement = ports.catalog.placement(each.record.job_id)
        if placement is not None and placement.state is PlacementState.REPLACED:
            expired = replace(
                placement,
                state=PlacementState.EXPIRED,
                detail=why,
                retained=None,
                updated_at=ports.clock.now(),
            )
            require()
            ports.catalog.record_placements([expired])


def library_folders(ports: LibraryPorts, paths: Sequence[Path]) -> list[Path]:
    """Return the library roots that may keep originals: those of the catalog, and those with records
    at, above or below `paths`."""
    states = frozenset({PlacementState.REPLACED})
    roots = {
        placement.root
        for under in paths or (None,)
        for placement in ports.catalog.placements(states=states, under=under)
    }
    kept = {root for root in roots if kept_folder(root).is_dir()}
    return sorted(kept | folders_with_records(paths))


def folders_with_records(paths: Iterable[Path]) -> set[Path]:
    """Return the library roots with records at, above or below `paths`."""
    around = (folder for path in paths for folder in (*_folders_in(path), *path.parents))
    return {folder for folder in around if kept_folder(folder).is_dir()}


def _folders_in(path: Path) -> Iterator[Path]:
    """Yield a folder and all below it, because a subfolder may have been ingested by itself."""
    for folder, names, _files in os.walk(path):
        yield Path(folder)
        names[:] = [name for name in names if not is_own(name)]


def is_below(record: Record, paths: Sequence[Path]) -> bool:
    """Return whether a replaced video or its rendition is at or below one of `paths`."""
    places = {record.source, record.target}
    return any(path in {place, *place.parents} for path in paths for place in places)


def moved_placement(
    catalog: Catalog, path: Path, fingerprint: Fingerprint, profile: str
) -> Placement | None:
    """Return the waiting placement of the file at `path` that was recorded under another path, or None.

    Equal size, modification time and inode mean the same file; equal size and time in nanoseconds mean a
    copy. If the old path still exists, the video was not moved and `path` is a second name.
    """
    return next(
        (
            each
            for each in catalog.placements_by_fingerprint(fingerprint)
            if (each.profile, each.state in UNPLACED) == (profile, True)
            and each.source != path
            and (
                has_subseconds(fingerprint.mtime_ns) or each.fingerprint.inode == fingerprint.inode
            )
            and not os.path.lexists(each.source)
        ),
        None,
    )


def relocated(
    placement: Placement, source: Path, root: Path, fingerprint: Fingerprint
) -> Placement:
    """Return a placement whose video is now at `source`, below the library root `root`."""
    if placement.mode is Mode.MIRROR:
        # `library_root_of` finds the output folder by the depth of the source below its root.
        depth = len(placement.source.parent.relative_to(placement.root).parts)
        root = (source.parent, *source.parents[1:])[min(depth, len(source.parents) - 1)]
    return replace(placement, root=root, source=source, fingerprint=fingerprint)


def follow_replaced(ports: LibraryPorts, folders: Iterable[Path]) -> None:
    """Record the new paths of replaced videos whose library, folder or file was moved or renamed.

    Errors are ignored: the caller reads the same records next and meets them.
    """
    for folder in folders:
        if not kept_folder(folder).is_dir():
            continue
        moved: list[Placement] = []
        swap = ports.open_swap(folder)
        with suppress(HevcqError, OSError):
            swap.record_moves()
        with suppress(HevcqError, OSError):
            moved = [each for record in swap.kept() if (each := _if_moved(ports, folder, record))]
        if moved:
            with placing(ports) as require:
                require()
                ports.catalog.record_placements(moved)


def _if_moved(ports: LibraryPorts, folder: Path, record: Record) -> Placement | None:
    """Return the placement with a record's new paths; None if nothing moved."""
    known = ports.catalog.placement(record.job_id)
    if known is None or known.state is not PlacementState.REPLACED:
        return None
    if known.target == record.target and known.source == record.source:
        return None
    if known.root != folder and os.path.lexists(known.target):
        return None  # the library was copied, and the first copy still exists
    return replace(
        known,
        root=folder,
        source=record.source,
        target=record.target,
        retained=record.retained,
    )


UNSETTLED = UNPLACED | {PlacementState.REPLACED}
"""States of placements that may need work: the original of a replaced video expires."""
WORDS: dict[RecoveryOutcome, str] = {
    RecoveryOutcome.FINISHED: "interrupted replace finished",
    RecoveryOutcome.ROLLED_BACK: "interrupted replace rolled back; the original is in place",
    RecoveryOutcome.HELD: "interrupted replace on hold",
    RecoveryOutcome.STUCK: "interrupted replace not recovered yet",
}


def recovery_folders(catalog: Catalog, roots: Iterable[Path], output: Path | None) -> list[Path]:
    """Return the folders whose `.hevcq` may hold interrupted work or originals: the given roots, and
    those of earlier ingests of the same files."""
    folders: list[Path] = []
    for root in roots:
        folders.append(root if root.is_dir() else root.parent)
        folders += map(library_root_of, catalog.placements(states=UNSETTLED, under=root))
    if output is not None:
        folders.append(output)
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def recover(ports: LibraryPorts, folders: Iterable[Path], emit: Listener) -> None:
    """Finish or roll back interrupted swaps, sweep temporary files, and delete expired originals.

    The error of one folder is emitted as an event, and the other folders are still recovered.
    """
    folders = list(folders)
    follow_replaced(ports, folders)
    lived = lived_s(ports.catalog, ports.clock)
    for folder in folders:
        swap = ports.open_swap(folder)
        try:
            words = [*map(_sentence, swap.recover()), *_expire_in_words(swap, ports, lived)]
        except HevcqError as error:
            words = [str(error)]
        for reason in words:
            emit(IngestEvent(event=EventName.RECOVERED, at=ports.clock.now(), reason=reason))


def _sentence(each: Recovery) -> str:
    words = WORDS[each.outcome].replace("replace", "undo") if each.undo else WORDS[each.outcome]
    return f"{printable(each.source)}: {words}. {each.reason}".strip()


def _expire_in_words(swap: Swap, ports: LibraryPorts, lived: float) -> Iterator[str]:
    """Delete the originals whose retention ended; yield sentences about the results."""
    early = 0
    for each in _expire(swap, ports, lived):
        _record_freed(each, ports)
        if each.outcome is Expiry.NOT_LIVED:
            early += 1
        elif each.outcome is Expiry.STILL_KEPT:
            yield each.reason
        else:
            yield f"{printable(each.record.source)}: kept original deleted (retention ended)."
    if early:
        yield (
            f"{printable(swap.root)}: {early} kept originals stay. Their days are over by the clock, but"
            " this machine has not been seen running for that long."
        )


SOON_DAYS = 3
"""Days before the retention of kept originals ends from which people are warned."""


def expiring_soon(ports: LibraryPorts) -> str:
    """Return a sentence about the originals whose retention ends within SOON_DAYS days, or "".

    Raises StorageError if a record cannot be read.
    """
    until = ports.clock.now() + SOON_DAYS * 86_400.0
    sizes = [
        kept.size
        for kept in kept_originals(ports)
        if kept.record.expires_at is not None and kept.record.expires_at <= until
    ]
    if not sizes:
        return ""
    return (
        f"{counted(len(sizes), 'original')} ({size(sum(sizes))}) will be deleted within {SOON_DAYS} days;"
        " `hevcq originals list` names them."
    )
