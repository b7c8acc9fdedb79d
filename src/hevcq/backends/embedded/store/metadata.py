"""Rows of the store: which version of an object is visible, and which file each source is.

A source is a library file, linked by its path and pinned by size, modification time and inode.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hevcq.backends.embedded.database import Database
from hevcq.backends.embedded.errors import source_error
from hevcq.domain.job import Source, file_version
from hevcq.domain.keys import LIBRARY_BUCKET, check_key
from hevcq.errors import PermanentError, SourceChanged, SourceGone, SourceUnreadable
from hevcq.ports.store import Publication, StoredObject
from hevcq.util.clock import Clock
from hevcq.util.text import printable

PAGE = 500

COLUMNS = "key, version, size, sha256, metadata, modified_at"
FIND = f"SELECT {COLUMNS}, job_id, fence FROM object WHERE key = ?"  # noqa: S608 - constants
LIST = f"""SELECT {COLUMNS} FROM object WHERE key > :after AND key >= :prefix
AND substr(key, 1, length(:prefix)) = :prefix ORDER BY key LIMIT {PAGE}"""  # noqa: S608
WRITE = """INSERT INTO object (key, version, size, sha256, metadata, modified_at, job_id, fence)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
DELETE = "DELETE FROM object WHERE key = ? RETURNING version"
DISCARD = "INSERT INTO discarded (key, version) VALUES (?, ?)"
DISCARDED = "SELECT key, version FROM discarded"
FORGET = "DELETE FROM discarded WHERE version = ?"
GRANTED = "SELECT fence FROM job WHERE job_id = ?"
NAMED = "SELECT 1 FROM object WHERE key = ? AND version = ?"
LINK_SOURCE = """INSERT INTO source (source_id, path, size, mtime_ns, inode, device, accepted_at)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source_id) DO UPDATE SET path = excluded.path,
device = excluded.device, accepted_at = excluded.accepted_at"""
FIND_SOURCE = "SELECT path FROM source WHERE source_id = ?"


@dataclass(frozen=True, slots=True)
class VisibleObject:
    """A visible object, with the job and fence that published it."""

    stored: StoredObject
    job_id: str
    fence: int


def stale(there: VisibleObject, publication: Publication) -> bool:
    """Return whether the same job already published under the same or a later fence."""
    return there.job_id == publication.job_id and there.fence >= publication.fence


def granted_since(connection: sqlite3.Connection, publication: Publication) -> int | None:
    """Return the fence that the ledger granted after the publication's, or None."""
    row = connection.execute(GRANTED, (publication.job_id,)).fetchone()
    return int(row[0]) if row is not None and row[0] > publication.fence else None


def find(connection: sqlite3.Connection, key: str) -> VisibleObject | None:
    """Return the object at `key`, or None."""
    row = connection.execute(FIND, (key,)).fetchone()
    return None if row is None else VisibleObject(stored_object(row[:6]), row[6], row[7])


def stored_object(row: tuple[Any, ...]) -> StoredObject:
    """Return the object of a row that was selected as COLUMNS."""
    key, version, size, sha256, metadata, modified_at = row
    return StoredObject(key, version, size, sha256, json.loads(metadata), modified_at)


def write(
    connection: sqlite3.Connection, stored: StoredObject, job_id: str, fence: int
) -> str | None:
    """Make a version visible; return the previous one, recorded as discarded."""
    old = delete(connection, stored.key)
    metadata = json.dumps(dict(stored.metadata), sort_keys=True)
    head = (stored.key, stored.version, stored.size, stored.sha256, metadata)
    connection.execute(WRITE, (*head, stored.modified_at, job_id, fence))
    return old


def delete(connection: sqlite3.Connection, key: str) -> str | None:
    """Remove the row of `key`; return its version, recorded as discarded."""
    row = connection.execute(DELETE, (key,)).fetchone()
    if row is None:
        return None
    connection.execute(DISCARD, (key, row[0]))
    return str(row[0])


class Sources:
    """Map sources to library files. Library files are never copied or changed."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def accept(self, path: Path, key: str) -> Source:
        """Link the file at `path`; raise SourceGone or SourceUnreadable if it cannot be read."""
        check_key(key)
        path = path.absolute()
        facts = _checked_facts(path)
        source = Source(bucket=LIBRARY_BUCKET, key=key, version=_version(facts), size=facts.st_size)
        values = (
            source.source_id,
            os.fsencode(path),
            facts.st_size,
            facts.st_mtime_ns,
            facts.st_ino,
            facts.st_dev,
            self._clock.now(),
        )
        # Not durable by itself: the publisher's commit that queues the source carries it along.
        self._database.change(LINK_SOURCE, values, durable=False)
        return source

    def follow(self, source: Source, path: Path) -> None:
        """Link a source to the new path of its file; do nothing if the file there is another one."""
        try:
            facts = _checked_facts(path.absolute())
        except PermanentError:
            return
        if source.bucket == LIBRARY_BUCKET and _version(facts) == source.version:
            self.accept(path, source.key)

    def path(self, source: Source) -> Path:
        """Return the source's file after checking that it is still the same version.

        Raises SourceGone, SourceChanged or SourceUnreadable. The device number is recorded but
        not compared: it may change when the machine starts again.
        """
        row = None
        if source.bucket == LIBRARY_BUCKET:
            row = self._database.row(FIND_SOURCE, (source.source_id,))
        if row is None:
            raise SourceGone(f"The source {source.key!r} is not known in this data folder.")
        path = Path(os.fsdecode(row[0]))
        facts = _checked_facts(path)
        if _version(facts) != source.version or facts.st_size != source.size:
            raise SourceChanged(
                f"The source {printable(path)} was replaced or written to since it was queued."
            )
        return path


def _version(facts: os.stat_result) -> str:
    return file_version(facts.st_size, facts.st_mtime_ns, facts.st_ino)


def _checked_facts(path: Path) -> os.stat_result:
    try:
        # Opening proves the right to read; O_NONBLOCK, so that a named pipe cannot hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise source_error(error, path) from error
    try:
        facts = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise SourceUnreadable(f"The source {printable(path)} is not a file.")
    return facts
