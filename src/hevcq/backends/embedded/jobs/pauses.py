"""Implement the pause port as a small table."""

from __future__ import annotations

import sqlite3

from hevcq.backends.embedded.database import Database
from hevcq.domain.pause import Pause, RunningWork
from hevcq.ports.ledger import Pauses
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
        """Read the rows that have not ended."""
        return tuple(_pause(row) for row in self._database.rows(LISTED, (self._clock.now(),)))

    def pause(self, pause: Pause) -> None:
        """Insert or replace the row of the profile."""
        row = (pause.profile, pause.by, pause.since, pause.until, pause.running.value)
        self._database.change(SET, row)

    def resume(self, profile: str | None) -> tuple[Pause, ...]:
        """Delete the row of the profile, or all."""

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
