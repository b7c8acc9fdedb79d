"""Why no work may begin: a person, the hours, the machine; and what becomes of running work."""

from datetime import UTC, datetime

import pytest

from hevcq.domain.schedule import Hours, Pause, RunningWork, Schedule, find_closure

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC).timestamp()
NIGHTS = Hours(Schedule.parse(["22:00-06:00"], "UTC"), RunningWork.FREEZE)
ALWAYS = Hours(Schedule.parse([], "UTC"))


def test_a_pause_closes_its_profile_until_it_ends_and_says_who_set_it():
    pause = Pause(profile="hevc", by="anna", since=NOON, until=NOON + 5400)

    found = find_closure("hevc", [pause], ALWAYS, NOON + 1)

    assert found.reason == "Profile hevc is paused by anna until 13:30; `hevcq resume` ends it."
    assert (found.running, found.until) == (RunningWork.BORDER, NOON + 5400)
    assert find_closure("720p", [pause], ALWAYS, NOON + 1) is None
    assert find_closure("hevc", [pause], ALWAYS, NOON + 5400) is None


def test_closed_hours_say_when_they_open():
    found = find_closure("hevc", [], NIGHTS, NOON)

    assert found.reason == "Outside the hours of schedule.windows. It opens 22:00."
    assert (found.running, found.until) == (RunningWork.FREEZE, NOON + 10 * 3600)


@pytest.mark.parametrize("mild", [RunningWork.BORDER, RunningWork.FREEZE])
def test_of_several_reasons_the_strictest_decides_and_the_last_end_counts(mild):
    pauses = [
        Pause(since=NOON, until=NOON + 60, running=mild),
        Pause(profile="hevc", since=NOON, until=NOON + 120, running=RunningWork.STOP),
    ]
    found = find_closure("hevc", pauses, NIGHTS, NOON)
    assert (found.running, found.until) == (RunningWork.STOP, NOON + 10 * 3600)
    with_condition = find_closure("hevc", pauses, NIGHTS, NOON, "It is hot.")
    assert with_condition.until is None
    assert with_condition.reason.endswith("It is hot.")
