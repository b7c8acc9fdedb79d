"""Count the time that this machine has lived through, because its clock alone deletes no original.

A board without a battery starts in 1970, and a typing error puts a clock 60 days ahead. The time that
the machine was up is certain: the kernel counts it. The time that it was off is known by the clock
only, so each start adds at most MAX_OFF_S of it. Unknown time does not count: an original is rather
kept longer than asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hevcq.library.replacement.journal import Record
from hevcq.library.replacement.retention import DAY_S
from hevcq.ports.catalog import Catalog, LivedTime
from hevcq.util.clock import EARLIEST, Clock

MAX_OFF_S = 3 * DAY_S
"""Seconds at most that a start of the machine adds for the time it was off."""
JUMP_S = DAY_S
"""Seconds by which the clock may differ from the time that passed while the machine was up."""


@dataclass(frozen=True, slots=True)
class Lived:
    """The seconds lived through so far, and what is wrong with the clock (a sentence, or "")."""

    total_s: float
    problem: str = ""


def advanced(before: LivedTime | None, seen: LivedTime) -> LivedTime:
    """Return `seen` with the total of `before` and what passed since; `seen.total_s` is ignored."""
    if before is None:
        return replace(seen, total_s=0.0)
    highest = max(before.highest_wall, seen.wall)
    if _same_start(before, seen):
        gained = seen.uptime_s - before.uptime_s
    else:
        off = seen.wall - before.highest_wall - seen.uptime_s
        gained = seen.uptime_s + min(max(0.0, off), MAX_OFF_S)
    return replace(seen, total_s=before.total_s + gained, highest_wall=highest)


def observe(catalog: Catalog, clock: Clock) -> Lived:
    """Record the time lived through until now, and return it."""
    now, lived = _lived(catalog, clock)
    catalog.record_lived(now)
    return lived


def measure(catalog: Catalog, clock: Clock) -> Lived:
    """Return what `observe` would, and record nothing."""
    return _lived(catalog, clock)[1]


def _lived(catalog: Catalog, clock: Clock) -> tuple[LivedTime, Lived]:
    before, wall = catalog.lived(), clock.now()
    now = advanced(before, LivedTime(0.0, wall, wall, clock.uptime(), clock.boot()))
    return now, Lived(now.total_s, _problem(before, now))


def note_kept(catalog: Catalog, clock: Clock, job_id: str) -> None:
    """Record that the original of a job is kept from now on."""
    catalog.record_kept(job_id, observe(catalog, clock).total_s)


def kept_s(catalog: Catalog, lived: Lived, record: Record) -> float:
    """Return for how many seconds an original has been kept, as far as this machine has seen.

    One that this data folder does not know is kept from now on. While the clock is wrong, none has
    been kept for any time.
    """
    since = catalog.kept_since(record.job_id)
    if since is None:
        catalog.record_kept(record.job_id, lived.total_s)
        return 0.0
    return 0.0 if lived.problem else lived.total_s - since


def _same_start(before: LivedTime, seen: LivedTime) -> bool:
    """Return whether the machine was not started between; without an id of the start, perhaps.

    Then its uptime grew, and the difference is at most what passed.
    """
    return before.boot == seen.boot and seen.uptime_s >= before.uptime_s


def _problem(before: LivedTime | None, now: LivedTime) -> str:
    remedy = "Set it, e.g. with NTP; until then no kept original is deleted."
    if now.wall < EARLIEST:
        day = datetime.fromtimestamp(max(0.0, now.wall), UTC).strftime("%Y-%m-%d")
        return f"The clock of this machine is wrong: it says {day}. {remedy}"
    if before is not None and _same_start(before, now):
        jump = (now.wall - before.wall) - (now.uptime_s - before.uptime_s)
        if abs(jump) > JUMP_S:
            way = "forward" if jump > 0 else "back"
            days = abs(jump) / DAY_S
            return (
                f"The clock of this machine was set {way} by {days:.0f} days since the last run, so this"
                " run deletes no kept original. If the clock is wrong, set it."
            )
    return ""
