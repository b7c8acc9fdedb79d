"""A paused worker: nothing begins; what runs ends, stops uncounted, or stands still with its lease."""

import threading
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from hevcq.domain.job import JobState
from hevcq.domain.schedule import Hours, Pause, RunningWork, Schedule
from hevcq.errors import Unavailable, WorkerUnfit
from hevcq.worker.admission import Admission
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import WorkerPool
from hevcq.worker.slot import Slot
from support.fakes.farm import Farm
from worker.pools import Encode, drive, started


@pytest.fixture
def farm(tmp_path) -> Farm:
    farm = Farm(tmp_path)
    farm.with_context(admission=Admission(farm.ledger, farm.clock))
    return farm


def slot_of(farm: Farm) -> Slot:
    return Slot(farm.context, farm.handler(), [ProfileQueue(farm.profile, farm.queue)])


def pause(farm: Farm, running: RunningWork = RunningWork.BORDER, **how) -> None:
    farm.ledger.pause(Pause(by="anna", since=farm.clock.now(), running=running, **how))


def ended(pool: WorkerPool, encode: Encode, farm: Farm) -> None:
    """Stop a pool whatever it does."""
    encode.finish.set()
    pool.insist()
    drive(farm, 60, lambda: pool.stopped)
    pool.finish()


def test_nothing_begins_while_work_is_paused_and_it_does_once_that_ends(farm):
    source, slot = farm.submit(), slot_of(farm)
    pause(farm)
    with capture_logs() as logs:
        assert [slot.step() for _ in range(20)] == [False] * 20

    assert (farm.state(source), farm.record(source).fence) == (JobState.QUEUED, 0)
    assert farm.queue.depth().ready == 1, "it was not even received"
    assert farm.clock.monotonic() - slot.last_poll < 10, "it counts as polling"
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["work_paused"]
    farm.ledger.resume(None)
    assert slot.step() is True
    assert farm.state(source) is JobState.DONE


def test_closed_hours_hold_work_back_until_the_window_opens(farm):
    source, slot = farm.submit(), slot_of(farm)
    hours = Hours(Schedule.parse(["22:00-06:00"], "UTC"))  # the test's clock begins at 22:13
    admission = Admission(farm.ledger, farm.clock, lambda: hours)
    farm.with_context(admission=admission)
    slot = slot_of(farm)
    farm.clock.advance(8 * 3600)
    assert slot.step() is False
    farm.clock.advance(15.7 * 3600)
    assert slot.step() is False
    farm.clock.advance(0.1 * 3600)
    assert slot.step() is True
    assert farm.state(source) is JobState.DONE


def test_a_machine_that_was_drained_takes_nothing_until_it_is_resumed(farm):
    out = ["Drained by anna."]
    farm.with_context(admission=Admission(farm.ledger, farm.clock, out=lambda: out[0]))
    source, slot = farm.submit(), slot_of(farm)

    assert slot.step() is False
    assert farm.record(source).fence == 0
    assert farm.context.closed("hevc").running is RunningWork.BORDER, "what runs is finished"
    out[0] = ""
    assert slot.step() is True
    assert farm.state(source) is JobState.DONE


def test_a_message_that_came_with_every_pause_does_not_run_out_of_receives(farm):
    source, slot = farm.submit(), slot_of(farm)
    real = farm.queue.receive

    def late(*args, **named):
        found = real(*args, **named)
        pause(farm)
        return found

    for _ in range(4 * farm.profile.queue.max_receives):
        farm.queue.receive = late
        slot.step()
        farm.ledger.resume(None)

    farm.queue.receive = real
    assert slot.step() is True
    assert farm.state(source) is JobState.DONE
    assert farm.letters() == []


def test_a_pause_that_cannot_be_read_changes_nothing(farm):
    slot = slot_of(farm)
    pause(farm)
    assert slot.step() is False
    source = farm.submit()

    farm.ledger.pauses = Mock(side_effect=Unavailable("no answer"))
    with capture_logs() as logged:
        for _ in range(3):
            farm.clock.advance(60)
            assert slot.step() is False
    assert farm.state(source) is JobState.QUEUED
    assert [e["event"] for e in logged if e["event"] == "pauses_not_read"] == ["pauses_not_read"]


