"""What a pool does beside its jobs: it is listed as present, and its threads go on after an error."""

import threading
from dataclasses import dataclass, field

import pytest

from hevcq.errors import DiskFull, Unavailable
from hevcq.ports.backend import Answer, Machines, WorkerFacts
from hevcq.worker.monitoring.watchers import (
    AFTER_ERROR_S,
    Background,
    PoolState,
    Presence,
    periodic,
)
from support.clips import ManualClock

FACTS = WorkerFacts(machine="desk", version="0.1.0")


@dataclass
class Told(Machines):
    """Answers as told, and notes who spoke."""

    answer: Answer = field(default_factory=Answer)
    away: bool = False
    seen: list[str] = field(default_factory=list)

    def tell(self, owner, facts):
        self.seen.append(f"{owner} {facts.machine}")
        return self.answer

    def leave(self, owner, broken=None):
        if self.away:
            raise Unavailable("no answer")
        self.seen.append(f"{owner} left")

    def processes(self):
        return []

    def drain(self, machine, by):
        return False

    def remove(self, machine):
        return False


def presence(machines: Machines) -> Presence:
    return Presence(machines, "me", lambda: FACTS, ManualClock())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(), ""),
        (Answer(drained_by="anna"), "Drained by anna; `hevcq workers resume desk`"),
        (Answer(newer="0.2.0", newer_on="nas"), "hevcq 0.1.0 works no more beside hevcq 0.2.0 on"),
    ],
)
def test_the_answer_says_whether_new_work_is_taken_until_another_comes(answer, words):
    machines = Told(answer)
    made = presence(machines)
    made.tell()
    assert made.reason().startswith(words) if words else made.reason() == ""

    machines.answer = Answer()
    made.tell()
    assert made.reason() == ""


@pytest.mark.parametrize("away", [False, True])
def test_closing_leaves_the_list_of_machines_even_if_the_database_is_away(away):
    machines = Told(away=away)

    presence(machines).close()

    assert machines.seen == ([] if away else ["me left"])


@pytest.mark.parametrize(
    ("error", "traceback"),
    [(KeyError("a defect"), True), (Unavailable("away"), False), (DiskFull("full"), False)],
)
def test_a_step_that_breaks_is_reported_and_tried_again_a_minute_later(capsys, error, traceback):
    clock, seen, done = ManualClock(), [], threading.Event()

    def step() -> float:
        seen.append(clock.monotonic())
        if len(seen) == 1:
            raise error
        done.set()
        return 3_600.0

    beside = Background("tidy", step, clock)
    beside.wake()
    clock.until_waiting()
    clock.advance(AFTER_ERROR_S - 1)
    clock.until_waiting()
    assert len(seen) == 1
    clock.advance(1)

    assert done.wait(30)
    assert seen[1] - seen[0] == AFTER_ERROR_S
    beside.close()
    told = capsys.readouterr()
    assert "background_failed" in told.out + told.err
    assert ("Traceback" in told.out + told.err) is traceback, "a service that is away is no defect"


def test_what_was_never_woken_ends_at_once():
    Background("tidy", lambda: 1.0, ManualClock()).close()


HEALTH = PoolState(slots=1, alive=1, handled=0, oldest_poll_s=0)


def test_a_periodic_watcher_starts_one_thread_however_often_the_pool_observes():
    clock, done, again = ManualClock(), [], threading.Event()

    def step() -> None:
        done.append(clock.now())
        if len(done) == 2:
            again.set()

    tidy = periodic("tidy", step, clock, every_s=60)
    for _ in range(3):
        tidy.observe(HEALTH)
    clock.until_waiting()
    clock.advance(59)
    assert len(done) == 1
    clock.advance(1)
    assert again.wait(30)
    tidy.close()

    assert len(done) == 2, "not once more at the end"
    assert done[1] - done[0] == 60
