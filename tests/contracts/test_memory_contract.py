"""What every backend promises of pauses, of the history of jobs, and of what it remembers of bytes."""

from functools import partial

import pytest

from contracts.backends import World, source
from hevcq.domain.job import RenditionRef
from hevcq.domain.schedule import Pause, RunningWork
from hevcq.domain.verdict import FailureClass
from hevcq.sql.event_log import EventLog
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.stats import gather_ends


def names(world: World) -> list[str]:
    return [pause.profile for pause in world.backend.ledger.pauses()]


def test_a_pause_is_read_back_as_it_was_set_and_ends_by_resume(world):
    pauses, now = world.backend.ledger, world.clock.now()
    assert pauses.pauses() == ()
    first = Pause(by="anna", since=now, running=RunningWork.FREEZE)
    other = Pause(profile="720p", by="ben", since=now, until=now + 3600)
    pauses.pause(other)
    pauses.pause(first)

    assert pauses.pauses() == (first, other)
    assert pauses.resume("hevc") == ()
    assert pauses.resume("") == (first,)
    assert pauses.pauses() == (other,)
    assert pauses.resume(None) == (other,)
    assert pauses.resume(None) == ()
    assert pauses.pauses() == ()


def test_a_second_pause_of_a_profile_takes_the_place_of_the_first(world):
    pauses, now = world.backend.ledger, world.clock.now()
    pauses.pause(Pause(by="anna", since=now, until=now + 60))
    last = Pause(by="ben", since=now, running=RunningWork.STOP)
    pauses.pause(last)

    world.advance(61)

    assert pauses.pauses() == (last,)


def test_a_pause_ends_by_itself_and_was_then_not_resumed(world):
    pauses, now = world.backend.ledger, world.clock.now()
    pauses.pause(Pause(by="anna", since=now, until=now + 60))
    pauses.pause(Pause(profile="hevc", by="anna", since=now, until=now + 120))
    assert names(world) == ["", "hevc"]

    world.advance(61)

    assert names(world) == ["hevc"]
    assert pauses.resume("") == ()
    assert [pause.profile for pause in pauses.resume(None)] == ["hevc"]


MADE = RenditionRef(key="DONE/hevc/a", size=40, sha256="a" * 64, certificate_key="c")


def test_each_end_of_a_job_is_found_in_the_ledger_once(world, request):
    ledger = world.ledger
    database = SqliteDatabase(world.folder / "history.db")
    request.addfinalizer(database.close)
    log = EventLog(database, world.clock)
    gather = partial(gather_ends, log, ledger, world.clock)
    for name in "abc":
        ledger.register(source(name), ["hevc"])
    granted = ledger.claim(source("a"), "hevc", owner="w", lease_s=60)
    ledger.complete(
        ledger.register(source("a"), ["hevc"])[0].job_id, granted.fence, MADE, cpu_s=2.5
    )
    granted = ledger.claim(source("b"), "hevc", owner="w", lease_s=60)
    job = ledger.register(source("b"), ["hevc"])[0].job_id
    ledger.bury(job, granted.fence, "damaged", FailureClass.DAMAGED)

    assert gather() == 2
    world.advance(120)
    assert gather() == 0

    found = {event.name: event for event in log.after(0, 10)}
    assert set(found) == {"job.done", "job.failed"}
    done = found["job.done"]
    assert (done.before, done.after, done.cpu_s) == (source("a").size, 40, 2.5)
    assert found["job.failed"].failure_class == "damaged"


def test_a_decision_about_bytes_is_remembered_for_its_recipe_only(world):
    skips = world.ledger
    skips.remember("ab" * 32, "hevc", "r1", "not smaller")

    found = skips.recall("ab" * 32, "hevc", "r1")

    assert found.reason == "not smaller"
    assert found.made_at == pytest.approx(world.clock.now(), abs=2)
    assert skips.recall("ab" * 32, "hevc", "r2") is None
    assert skips.recall("ab" * 32, "720p", "r1") is None
    assert skips.recall("cd" * 32, "hevc", "r1") is None
    skips.remember("ab" * 32, "hevc", "r1", "still not smaller")
    again = skips.recall("ab" * 32, "hevc", "r1")
    assert again.reason == "still not smaller"