@pytest.mark.parametrize("running", [RunningWork.BORDER, RunningWork.FINISH])
def test_what_runs_when_a_pause_comes_ends_by_itself(farm, running):
    first = farm.submit("a.mp4")
    pool, encode = started(farm)
    second = farm.submit("b.mp4")
    pause(farm, running)

    drive(farm, 30)
    assert farm.state(first) is JobState.RUNNING
    encode.finish.set()
    drive(farm, 60, lambda: farm.state(first) is JobState.DONE)
    drive(farm, 20)

    assert (farm.state(first), farm.state(second)) == (JobState.DONE, JobState.QUEUED)
    ended(pool, encode, farm)


def test_with_now_running_work_is_stopped_and_goes_back_uncounted(farm):
    source = farm.submit()
    pool, encode = started(farm)
    pause(farm, RunningWork.STOP)

    drive(farm, 20, lambda: farm.state(source) is JobState.QUEUED)
    drive(farm, 10)

    record = farm.record(source)
    assert (record.state, record.failures, record.crashes) == (JobState.QUEUED, 0, 0)
    assert "paused" in record.reason.lower()
    assert farm.queue.depth().ready == 1
    encode.finish.set()
    farm.ledger.resume(None)
    drive(farm, 60, lambda: farm.state(source) is JobState.DONE)
    assert farm.state(source) is JobState.DONE
    ended(pool, encode, farm)


def test_a_job_that_is_stopped_every_night_never_runs_out_of_receives(farm):
    source = farm.submit()
    pool, encode = started(farm)
    for night in range(1, 3 * farm.profile.queue.max_receives):
        encode.begun.clear()
        pause(farm, RunningWork.STOP)
        drive(farm, 20, lambda: farm.state(source) is JobState.QUEUED)
        farm.ledger.resume(None)
        drive(farm, 20, encode.begun.is_set)
        assert encode.begun.is_set(), night
    encode.finish.set()
    drive(farm, 60, lambda: farm.state(source) is JobState.DONE)

    assert farm.state(source) is JobState.DONE
    assert farm.letters() == []
    ended(pool, encode, farm)


def test_a_frozen_encode_keeps_its_lease_past_every_limit_and_goes_on(farm):
    numbers = farm.profile.queue
    source = farm.submit()
    pool, encode = started(farm)
    fence = farm.record(source).fence
    pause(farm, RunningWork.FREEZE)
    drive(farm, 5, lambda: encode.stop.held)
    assert encode.stop.held

    lease, wait = pool.workers[0]._handler._lease, threading.Event()
    for _ in range(int(1.5 * numbers.max_job_s / numbers.heartbeat_s)):
        before = lease._queue_until
        farm.clock.advance(numbers.heartbeat_s)
        pool.step()
        for _ in range(5000):
            if lease._queue_until != before:
                break
            wait.wait(0.001)
        else:
            pytest.fail("the lease was not extended")
    assert (farm.state(source), farm.record(source).fence) == (JobState.RUNNING, fence)
    assert not encode.stop.is_set()

    farm.ledger.resume(None)
    drive(farm, 5, lambda: not encode.stop.held)
    assert encode.stop.held_s > numbers.max_job_s
    encode.finish.set()
    drive(farm, 60, lambda: farm.state(source) is JobState.DONE)
    assert (farm.state(source), farm.record(source).fence) == (JobState.DONE, fence)
    ended(pool, encode, farm)


def test_a_full_disk_and_an_unfit_worker_are_reported(farm):
    told: list[tuple[str, str]] = []
    farm.with_context(
        notify=lambda name, reason: told.append((name, reason)), min_free_bytes=1 << 60
    )
    farm.submit()
    assert slot_of(farm).step() is False
    assert told[0][0] == "disk.low"
    assert "Low disk space" in told[0][1]

    farm.with_context(min_free_bytes=0)
    farm.queue.receive = Mock(side_effect=WorkerUnfit("no ffmpeg"))
    slot_of(farm).step()
    assert told[1] == ("worker.unfit", "no ffmpeg")


def test_a_message_is_not_begun_though_the_pauses_were_read_a_moment_ago(farm):
    farm.ledger.pauses_read_every_s = 60.0
    source, slot, real = farm.submit(), slot_of(farm), farm.queue.receive

    def late(*args, **named):
        found = real(*args, **named)
        pause(farm)
        return found

    farm.queue.receive = late
    assert slot.step() is False
    assert (farm.queue.depth().ready, farm.record(source).fence) == (1, 0)
