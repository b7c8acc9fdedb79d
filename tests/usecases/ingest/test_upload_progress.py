"""An upload's progress on the display: twice a second, never back, and whole in the end."""

from __future__ import annotations

from pathlib import Path

from hevcq.domain.events import IngestEvent
from hevcq.usecases.ingest.decide import Disposition, Item
from hevcq.usecases.ingest.enqueue import UploadProgress
from support.clips import ManualClock

ITEM = Item(path=Path("/media/a.mp4"), size=1000, disposition=Disposition.QUEUE)


def percents(steps: list[tuple[float, int]], item: Item = ITEM) -> list[float | None]:
    """Return the percents told of (seconds later, bytes so far)."""
    clock, told = ManualClock(), list[IngestEvent]()
    moved = UploadProgress(item, told.append, clock)
    for seconds, count in steps:
        clock.advance(seconds)
        moved(count)
    return [event.percent for event in told]


def test_it_is_told_twice_a_second_and_once_more_at_the_end() -> None:
    assert percents([(0.1, 10), (0.5, 100), (0.1, 200), (0.5, 700), (0.1, 1000)]) == [10, 70, 100]


def test_what_takes_no_time_has_no_progress() -> None:
    assert percents([(0.0, 1000)]) == []


def test_a_file_that_grew_is_not_more_than_whole() -> None:
    assert percents([(1.0, 1500)]) == [100]


def test_an_empty_file_has_no_progress() -> None:
    empty = Item(path=Path("/media/a.mp4"), size=0, disposition=Disposition.QUEUE)
    assert percents([(1.0, 0)], empty) == []
