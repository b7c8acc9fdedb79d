"""The machines that work, as rows of the database; the jobs they run are those of the ledger."""

from collections import defaultdict
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from hevcq.ports.machines import (
    SILENT_S,
    Answer,
    Machines,
    WorkerFacts,
    WorkerJob,
    WorkerProcess,
    minor,
)
from hevcq.sql.database import Connection, Database
from hevcq.util.clock import Clock

# A new process of a machine takes no work where none of the others may.
TELL = """INSERT INTO worker (owner, machine, version, seen_at, drained_by, facts)
VALUES (:owner, :machine, :version, :now,
COALESCE((SELECT MIN(drained_by) FROM worker WHERE machine = :machine), ''), :facts)
ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at, facts = excluded.facts, ended = 0
RETURNING drained_by"""
FORGET_DEAD = """DELETE FROM worker WHERE machine = :machine AND owner <> :owner
AND (ended = 1 OR seen_at <= :alive_since)"""
OTHER_VERSIONS = """SELECT version, machine FROM worker
WHERE version <> :version AND ended = 0 AND seen_at > :alive_since"""
LEAVE = "DELETE FROM worker WHERE owner = ? AND drained_by = ''"
END = "UPDATE worker SET ended = 1, facts = ? WHERE owner = ?"
ALL = """SELECT owner, seen_at, drained_by, ended, facts FROM worker ORDER BY machine, owner"""
RUNNING = """SELECT owner, CASE WHEN parent = '' THEN job_id ELSE parent END, profile, key, phase,
percent, speed, chunk FROM job WHERE state = 'running' AND lease_until > ?"""
DRAIN = "UPDATE worker SET drained_by = ? WHERE ? IN (machine, owner)"
REMOVE = "DELETE FROM worker WHERE ? IN (machine, owner)"


class SqlMachines(Machines):
    """The table `worker`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._known: set[str] = set()

    def tell(self, owner: str, facts: WorkerFacts) -> Answer:
        def work(connection: Connection) -> Answer:
            now = self._clock.now()
            values = {
                "owner": owner,
                "machine": facts.machine,
                "version": facts.version,
                "now": now,
                "facts": facts.model_dump_json(),
            }
            (drained_by,) = connection.execute(TELL, values).fetchone()
            values = {**values, "alive_since": now - SILENT_S}
            if owner not in self._known:
                connection.execute(FORGET_DEAD, values)
            others = connection.execute(OTHER_VERSIONS, values).fetchall()
            newest = max(others, key=lambda row: minor(row[0]), default=("", ""))
            newer = newest if minor(newest[0]) > minor(facts.version) else ("", "")
            return Answer(drained_by, *newer)

        answer = self._database.write(work, durable=False, alone=False)
        self._known.add(owner)
        return answer

    def leave(self, owner: str, broken: WorkerFacts | None = None) -> None:
        if broken is not None:
            self.tell(owner, broken)
            self._database.change(END, (broken.model_dump_json(), owner), alone=False)
        elif not self._database.change(LEAVE, (owner,), alone=False):
            self._database.change("UPDATE worker SET ended = 1 WHERE owner = ?", (owner,))

    def processes(self) -> list[WorkerProcess]:
        now, jobs = self._clock.now(), defaultdict[str, list[WorkerJob]](list)
        for row in self._database.rows(RUNNING, (now,)):
            jobs[row[0].rpartition(":")[0]].append(_job(row))  # without the slot
        processes = []
        for owner, seen_at, drained_by, ended, text in self._database.rows(ALL):
            with suppress(ValidationError):  # of another hevcq
                facts = WorkerFacts.model_validate_json(text)
                processes.append(
                    WorkerProcess(
                        owner=owner,
                        facts=facts,
                        seen_s=max(0.0, now - seen_at),
                        drained_by=drained_by,
                        ended=bool(ended),
                        jobs=tuple(jobs[owner]),
                    )
                )
        return processes

    def drain(self, name: str, by: str) -> bool:
        return self._database.change(DRAIN, (by, name)) > 0

    def remove(self, name: str) -> bool:
        return self._database.change(REMOVE, (name,)) > 0


def _job(row: tuple[Any, ...]) -> WorkerJob:
    _owner, job_id, profile, key, phase, percent, speed, chunk = row
    return WorkerJob(
        job_id=job_id,
        profile=profile,
        key=key,
        phase=phase or "",
        percent=percent or 0.0,
        speed=speed,
        chunk=chunk,
    )
