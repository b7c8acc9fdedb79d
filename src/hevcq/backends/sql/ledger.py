"""Implement the ledger port in SQLite: each call is one transaction."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hevcq.backends.sql import statements as sql
from hevcq.backends.sql.statements import conditions, job_rows
from hevcq.domain.job import (
    SETTLED,
    JobRecord,
    JobState,
    Phase,
    Progress,
    RenditionRef,
    Source,
    Split,
    SubjobOf,
    job_id,
    subjob_id,
)
from hevcq.domain.schedule import Pause, RunningWork
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
    ListOrder,
    Remembered,
)
from hevcq.sql.database import Connection, Database
from hevcq.util.clock import Clock

READ_EVERY_S = 0.25
"""A read is one lookup in a table of few rows, so a worker may do it often."""
DURABLE_PHASES = frozenset({Phase.ENCODE, Phase.JOIN})
"""Phases whose start is stored durably, so that a crash of the machine during them is counted."""


def job_record(row: tuple[Any, ...]) -> JobRecord:
    """Return the record of a row selected as COLUMNS."""
    (name, bucket, key, version, size, profile, state, fence, failures, crashes) = row[:10]
    (owner, lease_until, phase, percent, speed, eta_s, reason, failure_class) = row[10:18]
    (created_at, updated_at, started_at, finished_at, cpu_s) = row[22:27]
    (split, whole, parent, part_split, chunk, frames, suspected_worker_faults) = row[27:34]
    notices, certificate_sha256 = row[34:36]
    progress = part = None
    if parent:
        part = SubjobOf(job_id=parent, split=part_split, chunk=chunk, frames=frames)
    if phase is not None:
        progress = Progress(phase=Phase(phase), percent=percent, speed=speed, eta_s=eta_s)
    return JobRecord(
        job_id=name,
        source=Source(bucket=bucket, key=key, version=version, size=size),
        profile=profile,
        state=JobState(state),
        fence=fence,
        failures=failures,
        crashes=crashes,
        suspected_worker_faults=suspected_worker_faults,
        owner=owner,
        lease_until=lease_until,
        progress=progress,
        reason=reason,
        failure_class=FailureClass(failure_class) if failure_class else None,
        rendition=_rendition((*row[18:22], certificate_sha256, *row[36:38]), notices),
        created_at=created_at,
        updated_at=updated_at,
        started_at=started_at,
        finished_at=finished_at,
        cpu_s=cpu_s,
        split=Split.model_validate_json(split) if split else None,
        subjob=part,
        do_not_split_reason=whole,
        certificate_sha256=certificate_sha256,
    )


def _rendition(made: tuple[Any, ...], notices: str) -> RenditionRef | None:
    key, size, sha256, certificate, certificate_sha256, target, verified = made
    if key is None:
        return None
    return RenditionRef(
        key=key,
        size=size,
        sha256=sha256,
        certificate_key=certificate,
        certificate_sha256=certificate_sha256,
        notices=tuple(json.loads(notices)),
        target=target,
        verified=verified,
    )


def find_job(connection: Connection, name: str) -> JobRecord | None:
    """Return the record of a job id, or None if it is unknown."""
    row = connection.execute(sql.BY_ID, (name,)).fetchone()
    return None if row is None else job_record(row)


def insert_job(connection: Connection, source: Source, profile: str, now: float) -> bool:
    """Insert a QUEUED job unless it exists; return whether it was inserted. `now` is Unix time."""
    name = job_id(source, profile)
    values = (name, source.bucket, source.key, source.version, source.size, profile, now, now)
    return connection.execute(sql.INSERT_JOB, values).rowcount == 1


def ensured_job(connection: Connection, source: Source, profile: str, now: float) -> JobRecord:
    """Return the job's record, inserting it first if it is unknown."""
    name = job_id(source, profile)
    found = find_job(connection, name)
    if found is None:
        insert_job(connection, source, profile, now)
        found = find_job(connection, name)
    assert found is not None
    return found


def split_job(
    connection: Connection, job: JobRecord, made: Split, frames: Sequence[int], now: float
) -> bool:
    """Split a job and insert its subjobs; return False unless it is RUNNING under the fence of `job`."""
    values = {
        "split": made.model_dump_json(),
        "job_id": job.job_id,
        "fence": job.fence,
        "now": now,
    }
    if connection.execute(sql.SPLIT, values).rowcount != 1:
        return False
    connection.execute(sql.DELETE_SUBJOBS, (job.job_id,))
    chunks: list[tuple[int | None, int]] = [*enumerate(frames), (None, 0)]
    source = job.source
    rows = [
        (
            subjob_id(job.job_id, made.name, chunk),
            *(source.bucket, source.key, source.version, source.size, job.profile),
            *(job.job_id, made.name, chunk, held, now, now),
        )
        for chunk, held in chunks
    ]
    connection.executemany(sql.INSERT_SUBJOB, rows)
    return True


def subjobs(connection: Connection, job_id: str) -> list[JobRecord]:
    """Return the subjobs of a SPLIT job, chunks in order and the join last; else an empty list."""
    job = find_job(connection, job_id)
    if job is None or job.state is not JobState.SPLIT or job.split is None:
        return []
    return [job_record(row) for row in connection.execute(sql.SUBJOBS, (job_id, job.split.name))]


