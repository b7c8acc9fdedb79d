"""A profile that ffmpeg cannot make waits in its queue with the reason, and goes on once it can."""

import threading
from collections.abc import Mapping

import pytest

from hevcq.domain.job import JobState
from hevcq.errors import DiskFull, Stopped, WorkerUnfit
from hevcq.worker.admission import RETEST_S, Admission, SelfTests
from hevcq.worker.handler import Handler, ProfileQueue
from hevcq.worker.slot import Slot
from support.fakes.farm import Farm

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


def test_its_jobs_wait_unclaimed_and_nothing_is_encoded(bench):
    sources = [bench.farm.submit(name) for name in ("a.mp4", "b.mp4")]

    for _ in range(5):
        assert not bench.slot.step()

    assert bench.tests == 1
    assert "encode" not in bench.farm.encoder.calls
    for source in sources:
        record = bench.farm.record(source)
        assert (record.state, record.fence, record.failures) == (JobState.QUEUED, 0, 0)
    assert bench.farm.queue.depth().ready == 2
    assert bench.farm.context.closed("hevc").reason == BROKEN
    assert bench.reports == [{"hevc": BROKEN}]


def test_they_go_on_once_ffmpeg_is_another_build(bench):
    source = bench.farm.submit()
    bench.slot.step()
    bench.self_tests.look_again()
    assert bench.tests == 1

    bench.build = "2"
    bench.self_tests.look_again()

    assert bench.tests == 2
    assert bench.reports[-1] == {}
    assert bench.slot.step()
    assert bench.farm.state(source) is JobState.DONE


def test_the_same_build_is_tested_again_after_a_while(bench):
    bench.farm.submit()
    bench.slot.step()
    bench.broken.clear()

    bench.farm.clock.advance(RETEST_S - 1)
    bench.self_tests.look_again()
    assert bench.farm.context.closed("hevc") is not None
    bench.farm.clock.advance(1)
    bench.self_tests.look_again()

    assert bench.farm.context.closed("hevc") is None


def test_what_may_pass_at_any_moment_is_asked_again_at_the_next_look(bench):
    bench.error = DiskFull("The scratch folder is full.")
    bench.farm.submit()
    bench.slot.step()
    assert bench.farm.context.closed("hevc").reason == "The scratch folder is full."

    bench.broken.clear()
    bench.self_tests.look_again()

    assert bench.farm.context.closed("hevc") is None


def test_a_stop_in_a_test_gives_the_job_back_and_blames_nobody(bench):
    source, stop = bench.farm.submit(), threading.Event()
    stop.set()

    shut = bench.self_tests.require(bench.farm.profile, stop)

    assert shut is not None
    assert bench.farm.context.closed("hevc") is None
    assert bench.farm.state(source) is JobState.QUEUED
