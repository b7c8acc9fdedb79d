"""Hand out what libraries have to do: by priority, in each library's order, within its budget.

Only a few jobs are in the queue at a time, so that what is found later in a library of higher priority
does not wait behind thousands, and a library that closes has nothing more queued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hevcq.settings.libraries import Library
from hevcq.usecases.ingest.decide import TO_PROCESS, Disposition, Item
from hevcq.usecases.ingest.enqueue import by_file
from hevcq.util.processes import rows
from hevcq.util.text import counted, printable

QUEUED_AHEAD = 2
"""Jobs of libraries in the queue beyond two for each slot, so that no slot waits for the next."""
FLEET_QUEUED = 1000
"""Jobs of libraries in a fleet's queue: its depth is what scales the fleet."""
Rows = list[dict[str, object]]
WhyNot = Callable[[], str]
"""Return why a library may not begin anything now, as one sentence; "" if it may."""


def expected_saving(item: Item) -> float:
    """Return the bytes that an item is expected to save; 0 where nothing is known."""
    return 0.0 if item.output is None else item.size - (item.output.low + item.output.high) / 2


def _saving_first(group: Sequence[Item]) -> float:
    return -sum(expected_saving(each) for each in group)


def largest_saving_first(items: Sequence[Item]) -> list[Item]:
    """Return the items in the order of their files' expected saving, those of a file together."""
    return [item for group in sorted(by_file(items), key=_saving_first) for item in group]


@dataclass(slots=True)
class Feed:
    """What waits in one library. Items queued earlier never wait: their jobs exist."""

    library: Library
    why_not: WhyNot = lambda: ""
    _waiting: deque[Sequence[Item]] = field(default_factory=deque)
    _known: list[Item] = field(default_factory=list)

    def add(self, items: Iterable[Item]) -> None:
        """Add items of a plan; those that need no work are passed on with the known ones."""
        mine = list(items)
        self._known += [each for each in mine if each.disposition is not Disposition.QUEUE]
        fresh = by_file([each for each in mine if each.disposition is Disposition.QUEUE])
        groups: list[Sequence[Item]] = [*self._waiting, *fresh]
        if self.library.order == "saving":
            groups.sort(key=_saving_first)
        self._waiting = deque(groups)

    def known(self) -> list[Item]:
        """Return, once, the items that need no turn."""
        found, self._known = self._known, []
        return found

    @property
    def waiting(self) -> int:
        """Number of files that wait for their turn."""
        return len(self._waiting)

    def next_items(self) -> Sequence[Item]:
        """Return the items of the next file."""
        return self._waiting.popleft()

    def drop(self) -> list[Item]:
        """Return all that still waits, and forget it."""
        left = [item for group in self._waiting for item in group]
        self._waiting.clear()
        return left


def most_queued(slots: int | None) -> int:
    """Return how many jobs of libraries may be in the queue: for `slots` here, None for a fleet."""
    return FLEET_QUEUED if slots is None else 2 * slots + QUEUED_AHEAD


def hand_out(feeds: Sequence[Feed], room: int) -> list[tuple[Feed, list[Item]]]:
    """Return what each feed may queue now: what is known already, and up to `room` new jobs.

    The highest priority goes first, and takes all the room it can use; among equals the feed that
    stands first.
    """
    given = []
    for feed in sorted(feeds, key=lambda each: -each.library.priority):
        items = feed.known()
        room -= sum(1 for item in items if item.disposition in TO_PROCESS)
        while feed.waiting and room > 0 and not feed.why_not():
            group = feed.next_items()
            items += group
            room -= len(group)
        if items:
            given.append((feed, items))
    return given


def listed(feeds: Iterable[Feed]) -> Rows:
    """Return what waits in these libraries, for the row of this process."""
    return [
        {"library": each.library.name, "waiting": each.waiting, "reason": each.why_not()}
        for each in feeds
        if each.waiting
    ]


def waiting(data_dir: Path) -> Rows:
    """Return what waits in the libraries that running processes watch."""
    return [each for row in rows(data_dir) for each in row.get("waiting", ())]


def words(row: Mapping[str, Any]) -> str:
    """Return what waits in one library, and why: `2 videos waiting; it may run only at night.`"""
    name = printable(row["library"])
    why = row["reason"].removeprefix(f"Library {name} ")
    return f"{counted(row['waiting'], 'video')} waiting; " + (
        f"it {why}" if why else "queued a few at a time."
    )