def reopen(connection: Connection, job_id: str, who: str, why: str, now: float) -> bool:
    """Reopen a job within the caller's transaction; return False if it is not settled."""
    values = {"job_id": job_id, "who": who, "why": why, "now": now}
    return connection.execute(sql.REOPEN, values).rowcount == 1


class SqlLedger(Ledger):
    """Store job states in a table. `dead` returns whether an owner is known to have ended."""

    orders = frozenset(ListOrder)
    searches = True
    pauses_read_every_s = READ_EVERY_S

    def __init__(
        self, database: Database, clock: Clock, *, dead: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._database = database
        self._clock = clock
        self._dead = dead

    def register(self, source: Source, profiles: list[str]) -> list[JobRecord]:
        now = self._clock.now()
        return self._database.write(
            lambda c: [ensured_job(c, source, profile, now) for profile in profiles]
        )

    def claim(self, source: Source, profile: str, *, owner: str, lease_s: float) -> Claim:
        """Grant the next fence in one transaction, without an fsync of its own.

        The claim survives a kill of every process. A power cut may undo it, but never after
        something was published under it: a publication is a durable commit to the same log, which
        makes the claim durable too. So is the start of the encode (`progress`).
        """

        def work(connection: Connection) -> Claim:
            found = ensured_job(connection, source, profile, self._clock.now())
            return self._granted(connection, found, owner, lease_s)

        return self._database.write(work, durable=False)

    def _granted(
        self, connection: Connection, found: JobRecord, owner: str, lease_s: float
    ) -> Claim:
        if found.state in SETTLED:
            return AlreadySettled(found)
        if found.state is JobState.SPLIT:
            return AlreadySplit(found)
        now = self._clock.now()
        values = {
            "job_id": found.job_id,
            "owner": owner,
            "now": now,
            "until": now + lease_s,
            "dead": self._dead_owner(found),
        }
        row = connection.execute(sql.GRANT, values).fetchone()
        return Held(found.lease_until) if row is None else Granted(*row)

    def claim_subjob(self, subjob_id: str, *, owner: str, lease_s: float) -> Claim | None:

        def work(connection: Connection) -> Claim | None:
            found = find_job(connection, subjob_id)
            return None if found is None else self._granted(connection, found, owner, lease_s)

        return self._database.write(work, durable=False)

    def split(self, job_id: str, fence: int, split: Split, frames: Sequence[int]) -> None:
        """Move the job from RUNNING to SPLIT and insert its subjobs in one transaction."""
        now = self._clock.now()

        def work(connection: Connection) -> bool:
            found = find_job(connection, job_id)
            if found is None or found.fence != fence:
                return False
            return split_job(connection, found, split, frames, now)

        if not self._database.write(work):
            raise StaleFence(f"The job {job_id} is no longer running under fence {fence}.")

    def mark_enqueued(self, job_id: str, split: str) -> None:
        self._database.change(sql.MARK_ENQUEUED, (job_id, split))

    def abandon_split(self, job_id: str, fence: int, reason: str) -> None:
        self._transition(sql.ABANDON_SPLIT, job_id, fence, {"reason": reason})

    def subjobs(self, job_id: str) -> list[JobRecord]:
        return self._database.read(lambda c: subjobs(c, job_id))

    def forget_subjobs(self, job_id: str) -> None:
        """Delete the subjobs, not durably: rows that a power cut restores are harmless."""
        self._database.change(sql.DELETE_SUBJOBS_UNLESS_SPLIT, {"job_id": job_id}, durable=False)

    def _dead_owner(self, found: JobRecord) -> str | None:
        running = found.state is JobState.RUNNING
        return found.owner if running and self._dead(found.owner) else None

    def renew(self, job_id: str, fence: int, *, lease_s: float) -> None:
        """Extend the lease, not durably: after a power cut the lease has expired anyway."""
        self._transition(
            sql.RENEW, job_id, fence, {"until": self._clock.now() + lease_s}, durable=False
        )

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        """Record the job's progress, with an fsync only at the start of the work.

        A fetch is not recorded: sources are linked, not copied, so it ends before it could be read.
        """
        if progress.phase is Phase.FETCH:
            return
        durable = progress.percent == 0.0 and progress.phase in DURABLE_PHASES
        self._transition(sql.PROGRESS, job_id, fence, progress.model_dump(), durable=durable)

    def certify(self, job_id: str, fence: int, certificate_sha256: str) -> None:
        """Record the digest without an fsync: the publication that follows makes it durable."""
        self._transition(
            sql.CERTIFY, job_id, fence, {"certificate": certificate_sha256}, durable=False
        )

    def complete(self, job_id: str, fence: int, rendition: RenditionRef, *, cpu_s: float) -> None:
        values = {
            "key": rendition.key,
            "size": rendition.size,
            "sha256": rendition.sha256,
            "certificate": rendition.certificate_key,
            "certificate_sha256": rendition.certificate_sha256,
            "reason": "",
            "notices": json.dumps(rendition.notices),
            "target": rendition.target,
            "verified": rendition.verified,
            "cpu_s": cpu_s,
        }
        self._transition(sql.COMPLETE, job_id, fence, values)

    def skip(self, job_id: str, fence: int, reason: str) -> None:
        self._transition(sql.SKIP, job_id, fence, {"reason": reason})

    def fail(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        values = {"reason": reason, "class": failure_class, "counted": 1, "doubted": 0}
        self._transition(sql.REQUEUE, job_id, fence, values)

    def interrupt(
        self, job_id: str, fence: int, reason: str, *, suspected_worker_fault: bool = False
    ) -> None:
        values = {
            "reason": reason,
            "counted": 0,
            "doubted": int(suspected_worker_fault),
        }
        self._transition(sql.REQUEUE, job_id, fence, values)

    def bury(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        self._transition(sql.BURY, job_id, fence, {"reason": reason, "class": failure_class})

    def _transition(
        self,
        statement: str,
        job_id: str,
        fence: int,
        values: Mapping[str, Any],
        *,
        durable: bool = True,
    ) -> None:
        bound = {
            "class": None,
            **values,
            "job_id": job_id,
            "fence": fence,
            "now": self._clock.now(),
        }

        alone = statement not in {sql.RENEW, sql.PROGRESS, sql.CERTIFY}

        def work(connection: Connection) -> int:
            moved = connection.execute(statement, bound).rowcount
            if statement in {sql.COMPLETE, sql.SKIP}:
                connection.execute(sql.DELETE_OBSOLETE_LETTERS, bound)
            return moved

        if self._database.write(work, durable=durable, alone=alone) != 1:
            raise StaleFence(f"The job {job_id} is no longer running under fence {fence}.")

    def bury_unclaimed(self, job_id: str, reason: str, failure_class: FailureClass) -> bool:

        def work(connection: Connection) -> bool:
            found = find_job(connection, job_id)
            if found is None:
                return False
            values = {
                "job_id": job_id,
                "reason": reason,
                "class": failure_class,
                "now": self._clock.now(),
                "dead": self._dead_owner(found),
            }
            return connection.execute(sql.BURY_UNCLAIMED, values).rowcount == 1

        return self._database.write(work)

    def cancel(self, job_id: str, reason: str) -> bool:
        values = {
            "job_id": job_id,
            "reason": reason,
            "class": FailureClass.CANCELLED,
            "now": self._clock.now(),
        }
        return self._database.change(sql.CANCEL, values) == 1

    def reopen(self, job_id: str, *, who: str, why: str) -> bool:
        now = self._clock.now()
        return self._database.write(lambda c: reopen(c, job_id, who, why, now))

    def get(self, job_id: str) -> JobRecord | None:
        return self._database.read(lambda c: find_job(c, job_id))

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        """Page by what is sorted by and seq, with one index scan per state, and merge the pages.

        A job that changes during the listing may appear at its old position or not at all.
        """
        for row in job_rows(self._database, wanted):
            yield job_record(row[2:])

    def causes(self, wanted: JobFilter) -> dict[FailureClass | None, int]:
        found: Counter[FailureClass | None] = Counter()
        for state in wanted.states or [None]:
            where, bound = conditions(wanted, state)
            counted = (
                f"SELECT failure_class, COUNT(*) FROM job WHERE {where} GROUP BY failure_class"  # noqa: S608
            )
            for name, count in self._database.rows(counted, bound):
                found[FailureClass(name) if name else None] += count
        return found

    def note_letter(self, job_id: str) -> None:
        """Do nothing: the letters are rows beside the jobs."""

    def has_letter(self, job_id: str) -> bool:
        return self._database.row(sql.HAS_LETTER, (job_id,)) is not None

    def counts(self) -> dict[tuple[str, JobState], int]:
        rows = self._database.rows(sql.COUNTS)
        return {(profile, JobState(state)): count for profile, state, count in rows}

    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
        values = (source_sha256, profile, revision, reason, self._clock.now())
        self._database.change(sql.REMEMBER, values)

    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        row = self._database.row(sql.RECALL, (source_sha256, profile, revision))
        return None if row is None else Remembered(*row)

    def pauses(self) -> tuple[Pause, ...]:
        return tuple(_pause(row) for row in self._database.rows(sql.PAUSES, (self._clock.now(),)))

    def pause(self, pause: Pause) -> None:
        row = (pause.profile, pause.by, pause.since, pause.until, pause.running.value)
        self._database.change(sql.SET_PAUSE, row)

    def resume(self, profile: str | None) -> tuple[Pause, ...]:
        now = self._clock.now()
        rows = self._database.write(lambda c: c.execute(sql.END_PAUSE, (profile,)).fetchall())
        ended = sorted((_pause(row) for row in rows), key=lambda pause: pause.profile)
        return tuple(pause for pause in ended if pause.until is None or now < pause.until)


def _pause(row: tuple[Any, ...]) -> Pause:
    profile, by, since, until, running = row
    return Pause(profile=profile, by=by, since=since, until=until, running=RunningWork(running))
