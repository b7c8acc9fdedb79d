"""Implement the ledger port in SQLite: each call is one transaction."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hevcq.backends.sql import statements as sql
from hevcq.backends.sql.statements import conditions, job_rows
from hevcq.domain.job import (
    Change,
    JobRecord,
    JobState,
    Phase,
    Progress,
    RenditionRef,
    Source,
    Split,
    SubjobOf,
    job_id,
    reopened,
    subjob_id,
)
from hevcq.domain.schedule import Pause, RunningWork
from hevcq.domain.verdict import FailureClass
from hevcq.ports.ledger import JobFilter, Ledger, ListOrder, Remembered
from hevcq.sql.database import Connection, Database
from hevcq.util.clock import Clock

READ_EVERY_S = 0.25
"""A read is one lookup in a table of few rows, so a worker may do it often."""
NAMES = {"suspected_worker_faults": "doubts", "do_not_split_reason": "whole"}
"""Columns that are not called as the fields of a record."""
COLUMNS = sql.COLUMNS.split(", ")
PLAIN = (
    "job_id", "profile", "state", "fence", "failures", "crashes", "owner", "lease_until", "reason",
    "failure_class", "created_at", "updated_at", "started_at", "finished_at", "cpu_s",
    "certificate_sha256",
)  # fmt: skip
SOURCE = ("bucket", "key", "version", "size")
PROGRESS = ("phase", "percent", "speed", "eta_s")
RENDITION = (
    "rendition_key", "rendition_size", "rendition_sha256", "certificate_key", "target", "verified",
)  # fmt: skip


def job_record(row: tuple[Any, ...]) -> JobRecord:
    """Return the record of a row selected as COLUMNS."""
    held = dict(zip(COLUMNS, row, strict=True))
    progress = made = part = None
    if held["phase"] is not None:
        progress = Progress.model_validate({name: held[name] for name in PROGRESS})
    if held["rendition_key"] is not None:
        key, size, sha256, certificate, target, verified = (held[name] for name in RENDITION)
        made = RenditionRef(
            key=key,
            size=size,
            sha256=sha256,
            certificate_key=certificate,
            certificate_sha256=held["certificate_sha256"],
            notices=tuple(json.loads(held["notices"])),
            target=target,
            verified=verified,
        )
    if held["parent"]:
        part = SubjobOf(
            job_id=held["parent"],
            split=held["part_split"],
            chunk=held["chunk"],
            frames=held["frames"],
        )
    return JobRecord(
        source=Source.model_validate({name: held[name] for name in SOURCE}),
        progress=progress,
        rendition=made,
        split=Split.model_validate_json(held["split"]) if held["split"] else None,
        subjob=part,
        suspected_worker_faults=held["doubts"],
        do_not_split_reason=held["whole"],
        **{name: held[name] for name in PLAIN},
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


def change_job(connection: Connection, job_id: str, change: Change) -> bool:
    """Make a change within the caller's transaction; return False if its conditions do not hold."""
    columns = _columns(change.to)
    added = [
        f"{NAMES.get(name, name)} = {NAMES.get(name, name)} + {more}"
        for name, more in change.add.items()
    ]
    parts = ", ".join([*(f"{name} = :{name}" for name in columns), *added])
    states = ", ".join(f"'{state}'" for state in sorted(change.states))
    seen = "".join(f" AND {name} = :seen_{name}" for name in change.when)
    values = {f"seen_{name}": value for name, value in change.when.items()}
    values |= {"job_id": job_id, **columns}
    statement = f"UPDATE job SET {parts} WHERE job_id = :job_id AND state IN ({states}){seen}"  # noqa: S608 - names of fields
    if connection.execute(statement, values).rowcount != 1:
        return False
    if change.to.get("state") in {JobState.DONE, JobState.SKIPPED}:
        connection.execute(sql.DELETE_OBSOLETE_LETTERS, {"job_id": job_id})
    return True


