"""Why nothing runs is told once, and so is that work goes on.

What the gate command of this machine forbids.
"""

from datetime import UTC, datetime
from unittest.mock import Mock

import pytest

from hevcq.domain.schedule import Hours, Pause, RunningWork
from hevcq.errors import Unavailable, UsageError, WorkerUnfit
from hevcq.usecases.operations.pausing import (
    SPENT_EVERY_S,
    DailyCap,
    GateCommand,
    pause,
    resume,
    why_closed,
)
from support.clips import ManualClock
from support.fakes.ledger import MemoryLedger

PROFILES = ("hevc", "720p")


def test_profiles_with_one_reason_are_listed_together():
    clock = ManualClock()
    ledger = MemoryLedger(clock)
    pause(ledger, Pause(by="anna", since=clock.now()), 60)
    (both,) = why_closed(ledger, PROFILES, Hours(), clock.now())
    assert both.profiles == PROFILES
    stop = RunningWork.STOP
    pause(ledger, Pause(by="ben", profile="720p", since=clock.now(), running=stop), None)
    one, other = why_closed(ledger, PROFILES, Hours(), clock.now())
    assert (one.profiles, one.running) == (("hevc",), "border")
    assert (other.profiles, other.running, other.until) == (("720p",), "stop", None)
    assert [each.profile for each in ledger.resume(None)] == ["", "720p"]
    assert why_closed(ledger, PROFILES, Hours(), clock.now()) == ()


def test_freezing_is_refused_where_it_cannot_be():
    clock = ManualClock()
    ledger = MemoryLedger(clock)
    with pytest.raises(UsageError, match="only for work on one machine"):
        pause(ledger, Pause(by="a", since=0.0, running=RunningWork.FREEZE), None, can_freeze=False)
    assert ledger.pauses() == ()


class Day:
    """A cap of 5 dollars, and what was spent since a moment."""

    def __init__(self) -> None:
        self.clock = ManualClock(datetime(2026, 11, 25, 22, 0, tzinfo=UTC).timestamp())
        self.ledger = MemoryLedger(self.clock)
        self.most: float | None = 5.0
        self.spent, self.asked = 0.0, list[float]()
        self.cap = self.of_a_process()

    def of_a_process(self) -> DailyCap:
        return DailyCap(self.ledger, self._spent, lambda: self.most, self.clock, UTC)

    def _spent(self, since: float) -> float:
        self.asked.append(since)
        return self.spent

    def look(self) -> str:
        """Let the cap look again; return who holds work back now."""
        self.clock.advance(SPENT_EVERY_S)
        self.cap.check()
        now = self.clock.now()
        return ", ".join(each.by for each in self.ledger.pauses() if each.applies_to("hevc", now))


def test_a_day_that_is_spent_pauses_all_work_until_midnight():
    day = Day()
    day.spent = 4.99
    assert day.look() == ""
    day.spent = 5.02
    assert day.look() == "prices.max_per_day (5.02 of 5 dollars spent today)"
    assert {datetime.fromtimestamp(at, UTC).isoformat() for at in day.asked} == {
        "2026-11-25T00:00:00+00:00"
    }
    (shut,) = why_closed(day.ledger, PROFILES, Hours(), day.clock.now())
    assert shut.until == datetime(2026, 11, 26, tzinfo=UTC).timestamp()
    day.spent = 0.0
    day.clock.advance(2 * 3600)
    assert day.look() == ""
    day.spent = 6.0
    assert day.look() == "prices.max_per_day (6.00 of 5 dollars spent today)"


def test_who_resumes_is_left_alone_that_day_unless_the_cap_is_another():
    day = Day()
    day.spent = 5.0
    assert day.look() != ""
    assert [each.profile for each in resume(day.ledger, None)] == [""]
    assert day.look() == ""
    assert resume(day.ledger, None) == ()
    day.cap = day.of_a_process()  # of a worker that starts now, or of the page
    assert day.look() == ""
    day.most = 4.5
    assert "of 4.5 dollars" in day.look()
    day.most = 6.0  # while it still holds work back
    assert "of 4.5 dollars" in day.look()
    resume(day.ledger, None)
    assert day.look() == ""
    day.spent = 6.0
    assert "of 6 dollars" in day.look()


def test_a_cap_that_is_not_set_and_a_persons_pause_are_left_as_they_are():
    day = Day()
    day.spent, day.most = 9.0, None
    assert (day.look(), day.asked) == ("", [])
    day.most = 5.0
    pause(day.ledger, Pause(by="anna", since=day.clock.now()), 600)
    assert day.look() == "anna"
    day.clock.advance(600)
    assert day.look().startswith("prices.max_per_day")


def test_a_pause_that_a_person_makes_during_the_sum_is_not_shortened():
    day = Day()

    def spent(_since: float) -> float:
        pause(day.ledger, Pause(by="anna", since=day.clock.now()), None)
        return 9.0

    DailyCap(day.ledger, spent, lambda: 5.0, day.clock, UTC).check()

    assert [(each.by, each.until) for each in day.ledger.pauses()] == [("anna", None)]


def test_nothing_is_queued_while_what_was_spent_cannot_be_read():
    day, answers = Day(), [False, False, True]

    def spent(_since: float) -> float:
        if answers.pop():
            return 1.0
        raise Unavailable("AWS could not read the jobs: Throttled.")

    cap = DailyCap(day.ledger, spent, lambda: day.most, day.clock, UTC)
    cap.require()
    day.clock.advance(SPENT_EVERY_S)
    for _ in range(2):  # it is asked again at once, not after five minutes
        with pytest.raises(Unavailable, match="Nothing more is queued"):
            cap.require()
    day.most = None
    cap.require()


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
