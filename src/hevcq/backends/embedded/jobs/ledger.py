"""Implement the ledger port in SQLite: each transition is one UPDATE conditional on the old state."""

from __future__ import annotations

import heapq
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hevcq.backends.embedded.jobs import tables
from hevcq.domain.job import (
    SETTLED,
    JobRecord,
    JobState,
    Phase,
    Progress,
    RenditionRef,
    Source,
    Split,
)
from hevcq.domain.pause import Pause, RunningWork
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence
from hevcq.ports.backend import Ledger
from hevcq.ports.ledger import (
    AlreadySettled,
    AlreadySplit,
    Claim,
    Granted,
    Held,
    JobFilter,
    Pauses,
    Remembered,
)
from hevcq.sqlite.database import Database
from hevcq.util.clock import Clock

READ_EVERY_S = 0.25
"""A read is one lookup in a table of few rows, so a worker may do it often."""
LISTED = """SELECT profile, by, since, until, running FROM pause
WHERE until IS NULL OR until > ? ORDER BY profile"""
SET = """INSERT INTO pause (profile, by, since, until, running) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET by = excluded.by, since = excluded.since, until = excluded.until,
running = excluded.running"""
END = """DELETE FROM pause WHERE ?1 IS NULL OR profile = ?1
RETURNING profile, by, since, until, running"""


