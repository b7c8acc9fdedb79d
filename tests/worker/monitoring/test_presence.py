"""What a worker says of itself in the list of machines, and what it does by the answer."""

from dataclasses import dataclass, field

import pytest

from hevcq.errors import Unavailable
from hevcq.ports.machines import Answer, Machines, WorkerFacts
from hevcq.worker.monitoring.watchers import Presence
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
def test_the_answer_says_whether_new_work_is_taken(answer, words):
    made = presence(Told(answer))

    made.tell()

    assert made.reason().startswith(words) if words else made.reason() == ""


def test_a_machine_works_again_once_it_is_resumed():
    machines = Told(Answer(drained_by="anna"))
    made = presence(machines)
    made.tell()
    machines.answer = Answer()

    made.tell()

    assert made.reason() == ""


@pytest.mark.parametrize("away", [False, True])
def test_the_end_is_said_and_an_absent_database_does_not_hold_it_up(away):
    machines = Told(away=away)

    presence(machines).close()

    assert machines.seen == ([] if away else ["me left"])
