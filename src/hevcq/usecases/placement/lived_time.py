"""Count the time that this machine has lived through, because its clock alone deletes no original.

A board without a battery starts in 1970, and a typing error puts a clock 60 days ahead. The time that
the machine was up is certain: the kernel counts it. The time that it was off is known by the clock
only, so each start adds at most MAX_OFF_S of it. Unknown time does not count: an original is rather
kept longer than asked.
"""

from dataclasses import replace

from hevcq.library.replacement.journal import Record
from hevcq.library.replacement.retention import DAY_S
from hevcq.ports.catalog import LivedTime
from hevcq.sql.catalog import Catalog
from hevcq.util.clock import Clock

MAX_OFF_S = 3 * DAY_S
"""Seconds at most that a start of the machine adds for the time it was off."""


def advanced(before: LivedTime | None, seen: LivedTime) -> LivedTime:
    """Return `seen` with the total of `before` and what passed since; `seen.total_s` is ignored."""
    if before is None:
        return replace(seen, total_s=0.0)
    # Without an id of the start the machine may have been started between; then its uptime grew, and
    # the difference is at most what passed.
    if before.boot == seen.boot and seen.uptime_s >= before.uptime_s:
        gained = seen.uptime_s - before.uptime_s
    else:
        off = seen.highest_wall - before.highest_wall - seen.uptime_s
        gained = seen.uptime_s + min(max(0.0, off), MAX_OFF_S)
    highest = max(before.highest_wall, seen.highest_wall)
    return replace(seen, total_s=before.total_s + gained, highest_wall=highest)


def lived_s(catalog: Catalog, clock: Clock) -> float:
    """Record and return the seconds lived through until now."""
    seen = LivedTime(0.0, clock.now(), clock.uptime(), clock.boot())
    now = advanced(catalog.lived(), seen)
    catalog.record_lived(now)
    return now.total_s


def note_kept(catalog: Catalog, clock: Clock, job_id: str) -> None:
    catalog.record_kept(job_id, lived_s(catalog, clock))


def kept_s(catalog: Catalog, lived: float, record: Record) -> float:
    """Return for how many seconds an original has been kept, as far as this machine has seen.

    One that this data folder does not know is kept from now on.
    """
    since = catalog.kept_since(record.job_id)
    if since is None:
        catalog.record_kept(record.job_id, lived)
        return 0.0
    return lived - since
