"""What every start does first: settle what a kill left in library folders, let old originals go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.errors import HevcqError
from hevcq.library.replacement.retention import Expired, Expiry
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.replacement.swap import Recovery, Swap
from hevcq.ports.catalog import UNPLACED, Catalog, PlacementState
from hevcq.usecases.context import LibraryPorts
from hevcq.usecases.placement.collect import library_root_of
from hevcq.usecases.placement.lock import placement_lock
from hevcq.util.text import printable

UNSETTLED = UNPLACED | {PlacementState.REPLACED}
"""Where something may still be to do: a replaced video's original goes when its time is up."""
WORDS: dict[RecoveryOutcome, str] = {
    RecoveryOutcome.FINISHED: "an interrupted replace was finished",
    RecoveryOutcome.ROLLED_BACK: "an interrupted replace was rolled back; the original is in its place",
    RecoveryOutcome.HELD: "an interrupted replace is held",
    RecoveryOutcome.STUCK: "an interrupted replace cannot be settled yet",
}


def recovery_folders(catalog: Catalog, roots: Iterable[Path], output: Path | None) -> list[Path]:
    """Return the folders whose `.hevcq` may hold what a kill left, or originals: the roots named,
    and those under which earlier ingests of the same files were run."""
    found: dict[Path, None] = {}
    for root in roots:
        found[root if root.is_dir() else root.parent] = None
        for placement in catalog.placements(states=UNSETTLED, under=root):
            found[library_root_of(placement)] = None
    if output is not None:
        found[output] = None
    return [folder for folder in found if folder.is_dir()]


def recover(ports: LibraryPorts, folders: Iterable[Path], emit: Listener) -> None:
    """Finish or roll back every interrupted swap, sweep temporary files, and expire originals.

    A folder that cannot be written keeps nothing else from being settled: it is told, no more.
    """
    for folder in folders:
        swap = ports.open_swap(folder)
        try:
            words = [*_settled(swap), *_expired(swap, ports)]
        except HevcqError as error:
            words = [str(error)]
        for reason in words:
            emit(IngestEvent(event=EventName.RECOVERED, at=ports.clock.now(), reason=reason))


def _settled(swap: Swap) -> Iterator[str]:
    for each in swap.recover():
        yield _sentence(each)


def _sentence(each: Recovery) -> str:
    words = WORDS[each.outcome].replace("replace", "undo") if each.undo else WORDS[each.outcome]
    return f"{printable(each.source)}: {words}. {each.reason}".strip()


def _expired(swap: Swap, ports: LibraryPorts) -> Iterator[str]:
    for each in swap.expire(ports.clock.now()):
        if each.outcome is Expiry.STILL_KEPT:
            yield each.reason
            continue
        _note(each, ports)
        yield f"{printable(each.record.source)}: the kept original was removed, its time was up."


def _note(each: Expired, ports: LibraryPorts) -> None:
    with placement_lock(ports.data_dir):
        placement = ports.catalog.placement(each.record.job_id)
        if placement is not None and placement.state is PlacementState.REPLACED:
            now = ports.clock.now()
            gone = replace(placement, state=PlacementState.EXPIRED, retained=None, updated_at=now)
            ports.catalog.record_placements([gone])
