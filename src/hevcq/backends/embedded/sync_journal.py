"""Implement the sync journal in SQLite, with paths as raw bytes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hevcq.backends.embedded.database import Database
from hevcq.ports.sync import Arrival, Stage, SyncEntry, SyncJournal

COLUMNS = "path, version, size, since, stage, file_id, sha256, target, detail"
ENTRIES = f"SELECT {COLUMNS} FROM sync_entry WHERE account = ?"  # noqa: S608 - constants only
RECORD = (
    f"INSERT OR REPLACE INTO sync_entry (account, {COLUMNS}) "  # noqa: S608 - constants only
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
FORGET = "DELETE FROM sync_entry WHERE account = ? AND path = ?"
ARRIVED = "INSERT OR IGNORE INTO sync_arrival VALUES (?, ?, ?, ?, ?)"
ARRIVAL = "SELECT sha256, size, target, at FROM sync_arrival WHERE account = ? AND sha256 = ?"
TO_PUT = """SELECT sha256, size, target, at FROM sync_arrival AS came WHERE account = ? AND NOT EXISTS
(SELECT 1 FROM sync_put_back AS went WHERE went.account = came.account AND went.sha256 = came.sha256)"""
PUT = "INSERT OR REPLACE INTO sync_put_back VALUES (?, ?, ?, ?)"
CHECKED = "SELECT at, why_not FROM sync_server WHERE account = ?"
CHECK = "INSERT OR REPLACE INTO sync_server VALUES (?, ?, ?)"


class SqliteSyncJournal(SyncJournal):
    """Store the journal in a database that somebody else closes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(self, account: str) -> Mapping[str, SyncEntry]:
        """Read all entries of an account."""
        rows = self._database.rows(ENTRIES, (account,))
        return {entry.path: entry for entry in map(_entry, rows)}

    def record(self, account: str, entries: Iterable[SyncEntry]) -> None:
        """Write all entries in one transaction."""
        rows = [_row(account, entry) for entry in entries]
        if rows:
            self._database.write(lambda c: c.executemany(RECORD, rows))

    def land(self, account: str, entry: SyncEntry, at: float) -> None:
        """Write the entry and the arrival in one transaction."""
        row = _row(account, entry)
        target = os.fsencode(_target(entry))

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(RECORD, row)
            connection.execute(ARRIVED, (account, entry.sha256, entry.size, target, at))

        self._database.write(work)

    def forget(self, account: str, paths: Iterable[str]) -> None:
        """Delete the entries in one transaction."""
        rows = [(account, os.fsencode(path)) for path in paths]
        if rows:
            self._database.write(lambda c: c.executemany(FORGET, rows))

    def arrival(self, account: str, sha256: str) -> Arrival | None:
        """Look up one digest."""
        row = self._database.row(ARRIVAL, (account, sha256))
        return None if row is None else Arrival(row[0], row[1], Path(os.fsdecode(row[2])), row[3])

    def not_put_back(self, account: str) -> list[Arrival]:
        """Read all arrivals without a row of that."""
        rows = self._database.rows(TO_PUT, (account,))
        return [Arrival(row[0], row[1], Path(os.fsdecode(row[2])), row[3]) for row in rows]

    def record_put_back(self, account: str, sha256: str, path: str, at: float) -> None:
        """Write one row."""
        row = (account, sha256, os.fsencode(path), at)
        self._database.write(lambda c: c.execute(PUT, row))

    def removal_checked(self, account: str) -> tuple[float, str] | None:
        """Look up one account."""
        row = self._database.row(CHECKED, (account,))
        return None if row is None else (float(row[0]), str(row[1]))

    def record_removal_check(self, account: str, at: float, why_not: str) -> None:
        """Write one row."""
        self._database.write(lambda c: c.execute(CHECK, (account, at, why_not)))


def _target(entry: SyncEntry) -> Path:
    if entry.target is None:
        raise ValueError("an entry that landed has a target")
    return entry.target


def _row(account: str, entry: SyncEntry) -> tuple[Any, ...]:
    return (
        account,
        os.fsencode(entry.path),
        entry.version,
        entry.size,
        entry.since,
        entry.stage,
        entry.file_id,
        entry.sha256,
        None if entry.target is None else os.fsencode(entry.target),
        entry.detail,
    )


def _entry(row: tuple[Any, ...]) -> SyncEntry:
    path, version, size, since, stage, file_id, sha256, target, detail = row
    return SyncEntry(
        path=os.fsdecode(path),
        version=version,
        size=size,
        since=since,
        stage=Stage(stage),
        file_id=file_id,
        sha256=sha256,
        target=None if target is None else Path(os.fsdecode(target)),
        detail=detail,
    )
