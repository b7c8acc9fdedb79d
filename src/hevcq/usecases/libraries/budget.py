"""Decide whether a library may begin another encode: its schedule, and the hours of today.

The hours are read from the database, so a restart forgets nothing.
"""

from __future__ import annotations

from datetime import datetime

from hevcq.domain.job import SETTLED, JobRecord, JobState
from hevcq.domain.pause import moment
from hevcq.domain.schedule import Schedule
from hevcq.ports.backend import Ledger
from hevcq.ports.ledger import JobFilter
from hevcq.settings.libraries import Library
from hevcq.sqlite.catalog import Catalog
from hevcq.util.clock import Clock
from hevcq.util.text import printable

MEASURED_EVERY_S = 30.0
"""Seconds for which an answer counts: reading it costs a walk over the library's placements."""
HOUR_S = 3600.0


def midnight(now: float) -> float:
    """Return when the local day of `now` began (both wall seconds)."""
    here = datetime.fromtimestamp(now).astimezone()
    return here.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None).timestamp()


class Budget:
    """Schedule and budget of one library; call it for why nothing more may begin, or "".

    `timezone` is that of its schedule; empty: this machine's.
    """

    def __init__(
        self,
        library: Library,
        ledger: Ledger,
        catalog: Catalog,
        clock: Clock,
        timezone: str = "",
    ) -> None:
        self._library, self._ledger = library, ledger
        self._schedule = Schedule.parse(library.schedule, timezone)
        self._catalog, self._clock = catalog, clock
        self._answer, self._until = "", 0.0

    def __call__(self) -> str:
        """Return one sentence, or ""."""
        library, now = self._library, self._clock.monotonic()
        if not (library.schedule or library.max_hours_per_day):
            return ""
        if now >= self._until:
            self._answer, self._until = self._measured(), now + MEASURED_EVERY_S
        return self._answer

    def _measured(self) -> str:
        library, name = self._library, printable(self._library.name)
        now = self._clock.now()
        if not self._schedule.open_at(now):
            opens = self._schedule.next_change(now)
            when = f"; it opens {moment(opens, now, self._schedule.zone)}" if opens else ""
            return f"Library {name} may run only {', '.join(library.schedule)} (schedule){when}."
        most = library.max_hours_per_day
        if most and self.hours_today() >= most:
            return f"Library {name} has used its {most:g} h of today (max_hours_per_day)."
        return ""

    def hours_today(self) -> float:
        """Return the hours that this library's encodes took since midnight, running ones included."""
        now = self._clock.now()
        since = midnight(now)
        under = self._library.place_on_disk
        mine = {placement.job_id for placement in self._catalog.placements(under=under)}
        running = JobFilter(states=frozenset({JobState.RUNNING, JobState.SPLIT}))
        ended = JobFilter(states=SETTLED, updated_after=since)
        jobs = {job.job_id: job for each in (running, ended) for job in self._ledger.jobs(each)}
        return sum(_spent(job, since, now) for name, job in jobs.items() if name in mine) / HOUR_S


def _spent(job: JobRecord, since: float, now: float) -> float:
    """Return the seconds of a job's encode that are after `since`."""
    if job.started_at is None:
        return 0.0
    ended = job.finished_at if job.state in SETTLED and job.finished_at is not None else now
    return max(0.0, ended - max(since, job.started_at))
