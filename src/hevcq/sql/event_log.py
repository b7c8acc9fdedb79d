"""The event log of a database, its readers, and daily sums.

Triggers append the events of jobs and placements in the transaction that changes them.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from hevcq.ports.catalog import INGEST_ENDED, DayKey, DaySum, Happened, Reader
from hevcq.sql.database import Connection, Database, flatten
from hevcq.util.clock import Clock
from hevcq.util.text import encodable

STATISTICS = "statistics"
"""The reader that adds events to the daily sums; an event that it has not read is never deleted."""
COLUMNS = (
    "name, at, job_id, profile, source, path, root, reason, failure_class, before, after, cpu_s, "
    "video_id, target, verified"
)
INSERT_EVENT = f"INSERT INTO event ({COLUMNS}) VALUES ({', '.join('?' * 15)})"  # noqa: S608
RECENT = "SELECT 1 FROM event WHERE job_id = '' AND name = ? AND source = ? AND at > ? LIMIT 1"
PRESENT = "SELECT job_id, name, at FROM event WHERE at BETWEEN ? AND ?"
AFTER = f"SELECT {COLUMNS}, seq FROM event WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608
LATEST = f"""SELECT {COLUMNS}, seq FROM event WHERE job_id = '' AND name = ? AND source = ?
AND (? = 0 OR (at, seq) < (SELECT at, seq FROM event WHERE seq = ?))
ORDER BY at DESC, seq DESC LIMIT ?"""  # noqa: S608
OF_JOB = (
    f"SELECT {COLUMNS}, seq FROM event WHERE job_id = ? AND job_id <> '' ORDER BY seq DESC LIMIT ?"  # noqa: S608
)
SELECT_READER = (
    "SELECT name, seq, tries, next_at, sent_at, problem FROM event_reader WHERE name = ?"
)
INSERT_READER = """INSERT INTO event_reader (name, seq)
SELECT ?, CASE WHEN ? = 1 THEN 0 ELSE COALESCE((SELECT MAX(seq) FROM event), 0) END WHERE true
ON CONFLICT (name) DO NOTHING"""
CLAIM_READER = "UPDATE event_reader SET busy_until = ? WHERE name = ? AND busy_until <= ?"
RELEASE_READER = """UPDATE event_reader SET seq = ?, tries = ?, next_at = ?, sent_at = ?, problem = ?,
busy_until = 0 WHERE name = ?"""
ADVANCE_READER = "UPDATE event_reader SET seq = ?, busy_until = 0 WHERE name = ? AND seq < ?"
ADD_SUM = """INSERT INTO history (day, name, root, profile, codec, failure_class, count, before, after,
cpu_s, scored, target, verified) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, name, root, profile, codec, failure_class) DO UPDATE SET
count = history.count + excluded.count, before = history.before + excluded.before,
after = history.after + excluded.after, cpu_s = history.cpu_s + excluded.cpu_s,
scored = history.scored + excluded.scored, target = history.target + excluded.target,
verified = history.verified + excluded.verified"""
SUMS = """SELECT day, name, root, profile, codec, failure_class, count, before, after, cpu_s,
scored, target, verified FROM history WHERE day BETWEEN ? AND ? ORDER BY day, name"""
DELETE_OLD = """DELETE FROM event WHERE at < ? AND name <> ? AND seq <=
COALESCE((SELECT seq FROM event_reader WHERE name = ?), 0)"""


class EventLog:
    """Store events in order, how far each reader has read them, and daily sums for good."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def add(self, happened: Happened, *, unless_within_s: float = 0.0) -> bool:
        """Append an event of the machine, durably.

        Return False and append nothing if an event of the same name and source was added in the last
        `unless_within_s` seconds.
        """

        def work(connection: Connection) -> bool:
            since = happened.at - unless_within_s
            key = (happened.name, os.fsencode(happened.source), since)
            if unless_within_s > 0 and connection.execute(RECENT, key).fetchone() is not None:
                return False
            connection.execute(INSERT_EVENT, self._row(happened))
            return True

        return self._database.write(work)

    def add_missing(self, events: Sequence[Happened]) -> int:
        """Append the missing ones of these job events in one transaction; return how many.

        Events with the same name, job and time are the same.
        """
        if not events:
            return 0
        times = [event.at for event in events]

        def work(connection: Connection) -> int:
            present = set(connection.execute(PRESENT, (min(times), max(times))))
            new = [event for event in events if (event.job_id, event.name, event.at) not in present]
            connection.executemany(INSERT_EVENT, [self._row(event) for event in new])
            return len(new)

        return self._database.write(work)

    def after(self, seq: int, limit: int) -> list[Happened]:
        return [self._happened(row) for row in self._database.rows(AFTER, (seq, limit))]

    def latest(self, name: str, limit: int, before: int = 0) -> list[Happened]:
        """Return the last events of this name that concern no job and no source, newest first.

        `before` is the `seq` of an event: only events older than it are returned.
        """
        rows = self._database.rows(LATEST, (name, b"", before, before, limit))
        return [self._happened(row) for row in rows]

    def of_job(self, job_id: str, limit: int) -> list[Happened]:
        """Return the last events of a job, newest first; older ones were deleted (`forget`)."""
        return [self._happened(row) for row in self._database.rows(OF_JOB, (job_id, limit))]

    def reader(self, name: str, *, from_start: bool = False) -> Reader:
        """Return a reader; a new one begins after the last event, or with the first if `from_start`."""
        row = self._database.row(SELECT_READER, (name,))
        if row is None:
            self._database.change(INSERT_READER, (name, int(from_start)))
            row = self._database.row(SELECT_READER, (name,))
        assert row is not None
        return Reader(*row)

    def begin(self, name: str, for_s: float) -> Reader | None:
        """Claim a reader for this process for `for_s` seconds; return None if another holds it."""
        self.reader(name)
        now = self._clock.now()
        claimed = self._database.change(CLAIM_READER, (now + for_s, name, now), durable=False)
        return self.reader(name) if claimed == 1 else None

    def end(self, reader: Reader) -> None:
        """Store how far a reader has read, durably, and release the claim on it."""
        place = (reader.seq, reader.tries, reader.next_at, reader.sent_at)
        self._database.change(RELEASE_READER, (*place, reader.problem, reader.name))

    def roll_up(self, reader: Reader, sums: Iterable[tuple[DayKey, DaySum]]) -> bool:
        """Add to the daily sums and advance the stored reader to `reader.seq`, in one transaction.

        Return False and add nothing if it has read that far already.
        """
        stored_path = self._database.paths.stored_path
        rows = [(*flatten(key, stored_path), *flatten(value)) for key, value in sums]

        def work(connection: Connection) -> bool:
            moved = (
                connection.execute(ADVANCE_READER, (reader.seq, reader.name, reader.seq)).rowcount
                == 1
            )
            if moved:
                connection.executemany(ADD_SUM, rows)
            return moved

        return self._database.write(work)

    def sums(self, first_day: int, last_day: int) -> Sequence[tuple[DayKey, DaySum]]:
        sums = []
        for day, name, root, *rest in self._database.rows(SUMS, (first_day, last_day)):
            key = DayKey(day, name, self._database.paths.local_path(root), *rest[:3])
            sums.append((key, DaySum(*rest[3:])))
        return sums

    def forget(self, kept_s: float) -> int:
        """Delete events older than `kept_s` seconds that the daily sums contain; return how many.

        The ends of ingests (INGEST_ENDED) are kept for good.
        """
        row = (self._clock.now() - kept_s, INGEST_ENDED, STATISTICS)
        return self._database.change(DELETE_OLD, row)

    def _row(self, happened: Happened) -> tuple[Any, ...]:
        name, at, job_id, profile, source, path, root, reason, *rest = flatten(
            happened, self._database.paths.stored_path
        )
        head = (name, at, job_id, profile, os.fsencode(source), path, root)
        return (*head, encodable(reason), *rest[:-1])  # without `seq`, which the table gives

    def _happened(self, row: tuple[Any, ...]) -> Happened:
        name, at, job_id, profile, source, path, root, *rest = row
        local_path = self._database.paths.local_path
        local = None if path is None else local_path(path)
        local_root = None if root is None else local_path(root)
        return Happened(name, at, job_id, profile, os.fsdecode(source), local, local_root, *rest)
