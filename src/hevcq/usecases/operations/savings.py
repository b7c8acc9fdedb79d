"""Sum up what renditions saved, by day."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from hevcq.domain.job import JobState
from hevcq.domain.profile import Profile
from hevcq.ports.ledger import JobFilter, JobLedger

DAYS = 30
MOST_JOBS = 20_000
"""Jobs read at most: a farm that ends more in a month shows the newest of them."""
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Savings:
    """Bytes of sources and of their renditions, and the bytes saved each day, oldest first.

    `complete` is whether every job of the time was read.
    """

    jobs: int
    before: int
    after: int
    by_day: tuple[tuple[date, int], ...]
    complete: bool = True

    @property
    def saved(self) -> int:
        """Bytes that the renditions are smaller by."""
        return self.before - self.after


def savings(
    ledger: JobLedger, profiles: Mapping[str, Profile], now: float, *, most: int = MOST_JOBS
) -> Savings:
    """Return the savings of the last DAYS days, of profiles that must save space.

    A rendition for streaming is made beside its source and saves nothing, so it isn't counted.
    Raises StorageError or Unavailable.
    """
    counted = {
        name for name, profile in profiles.items() if profile.gates.minimum_saving is not None
    }
    today = datetime.fromtimestamp(now, UTC).date()
    days = {today - timedelta(days=back): 0 for back in reversed(range(DAYS))}
    jobs = before = after = read = 0
    wanted = JobFilter(states=frozenset({JobState.DONE}), updated_after=now - DAYS * DAY_S)
    for job in itertools.islice(ledger.jobs(wanted), most):
        read += 1
        if job.rendition is None or job.profile not in counted:
            continue
        jobs, before, after = jobs + 1, before + job.source.size, after + job.rendition.size
        day = datetime.fromtimestamp(job.finished_at or job.updated_at, UTC).date()
        if day in days:
            days[day] += job.source.size - job.rendition.size
    return Savings(jobs, before, after, tuple(days.items()), read < most)
