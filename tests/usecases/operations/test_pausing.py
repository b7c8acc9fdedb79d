"""Why nothing runs is told once, and so is that work goes on."""

import pytest

from hevcq.domain.pause import Hours, Pause, RunningWork
from hevcq.errors import UsageError
from hevcq.usecases.operations.pausing import (
    pause,
    why_closed,
)
from support.clips import ManualClock
from support.fakes.ledger import MemoryLedger

PROFILES = ("hevc", "720p")


def test_profiles_with_one_reason_are_listed_together() -> None:
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


def test_freezing_is_refused_where_it_cannot_be() -> None:
    clock = ManualClock()
    ledger = MemoryLedger(clock)
    with pytest.raises(UsageError, match="only for work on one machine"):
        pause(ledger, Pause(by="a", since=0.0, running=RunningWork.FREEZE), None, can_freeze=False)
    assert ledger.pauses() == ()
