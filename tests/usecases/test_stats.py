"""Daily sums and their report: what counts as saved, by what, and since when."""

from collections.abc import Iterator
from contextlib import closing
from datetime import date
from functools import partial
from pathlib import Path

import pytest

from hevcq.domain.job import JobState, RenditionRef, Source, job_id
from hevcq.domain.keys import key_for_path
from hevcq.domain.verdict import FailureClass
from hevcq.ports.catalog import Happened
from hevcq.settings.profile_files import installed_folder, load_profiles
from hevcq.sql.event_log import EventLog
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.stats import (
    RollUp,
    day_of,
    gather_ends,
    report,
    savings,
)
from support.catalog import new_catalog
from support.clips import ManualClock
from support.fakes.ledger import MemoryLedger

NOON = 1_795_435_200.0  # 2026-11-23 12:00 UTC
DAY = 86_400.0
SHOWS = Path("/lib/shows")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def log(tmp_path, clock) -> Iterator[EventLog]:
    with closing(SqliteDatabase(tmp_path / "hevcq.db")) as database:
        yield EventLog(database, clock)


def roll_up(log, clock) -> RollUp:
    return RollUp(log, new_catalog(clock), lambda p: SHOWS if SHOWS in p.parents else None)


def ended(log, at: float, name: str = "job.done", path: str = "/lib/shows/a.mp4", **how) -> None:
    source = path if name.startswith("video.") else key_for_path(path)
    log.add(Happened(name, at, job_id="j", profile="hevc", source=source, **how))


def library(key) -> str:
    return str(key.root)


def test_encodes_failures_and_replacements_are_counted_where_they_belong(log, clock):
    for day in (0, 0, 1, 40):
        ended(log, NOON - day * DAY, before=100, after=40, cpu_s=3600.0)
    ended(log, NOON, path="/other/b.mp4", before=10, after=20, cpu_s=360.0)
    ended(log, NOON, "job.failed", failure_class="damaged", before=7)
    ended(log, NOON, "job.skipped", before=9)
    ended(log, NOON, "job.retry", failure_class="encoder")
    ended(log, NOON, "video.replaced", before=100, after=40, root=Path("/lib"))
    ended(log, NOON, "video.replaced", before=100, after=40, root=Path("/lib"))
    ended(log, NOON, "video.undone", before=100, after=40, root=Path("/lib"))
    ended(log, NOON, "test")
    assert roll_up(log, clock).step() == 12
    assert roll_up(log, clock).step() == 0

    made = report(log, date(2020, 1, 1), day_of(NOON), library)

    total = made.total
    assert (total.renditions, total.before, total.after, total.failed) == (5, 410, 180, 1)
    assert (total.saved, total.cpu_h) == (230, 4.1)
    assert (made.skipped, made.retries, made.replaced, made.undone, made.freed) == (1, 1, 2, 1, 60)
    assert dict(made.failures) == {"damaged": 1}
    assert [(line.name, line.saved) for line in made.months] == [("2026-10", 60), ("2026-11", 170)]
    assert [(line.name, line.saved) for line in made.libraries] == [("/lib/shows", 240), ("-", -10)]
    assert made.since == date(2026, 10, 14)
    recent = report(log, date(2026, 11, 22), day_of(NOON), library)
    assert recent.total.renditions == 4
    assert [line.name for line in recent.days] == ["2026-11-22", "2026-11-23"]


def test_quality_is_the_mean_of_the_renditions_that_have_one(log, clock):
    ended(log, NOON, before=100, after=40, target=93.0, verified=92.0)
    ended(log, NOON, before=100, after=40, target=95.0, verified=96.0)
    ended(log, NOON, before=100, after=40, target=95.0)  # not measured
    ended(log, NOON, before=100, after=40)
    roll_up(log, clock).step()

    total = report(log, date(2020, 1, 1), day_of(NOON), library).total

    assert (total.renditions, total.scored, total.target, total.verified) == (4, 2, 94.0, 94.0)


def test_streaming_renditions_save_nothing_and_only_replacing_frees_space(log, clock):
    ended(log, NOON, before=100, after=40)
    source = key_for_path("/lib/shows/a.mp4")
    log.add(Happened("job.done", NOON, job_id="s", profile="720p", source=source, before=100))
    for name in ("video.replaced", "video.replaced", "video.undone"):
        log.add(Happened(name, NOON, job_id=name, profile="hevc", before=100, after=40))
    roll_up(log, clock).step()

    found = savings(log, load_profiles(installed_folder()), NOON)

    assert (found.jobs, found.saved, found.by_day[-1][1], found.freed) == (1, 60, 60, 60)


def test_a_fleets_jobs_are_brought_in_once_each_end_of_them(log, clock):
    ledger = MemoryLedger(clock)

    def run(name: str):
        source = Source(bucket="b", key=f"TODO/all/{name}.mp4", version="1", size=100)
        fence = ledger.claim(source, "hevc", owner="w", lease_s=60).fence
        return job_id(source, "hevc"), fence

    made = RenditionRef(key="DONE/a", size=40, sha256="a" * 64, certificate_key="c")
    job, fence = run("a")
    ledger.complete(job, fence, made, cpu_s=3.0)
    ledger.bury(*run("b"), "bad", FailureClass.DAMAGED)
    gather = partial(gather_ends, log, ledger, clock)
    assert gather() == 2
    assert gather() == 0
    clock.advance(61)
    assert gather() == 0, "the overlap is read again, and adds nothing"
    ledger.reopen(job, who="me", why="again")
    again = run("a")
    assert ledger.get(job).state is JobState.RUNNING
    ledger.skip(*again, "small: small")
    clock.advance(61)
    assert gather() == 1
    events = log.after(0, 10)
    assert [event.name for event in events] == ["job.done", "job.failed", "job.skipped"]
    assert (events[0].before, events[0].after, events[0].cpu_s) == (100, 40, 3.0)
