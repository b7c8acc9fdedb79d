"""Walk jobs a page at a time, by index, without holding a transaction open between pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hevcq.backends.embedded.database import Database
from hevcq.backends.embedded.jobs.job_table import COLUMNS
from hevcq.domain.job import JobState
from hevcq.ports.ledger import JobFilter

PAGE = 500

Row = tuple[float, int, tuple[Any, ...]]


def pages(database: Database, wanted: JobFilter, state: JobState | None) -> Iterator[Row]:
    """Yield (updated_at, seq, columns) of matching jobs in one state, or any, newest first."""
    where, values = _conditions(wanted, state)
    # Only constant fragments are joined; every value is bound.
    sql = (
        f"SELECT updated_at, seq, {COLUMNS} FROM job WHERE {where} "  # noqa: S608
        f"ORDER BY updated_at DESC, seq DESC LIMIT {PAGE}"
    )
    bound = {**values, "updated_at": float("inf"), "seq": 0}
    while True:
        rows = database.rows(sql, bound)
        for row in rows:
            yield row[0], row[1], row[2:]
        if len(rows) < PAGE:
            return
        bound |= {"updated_at": rows[-1][0], "seq": rows[-1][1]}


def _conditions(wanted: JobFilter, state: JobState | None) -> tuple[str, dict[str, Any]]:
    parts = ["parent = ''", "(updated_at, seq) < (:updated_at, :seq)"]
    values: dict[str, Any] = {}
    if state is not None:
        parts.append("state = :state")
        values["state"] = state
    if wanted.profile is not None:
        parts.append("profile = :profile")
        values["profile"] = wanted.profile
    if wanted.source_key is not None:
        parts.append("key = :key")
        values["key"] = wanted.source_key
    if wanted.key_prefix:
        parts.append("key >= :prefix AND substr(key, 1, length(:prefix)) = :prefix")
        values["prefix"] = wanted.key_prefix
    if wanted.updated_after is not None:
        parts.append("updated_at > :after")
        values["after"] = wanted.updated_after
    return " AND ".join(parts), values
