"""What a death says of the job: one that outlived others' eyes or memory is a crash, the rest is none."""

import threading

import pytest

from contracts.backends import source, task
from hevcq.backends.sql.statements import MAX_INTERRUPTIONS
from hevcq.domain.job import JobState, Phase, Progress, job_id
from hevcq.ports.ledger import Granted
from hevcq.util import processes

JOB = job_id(source(), "hevc")
STOP = threading.Event()


class Run:
    """One life of the program: it takes the only message and claims its job."""

    def __init__(self, opener) -> None:
        self.opened = opener()
        self.backend = self.opened.backend

    def start(self, percent: float | None = None, phase: Phase = Phase.ENCODE) -> Granted:
        (self.delivery,) = self.backend.queues["hevc"].receive(1, wait_s=0.0, stop=STOP)
        found = self.backend.ledger.claim(
            source(), "hevc", owner=f"{self.backend.owner}:0", lease_s=60
        )
        assert isinstance(found, Granted), found
        if percent is not None:
            self.backend.ledger.progress(JOB, found.fence, Progress(phase=phase, percent=percent))
        return found

    def kill(self) -> None:
        """End as by kill -9: the lock goes, the rest stays."""
        self.opened.close()

    @property
    def job(self):
        return self.backend.ledger.get(JOB)


@pytest.fixture
def sent(opener):
    """A queue with one task."""
    first = opener()
    first.backend.ledger.register(source(), ["hevc"])
    first.backend.queues["hevc"].send([task()])
    first.close()
    return opener


def test_130_kills_of_the_whole_program_are_no_crash_and_no_dead_letter(sent) -> None:
    for _ in range(130):
        run = Run(sent)
        assert run.start().crashes == 0
        assert run.delivery.attempt <= 2, "nor do they use up the receives"
        run.kill()

    last = Run(sent)
    assert last.job.state is JobState.QUEUED
    assert "Interrupted" in last.job.reason
    assert last.start().crashes == 0


def test_a_worker_that_dies_while_another_lives_counts_a_crash(sent, clock) -> None:
    dying = Run(sent)
    witness = Run(sent)
    dying.start()
    dying.kill()
    clock.advance(1)

    assert witness.start().crashes == 1
    assert witness.delivery.attempt == 2


def test_two_that_end_together_are_an_interruption_whoever_starts_next(sent, clock) -> None:
    first, second = Run(sent), Run(sent)
    clock.advance(1)
    second.backend.queues["720p"].receive(1, wait_s=0.0, stop=STOP)
    first.start()
    first.kill()
    second.kill()

    third, fourth = Run(sent), Run(sent)
    clock.advance(1)

    assert fourth.start().crashes == 0
    assert third.job.crashes == 0


def test_dying_at_the_same_place_again_is_a_crash(sent) -> None:
    found = []
    for percent in (42.3, 17.0, 17.9, 17.2, 42.0):
        run = Run(sent)
        found.append(run.start(percent).crashes)
        run.kill()

    assert found == [0, 0, 0, 1, 2]
    assert Run(sent).start().crashes == 2


def test_a_job_that_ends_the_program_each_time_is_not_tried_for_ever(sent) -> None:
    for _ in range(MAX_INTERRUPTIONS):
        run = Run(sent)
        assert run.start().crashes == 0
        run.kill()
    found = []
    for _ in range(3):
        run = Run(sent)
        found.append(run.start().crashes)
        run.kill()

    assert [*found, Run(sent).start().crashes] == [0, 1, 2, 3]


@pytest.mark.parametrize(("restarted", "crashes"), [(False, 1), (True, 0)])
def test_a_death_while_memory_ran_out_is_a_crash_but_not_over_a_restart(
    sent, clock, monkeypatch: pytest.MonkeyPatch, restarted: bool, crashes: int
) -> None:
    monkeypatch.setattr(processes, "oom_kills", lambda: 3)
    run = Run(sent)
    run.start()
    run.kill()
    monkeypatch.setattr(processes, "oom_kills", lambda: 4)
    if restarted:
        clock.restart()

    assert Run(sent).start().crashes == crashes
