"""A paused worker: nothing begins; what runs ends, stops uncounted, or stands still with its lease.

A profile that ffmpeg cannot make waits in its queue with the reason, and goes on once it can.
Scratch: each process has a locked folder; what dead processes left is swept, nothing else is.
"""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from hevcq.domain.job import JobState
from hevcq.domain.schedule import Hours, Pause, RunningWork, Schedule
from hevcq.errors import DiskFull, Stopped, Unavailable, WorkerUnfit
from hevcq.util.signals import StopSignals
from hevcq.worker.admission import Admission, Scratch
from hevcq.worker.handler import Handler, ProfileQueue
from hevcq.worker.out_of_service import RETEST_AFTER_S, SelfTests
from hevcq.worker.pool import WorkerPool
from hevcq.worker.slot import Slot, SlotOutcome
from support.clips import ManualClock
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
    pool.interrupt()
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
    hours = Hours(Schedule.parse(["22:00-06:00"], "UTC"))  # the test's clock begins at 22:13
    farm.with_context(admission=Admission(farm.ledger, farm.clock, lambda: hours))
    source, slot = farm.submit(), slot_of(farm)
    farm.clock.advance(8 * 3600)
    assert slot.step() is False
    farm.clock.advance(15.7 * 3600)
    assert slot.step() is False
    farm.clock.advance(0.1 * 3600)
    assert slot.step() is True
    assert farm.state(source) is JobState.DONE


@pytest.mark.parametrize("is_full", [False, True], ids=["drained", "full"])
def test_a_machine_that_was_drained_or_is_full_takes_nothing_until_that_ends(farm, is_full):
    reason = ["Drained by anna."]
    if is_full:
        farm.with_context(full=lambda: bool(reason[0]))
    else:
        admission = Admission(farm.ledger, farm.clock, withdrawn=lambda: reason[0])
        farm.with_context(admission=admission)
        assert admission.why_closed("hevc").running is RunningWork.BORDER, "what runs is finished"
    source, slot = farm.submit(), slot_of(farm)

    assert slot.step() is False
    assert farm.record(source).fence == 0
    reason[0] = ""
    assert slot.step() is True
    assert farm.state(source) is JobState.DONE


def test_a_message_that_came_with_every_pause_does_not_run_out_of_receives(farm):
    farm.ledger.pauses_read_every_s = 60.0  # and were read a moment ago
    source, slot = farm.submit(), slot_of(farm)
    real = farm.queue.receive

    def late(*args, **named):
        found = real(*args, **named)
        pause(farm)
        return found

    for _ in range(4 * farm.profile.queue.max_receives):
        farm.queue.receive = late
        assert slot.step() is False
        assert (farm.queue.depth().ready, farm.record(source).fence) == (1, 0)
        farm.ledger.resume(None)
        farm.clock.advance(60)

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


def test_running_work_ends_by_itself_during_a_pause(farm):
    first = farm.submit("a.mp4")
    pool, encode = started(farm)
    second = farm.submit("b.mp4")
    pause(farm, RunningWork.BORDER)

    drive(farm, 30)
    assert farm.state(first) is JobState.RUNNING
    encode.finish.set()
    drive(farm, 60, lambda: farm.state(first) is JobState.DONE)
    drive(farm, 20)

    assert (farm.state(first), farm.state(second)) == (JobState.DONE, JobState.QUEUED)
    ended(pool, encode, farm)


def test_a_job_that_is_stopped_every_night_never_runs_out_of_receives(farm):
    source = farm.submit()
    pool, encode = started(farm)
    for night in range(1, 3 * farm.profile.queue.max_receives):
        encode.begun.clear()
        pause(farm, RunningWork.STOP)
        drive(farm, 20, lambda: farm.state(source) is JobState.QUEUED)
        record = farm.record(source)
        assert (record.state, record.failures, record.crashes) == (JobState.QUEUED, 0, 0)
        assert "paused" in record.reason.lower()
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


BROKEN = "ffmpeg cannot make the profile hevc on this machine: G8"


class Bench:
    """A farm whose ffmpeg has a build that may be broken; `reports` are what others are told."""

    def __init__(self, folder) -> None:
        self.farm = Farm(folder)
        self.build, self.broken = "1", {"1"}
        self.tests, self.reports = 0, list[Mapping[str, str]]()
        self.error: Exception = WorkerUnfit(BROKEN)
        encoder = self.farm.encoder
        encoder.build, encoder.self_test = lambda: self.build, self._test
        profiles = {"hevc": self.farm.profile}
        self.self_tests = SelfTests(
            encoder,
            self.farm.context.scratch.job,
            self.farm.clock,
            lambda: profiles,
            self.reports.append,
        )
        admission = Admission(self.farm.ledger, self.farm.clock, self_tests=self.self_tests)
        self.farm.with_context(admission=admission)
        served = ProfileQueue(self.farm.profile, self.farm.queue)
        self.slot = Slot(self.farm.context, Handler(self.farm.context, "w:0"), [served])

    def _test(self, profile, folder, *, stop, again=False) -> None:
        assert profile.name == "hevc"
        assert not list(folder.iterdir())
        if stop.is_set():
            raise Stopped
        self.tests += 1
        if self.build in self.broken:
            raise self.error


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def test_jobs_of_a_profile_that_failed_its_self_test_wait_unclaimed(bench):
    sources = [bench.farm.submit(name) for name in ("a.mp4", "b.mp4")]

    for _ in range(5):
        assert not bench.slot.step()

    assert bench.tests == 1
    assert "encode" not in bench.farm.encoder.calls
    for source in sources:
        record = bench.farm.record(source)
        assert (record.state, record.fence, record.failures) == (JobState.QUEUED, 0, 0)
    assert bench.farm.queue.depth().ready == 2
    assert bench.farm.context.why_closed("hevc").reason == BROKEN
    assert bench.reports == [{"hevc": BROKEN}]


