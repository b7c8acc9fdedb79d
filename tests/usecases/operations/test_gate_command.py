"""What the gate command of this machine forbids."""

from unittest.mock import Mock

from hevcq.errors import WorkerUnfit
from hevcq.usecases.operations.pausing import GateCommand


def test_work_waits_for_the_first_answer_and_obeys_each_later_one():
    answers, asked = iter([1, 0]), list[list[str]]()

    def ask(argv: list[str]) -> int:
        asked.append(argv)
        return next(answers)

    condition = GateCommand(lambda: "/bin/may run 'now please'", ask)
    assert condition.reason().startswith("Waiting for the first answer")
    condition.check()
    assert condition.reason().endswith("says no (exit code 1).")
    condition.check()
    assert condition.reason() == ""
    assert asked == [["/bin/may", "run", "now please"]] * 2


def test_a_command_that_cannot_be_asked_forbids_work():
    condition = GateCommand(lambda: "/bin/may", Mock(side_effect=WorkerUnfit("it is gone")))
    condition.check()
    assert condition.reason() == "schedule.gate_command cannot be asked: it is gone"
