"""Decide when work may run: weekly windows of local time, pauses and conditions.

When clocks change, a window never opens twice: a time that occurs twice means its first occurrence, and
if 02:00 to 03:00 is skipped, 02:30 means 03:30.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from zoneinfo import ZoneInfo

from pydantic import Field

from hevcq.domain.model import Frozen

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HORIZON_DAYS = 9
"""Days of windows to compute around a moment: more than a week, to find each change within the week, and
to tell the longest run of touching windows from one without an end."""
WINDOW = re.compile(r"^(?:(?P<days>[a-z][a-z,\-]*) +)?(?P<start>\S+?)-(?P<end>\S+)$")
TIME = re.compile(r"^(\d{1,2}):(\d{2})$")
EXAMPLE = 'for example "Mon-Fri 22:00-06:30", "Sat,Sun 00:00-24:00" or "22:00-06:00"'


@dataclass(frozen=True, slots=True)
class Window:
    """A span of local time on some weekdays (0 is Monday), in minutes after midnight of its first day.

    `end` is greater than `start` by at most a day, so it may lie in the next day.
    """

    days: frozenset[int]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Weekly windows in a time zone (None: this machine's); without windows it is always open."""

    windows: tuple[Window, ...] = ()
    zone: tzinfo | None = None

    @classmethod
    def parse(cls, windows: Sequence[str], timezone: str = "") -> Schedule:
        """Parse windows; an empty `timezone` is this machine's. Raises ValueError with one sentence."""
        return cls(tuple(_window(text) for text in windows), _zone(timezone))

    def open_at(self, now: float) -> bool:
        """Return whether work may run at `now` (Unix seconds)."""
        return not self.windows or any(start <= now < end for start, end in self._spans(now))

    def next_change(self, now: float) -> float | None:
        """Return when the schedule next opens or closes after `now`, in Unix seconds; None if never."""
        if not self.windows:
            return None
        for start, end in self._spans(now):
            if start > now:
                return start
            if end > now:
                return end if end <= now + (HORIZON_DAYS - 1) * 86400 else None
        return None

    def _spans(self, now: float) -> list[tuple[float, float]]:
        """Return the open spans around `now` in order, with touching spans merged."""
        merged: list[tuple[float, float]] = []
        for start, end in sorted(self._spans_around(datetime.fromtimestamp(now, self.zone).date())):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def _spans_around(self, today: date) -> Iterator[tuple[float, float]]:
        for offset in range(-2, HORIZON_DAYS + 1):
            day = today + timedelta(days=offset)
            for window in self.windows:
                if day.weekday() not in window.days:
                    continue
                start, end = (_instant(day, at, self.zone) for at in (window.start, window.end))
                if start < end:
                    yield start, end


def midnight(now: float, zone: tzinfo | None, days: int = 0) -> float:
    """Return when the day of `now` began in a zone, or the day so many `days` later (Unix seconds)."""
    return _instant(datetime.fromtimestamp(now, zone).date(), days * 1440, zone)


