"""When work may run: windows of time, over midnight and at both changes of the clock, and pauses."""

import random
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from hevcq.domain.schedule import Hours, Pause, RunningWork, Schedule, find_closure

BERLIN = "Europe/Berlin"
NIGHTS = ("Mon-Fri 22:00-06:30", "Sat-Sun 00:00-24:00")


def at(text: str, zone: str = BERLIN, *, fold: int = 0) -> float:
    """Return the Unix seconds of a local time."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return local.timestamp()


def utc(text: str) -> float:
    """Return the Unix seconds of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("now", "is_open", "change"),
    [
        ("2026-11-23T21:59:59", False, "2026-11-23T22:00"),  # Monday
        ("2026-11-23T22:00:00", True, "2026-11-24T06:30"),
        ("2026-11-24T06:29:59", True, "2026-11-24T06:30"),
        ("2026-11-24T06:30:00", False, "2026-11-24T22:00"),
        # Friday night, Saturday and Sunday touch: one span, which ends before Monday.
        ("2026-11-27T23:00:00", True, "2026-11-30T00:00"),
        ("2026-11-30T00:00:00", False, "2026-11-30T22:00"),
    ],
)
def test_windows_over_midnight_and_the_week_end(now, is_open, change):
    schedule = Schedule.parse(NIGHTS, BERLIN)
    assert schedule.open_at(at(now)) is is_open
    assert schedule.next_change(at(now)) == at(change)


def test_a_schedule_without_windows_or_with_all_of_the_week_is_always_open():
    now = at("2026-11-23T12:00")
    for windows in ((), ("00:00-24:00",), ("Mon-Sun 12:00-12:01", "12:01-12:00")):
        schedule = Schedule.parse(windows, BERLIN)
        assert schedule.open_at(now)
        assert schedule.next_change(now) is None


def test_days_may_wrap_be_listed_and_be_left_out():
    sunday, monday, tuesday = (at(f"2026-11-{day}T12:00") for day in (22, 23, 24))
    wraps = Schedule.parse(["fri-MON 11:00-13:00"], BERLIN)
    assert [wraps.open_at(now) for now in (sunday, monday, tuesday)] == [True, True, False]
    listed = Schedule.parse(["Sun,Tue 11:00-13:00"], BERLIN)
    assert [listed.open_at(now) for now in (sunday, monday, tuesday)] == [True, False, True]
    daily = Schedule.parse(["9:00-12:00"], BERLIN)
    assert not any(daily.open_at(now) for now in (sunday, monday, tuesday))


def test_windows_at_both_changes_of_the_clock_open_once():
    begins, ends = (Schedule.parse([text], BERLIN) for text in ("02:30-05:00", "22:00-02:30"))

    spring = at("2026-03-29T03:30")  # 02:00 becomes 03:00
    assert begins.next_change(at("2026-03-29T01:00")) == spring
    assert begins.next_change(spring) == at("2026-03-29T05:00")
    assert ends.next_change(at("2026-03-28T23:00")) == spring
    autumn = at("2026-10-25T02:30")  # the first of two
    assert begins.next_change(at("2026-10-25T01:00")) == autumn
    assert begins.next_change(autumn) == at("2026-10-25T05:00")
    assert ends.next_change(at("2026-10-24T23:00")) == autumn
    assert ends.next_change(autumn) == at("2026-10-25T22:00")


@pytest.mark.parametrize("zone", [BERLIN, "America/New_York", "Australia/Lord_Howe", "UTC", ""])
def test_the_next_change_is_the_first_moment_at_which_openness_differs(zone):
    rng = random.Random(16)
    for _ in range(20):
        day = rng.choice(["", "Mon-Fri ", "Sat,Sun ", "Thu-Mon "])
        minutes = [rng.randrange(0, 1440) for _ in range(2)]
        text = day + "-".join(f"{m // 60:02}:{m % 60:02}" for m in minutes)
        schedule = Schedule.parse([text, "Sun 01:30-02:30"], zone)
        now = utc("2026-03-01T00:00") + rng.randrange(0, 300 * 86400)
        change = schedule.next_change(now)
        assert change is not None, text
        was = schedule.open_at(now)
        step = max(1.0, (change - now) / 50)
        moment = now
        while moment < change:
            assert schedule.open_at(moment) is was, (text, moment)
            moment += step
        assert schedule.open_at(change - 0.001) is was, text
        assert schedule.open_at(change) is not was, text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a window of time"),
        ("at night", "is not a window of time"),
        ("Mon-Fri 22-6", "'22' in 'Mon-Fri 22-6' is not a time from 00:00 to 24:00"),
        ("25:00-06:00", "is not a time"),
        ("22:00-24:01", "is not a time"),
        ("Mo 22:00-23:00", "'mo' in 'Mo 22:00-23:00' is not a day"),
        ("10:00-10:00", "starts when it ends"),
    ],
)
def test_a_bad_window_is_refused_in_one_sentence(text, says):
    with pytest.raises(ValueError, match=says) as raised:
        Schedule.parse([text])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "zone", ["Berlin", "../etc/passwd", "/etc/localtime", "Europe/Bärlin", "\0"]
)
def test_an_unknown_time_zone_is_refused(zone):
    with pytest.raises(ValueError, match="needs a time zone that this machine knows"):
        Schedule.parse([], zone)


NOON = utc("2026-11-23T12:00")
AT_NIGHT = Hours(Schedule.parse(["22:00-06:00"], "UTC"), RunningWork.FREEZE)
ALWAYS = Hours(Schedule.parse([], "UTC"))


def test_a_pause_closes_its_profile_until_it_ends_and_says_who_set_it():
    pause = Pause(profile="hevc", by="anna", since=NOON, until=NOON + 5400)

    found = find_closure("hevc", [pause], ALWAYS, NOON + 1)

    assert found.reason == "Profile hevc is paused by anna until 13:30; `hevcq resume` ends it."
    assert (found.running, found.until) == (RunningWork.BORDER, NOON + 5400)
    assert find_closure("720p", [pause], ALWAYS, NOON + 1) is None
    assert find_closure("hevc", [pause], ALWAYS, NOON + 5400) is None


def test_closed_hours_say_when_they_open():
    found = find_closure("hevc", [], AT_NIGHT, NOON)

    assert found.reason == "Outside the hours of schedule.windows. It opens 22:00."
    assert (found.running, found.until) == (RunningWork.FREEZE, NOON + 10 * 3600)


@pytest.mark.parametrize("mild", [RunningWork.BORDER, RunningWork.FREEZE])
def test_of_several_reasons_the_strictest_decides_and_the_last_end_counts(mild):
    pauses = [
        Pause(since=NOON, until=NOON + 60, running=mild),
        Pause(profile="hevc", since=NOON, until=NOON + 120, running=RunningWork.STOP),
    ]
    found = find_closure("hevc", pauses, AT_NIGHT, NOON)
    assert (found.running, found.until) == (RunningWork.STOP, NOON + 10 * 3600)
    with_condition = find_closure("hevc", pauses, AT_NIGHT, NOON, "It is hot.")
    assert with_condition.until is None
    assert with_condition.reason.endswith("It is hot.")
