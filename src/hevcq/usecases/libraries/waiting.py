"""Tell other processes what waits in the libraries that this one watches: a file for each process.

It counts while its lock is held, which a kill ends too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hevcq.usecases.libraries.feed import Feed
from hevcq.util import file_lock
from hevcq.util.log import get_logger
from hevcq.util.text import counted, printable, reason_of

FOLDER = "waiting"
Rows = list[dict[str, object]]


class WaitingFile:
    """This process's file in the data folder."""

    def __init__(self, data_dir: Path) -> None:
        folder = data_dir / FOLDER
        self._path, self._lock = folder / f"{os.getpid()}.json", folder / f"{os.getpid()}.lock"
        self._written: Rows = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the file count within; if it cannot be, that is logged, and no event is recorded."""
        lock = None
        try:
            self._lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = file_lock.try_acquire(self._lock)
        except OSError as error:
            get_logger().info("waiting_not_written", reason=reason_of(error))
        try:
            yield
        finally:
            if lock is not None:
                _remove(self._path, self._lock)
                os.close(lock)

    def write(self, feeds: Iterable[Feed]) -> None:
        """Write the file if anything changed; that it cannot be is logged."""
        now: Rows = [
            {"library": each.library.name, "waiting": each.waiting, "reason": each.why_not()}
            for each in feeds
            if each.waiting
        ]
        if now == self._written:
            return
        self._written = now
        fresh = self._path.with_suffix(".tmp")
        try:
            fresh.write_text(json.dumps(now), encoding="utf-8")
            fresh.replace(self._path)
        except OSError as error:
            get_logger().info("waiting_not_written", reason=reason_of(error))


def waiting(data_dir: Path) -> Rows:
    """Return what waits in the libraries that running processes watch; forget dead ones."""
    found: Rows = []
    for lock in sorted((data_dir / FOLDER).glob("*.lock")):
        path = lock.with_suffix(".json")
        try:
            if file_lock.is_locked(lock):
                listed = json.loads(path.read_text(encoding="utf-8"))
                found += [each for each in listed if isinstance(each, dict)]
            else:
                _remove(path, path.with_suffix(".tmp"), lock)
        except (OSError, ValueError, TypeError):
            continue  # nothing waits there yet, or it has just ended
    return found


def words(row: Mapping[str, Any]) -> str:
    """Return what waits in one library, and why: `2 videos waiting; it may run only at night.`"""
    name = printable(row["library"])
    why = row["reason"].removeprefix(f"Library {name} ")
    return f"{counted(row['waiting'], 'video')} waiting; " + (
        f"it {why}" if why else "queued a few at a time."
    )


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
