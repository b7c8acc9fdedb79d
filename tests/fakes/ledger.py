"""A ledger in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from hevcq.clock import Clock
from hevcq.domain.job import (
    SETTLED,
    JobRecord,
    JobState,
    Progress,
    RenditionRef,
    Source,
    job_id,
)
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence
from hevcq.ports.ledger import (
    AlreadySettled,
    Claim,
    Granted,
    Held,
    JobFilter,
    Ledger,
    Remembered,
)


class MemoryLedger(Ledger):
    """Job records in a dict; `history` lists (job id, state) of every transition, for tests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, JobRecord] = {}
        self._remembered: dict[tuple[str, str, str], Remembered] = {}
        self.history: list[tuple[str, JobState]] = []
        self.reopened: list[tuple[str, str, str]] = []

    def register(self, source: Source, profiles: list[str]) -> list[JobRecord]:
        with self._lock:
            return [self._registered(source, profile) for profile in profiles]

    def _registered(self, source: Source, profile: str) -> JobRecord:
        name, now = job_id(source, profile), self._clock.now()
        if name not in self._records:
            self._records[name] = JobRecord(
                job_id=name,
                source=source,
                profile=profile,
                state=JobState.QUEUED,
                created_at=now,
                updated_at=now,
            )
        return self._records[name]

    def _write(self, record: JobRecord, **changes: object) -> JobRecord:
        record = record.model_copy(update={"updated_at": self._clock.now(), **changes})
        if "state" in changes:
            self.history.append((record.job_id, record.state))
        self._records[record.job_id] = record
        return record

    def claim(self, source: Source, profile: str, *, owner: str, lease_s: float) -> Claim:
        with self._lock:
            record, now = self._registered(source, profile), self._clock.now()
            if record.state in SETTLED:
                return AlreadySettled(record)
            running = record.state is JobState.RUNNING
            live = running and record.lease_until > now
            if live and record.owner != owner:
                return Held(record.lease_until)
            record = self._write(
                record,
                state=JobState.RUNNING,
                fence=record.fence + 1,
                crashes=record.crashes + (1 if running and not live else 0),
                owner=owner,
                lease_until=now + lease_s,
                started_at=now,
                progress=None,
            )
            return Granted(record.fence, record.failures, record.crashes)

    def _mine(self, name: str, fence: int) -> JobRecord:
        record = self._records.get(name)
        if record is None or record.state is not JobState.RUNNING or record.fence != fence:
            raise StaleFence(f"Job {name} is not running under fence {fence}.")
        return record

    def renew(self, job_id: str, fence: int, *, lease_s: float) -> None:
        with self._lock:
            self._write(self._mine(job_id, fence), lease_until=self._clock.now() + lease_s)

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        with self._lock:
            self._write(self._mine(job_id, fence), progress=progress)

    def complete(self, job_id: str, fence: int, rendition: RenditionRef, *, cpu_s: float) -> None:
        self._end(job_id, fence, JobState.DONE, rendition=rendition, cpu_s=cpu_s)

    def skip(self, job_id: str, fence: int, reason: str) -> None:
        self._end(job_id, fence, JobState.SKIPPED, reason=reason)

    def bury(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        self._end(job_id, fence, JobState.DEAD, reason=reason, failure_class=failure_class)

    def _end(self, name: str, fence: int, state: JobState, **changes: object) -> None:
        with self._lock:
            record, now = self._mine(name, fence), self._clock.now()
            changes = {"reason": "", "failure_class": None, **changes}
            self._write(
                record,
                state=state,
                finished_at=now,
                lease_until=0.0,
                owner="",
                progress=None,
                **changes,
            )

    def fail(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        with self._lock:
            record = self._mine(job_id, fence)
            self._back(record, reason, failure_class=failure_class, failures=record.failures + 1)

    def interrupt(self, job_id: str, fence: int, reason: str) -> None:
        with self._lock:
            self._back(self._mine(job_id, fence), reason)

    def _back(self, record: JobRecord, reason: str, **changes: object) -> None:
        self._write(
            record,
            state=JobState.QUEUED,
            reason=reason,
            lease_until=0.0,
            owner="",
            progress=None,
            **changes,
        )

    def bury_unclaimed(self, job_id: str, reason: str, failure_class: FailureClass) -> bool:
        with self._lock:
            record, now = self._records.get(job_id), self._clock.now()
            if record is None or record.state in SETTLED:
                return False
            if record.state is JobState.RUNNING and record.lease_until > now:
                return False
            self._write(
                record,
                state=JobState.DEAD,
                reason=reason,
                failure_class=failure_class,
                finished_at=now,
                lease_until=0.0,
                owner="",
                progress=None,
            )
            return True

    def reopen(self, job_id: str, *, who: str, why: str) -> bool:
        with self._lock:
            record = self._records.get(job_id)
            if record is None or record.state not in SETTLED:
                return False
            self.reopened.append((job_id, who, why))
            self._write(
                record,
                state=JobState.QUEUED,
                failures=0,
                crashes=0,
                reason=f"reopened by {who}: {why}",
                failure_class=None,
                rendition=None,
                finished_at=None,
                cpu_s=None,
            )
            return True

    def get(self, job_id: str) -> JobRecord | None:
        with self._lock:
            return self._records.get(job_id)

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        with self._lock:
            records = list(self._records.values())
        records.sort(key=lambda r: (-r.updated_at, r.job_id))
        return (record for record in records if _matches(record, wanted))

    def counts(self) -> dict[tuple[str, JobState], int]:
        with self._lock:
            return dict(Counter((r.profile, r.state) for r in self._records.values()))

    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
        with self._lock:
            key = (source_sha256, profile, revision)
            self._remembered[key] = Remembered(reason, self._clock.now())

    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        with self._lock:
            return self._remembered.get((source_sha256, profile, revision))


def _matches(record: JobRecord, wanted: JobFilter) -> bool:
    key = record.source.key
    return (
        (not wanted.states or record.state in wanted.states)
        and wanted.profile in (None, record.profile)
        and wanted.source_key in (None, key)
        and (wanted.key_prefix is None or key.startswith(wanted.key_prefix))
        and (wanted.updated_after is None or record.updated_at > wanted.updated_after)
    )
