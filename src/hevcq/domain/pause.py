"""Pauses: why no work may begin now, until when, and what becomes of work that runs."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from enum import StrEnum

from pydantic import Field

from hevcq.domain.model import Frozen
from hevcq.domain.schedule import Schedule


class RunningWork(StrEnum):
    """What becomes of running work while no new work may begin, the mildest first.

    FINISH: a video that has begun is finished, its remaining chunks too. BORDER: the encodes that
    run now end, and no further chunk begins. FREEZE: their programs stand still and go on later.
    STOP: they are stopped and returned to their queue.
    """

    FINISH = "finish"
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

    def holds(self, profile: str, now: float) -> bool:
        ended = self.until is not None and now >= self.until
        return not ended and self.profile in ("", profile)


@dataclass(frozen=True, slots=True)
class Closed:
    """Why no work of a profile may begin, and until when (Unix seconds), where that is known."""

    reason: str
    running: RunningWork
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Hours:
    """When this machine may work, and what becomes of running work at the end of a window."""

    schedule: Schedule = field(default_factory=Schedule)
    at_end: RunningWork = RunningWork.BORDER


def closed(
    profile: str, pauses: Iterable[Pause], hours: Hours, now: float, condition: str = ""
) -> Closed | None:
    """Return why no work of `profile` may begin at `now` (Unix seconds), or None if it may.

    `condition` is a sentence about this machine that forbids work. If several things do, the reason
    is a person's pause before the schedule before the condition, and the strictest decides what
    becomes of running work.
    """
    zone = hours.schedule.zone
    found = [
        Closed(in_words(pause, now, hours.schedule), pause.running, pause.until)
        for pause in pauses
        if pause.holds(profile, now)
    ]
    if not hours.schedule.open_at(now):
        opens = hours.schedule.next_change(now)
        when = f" It opens {moment(opens, now, zone)}." if opens is not None else ""
        found.append(Closed(f"Outside the hours of schedule.windows.{when}", hours.at_end, opens))
    if condition:
        found.append(Closed(condition, hours.at_end))
    if not found:
        return None
    ends = [each.until for each in found]
    until = None if None in ends else max(end for end in ends if end is not None)
    strictest = max((each.running for each in found), key=MILDEST_FIRST.index)
    return Closed(" ".join(each.reason for each in found), strictest, until)


def in_words(pause: Pause, now: float, schedule: Schedule) -> str:
    what = f"Profile {pause.profile} is paused" if pause.profile else "Paused"
    who = f" by {pause.by}" if pause.by else ""
    when = "" if pause.until is None else f" until {moment(pause.until, now, schedule.zone)}"
    return f"{what}{who}{when}; `hevcq resume` ends it."


def moment(at: float, now: float, zone: tzinfo | None = None) -> str:
    """Return a moment in local time: `22:30` today, `Mon 22:30` within a week, else with its date."""
    then, today = datetime.fromtimestamp(at, zone), datetime.fromtimestamp(now, zone)
    if then.date() == today.date():
        return f"{then:%H:%M}"
    near = 0 < at - now < 6 * 86400
    return f"{then:%a %H:%M}" if near else f"{then:%Y-%m-%d %H:%M}"
