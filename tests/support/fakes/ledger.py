"""A ledger in memory."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence

from hevcq.domain.job import (
    SETTLED,
    JobRecord,
    JobState,
    Progress,
    RenditionRef,
    Source,
    Split,
    SubjobOf,
    job_id,
    subjob_id,
)
from hevcq.domain.schedule import Pause
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence
from hevcq.ports.ledger import (
    AlreadySettled,
    AlreadySplit,
    Claim,
    Granted,
    Held,
    JobFilter,
    Ledger,
    Remembered,
)
from hevcq.util.clock import Clock

FREE = {"lease_until": 0.0, "owner": "", "progress": None}
"""What a record says once nobody holds it."""


class MemoryLedger(Ledger):
    """Job records in a dict; `history` lists (job id, state) of every transition, for tests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, JobRecord] = {}
        self._letters: set[str] = set()
        self._remembered: dict[tuple[str, str, str], Remembered] = {}
        self.history: list[tuple[str, JobState]] = []
        self.reopened: list[tuple[str, str, str]] = []
        self.paused: dict[str, Pause] = {}

    def pauses(self) -> tuple[Pause, ...]:
        now = self._clock.now()
        held = [self.paused[name] for name in sorted(self.paused)]
        return tuple(pause for pause in held if pause.until is None or now < pause.until)

    def pause(self, pause: Pause) -> None:
        self.paused[pause.profile] = pause

    def resume(self, profile: str | None) -> tuple[Pause, ...]:
        ended = tuple(p for p in self.pauses() if profile in (None, p.profile))
        gone = list(self.paused) if profile is None else [profile]
        for name in gone:
            self.paused.pop(name, None)
        return ended

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
        record = _with(record, {"updated_at": self._clock.now(), **changes})
        if "state" in changes:
            self.history.append((record.job_id, record.state))
        self._records[record.job_id] = record
        return record

    def claim(self, source: Source, profile: str, *, owner: str, lease_s: float) -> Claim:
        with self._lock:
            return self._claimed(self._registered(source, profile), owner, lease_s)

    def _claimed(self, record: JobRecord, owner: str, lease_s: float) -> Claim:
        now = self._clock.now()
        if record.state in SETTLED:
            return AlreadySettled(record)
        if record.state is JobState.SPLIT:
            return AlreadySplit(record)
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
        return Granted(
            record.fence, record.failures, record.crashes, record.suspected_worker_faults
        )

    def _mine(self, name: str, fence: int, *states: JobState) -> JobRecord:
        record, wanted = self._records.get(name), states or (JobState.RUNNING,)
        if record is None or record.state not in wanted or record.fence != fence:
            raise StaleFence(f"Job {name} is not running under fence {fence}.")
        return record

    def split(self, job_id: str, fence: int, split: Split, frames: Sequence[int]) -> None:
        with self._lock:
            record = self._mine(job_id, fence)
            self.forget_subjobs(job_id)
            chunks: list[tuple[int | None, int]] = list(enumerate(frames))
            for chunk, held in [*chunks, (None, 0)]:
                name = subjob_id(job_id, split.name, chunk)
                part = SubjobOf(job_id=job_id, split=split.name, chunk=chunk, frames=held)
                now = self._clock.now()
                self._records[name] = JobRecord(
                    job_id=name,
                    source=record.source,
                    profile=record.profile,
                    state=JobState.QUEUED,
                    subjob=part,
                    created_at=now,
                    updated_at=now,
                )
            freed = {"reason": "", "failure_class": None, **FREE}
            self._write(record, state=JobState.SPLIT, split=split, **freed)

    def mark_enqueued(self, job_id: str, split: str) -> None:
        with self._lock:
            record = self._records[job_id]
            if record.state is JobState.SPLIT and record.split and record.split.name == split:
                told = record.split.model_copy(update={"announced": True})
                self._write(record, split=told)

    def abandon_split(self, job_id: str, fence: int, reason: str) -> None:
        with self._lock:
            record = self._mine(job_id, fence, JobState.SPLIT)
            self._back(record, reason, split=None, do_not_split_reason=reason)

    def claim_subjob(self, subjob_id: str, *, owner: str, lease_s: float) -> Claim | None:
        with self._lock:
            record = self._records.get(subjob_id)
            return None if record is None else self._claimed(record, owner, lease_s)

    def subjobs(self, job_id: str) -> list[JobRecord]:
        with self._lock:
            record = self._records.get(job_id)
            if record is None or record.state is not JobState.SPLIT or record.split is None:
                return []
            wanted: list[int | None] = [*range(record.split.chunks), None]
            return [self._records[subjob_id(job_id, record.split.name, n)] for n in wanted]

    def forget_subjobs(self, job_id: str) -> None:
        with self._lock:
            job = self._records.get(job_id)
            if job is not None and job.state is JobState.SPLIT:
                return
            for name, record in list(self._records.items()):
                if record.subjob is not None and record.subjob.job_id == job_id:
                    del self._records[name]

    def renew(self, job_id: str, fence: int, *, lease_s: float) -> None:
        with self._lock:
            self._write(self._mine(job_id, fence), lease_until=self._clock.now() + lease_s)

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        with self._lock:
            self._write(self._mine(job_id, fence), progress=progress)

    def certify(self, job_id: str, fence: int, certificate_sha256: str) -> None:
        with self._lock:
            record = self._mine(job_id, fence, JobState.RUNNING, JobState.SPLIT)
            self._records[job_id] = _with(record, {"certificate_sha256": certificate_sha256})

    def complete(self, job_id: str, fence: int, rendition: RenditionRef, *, cpu_s: float) -> None:
        self._end(job_id, fence, JobState.DONE, rendition=rendition, cpu_s=cpu_s)

    def skip(self, job_id: str, fence: int, reason: str) -> None:
        self._end(job_id, fence, JobState.SKIPPED, reason=reason)

    def bury(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        self._end(job_id, fence, JobState.DEAD, reason=reason, failure_class=failure_class)

    def _end(self, name: str, fence: int, state: JobState, **changes: object) -> None:
        with self._lock:
            record = self._mine(name, fence, JobState.RUNNING, JobState.SPLIT)
            now = self._clock.now()
            changes = {"reason": "", "failure_class": None, **FREE, **changes}
            self._write(record, state=state, finished_at=now, **changes)

    def fail(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        with self._lock:
            record = self._mine(job_id, fence)
            self._back(record, reason, failure_class=failure_class, failures=record.failures + 1)

    def interrupt(
        self, job_id: str, fence: int, reason: str, *, suspected_worker_fault: bool = False
    ) -> None:
        with self._lock:
            record = self._mine(job_id, fence)
            self._back(
                record,
                reason,
                suspected_worker_faults=record.suspected_worker_faults + suspected_worker_fault,
            )

    def _back(self, record: JobRecord, reason: str, **changes: object) -> None:
        self._write(record, state=JobState.QUEUED, reason=reason, **FREE, **changes)

    def _bury(self, record: JobRecord, reason: str, failure_class: FailureClass) -> None:
        dead = {"state": JobState.DEAD, "reason": reason, "failure_class": failure_class}
        self._write(record, finished_at=self._clock.now(), **dead, **FREE)

    def bury_unclaimed(self, job_id: str, reason: str, failure_class: FailureClass) -> bool:
        with self._lock:
            record, now = self._records.get(job_id), self._clock.now()
            if record is None or record.state in SETTLED or record.state is JobState.SPLIT:
                return False
            if record.state is JobState.RUNNING and record.lease_until > now:
                return False
            self._bury(record, reason, failure_class)
            return True

    def cancel(self, job_id: str, reason: str) -> bool:
        with self._lock:
            record = self._records.get(job_id)
            if record is None or record.state in SETTLED or record.subjob is not None:
                return False
            self._bury(record, reason, FailureClass.CANCELLED)
            return True

    def reopen(self, job_id: str, *, who: str, why: str) -> bool:
        with self._lock:
            record = self._records.get(job_id)
            if record is None or record.state not in SETTLED:
                return False
            self.reopened.append((job_id, who, why))
            self._letters.discard(job_id)
            self._write(
                record,
                state=JobState.QUEUED,
                failures=0,
                crashes=0,
                suspected_worker_faults=0,
                reason=f"reopened by {who}: {why}",
                failure_class=None,
                rendition=None,
                finished_at=None,
                cpu_s=None,
                split=None,
                do_not_split_reason="",
            )
            return True

    def get(self, job_id: str) -> JobRecord | None:
        return self._records.get(job_id)

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        with self._lock:
            records = [r for r in self._records.values() if r.subjob is None]
        records.sort(key=lambda r: (-r.updated_at, r.job_id))
        if wanted.before is not None:
            at, last = wanted.before
            records = [r for r in records if (-r.updated_at, r.job_id) > (-at, last)]
        return (record for record in records if wanted.matches(record))

    def note_letter(self, job_id: str) -> None:
        with self._lock:
            record = self._records.get(job_id)
            if record is not None and record.state is JobState.DEAD:
                self._letters.add(job_id)

    def has_letter(self, job_id: str) -> bool:
        with self._lock:
            return job_id in self._letters

    def counts(self) -> dict[tuple[str, JobState], int]:
        with self._lock:
            jobs = [r for r in self._records.values() if r.subjob is None]
            return dict(Counter((r.profile, r.state) for r in jobs))

    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
        with self._lock:
            key = (source_sha256, profile, revision)
            self._remembered[key] = Remembered(reason, self._clock.now())

    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        with self._lock:
            return self._remembered.get((source_sha256, profile, revision))


def _with(record: JobRecord, changes: dict[str, object]) -> JobRecord:
    """Return `record.model_copy(update=changes)`, at a quarter of its cost: simulations write much."""
    made = JobRecord.__new__(JobRecord)
    for name, held in (
        ("__dict__", {**record.__dict__, **changes}),
        ("__pydantic_fields_set__", record.__pydantic_fields_set__),
        ("__pydantic_extra__", None),
        ("__pydantic_private__", None),
    ):
        object.__setattr__(made, name, held)
    return made
