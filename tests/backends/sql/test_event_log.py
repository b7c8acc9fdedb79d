"""Events are written with what they tell of; old folders get those that can be derived."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.backends import source
from hevcq.domain.job import RenditionRef, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.ports.catalog import (
    DayKey,
    DaySum,
    Fingerprint,
    Happened,
    Mode,
    Placement,
    PlacementState,
)
from hevcq.sql.event_log import EventLog

RENDITION = RenditionRef(key="DONE/hevc/a", size=40, sha256="a" * 64, certificate_key="c")
VIDEO = Path("/lib/a\udcff.mp4")


@pytest.fixture
def opened(opener):
    return opener()


@pytest.fixture
def log(opened, clock) -> EventLog:
    return EventLog(opened.catalog.database, clock)


def claimed(opened, name: str):
    video = source(name)
    fence = opened.backend.ledger.claim(video, "hevc", owner="me", lease_s=60).fence
    return job_id(video, "hevc"), fence


def placement(name: str, state: PlacementState) -> Placement:
    mark = Fingerprint(100, 1, 2, 3)
    return Placement(
        name, Path("/lib"), VIDEO, mark, "hevc", Mode.REPLACE, VIDEO, 30.0, state, updated_at=9.0
    )


def names(log: EventLog) -> list[str]:
    return [event.name for event in log.after(0, 100)]


def test_what_tells_of_a_file_whose_name_is_not_utf_8_is_found_again(log):
    told = Happened("video.unusable", 1.0, source=str(VIDEO), reason=f"{VIDEO} is no video.")

    assert log.add(told, unless_within_s=60)
    assert not log.add(told, unless_within_s=60)

    (found,) = log.after(0, 9)
    assert Path(found.source) == VIDEO
    assert found.reason == r"/lib/a\xff.mp4 is no video."


def test_every_end_of_a_job_and_every_counted_failure_is_an_event(opened, log):
    ledger = opened.backend.ledger
    ledger.complete(*claimed(opened, "a"), RENDITION, cpu_s=7.5)
    ledger.skip(*claimed(opened, "b"), "small: it is small")
    ledger.fail(*claimed(opened, "c"), "broke", FailureClass.ENCODER)
    ledger.interrupt(*claimed(opened, "c"), "stopped")
    ledger.bury(*claimed(opened, "c"), "damaged", FailureClass.DAMAGED)
    ledger.register(source("d"), ["hevc"])
    ledger.cancel(job_id(source("d"), "hevc"), "by me")

    assert names(log) == ["job.done", "job.skipped", "job.retry", "job.failed", "job.cancelled"]
    done, _, retry, dead, _ = log.after(0, 100)
    assert (done.before, done.after, done.cpu_s) == (source("a").size, 40, 7.5)
    assert (retry.failure_class, dead.failure_class) == ("encoder", "damaged")
    assert (dead.reason, dead.profile, dead.source) == ("damaged", "hevc", source("c").key)


def test_what_is_undone_with_its_transaction_leaves_no_event(opened, log):
    job, _fence = claimed(opened, "a")

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE job SET state = 'done' WHERE job_id = ?", (job,))
        raise ValueError

    with pytest.raises(ValueError):
        opened.catalog.database.write(broken)
    assert names(log) == []


def test_a_placement_is_reported_once_for_each_state_with_any_bytes_in_its_name(opened, log):
    job, fence = claimed(opened, "a")
    opened.backend.ledger.complete(job, fence, RENDITION, cpu_s=1)
    for state in (
        PlacementState.WAITING,
        PlacementState.REPLACED,
        PlacementState.REPLACED,
        PlacementState.EXPIRED,
    ):
        opened.catalog.record_placements([placement(job, state)])

    assert names(log) == ["job.done", "video.replaced", "video.expired"]
    event = log.after(0, 100)[1]
    assert (event.path, event.root, Path(event.source)) == (VIDEO, Path("/lib"), VIDEO)
    assert (event.before, event.after, event.at) == (100, 40, 9.0)


def test_sums_are_added_once_however_many_processes_add_them(log):
    key = DayKey(19_000, "job.done", Path("/lib\udcff"), "hevc", "h264", "")
    reader = log.reader("statistics", from_start=True)
    moved = replace(reader, seq=5)
    assert log.roll_up(moved, [(key, DaySum(2, 100, 40, 1.5))]) is True
    assert log.roll_up(moved, [(key, DaySum(2, 100, 40, 1.5))]) is False
    assert log.roll_up(replace(reader, seq=6), [(key, DaySum(1, 10, 4, 0.5))]) is True
    assert list(log.sums(0, 20_000)) == [(key, DaySum(3, 110, 44, 2.0))]
    assert log.sums(19_001, 20_000) == []


def test_events_are_forgotten_only_once_they_were_summed_up(opened, log, clock):
    opened.backend.ledger.skip(*claimed(opened, "a"), "why")
    clock.advance(1000)
    log.reader("statistics", from_start=True)
    assert log.forget(10) == 0
    log.end(replace(log.reader("statistics"), seq=1))
    assert log.forget(2000) == 0
    assert log.forget(10) == 1