def test_a_failed_profile_goes_on_once_ffmpeg_is_another_build(bench):
    source = bench.farm.submit()
    bench.slot.step()
    bench.self_tests.retest_failed()
    assert bench.tests == 1

    bench.build = "2"
    bench.self_tests.retest_failed()

    assert bench.tests == 2
    assert bench.reports[-1] == {}
    assert bench.slot.step()
    assert bench.farm.state(source) is JobState.DONE


def test_the_same_build_is_tested_again_after_a_while(bench):
    bench.farm.submit()
    bench.slot.step()
    bench.broken.clear()

    bench.farm.clock.advance(RETEST_AFTER_S - 1)
    bench.self_tests.retest_failed()
    assert bench.farm.context.why_closed("hevc") is not None
    bench.farm.clock.advance(1)
    bench.self_tests.retest_failed()

    assert bench.farm.context.why_closed("hevc") is None


def test_a_self_test_that_found_a_full_disk_is_repeated_at_the_next_check(bench):
    bench.error = DiskFull("The scratch folder is full.")
    bench.farm.submit()
    bench.slot.step()
    assert bench.farm.context.why_closed("hevc").reason == "The scratch folder is full."

    bench.broken.clear()
    bench.self_tests.retest_failed()

    assert bench.farm.context.why_closed("hevc") is None


def test_a_stop_in_a_test_gives_the_job_back_and_blames_nobody(bench):
    source, stop = bench.farm.submit(), threading.Event()
    stop.set()

    shut = bench.self_tests.require(bench.farm.profile, stop)

    assert shut is not None
    assert bench.farm.context.why_closed("hevc") is None
    assert bench.farm.state(source) is JobState.QUEUED


HOLD = """
import sys, pathlib, time
from hevcq.util.clock import SystemClock
from hevcq.worker.admission import Scratch
import threading
scratch = Scratch(pathlib.Path(sys.argv[1]), SystemClock())
with scratch.job("job") as folder:
    (folder / "half").write_bytes(b"x" * 1000)
    print("ready", flush=True)
    threading.Event().wait(60)
"""


@pytest.fixture
def scratch(tmp_path) -> Scratch:
    return Scratch(tmp_path / "scratch", ManualClock())


def test_two_attempts_at_one_job_in_one_process_never_share_a_folder(scratch):
    """Found by the simulation: a slot whose lease is lost may still be ending its encode."""
    with scratch.job("a") as zombies:
        (zombies / "rendition.mp4").write_bytes(b"half")
        with scratch.job("a") as folder:
            assert list(folder.iterdir()) == []
            assert (zombies / "rendition.mp4").read_bytes() == b"half"
        assert zombies.is_dir()


def test_the_scratch_folder_of_a_killed_process_is_swept(tmp_path):
    root = tmp_path / "scratch"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "ready\n"
        scratch = Scratch(root, ManualClock())
        assert scratch.sweep() == 0
        assert list(root.rglob("half")) != []
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
        assert scratch.sweep() == 1
        assert list(root.iterdir()) == []
    finally:
        child.kill()
        child.wait(10)
        child.stdout.close()


def test_a_sweep_touches_nothing_that_is_not_hevcqs(scratch):
    root = scratch.folder
    (root / "holiday").mkdir(parents=True)
    (root / "hevcq-notes.lock").touch()
    (root / "a.mp4").touch()

    assert scratch.sweep() == 0
    assert len(list(root.iterdir())) == 3


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EACCES, WorkerUnfit),
        (errno.EROFS, WorkerUnfit),
        (errno.EIO, Unavailable),
    ],
)
def test_each_error_of_the_scratch_folder_is_translated(scratch, monkeypatch, number, kind):
    monkeypatch.setattr(Path, "mkdir", Mock(side_effect=OSError(number, os.strerror(number))))

    with pytest.raises(kind, match="scratch folder"), scratch.job("a"):
        pass


def test_a_sweep_that_comes_between_making_and_locking_a_file_is_survived(scratch, monkeypatch):
    other = Scratch(scratch.folder, ManualClock())
    real, raced = fcntl.flock, []

    def flock(lock, how):
        if not raced:
            raced.append(1)
            assert other.sweep() == 1
        return real(lock, how)

    monkeypatch.setattr("fcntl.flock", flock)

    with scratch.job("a") as folder:
        assert other.sweep() == 0
        assert folder.is_dir()


def test_a_disk_on_which_no_work_could_ever_begin_takes_the_worker_out(tmp_path, monkeypatch):
    farm = Farm(tmp_path)
    farm.with_context(min_free_bytes=1 << 30)
    source, size = farm.submit(), 512 << 20
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: (size, 0, size))
    pool = WorkerPool(farm.context, [ProfileQueue(farm.profile, farm.queue)])

    assert pool.run(StopSignals()) is SlotOutcome.UNFIT
    assert isinstance(pool.error, WorkerUnfit)
    assert "has 512 MiB, and 1024 MiB must stay free (min_free_mib)" in str(pool.error)
    assert farm.record(source).fence == 0
