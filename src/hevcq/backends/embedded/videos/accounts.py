"""Who may use the page, in the database of the data folder: one row a user, token or ended session."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from hevcq.backends.embedded.database import Database
from hevcq.ports.videos import AccountKind, Accounts

ALL = "SELECT key, row FROM accounts WHERE kind = ? ORDER BY key"
ONE = "SELECT row FROM accounts WHERE kind = ? AND key = ?"
PUT = "INSERT OR REPLACE INTO accounts (kind, key, row, expires_at) VALUES (?, ?, ?, ?)"
REMOVE = "DELETE FROM accounts WHERE kind = ? AND key = ?"
FORGET = "DELETE FROM accounts WHERE kind = ? AND expires_at < ?"


class SqliteAccounts(Accounts):
    """Store the rows in a database that somebody else closes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.where = str(database.path)

    def all(self, kind: AccountKind) -> Mapping[str, Mapping[str, Any]]:
        """Read the rows of a kind."""
        return {key: json.loads(row) for key, row in self._database.rows(ALL, (kind,))}

    def get(self, kind: AccountKind, key: str) -> Mapping[str, Any] | None:
        """Read one row."""
        found = self._database.row(ONE, (kind, key))
        return None if found is None else dict(json.loads(found[0]))

    def put(
        self,
        kind: AccountKind,
        key: str,
        row: Mapping[str, Any],
        *,
        expires_at: float | None = None,
    ) -> bool:
        """Write one row, and see whether there was one."""

        def work(connection: sqlite3.Connection) -> bool:
            known = connection.execute(ONE, (kind, key)).fetchone()
            connection.execute(PUT, (kind, key, json.dumps(dict(row)), expires_at))
            return known is None

        return self._database.write(work)

    def remove(self, kind: AccountKind, key: str) -> bool:
        """Delete one row."""
        return self._database.change(REMOVE, (kind, key)) > 0

    def forget(self, kind: AccountKind, now: float) -> None:
        """Delete the rows whose time ended."""
        self._database.change(FORGET, (kind, now))