def _instant(day: date, minutes: int, zone: tzinfo | None) -> float:
    day, minute = day + timedelta(days=minutes // 1440), minutes % 1440
    return datetime.combine(day, time(minute // 60, minute % 60), zone).timestamp()


def _window(text: str) -> Window:
    match = WINDOW.match(" ".join(text.lower().split()))
    if match is None:
        raise ValueError(f"{text!r} is not a window of time; write {EXAMPLE}")
    days = _days(match["days"], text)
    start, end = _minutes(match["start"], text), _minutes(match["end"], text)
    if start in (end, 1440):
        raise ValueError(f"{text!r} starts when it ends; a whole day is written 00:00-24:00")
    return Window(days, start, end if end > start else end + 1440)


def _minutes(text: str, window: str) -> int:
    match = TIME.match(text)
    hours, minutes = (int(match[1]), int(match[2])) if match else (99, 0)
    if minutes > 59 or hours * 60 + minutes > 1440:
        raise ValueError(
            f"{text!r} in {window!r} is not a time from 00:00 to 24:00; write {EXAMPLE}"
        )
    return hours * 60 + minutes


def _days(text: str | None, window: str) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        start = _day(first, window)
        end = _day(last, window) if dash else start
        days.update(day % 7 for day in range(start, end + 1 if end >= start else end + 8))
    return frozenset(days)


def _day(text: str, window: str) -> int:
    if text not in DAYS:
        raise ValueError(
            f"{text!r} in {window!r} is not a day; days are Mon, Tue, Wed, Thu, Fri, Sat and Sun"
        )
    return DAYS.index(text)


def _zone(name: str) -> tzinfo | None:
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # unknown, a folder, or no name at all
        raise ValueError("needs a time zone that this machine knows, like Europe/Berlin") from None


class RunningWork(StrEnum):
    """What happens to running work while no new work may begin, the mildest first.

    BORDER: running encodes finish, and no further chunk begins. FREEZE: their programs are suspended
    and continue later. STOP: they are stopped and returned to their queue.
    """

    BORDER = "border"
    FREEZE = "freeze"
    STOP = "stop"


MILDEST_FIRST = tuple(RunningWork)


class Pause(Frozen):
    """A person's pause of one profile, or of all with an empty `profile`. Times in Unix seconds."""

    profile: str = ""
    by: str = Field(default="", max_length=200)
    since: float
    until: float | None = None
    running: RunningWork = RunningWork.BORDER

    def applies_to(self, profile: str, now: float) -> bool:
        has_ended = self.until is not None and now >= self.until
        return not has_ended and self.profile in ("", profile)


@dataclass(frozen=True, slots=True)
class Closed:
    """Why no work of a profile may begin, and until when (Unix seconds), if known."""

    reason: str
    running: RunningWork
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Hours:
    """When this machine may work, and what happens to running work at the end of a window."""

    schedule: Schedule = field(default_factory=Schedule)
    at_end: RunningWork = RunningWork.BORDER


def find_closure(
    profile: str, pauses: Iterable[Pause], hours: Hours, now: float, condition: str = ""
) -> Closed | None:
    """Return why no work of `profile` may begin at `now` (Unix seconds), or None if it may.

    `condition` is a sentence on why this machine may not work. The reason lists pauses first, then the
    schedule, then the condition. The strictest of them decides what happens to running work.
    """
    zone = hours.schedule.zone
    closures = [
        Closed(pause_in_words(pause, now, hours.schedule), pause.running, pause.until)
        for pause in pauses
        if pause.applies_to(profile, now)
    ]
    if not hours.schedule.open_at(now):
        opens = hours.schedule.next_change(now)
        when = f" It opens {local_moment(opens, now, zone)}." if opens is not None else ""
        reason = f"Outside the hours of schedule.windows.{when}"
        closures.append(Closed(reason, hours.at_end, opens))
    if condition:
        closures.append(Closed(condition, hours.at_end))
    if not closures:
        return None
    ends = [each.until for each in closures]
    until = None if None in ends else max(end for end in ends if end is not None)
    strictest = max((each.running for each in closures), key=MILDEST_FIRST.index)
    return Closed(" ".join(each.reason for each in closures), strictest, until)


def pause_in_words(pause: Pause, now: float, schedule: Schedule) -> str:
    what = f"Profile {pause.profile} is paused" if pause.profile else "Paused"
    who = f" by {pause.by}" if pause.by else ""
    when = "" if pause.until is None else f" until {local_moment(pause.until, now, schedule.zone)}"
    return f"{what}{who}{when}; `hevcq resume` ends it."


def local_moment(at: float, now: float, zone: tzinfo | None = None) -> str:
    """Return a moment in local time: `22:30` today, `Mon 22:30` within six days, else with its date."""
    then, today = datetime.fromtimestamp(at, zone), datetime.fromtimestamp(now, zone)
    if then.date() == today.date():
        return f"{then:%H:%M}"
    near = 0 < at - now < 6 * 86400
    return f"{then:%a %H:%M}" if near else f"{then:%Y-%m-%d %H:%M}"
