"""Implement the health records in SQLite, with paths as raw bytes."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hevcq.backends.embedded.database import Database
from hevcq.ports.catalog import Fingerprint
from hevcq.ports.health import Checked, Depth, Health, HealthRecords, Spot

BATCH = 500
COLUMNS = "path, size, mtime_ns, inode, device, sha256, depth, health, detail, at, spots"
RECORD = (
    f"INSERT OR REPLACE INTO health ({COLUMNS}) "  # noqa: S608 - constants only
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
UNSOUND = f"SELECT {COLUMNS} FROM health WHERE health <> 'sound' ORDER BY at DESC, path"  # noqa: S608
ROUND = "SELECT at FROM health_round WHERE round = ?"
BEGIN = "INSERT OR REPLACE INTO health_round VALUES (?, ?)"
END = "DELETE FROM health_round WHERE round = ?"


class SqliteHealthRecords(HealthRecords):
    """Store the records in a database that somebody else closes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def checked(self, paths: Sequence[Path]) -> Mapping[Path, Checked]:
        """Look up paths in batches."""
        found: dict[Path, Checked] = {}
        for start in range(0, len(paths), BATCH):
            batch = [os.fsencode(path) for path in paths[start : start + BATCH]]
            marks = ", ".join("?" * len(batch))
            sql = f"SELECT {COLUMNS} FROM health WHERE path IN ({marks})"  # noqa: S608 - marks only
            found.update(
                (each.path, each) for each in map(_checked, self._database.rows(sql, batch))
            )
        return found

    def unsound(self) -> Sequence[Checked]:
        """Look up all of them."""
        return [_checked(row) for row in self._database.rows(UNSOUND)]

    def record(self, checked: Checked) -> None:
        """Write one row."""
        row = (
            os.fsencode(checked.path),
            *dataclasses.astuple(checked.fingerprint),
            checked.sha256,
            checked.depth,
            checked.health,
            checked.detail,
            checked.at,
            json.dumps([dataclasses.astuple(spot) for spot in checked.spots]),
        )
        self._database.write(lambda c: c.execute(RECORD, row))

    def round_began(self, key: str) -> float | None:
        """Look up one round."""
        row = self._database.row(ROUND, (key,))
        return None if row is None else float(row[0])

    def begin_round(self, key: str, at: float) -> None:
        """Write one row."""
        self._database.write(lambda c: c.execute(BEGIN, (key, at)))

    def end_round(self, key: str) -> None:
        """Delete one row."""
        self._database.write(lambda c: c.execute(END, (key,)))


def _checked(row: tuple[Any, ...]) -> Checked:
    path, size, mtime_ns, inode, device, sha256, depth, health, detail, at, spots = row
    return Checked(
        path=Path(os.fsdecode(path)),
        fingerprint=Fingerprint(size, mtime_ns, inode, device),
        sha256=sha256,
        depth=Depth(depth),
        health=Health(health),
        detail=detail,
        at=at,
        spots=tuple(Spot(*spot) for spot in json.loads(spots)),
    )
