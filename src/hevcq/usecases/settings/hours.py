"""A week's hours as a grid of days and hours, and as the windows that the settings file holds."""

from collections.abc import Sequence, Set

from hevcq.domain.schedule import DAYS, Schedule

WEEK = 7 * 24
Hour = int
"""An hour of the week: 0 is Monday from 00:00 to 01:00."""


def hours_of(windows: Sequence[str]) -> Set[Hour] | None:
    """Return the open hours of the week; None if a window begins or ends within an hour.

    Raises ValueError for what is no window.
    """
    found = set[Hour]()
    for window in Schedule.parse(windows).windows:
        if window.start % 60 or window.end % 60:
            return None
        for day in window.days:
            found |= {
                (day * 24 + hour) % WEEK for hour in range(window.start // 60, window.end // 60)
            }
    return found if windows else set(range(WEEK))


def windows_of(hours: Set[Hour]) -> list[str]:
    """Return the windows of these open hours; the whole week is none, which is always.

    Raises ValueError without an hour: no window would mean always, too.
    """
    if not hours:
        raise ValueError("must have an hour; to stop all work, pause it on the board")
    if len(hours) == WEEK:
        return []
    days_of: dict[tuple[int, int], list[int]] = {}
    for opens in sorted(hour for hour in hours if (hour - 1) % WEEK not in hours):
        closes = next(hour for hour in range(opens + 1, opens + WEEK) if hour % WEEK not in hours)
        at = opens
        while at < closes:
            first, left = at % 24, closes - at
            part = left if left < 24 else 24 - first  # one night is one window
            days_of.setdefault((first, first + part), []).append(at // 24 % 7)
            at += part
    return [
        f"{_days(sorted(days))} {first:02}:00-{last if last <= 24 else last - 24:02}:00"
        for (first, last), days in days_of.items()
    ]


def _days(days: Sequence[int]) -> str:
    names = [name.capitalize() for name in DAYS]
    if len(days) > 2 and days[-1] - days[0] == len(days) - 1:
        return f"{names[days[0]]}-{names[days[-1]]}"
    return ",".join(names[day] for day in days)