def _columns(to: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that hold these fields of a record."""
    found: dict[str, Any] = {}
    for name, value in to.items():
        if name == "progress":
            found |= dict.fromkeys(PROGRESS) if value is None else value.model_dump()
        elif name == "rendition":
            found |= _rendition_columns(value)
        elif isinstance(value, Split):
            found[name] = value.model_dump_json()
        else:
            found[NAMES.get(name, name)] = value
    return found


def _rendition_columns(made: RenditionRef | None) -> dict[str, Any]:
    if made is None:
        return {**dict.fromkeys(RENDITION), "notices": "[]"}
    values = (made.key, made.size, made.sha256, made.certificate_key, made.target, made.verified)
    return {
        **dict(zip(RENDITION, values, strict=True)),
        "notices": json.dumps(made.notices),
        "certificate_sha256": made.certificate_sha256,
    }


def subjobs(connection: Connection, job_id: str) -> list[JobRecord]:
    """Return the subjobs of a SPLIT job, chunks in order and the join last; else an empty list."""
    job = find_job(connection, job_id)
    if job is None or job.state is not JobState.SPLIT or job.split is None:
        return []
    return [job_record(row) for row in connection.execute(sql.SUBJOBS, (job_id, job.split.name))]


def reopen(connection: Connection, job_id: str, who: str, why: str, now: float) -> bool:
    """Reopen a job within the caller's transaction; return False if it is not settled."""
    found = find_job(connection, job_id)
    change = None if found is None else reopened(found, who, why, now)
    if change is None or not change_job(connection, job_id, change):
        return False
    connection.execute(sql.FORGET_INTERRUPTIONS, (job_id,))
    return True


class SqlLedger(Ledger):
    """Store job states in a table. `dead` returns whether an owner is known to have ended."""

    orders = frozenset(ListOrder)
    searches = True
    pauses_read_every_s = READ_EVERY_S

    def __init__(
        self, database: Database, clock: Clock, *, dead: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._database = database
        self.clock = clock
        self._dead = dead

    def register(self, source: Source, profiles: list[str]) -> list[JobRecord]:
        now = self.clock.now()
        return self._database.write(
            lambda c: [ensured_job(c, source, profile, now) for profile in profiles]
        )

    def apply(self, job_id: str, change: Change, *, durable: bool = True) -> bool:
        """Run one UPDATE; whoever moves no job need not be alone."""
        alone = "state" in change.to
        return self._database.write(
            lambda c: change_job(c, job_id, change), durable=durable, alone=alone
        )

    def decide(
        self, job_id: str, decision: Callable[[JobRecord], Change | None], *, durable: bool = True
    ) -> bool:
        """Read and change the record in one transaction."""

        def work(connection: Connection) -> bool:
            found = find_job(connection, job_id)
            change = None if found is None else decision(found)
            return change is not None and change_job(connection, job_id, change)

        return self._database.write(work, durable=durable)

    def add_parts(self, job_id: str, change: Change, parts: Sequence[SubjobOf]) -> bool:
        """Move the job and insert its subjobs in one transaction."""

        def work(connection: Connection) -> bool:
            job = find_job(connection, job_id)
            if job is None or not change_job(connection, job_id, change):
                return False
            connection.execute(sql.DELETE_SUBJOBS, (job_id,))
            source, now = job.source, change.to["updated_at"]
            rows = [
                (
                    subjob_id(job_id, part.split, part.chunk),
                    *(source.bucket, source.key, source.version, source.size, job.profile),
                    *(job_id, part.split, part.chunk, part.frames, now, now),
                )
                for part in parts
            ]
            connection.executemany(sql.INSERT_SUBJOB, rows)
            return True

        return self._database.write(work)

    def has_ended(self, owner: str) -> bool:
        return self._dead(owner)

    def subjobs(self, job_id: str) -> list[JobRecord]:
        return self._database.read(lambda c: subjobs(c, job_id))

    def forget_subjobs(self, job_id: str) -> None:
        """Delete the subjobs, not durably: rows that a power cut restores are harmless."""
        self._database.change(sql.DELETE_SUBJOBS_UNLESS_SPLIT, {"job_id": job_id}, durable=False)

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        """Record the job's progress, but for a fetch: sources are linked, so it ends before it is read."""
        if progress.phase is not Phase.FETCH:
            super().progress(job_id, fence, progress)

    def reopen(self, job_id: str, *, who: str, why: str) -> bool:
        now = self.clock.now()
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
        values = (source_sha256, profile, revision, reason, self.clock.now())
        self._database.change(sql.REMEMBER, values)

    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        row = self._database.row(sql.RECALL, (source_sha256, profile, revision))
        return None if row is None else Remembered(*row)

    def pauses(self) -> tuple[Pause, ...]:
        return tuple(_pause(row) for row in self._database.rows(sql.PAUSES, (self.clock.now(),)))

    def pause(self, pause: Pause) -> None:
        row = (pause.profile, pause.by, pause.since, pause.until, pause.running.value)
        self._database.change(sql.SET_PAUSE, row)

    def resume(self, profile: str | None) -> tuple[Pause, ...]:
        now = self.clock.now()
        rows = self._database.write(lambda c: c.execute(sql.END_PAUSE, (profile,)).fetchall())
        ended = sorted((_pause(row) for row in rows), key=lambda pause: pause.profile)
        return tuple(pause for pause in ended if pause.until is None or now < pause.until)


def _pause(row: tuple[Any, ...]) -> Pause:
    profile, by, since, until, running = row
    return Pause(profile=profile, by=by, since=since, until=until, running=RunningWork(running))
