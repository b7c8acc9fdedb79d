"""Implement the ledger port in SQL: each call is one transaction."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hevcq.backends.sql import statements as sql
from hevcq.backends.sql.statements import filter_condition, job_rows
from hevcq.domain.job import (
    Change,
    JobRecord,
    JobState,
    Phase,
    Progress,
    Source,
    SubjobOf,
    decide_reopening,
    new_job,
    new_subjob,
)
from hevcq.domain.schedule import Pause, RunningWork
from hevcq.domain.verdict import FailureClass
from hevcq.ports.ledger import (
    JobFilter,
    Ledger,
    ListOrder,
    Remembered,
    read_record,
    stored_fields,
    subjob_ids,
)
from hevcq.sql.database import Connection, Database
from hevcq.util.clock import Clock

READ_EVERY_S = 0.25
"""Seconds between two reads of the pauses: each is one lookup in a small table."""
COLUMNS = sql.COLUMNS.split(", ")


def job_record(row: tuple[Any, ...]) -> JobRecord:
    """Return the record in a row of COLUMNS."""
    return read_record(dict(zip(COLUMNS, row, strict=True)))


def find_job(connection: Connection, name: str) -> JobRecord | None:
    """Return the record of a job id, or None if it is unknown."""
    row = connection.execute(sql.SELECT_JOB, (name,)).fetchone()
    return None if row is None else job_record(row)


def insert_job(connection: Connection, job: JobRecord) -> bool:
    """Insert the record of a new job or subjob unless it exists; return whether it was inserted."""
    parent = "" if job.subjob is None else job.subjob.job_id
    values = {**stored_fields(dict(job)), "parent": parent}
    return connection.execute(sql.INSERT_JOB, values).rowcount == 1


def ensure_job(connection: Connection, source: Source, profile: str, now: float) -> JobRecord:
    """Return the job's record, inserting it first if it is unknown. `now` is Unix time."""
    job = new_job(source, profile, now)
    insert_job(connection, job)
    record = find_job(connection, job.job_id)
    assert record is not None
    return record


def change_job(connection: Connection, job_id: str, change: Change) -> bool:
    """Apply a change within the caller's transaction; return False if its conditions do not hold."""
    columns = stored_fields(change.to)
    added = [f"{name} = {name} + {amount}" for name, amount in change.add.items()]
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


def reopen(connection: Connection, job_id: str, who: str, why: str, now: float) -> bool:
    """Reopen a job within the caller's transaction; return False if it is not settled."""
    job = find_job(connection, job_id)
    change = None if job is None else decide_reopening(job, who, why, now)
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
            lambda c: [ensure_job(c, source, profile, now) for profile in profiles]
        )

    def apply(self, job_id: str, change: Change, *, durable: bool = True) -> bool:
        """Run one UPDATE; a change that moves no job runs beside others."""
        exclusive = "state" in change.to
        return self._database.write(
            lambda c: change_job(c, job_id, change), durable=durable, exclusive=exclusive
        )

    def decide(
        self, job_id: str, decision: Callable[[JobRecord], Change | None], *, durable: bool = True
    ) -> bool:
        """Read and change the record in one transaction."""

        def work(connection: Connection) -> bool:
            job = find_job(connection, job_id)
            change = None if job is None else decision(job)
            return change is not None and change_job(connection, job_id, change)

        return self._database.write(work, durable=durable)

    def add_parts(self, job_id: str, change: Change, parts: Sequence[SubjobOf]) -> bool:
        """Move the job and insert its subjobs in one transaction."""

        def work(connection: Connection) -> bool:
            job = find_job(connection, job_id)
            if job is None or not change_job(connection, job_id, change):
                return False
            connection.execute(sql.DELETE_SUBJOBS, (job_id,))
            for part in parts:
                insert_job(connection, new_subjob(job, part, change.to["updated_at"]))
            return True

        return self._database.write(work)

    def has_ended(self, owner: str) -> bool:
        return self._dead(owner)

    def subjobs(self, job_id: str) -> list[JobRecord]:
        rows = self._database.rows(sql.SELECT_SUBJOBS, (job_id,))
        parts = {part.job_id: part for part in map(job_record, rows)}
        return [parts[name] for name in subjob_ids(self.get(job_id)) if name in parts]

    def forget_subjobs(self, job_id: str) -> None:
        """Delete the subjobs, not durably: rows that a power cut restores are harmless."""
        self._database.change(sql.DELETE_SUBJOBS_UNLESS_SPLIT, {"job_id": job_id}, durable=False)

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        """Record progress, except of a fetch: a linked source is fetched at once."""
        if progress.phase is not Phase.FETCH:
            super().progress(job_id, fence, progress)

    def reopen(self, job_id: str, *, who: str, why: str) -> bool:
        now = self.clock.now()
        return self._database.write(lambda c: reopen(c, job_id, who, why, now))

    def get(self, job_id: str) -> JobRecord | None:
        return self._database.read(lambda c: find_job(c, job_id))

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        """Read page by page. A job that changes meanwhile may appear at its old position or not at all."""
        for row in job_rows(self._database, wanted):
            yield job_record(row[2:])

    def causes(self, wanted: JobFilter) -> dict[FailureClass | None, int]:
        causes: Counter[FailureClass | None] = Counter()
        for state in wanted.states or [None]:
            where, bound = filter_condition(wanted, state)
            statement = (
                f"SELECT failure_class, COUNT(*) FROM job WHERE {where} GROUP BY failure_class"  # noqa: S608
            )
            for name, count in self._database.rows(statement, bound):
                causes[FailureClass(name) if name else None] += count
        return causes

    def note_letter(self, job_id: str) -> None:
        """Do nothing: `has_letter` looks into the table of dead letters."""

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
