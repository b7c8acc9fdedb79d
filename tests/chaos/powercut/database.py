"""A data folder that loses power: its files as `disk` says, its database as SQLite's log says.

In WAL mode a commit appends to the log, and with `synchronous` FULL the log is fsynced before the
commit returns; with NORMAL it is not (https://www.sqlite.org/pragma.html#pragma_synchronous). So
after each commit the level is read back from the writing connection itself, and what a power cut
leaves of the log is all of it up to the last commit that was synced, and any part of the rest.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.powercut.disk import Disk, Loss, write
from hevcq.sql.sqlite import DATABASE, SqliteDatabase
from hevcq.util import file_io

FULL = 2
LOG = f"{DATABASE}-wal"


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a power cut may come: behind so many events of the disk, with this much log.

    `promised` is how much the program had been told is done: it indexes `Recorder.promises`.
    """

    events: int
    main: bytes
    log: bytes
    safe: int
    promised: int

    def logs(self) -> Iterator[bytes]:
        """Yield what a cut may leave of the log."""
        yield self.log[: self.safe]
        if len(self.log) > self.safe:
            rest = len(self.log) - self.safe
            yield self.log
            yield self.log[: self.safe + rest // 2]
            yield self.log[: self.safe] + bytes(rest)
            yield self.log[: self.safe + rest // 2] + bytes(rest - rest // 2)


@dataclass
class Recorder:
    """Records a data folder from now on; `install` puts it between the program and its disk."""

    folder: Path
    moments: list[Moment] = field(default_factory=list)
    promises: list[tuple[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.disk = Disk(self.folder, blind=(DATABASE, "processes"))
        self._safe = len(self._read(LOG))
        self._note()

    def promise(self, kind: str, what: Any) -> None:
        """Note that the caller was told that something is done."""
        self.promises.append((kind, what))
        self._note()

    def install(self, monkeypatch) -> None:
        sync, write = file_io.fsync_file, SqliteDatabase.write

        def synced(path: Path) -> None:
            self._look()
            sync(path)
            self.disk.synced(path)
            self._note()

        def written(database: SqliteDatabase, work, **how: bool):
            self._look()
            try:
                return write(database, work, **how)
            finally:
                level = database._writer.execute("PRAGMA synchronous").fetchone()[0]
                if level >= FULL:
                    self._note()  # the commit may be cut off before its fsync
                    self._safe = len(self._read(LOG))
                self._look()

        monkeypatch.setattr(file_io, "fsync_file", synced)
        monkeypatch.setattr(SqliteDatabase, "write", written)

    def _look(self) -> None:
        self.disk.look()
        self._note()

    def _note(self) -> None:
        main, log = self._read(DATABASE), self._read(LOG)
        assert len(log) >= self._safe, "a checkpoint came in between: this recorder knows none"
        moment = Moment(len(self.disk.events), main, log, self._safe, len(self.promises))
        if not self.moments or self.moments[-1] != moment:
            self.moments.append(moment)

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        return path.read_bytes() if path.exists() else b""

    def cuts(self, target: Path) -> Iterator[tuple[Moment, str]]:
        """Write each state that a power cut may leave to `target`; yield its moment and name."""
        seen = set()
        for number, moment in enumerate(self.moments):
            for part, log in enumerate(moment.logs()):
                for loss in Loss:
                    tree = self.disk.after_cut(moment.events, loss, number)
                    state = (tree, log, moment.promised)
                    if state in seen:
                        continue
                    seen.add(state)
                    write(tree, target)
                    (target / DATABASE).write_bytes(moment.main)
                    (target / LOG).write_bytes(log)
                    yield moment, f"moment {number}, log {part}, {loss}"
                    shutil.rmtree(target)
