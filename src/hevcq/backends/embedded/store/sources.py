"""Library files as sources: linked by name, pinned by size, modification time and inode."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hevcq.backends.embedded.database import Database
from hevcq.backends.embedded.errors import source_error
from hevcq.domain.job import Source
from hevcq.domain.keys import LIBRARY_BUCKET, check_key
from hevcq.errors import SourceChanged, SourceGone, SourceUnreadable
from hevcq.util.clock import Clock
from hevcq.util.text import printable

ACCEPT = """INSERT INTO source (source_id, path, size, mtime_ns, inode, device, accepted_at)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source_id) DO UPDATE SET path = excluded.path,
device = excluded.device, accepted_at = excluded.accepted_at"""
FIND = "SELECT path FROM source WHERE source_id = ?"


class Sources:
    """Which path each source is. Nothing of a library is copied or written to."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def accept(self, path: Path, key: str) -> Source:
        """Link the file at `path`; raise SourceGone or SourceUnreadable if it cannot be read."""
        check_key(key)
        path = path.absolute()
        facts = _look(path)
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
        # Not durable by itself: the fan-out's commit that queues the source carries it along.
        self._database.change(ACCEPT, values, durable=False)
        return source

    def path(self, source: Source) -> Path:
        """Return the source's file after checking that it is still the same version.

        Raises SourceGone, SourceChanged or SourceUnreadable. The device number is recorded but
        not compared: it may change when the machine starts again.
        """
        row = None
        if source.bucket == LIBRARY_BUCKET:
            row = self._database.row(FIND, (source.source_id,))
        if row is None:
            raise SourceGone(f"The source {source.key!r} is not known in this data folder.")
        path = Path(os.fsdecode(row[0]))
        facts = _look(path)
        if _version(facts) != source.version or facts.st_size != source.size:
            raise SourceChanged(
                f"The source {printable(path)} was replaced or written to since it was queued."
            )
        return path


def _version(facts: os.stat_result) -> str:
    return f"{facts.st_size}-{facts.st_mtime_ns}-{facts.st_ino}"


def _look(path: Path) -> os.stat_result:
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
