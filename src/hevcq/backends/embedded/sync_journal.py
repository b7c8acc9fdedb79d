"""Implement the sync journal in SQLite, with paths as raw bytes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from hevcq.backends.embedded.database import Database
from hevcq.ports.sync import Arrival, SyncEntry, SyncJournal

ENTRIES = "SELECT path, version, size, since, sha256, target FROM sync_entry WHERE account = ?"
RECORD = "INSERT OR REPLACE INTO sync_entry VALUES (?, ?, ?, ?, ?, ?, ?)"
FORGET = "DELETE FROM sync_entry WHERE account = ? AND path = ?"
ARRIVE = """INSERT INTO sync_arrival VALUES (?, ?, ?, ?, ?)
ON CONFLICT (account, sha256) DO UPDATE SET target = excluded.target, landed = excluded.landed
WHERE NOT landed"""
ARRIVAL = "SELECT sha256, size, target, landed FROM sync_arrival WHERE account = ? AND sha256 = ?"
Row = tuple[str, bytes, str, int, float, str, bytes | None]


class SqliteSyncJournal(SyncJournal):
    """Store the journal in a database that somebody else closes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(self, account: str) -> Mapping[str, SyncEntry]:
        found = {}
        for path, version, size, since, sha256, target in self._database.rows(ENTRIES, (account,)):
            place = None if target is None else Path(os.fsdecode(target))
            entry = SyncEntry(os.fsdecode(path), version, size, since, sha256, place)
            found[entry.path] = entry
        return found

    def record(self, account: str, entries: Iterable[SyncEntry]) -> None:
        """Write all entries in one transaction."""
        rows = [_row(account, entry) for entry in entries]
        if rows:
            self._database.write(lambda c: c.executemany(RECORD, rows))

    def expect(self, account: str, arrival: Arrival) -> None:
        row = (account, arrival.sha256, arrival.size, os.fsencode(arrival.target), False)
        self._database.write(lambda c: c.execute(ARRIVE, row))

    def land(self, account: str, entry: SyncEntry) -> None:
        """Write the entry and the arrival in one transaction."""
        if entry.target is None:
            raise ValueError("an entry that landed has a target")
        arrived = (account, entry.sha256, entry.size, os.fsencode(entry.target), True)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(RECORD, _row(account, entry))
            connection.execute(ARRIVE, arrived)

        self._database.write(work)

    def forget(self, account: str, paths: Iterable[str]) -> None:
        """Delete the entries in one transaction."""
        rows = [(account, os.fsencode(path)) for path in paths]
        if rows:
            self._database.write(lambda c: c.executemany(FORGET, rows))

    def arrival(self, account: str, sha256: str) -> Arrival | None:
        row = self._database.row(ARRIVAL, (account, sha256))
        if row is None:
            return None
        return Arrival(row[0], row[1], Path(os.fsdecode(row[2])), bool(row[3]))


def _row(account: str, entry: SyncEntry) -> Row:
    target = None if entry.target is None else os.fsencode(entry.target)
    path = os.fsencode(entry.path)
    return account, path, entry.version, entry.size, entry.since, entry.sha256, target