class SqlitePauses(Pauses):
    """The pauses of one data folder."""

    pauses_read_every_s = READ_EVERY_S
    _database: Database
    _clock: Clock

    def pauses(self) -> tuple[Pause, ...]:
        return tuple(_pause(row) for row in self._database.rows(LISTED, (self._clock.now(),)))

    def pause(self, pause: Pause) -> None:
        row = (pause.profile, pause.by, pause.since, pause.until, pause.running.value)
        self._database.change(SET, row)

    def resume(self, profile: str | None) -> tuple[Pause, ...]:

        def work(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
            return connection.execute(END, (profile,)).fetchall()

        now = self._clock.now()
        ended = sorted((_pause(row) for row in self._database.write(work)), key=_name)
        return tuple(pause for pause in ended if pause.until is None or now < pause.until)


def _name(pause: Pause) -> str:
    return pause.profile


def _pause(row: tuple[object, ...]) -> Pause:
    profile, by, since, until, running = row
    return Pause.model_validate(
        {
            "profile": profile,
            "by": by,
            "since": since,
            "until": until,
            "running": RunningWork(str(running)),
        }
    )


DURABLE_PHASES = frozenset({Phase.ENCODE, Phase.JOIN})
"""Phases whose start is stored durably, so that a crash of the machine during them is counted."""

# A claim takes a QUEUED job, or a RUNNING one of the same owner, with an expired lease, or of an
# owner known to be dead; in the last two cases the earlier attempt vanished.
GRANT = """UPDATE job SET state = 'running', fence = fence + 1,
crashes = crashes + (state = 'running' AND (lease_until <= :now OR owner IS :dead)),
owner = :owner, lease_until = :until, started_at = :now, updated_at = :now, phase = NULL,
percent = NULL, speed = NULL, eta_s = NULL
WHERE job_id = :job_id AND (state = 'queued' OR (state = 'running'
AND (lease_until <= :now OR owner = :owner OR owner IS :dead)))
RETURNING fence, failures, crashes, doubts"""
RENEW = """UPDATE job SET lease_until = :until
WHERE job_id = :job_id AND fence = :fence AND state = 'running'"""
PROGRESS = """UPDATE job SET phase = :phase, percent = :percent, speed = :speed, eta_s = :eta_s
WHERE job_id = :job_id AND fence = :fence AND state = 'running'"""
CERTIFY = """UPDATE job SET certificate_sha256 = :certificate
WHERE job_id = :job_id AND fence = :fence AND state IN ('running', 'split')"""
COMPLETE = """UPDATE job SET state = 'done', owner = '', lease_until = 0, phase = NULL,
reason = '', failure_class = NULL, rendition_key = :key, rendition_size = :size,
rendition_sha256 = :sha256, certificate_key = :certificate,
certificate_sha256 = :certificate_sha256, notices = :notices, cpu_s = :cpu_s,
finished_at = :now, updated_at = :now
WHERE job_id = :job_id AND fence = :fence AND state IN ('running', 'split')"""
SKIP = """UPDATE job SET state = 'skipped', owner = '', lease_until = 0, phase = NULL,
reason = :reason, failure_class = NULL, finished_at = :now, updated_at = :now
WHERE job_id = :job_id AND fence = :fence AND state IN ('running', 'split')"""
REQUEUE = """UPDATE job SET state = 'queued', owner = '', lease_until = 0, phase = NULL,
reason = :reason, failure_class = :class, failures = failures + :counted,
doubts = doubts + :doubted, updated_at = :now WHERE job_id = :job_id AND fence = :fence AND state = 'running'"""
BURY = """UPDATE job SET state = 'dead', owner = '', lease_until = 0, phase = NULL,
reason = :reason, failure_class = :class, finished_at = :now, updated_at = :now
WHERE job_id = :job_id AND fence = :fence AND state IN ('running', 'split')"""
BURY_UNCLAIMED = """UPDATE job SET state = 'dead', owner = '', lease_until = 0, phase = NULL,
reason = :reason, failure_class = :class, finished_at = :now, updated_at = :now
WHERE job_id = :job_id AND (state = 'queued'
OR (state = 'running' AND (lease_until <= :now OR owner IS :dead)))"""
CANCEL = """UPDATE job SET state = 'dead', owner = '', lease_until = 0, phase = NULL,
reason = ?, failure_class = 'cancelled', finished_at = ?, updated_at = ?
WHERE job_id = ? AND parent = '' AND state IN ('queued', 'running', 'split')"""
REOPEN = """UPDATE job SET state = 'queued', failures = 0, crashes = 0, doubts = 0, place = '',
interruptions = 0,
reason = 'reopened by ' || :who || ': ' || :why,
failure_class = NULL, rendition_key = NULL, rendition_size = NULL, rendition_sha256 = NULL,
split = NULL, whole = '', certificate_key = NULL, notices = '[]', cpu_s = NULL,
started_at = NULL, finished_at = NULL, updated_at = :now
WHERE job_id = :job_id AND state IN ('done', 'skipped', 'dead')"""
FREE_OWNER = """UPDATE job SET lease_until = 0 WHERE state = 'running'
AND (owner = :owner OR owner >= :owner || ':' AND owner < :owner || ';')"""
MAX_INTERRUPTIONS = 200
"""Interruptions from which on each counts as a crash: a job that ends the program each time would else
be tried for ever."""
# Of all numbers in the assignments SQLite takes the old values.
INTERRUPT_OWNER = f"""UPDATE job SET state = 'queued', owner = '', lease_until = 0,
crashes = crashes + (interruptions >= {MAX_INTERRUPTIONS}
OR (IFNULL(percent, 0) >= 1 AND place = phase || ' ' || CAST(percent AS INTEGER))),
place = CASE WHEN IFNULL(percent, 0) >= 1 THEN phase || ' ' || CAST(percent AS INTEGER) ELSE place END,
interruptions = interruptions + 1, phase = NULL, failure_class = NULL, updated_at = :now,
reason = 'Interrupted: hevcq or the machine ended while this ran.' WHERE state = 'running'
AND (owner = :owner OR owner >= :owner || ':' AND owner < :owner || ';')"""  # noqa: S608 - constants
HELD_BY = """SELECT 1 FROM job WHERE state = 'running'
AND (owner = :owner OR owner >= :owner || ':' AND owner < :owner || ';') LIMIT 1"""
HAS_LETTER = "SELECT 1 FROM dead_letter WHERE job_id = ? LIMIT 1"
COUNTS = "SELECT profile, state, count FROM job_count WHERE count > 0"
REMEMBER = """INSERT INTO remembered (source_sha256, profile, revision, reason, made_at)
VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET reason = excluded.reason,
made_at = excluded.made_at"""
RECALL = """SELECT reason, made_at FROM remembered
WHERE source_sha256 = ? AND profile = ? AND revision = ?"""


def reopen(connection: sqlite3.Connection, job_id: str, who: str, why: str, now: float) -> bool:
    """Reopen a job within the caller's transaction; return False if it is not settled."""
    values = {"job_id": job_id, "who": who, "why": why, "now": now}
    return connection.execute(REOPEN, values).rowcount == 1


class SqliteLedger(SqlitePauses, Ledger):
    """Store job states in a table. `dead` returns whether an owner is known to have ended."""

    def __init__(
        self, database: Database, clock: Clock, *, dead: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._database = database
        self._clock = clock
        self._dead = dead
        self._lock = threading.Lock()
        self._last_phase: dict[tuple[str, int], Phase] = {}

    def register(self, source: Source, profiles: list[str]) -> list[JobRecord]:
        """Insert the missing jobs in one transaction."""
        now = self._clock.now()
        return self._database.write(
            lambda c: [tables.ensured_job(c, source, profile, now) for profile in profiles]
        )

    def claim(self, source: Source, profile: str, *, owner: str, lease_s: float) -> Claim:
        """Grant the next fence in one transaction, without an fsync of its own.

        The claim survives a kill of every process. A power cut may undo it, but never after
        something was published under it: a publication is a durable commit to the same log, which
        makes the claim durable too. So is the start of the encode (`progress`).
        """

        def work(connection: sqlite3.Connection) -> Claim:
            found = tables.ensured_job(connection, source, profile, self._clock.now())
            return self._granted(connection, found, owner, lease_s)

        return self._database.write(work, durable=False)

    def _granted(
        self, connection: sqlite3.Connection, found: JobRecord, owner: str, lease_s: float
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
        row = connection.execute(GRANT, values).fetchone()
        return Held(found.lease_until) if row is None else Granted(*row)

    def claim_subjob(self, subjob_id: str, *, owner: str, lease_s: float) -> Claim | None:

        def work(connection: sqlite3.Connection) -> Claim | None:
            found = tables.find_job(connection, subjob_id)
            return None if found is None else self._granted(connection, found, owner, lease_s)

        return self._database.write(work, durable=False)

    def split(self, job_id: str, fence: int, split: Split, frames: Sequence[int]) -> None:
        """Move the job from RUNNING to SPLIT and insert its subjobs in one transaction.

        Raises StaleFence.
        """
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> bool:
            found = tables.find_job(connection, job_id)
            if found is None or found.fence != fence:
                return False
            return tables.split_job(connection, found, split, frames, now)

        self._forget_phase(job_id, fence)
        if not self._database.write(work):
            raise StaleFence(f"The job {job_id} is no longer running under fence {fence}.")

    def mark_enqueued(self, job_id: str, split: str) -> None:
        self._database.change(tables.MARK_ENQUEUED, (job_id, split))

    def abandon_split(self, job_id: str, fence: int, reason: str) -> None:
        self._transition(tables.ABANDON_SPLIT, job_id, fence, {"reason": reason})

    def subjobs(self, job_id: str) -> list[JobRecord]:
        """Read the subjobs by index."""
        return self._database.read(lambda c: tables.subjobs(c, job_id))

    def forget_subjobs(self, job_id: str) -> None:
        """Delete the subjobs, not durably: rows that a power cut restores are harmless."""
        self._database.change(tables.DELETE_SUBJOBS_UNLESS_SPLIT, {"job_id": job_id}, durable=False)

    def _dead_owner(self, found: JobRecord) -> str | None:
        running = found.state is JobState.RUNNING
        return found.owner if running and self._dead(found.owner) else None

    def renew(self, job_id: str, fence: int, *, lease_s: float) -> None:
        """Extend the lease, not durably: after a power cut the lease has expired anyway."""
        self._transition(
            RENEW, job_id, fence, {"until": self._clock.now() + lease_s}, durable=False
        )

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        """Record the job's progress, with an fsync only at the start of the work.

        A fetch is not recorded: sources are linked, not copied, so it ends before it could be read.
        """
        if progress.phase is Phase.FETCH:
            return
        key = (job_id, fence)
        with self._lock:
            begins = self._last_phase.get(key) is not progress.phase
            self._last_phase[key] = progress.phase
        durable = begins and progress.phase in DURABLE_PHASES
        self._transition(PROGRESS, job_id, fence, progress.model_dump(), durable=durable)

    def certify(self, job_id: str, fence: int, certificate_sha256: str) -> None:
        """Record the digest without an fsync: the publication that follows makes it durable."""
        self._transition(CERTIFY, job_id, fence, {"certificate": certificate_sha256}, durable=False)

    def complete(self, job_id: str, fence: int, rendition: RenditionRef, *, cpu_s: float) -> None:
        values = {
            "key": rendition.key,
            "size": rendition.size,
            "sha256": rendition.sha256,
            "certificate": rendition.certificate_key,
            "certificate_sha256": rendition.certificate_sha256,
            "notices": json.dumps(rendition.notices),
            "cpu_s": cpu_s,
        }
        self._transition(COMPLETE, job_id, fence, values)

    def skip(self, job_id: str, fence: int, reason: str) -> None:
        self._transition(SKIP, job_id, fence, {"reason": reason})

    def fail(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        values = {"reason": reason, "class": failure_class, "counted": 1, "doubted": 0}
        self._transition(REQUEUE, job_id, fence, values)

    def interrupt(
        self, job_id: str, fence: int, reason: str, *, suspected_worker_fault: bool = False
    ) -> None:
        """Move the job from RUNNING to QUEUED; count at most a suspected worker fault."""
        values = {
            "reason": reason,
            "class": None,
            "counted": 0,
            "doubted": int(suspected_worker_fault),
        }
        self._transition(REQUEUE, job_id, fence, values)

    def bury(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        self._transition(BURY, job_id, fence, {"reason": reason, "class": failure_class})

    def _transition(
        self,
        sql: str,
        job_id: str,
        fence: int,
        values: Mapping[str, Any],
        *,
        durable: bool = True,
    ) -> None:
        bound = {**values, "job_id": job_id, "fence": fence, "now": self._clock.now()}
        run = tables.finish if sql in {COMPLETE, SKIP} else sqlite3.Connection.execute
        moved = self._database.write(lambda c: run(c, sql, bound).rowcount, durable=durable)
        if moved != 1 or sql not in {RENEW, PROGRESS, CERTIFY}:
            self._forget_phase(job_id, fence)
        if moved != 1:
            raise StaleFence(f"The job {job_id} is no longer running under fence {fence}.")

    def _forget_phase(self, job_id: str, fence: int) -> None:
        with self._lock:
            self._last_phase.pop((job_id, fence), None)

    def bury_unclaimed(self, job_id: str, reason: str, failure_class: FailureClass) -> bool:

        def work(connection: sqlite3.Connection) -> bool:
            found = tables.find_job(connection, job_id)
            if found is None:
                return False
            values = {
                "job_id": job_id,
                "reason": reason,
                "class": failure_class,
                "now": self._clock.now(),
                "dead": self._dead_owner(found),
            }
            return connection.execute(BURY_UNCLAIMED, values).rowcount == 1

        return self._database.write(work)

    def cancel(self, job_id: str, reason: str) -> bool:
        now = self._clock.now()
        return self._database.change(CANCEL, (reason, now, now, job_id)) == 1

    def reopen(self, job_id: str, *, who: str, why: str) -> bool:
        now = self._clock.now()
        return self._database.write(lambda c: reopen(c, job_id, who, why, now))

    def get(self, job_id: str) -> JobRecord | None:
        return self._database.read(lambda c: tables.find_job(c, job_id))

    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        """Page by descending (updated_at, seq), with one index scan per state, and merge the pages.

        A job that changes during the listing may appear at its old position or not at all.
        """
        states: list[JobState | None] = list(wanted.states) or [None]
        walks = [tables.job_pages(self._database, wanted, state) for state in states]
        for _updated_at, _seq, row in heapq.merge(*walks, reverse=True, key=lambda item: item[:2]):
            yield tables.job_record(row)

    def note_letter(self, job_id: str) -> None:
        """Do nothing: the letters are rows beside the jobs."""

    def has_letter(self, job_id: str) -> bool:
        return self._database.row(HAS_LETTER, (job_id,)) is not None

    def counts(self) -> dict[tuple[str, JobState], int]:
        rows = self._database.rows(COUNTS)
        return {(profile, JobState(state)): count for profile, state, count in rows}

    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
        values = (source_sha256, profile, revision, reason, self._clock.now())
        self._database.change(REMEMBER, values)

    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        row = self._database.row(RECALL, (source_sha256, profile, revision))
        return None if row is None else Remembered(*row)
