"""Bring the ends of a fleet's jobs into this machine's event log: the fleet itself keeps none."""

from __future__ import annotations

from dataclasses import replace

from hevcq.domain.job import SETTLED, JobRecord, JobState
from hevcq.domain.verdict import FailureClass
from hevcq.ports.event_log import Happened
from hevcq.ports.ledger import JobFilter, JobLedger
from hevcq.sqlite.event_log import EventLog
from hevcq.util.clock import Clock

READER = "ledger"
BUSY_S = 300.0
OVERLAP_S = 3600.0
"""Seconds read again each time: indexes lag, and clocks of workers differ."""
EVERY_S = 60.0
"""Least seconds between two looks: each costs queries."""
PAGE = 500


class LedgerGather:
    """Add an event for each job that ended since the last look; the first look takes all that are kept."""

    def __init__(self, log: EventLog, ledger: JobLedger, clock: Clock) -> None:
        self._log, self._ledger, self._clock = log, ledger, clock

    def step(self) -> int:
        """Look once, if it is time; return how many events were added. Raises StorageError, Unavailable."""
        now = self._clock.now()
        if now - self._log.reader(READER).sent_at < EVERY_S:
            return 0
        reader = self._log.begin(READER, BUSY_S)
        if reader is None:
            return 0
        since = reader.sent_at - OVERLAP_S if reader.sent_at else 0.0
        wanted = JobFilter(states=SETTLED, updated_after=since or None)
        found = sorted(map(_happened, self._ledger.jobs(wanted)), key=_at)
        added = 0
        for start in range(0, len(found), PAGE):
            added += self._log.add_missing(found[start : start + PAGE])
        self._log.end(replace(reader, sent_at=now))
        return added


def _at(happened: Happened) -> float:
    return happened.at


def _happened(job: JobRecord) -> Happened:
    names = {JobState.DONE: "job.done", JobState.SKIPPED: "job.skipped"}
    cancelled = job.failure_class is FailureClass.CANCELLED
    name = names.get(job.state, "job.cancelled" if cancelled else "job.failed")
    return Happened(
        name,
        job.finished_at or job.updated_at,
        job.job_id,
        job.profile,
        job.source.key,
        reason=job.reason,
        failure_class=job.failure_class.value if job.failure_class else "",
        before=job.source.size,
        after=job.rendition.size if job.rendition else None,
        cpu_s=job.cpu_s,
    )
