"""Restore replaced originals: by path, by job, or since a given time."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hevcq.errors import LibraryError, StorageError, TransientError, UndoRefused, UsageError
from hevcq.library.filesystem import fingerprint_of, same_bytes
from hevcq.ports.catalog import Mode, Placement, PlacementState
from hevcq.usecases.context import LibraryPorts, placing
from hevcq.usecases.placement.originals import (
    FREED,
    folders_with_records,
    follow_replaced,
    is_below,
    library_folders,
)
from hevcq.util.text import printable

PER_FILE = (LibraryError, TransientError, StorageError)
"""Errors of one file, which do not stop the others."""


class UndoResult(StrEnum):
    """The result for one original; values are stable."""

    RESTORED = "restored"
    WOULD_RESTORE = "would_restore"
    REFUSED = "refused"
    ALREADY = "already_restored"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Undone:
    """One original and the result; `size` in bytes, `reason` a sentence if refused."""

    job_id: str
    source: Path
    target: Path
    result: UndoResult
    size: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Candidate:
    job_id: str
    root: Path
    source: Path
    target: Path
    at: float
    placement: Placement | None


def undo(
    ports: LibraryPorts,
    paths: Sequence[Path] = (),
    *,
    job: str | None = None,
    since: float | None = None,
    dry_run: bool = False,
) -> Iterator[Undone]:
    """Undo each swap that meets all given conditions, latest first; yield the results.

    `paths` are originals, renditions or folders; `job` is an id or prefix; `since` is in wall seconds.
    A video that was renamed or moved within its library comes back at its new path. A swap that is
    not in the catalog (its data folder is lost or on another machine) is found in the library's own
    records. Raises UsageError without any condition.
    """
    if not paths and job is None and since is None:
        raise UsageError("Name a path, --job or --since.")
    follow_replaced(ports, library_folders(ports, paths))
    chosen = [
        one
        for one in _candidates(ports, paths, since)
        if one.job_id.startswith(job or "") and (since is None or one.at >= since)
    ]
    if not dry_run:
        for root in sorted({one.root for one in chosen}):
            ports.open_swap(root).recover()
    for one in sorted(chosen, key=lambda one: (-one.at, one.job_id)):
        yield _undo(one, ports, dry_run=dry_run)
    if not chosen:
        yield from _explain_nothing(paths, ports)


def library_path(given: Path) -> Path:
    """Return a path as scans name it: links in its folders are resolved, a link as its last part is not."""
    if given.is_dir() or not given.name:
        return Path(os.path.realpath(given))
    return Path(os.path.realpath(given.parent)) / given.name


def _candidates(
    ports: LibraryPorts, paths: Sequence[Path], since: float | None
) -> Iterable[_Candidate]:
    by_job: dict[str, _Candidate] = {}
    states = frozenset({PlacementState.REPLACED})
    for under in paths or (None,):
        for each in ports.catalog.placements(states=states, under=under, since=since):
            place = each.root, each.source, each.target, each.updated_at
            by_job.setdefault(each.job_id, _Candidate(each.job_id, *place, each))
    for root in sorted(folders_with_records(paths)):
        for record in ports.open_swap(root).kept():
            if is_below(record, paths):
                place = root, record.source, record.target, record.created_at
                by_job.setdefault(record.job_id, _Candidate(record.job_id, *place, None))
    return by_job.values()


def _undo(one: _Candidate, ports: LibraryPorts, *, dry_run: bool) -> Undone:
    swap = ports.open_swap(one.root)
    try:
        if swap.find(one.job_id) is None:
            size = _restored_size(one)
        elif dry_run:
            size = swap.check_undo(one.job_id).fingerprint.size
        else:
            size = swap.undo(one.job_id).fingerprint.size
    except PER_FILE as error:
        return Undone(one.job_id, one.source, one.target, UndoResult.REFUSED, reason=str(error))
    if dry_run:
        return Undone(one.job_id, one.source, one.target, UndoResult.WOULD_RESTORE, size)
    _record_undone(one, ports)
    return Undone(one.job_id, one.source, one.target, UndoResult.RESTORED, size)


def _restored_size(one: _Candidate) -> int:
    """Return the size in bytes of an original that was restored just before a kill.

    Raises UndoRefused if the original is not in its place.
    """
    if one.placement is not None and os.path.lexists(one.source):
        now = fingerprint_of(one.source.lstat())
        if same_bytes(now, one.placement.fingerprint):
            return now.size
    raise UndoRefused(
        f"The original of {printable(one.source)} is no longer kept in {printable(one.root)}.",
        remedy="Kept originals are deleted when their retention ends; look in your backups.",
    )


def _record_undone(one: _Candidate, ports: LibraryPorts) -> None:
    with placing(ports) as require:
        placement = ports.catalog.placement(one.job_id)
        if placement is None:
            return
        undone = dataclasses.replace(
            placement,
            state=PlacementState.UNDONE,
            detail="The original was restored.",
            retained=None,
            updated_at=ports.clock.now(),
        )
        require()
        ports.catalog.record_placements([undone])


def _explain_nothing(paths: Sequence[Path], ports: LibraryPorts) -> Iterator[Undone]:
    """Yield for each path why there is nothing to undo. Raises UsageError if a path does not exist."""
    for path in paths:
        replaced = {PlacementState.UNDONE, PlacementState.EXPIRED, PlacementState.REPLACED}
        ordered = sorted(
            ports.catalog.placements(under=path),
            key=lambda one: (one.mode is Mode.REPLACE and one.state in replaced, one.updated_at),
        )
        known = {one.source: one for one in ordered}.values()  # one of several profiles replaced it
        if not (known or os.path.lexists(path)):
            raise UsageError(f"No such file or folder: {printable(path)}.")
        undone = known and all(one.state is PlacementState.UNDONE for one in known)
        result = UndoResult.ALREADY if undone else UndoResult.NOTHING
        if len(known) == 1:
            (one,) = known
            reason = f"{printable(one.source)}: {_why_not(one)}."
            yield Undone(one.job_id, one.source, one.target, result, reason=reason)
            continue
        counts = Counter(map(_why_not, known))
        why = ", ".join(f"{count:,} {words}" for words, count in counts.most_common())
        nothing = f"Nothing to undo in {printable(path)}: {why}."
        reason = nothing if why else f"Nothing was replaced at {printable(path)}."
        yield Undone("", path, path, result, reason=reason)


def _why_not(placement: Placement) -> str:
    """Return why a video's replacement cannot be undone, as words that follow its name or a count."""
    if placement.mode is not Mode.REPLACE and placement.state is PlacementState.PLACED:
        return "not replaced (the rendition is a file of its own)"
    if placement.state is PlacementState.UNDONE:
        return "already restored"
    if placement.state is PlacementState.EXPIRED:
        ended = "freed on request" if placement.detail == FREED else "retention ended"
        return f"no longer kept ({ended})"
    replaced = placement.state is PlacementState.REPLACED
    return "replaced, but not by that job or since then" if replaced else "not replaced"
