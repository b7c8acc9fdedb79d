"""Recover interrupted swaps in library folders, and delete originals whose retention ended."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.errors import HevcqError
from hevcq.library.replacement.retention import Expiry
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.replacement.swap import Recovery, Swap
from hevcq.ports.catalog import UNPLACED, PlacementState
from hevcq.sql.catalog import Catalog
from hevcq.usecases.context import LibraryPorts
from hevcq.usecases.placement.collect import library_root_of
from hevcq.usecases.placement.lived_time import lived_s
from hevcq.usecases.placement.moved import follow_replaced
from hevcq.usecases.placement.originals import expire
from hevcq.util.text import printable

UNSETTLED = UNPLACED | {PlacementState.REPLACED}
"""Placements that may need work; a replaced video's original expires."""
WORDS: dict[RecoveryOutcome, str] = {
    RecoveryOutcome.FINISHED: "interrupted replace finished",
    RecoveryOutcome.ROLLED_BACK: "interrupted replace rolled back; the original is in place",
    RecoveryOutcome.HELD: "interrupted replace on hold",
    RecoveryOutcome.STUCK: "interrupted replace not recovered yet",
}


def recovery_folders(catalog: Catalog, roots: Iterable[Path], output: Path | None) -> list[Path]:
    """Return the folders whose `.hevcq` may hold interrupted work or originals: the given roots, and
    those of earlier ingests of the same files."""
    found: dict[Path, None] = {}
    for root in roots:
        found[root if root.is_dir() else root.parent] = None
        for placement in catalog.placements(states=UNSETTLED, under=root):
            found[library_root_of(placement)] = None
    if output is not None:
        found[output] = None
    return [folder for folder in found if folder.is_dir()]


def recover(ports: LibraryPorts, folders: Iterable[Path], emit: Listener) -> None:
    """Finish or roll back interrupted swaps, sweep temporary files, and expire originals.

    The error of one folder is emitted as an event; the others are still recovered.
    """
    folders = list(folders)
    follow_replaced(ports, folders)
    lived = lived_s(ports.catalog, ports.clock)
    for folder in folders:
        swap = ports.open_swap(folder)
        try:
            words = [*_settled(swap), *_expired(swap, ports, lived)]
        except HevcqError as error:
            words = [str(error)]
        for reason in words:
            _report(ports, emit, reason)


def _report(ports: LibraryPorts, emit: Listener, reason: str) -> None:
    emit(IngestEvent(event=EventName.RECOVERED, at=ports.clock.now(), reason=reason))


def _settled(swap: Swap) -> Iterator[str]:
    for each in swap.recover():
        yield _sentence(each)


def _sentence(each: Recovery) -> str:
    words = WORDS[each.outcome].replace("replace", "undo") if each.undo else WORDS[each.outcome]
    return f"{printable(each.source)}: {words}. {each.reason}".strip()


def _expired(swap: Swap, ports: LibraryPorts, lived: float) -> Iterator[str]:
    early = 0
    for each in expire(swap, ports, lived):
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
