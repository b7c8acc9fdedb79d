"""Schedules: weekly windows of local time in which work may run, as instants.

At a change of the clock a window never opens twice: of an hour that occurs twice its times are those of
the first one, and a time that does not exist is as long after the change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HORIZON_DAYS = 9
"""Days around a moment in which its schedule is laid out: more than its week, so that a change
within the week is seen, and the longest run of touching windows is told from one without an end."""
WINDOW = re.compile(r"^(?:(?P<days>[a-z][a-z,\-]*) +)?(?P<start>\S+?)-(?P<end>\S+)$")
TIME = re.compile(r"^(\d{1,2}):(\d{2})$")
EXAMPLE = 'for example "Mon-Fri 22:00-06:30", "Sat,Sun 00:00-24:00" or "22:00-06:00"'


@dataclass(frozen=True, slots=True)
class Window:
    """A span of local time on some weekdays (0 is Monday), in minutes of the day that it starts on.

    `end` is more than `start` and may lie in the next day, up to a day later.
    """

    days: frozenset[int]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Weekly windows in a time zone; without windows it is always open.

    `zone` None is the local time of this machine.
    """

    windows: tuple[Window, ...] = ()
    zone: tzinfo | None = None

    @classmethod
    def parse(cls, windows: Sequence[str], timezone: str = "") -> Schedule:
        """Return the schedule of these windows; an empty `timezone` is this machine's local time.

        Raises ValueError with one sentence.
        """
        return cls(tuple(_window(text) for text in windows), _zone(timezone))

    def open_at(self, now: float) -> bool:
        """Return whether work may run at `now` (Unix seconds)."""
        return not self.windows or any(start <= now < end for start, end in self._spans(now))

    def next_change(self, now: float) -> float | None:
        """Return when the schedule next opens or closes after `now`, in Unix seconds.

        None if it never does.
        """
        if not self.windows:
            return None
        for start, end in self._spans(now):
            if start > now:
                return start
            if end > now:
                return end if end <= now + (HORIZON_DAYS - 1) * 86400 else None
        return None

    def _spans(self, now: float) -> list[tuple[float, float]]:
        """Return the open spans around `now` in order; those that touch are one."""
        merged: list[tuple[float, float]] = []
        for start, end in sorted(self._laid_out(datetime.fromtimestamp(now, self.zone).date())):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def _laid_out(self, today: date) -> Iterator[tuple[float, float]]:
        for offset in range(-2, HORIZON_DAYS + 1):
            day = today + timedelta(days=offset)
            for window in self.windows:
                if day.weekday() not in window.days:
                    continue
                start, end = (_instant(day, at, self.zone) for at in (window.start, window.end))
                if start < end:
                    yield start, end


def _instant(day: date, minutes: int, zone: tzinfo | None) -> float:
    day, minute = day + timedelta(days=minutes // 1440), minutes % 1440
    return datetime.combine(day, time(minute // 60, minute % 60), zone).timestamp()


def _window(text: str) -> Window:
    found = WINDOW.match(" ".join(text.lower().split()))
    if found is None:
        raise ValueError(f"{text!r} is not a window of time; write {EXAMPLE}")
    days = _days(found["days"], text)
    start, end = _minutes(found["start"], text), _minutes(found["end"], text)
    if start in (end, 1440):
        raise ValueError(f"{text!r} starts when it ends; a whole day is written 00:00-24:00")
    return Window(days, start, end if end > start else end + 1440)


def _minutes(text: str, window: str) -> int:
    found = TIME.match(text)
    hours, minutes = (int(found[1]), int(found[2])) if found else (99, 0)
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
        raise ValueError(
            f"{name!r} is not a time zone that this machine knows; write one like Europe/Berlin"
        ) from None
