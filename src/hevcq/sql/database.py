"""What a database does for the rooms above, whichever engine runs it.

A statement is written once for all engines: `?`, `?1` or `:name` for values, `ON CONFLICT` with its
columns, no number made of a comparison, and SKIP_LOCKED after what a claim selects.
"""

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hevcq.errors import ConfigError, HevcqError
from hevcq.util.text import printable

T = TypeVar("T")
Values = Sequence[Any] | Mapping[str, Any]

VERSION = 30
"""The number of the tables in `schema.sql` and of an engine's triggers; any change of them takes the
next one. A database with another number is refused."""
SCHEMA = Path(__file__).with_name("schema.sql")
SKIP_LOCKED = "/* skip locked */"
"""Rows that another transaction has locked are passed over, where several write at the same time."""


class PathMap:
    """The setting `paths`: from the common name of a folder to where it is here. The longest fits first.

    Every path of a record passes `raw` or `own` on its way in, and `here` on its way out.
    """

    def __init__(self, folders: Mapping[Path, Path] | None = None) -> None:
        self.folders = dict(
            sorted((folders or {}).items(), key=lambda each: len(each[0].parts), reverse=True)
        )

    def here(self, raw: bytes) -> Path:
        """Return where the path of a record is on this machine."""
        path = Path(os.fsdecode(raw))
        for name, folder in self.folders.items():
            if path.is_relative_to(name):
                return folder / path.relative_to(name)
        return path

    def common(self, path: Path) -> Path:
        """Return the common name of a path on this machine; another path is taken for a common name."""
        for name, folder in self.folders.items():
            if path.is_relative_to(folder):
                return name / path.relative_to(folder)
        return path

    def raw(self, path: Path) -> bytes:
        """Return a path as records hold it."""
        return os.fsencode(self.common(path))

    def within(self, path: Path) -> list[bytes]:
        """Return the names by which records may hold what is at or below a path."""
        below = (name for name, folder in self.folders.items() if path in folder.parents)
        return [self.raw(path), *map(os.fsencode, below)]

    def own(self, path: Path) -> bytes:
        """Return the same of a file to work on; ConfigError if others would mean another file by it."""
        raw = self.raw(path)
        if self.folders and (there := self.here(raw)) != path:
            raise ConfigError(
                f"{printable(path)} cannot be recorded: by that name the other machines mean what is"
                f" {printable(there)} here.",
                remedy="Say where it is by the setting `paths`, or correct that.",
            )
        return raw

    def folder_of(self, path: Path) -> tuple[Path, Path] | None:
        """Return the common name and the place here of the folder that a path here is in."""
        found = (each for each in self.folders.items() if path.is_relative_to(each[1]))
        return next(found, None)


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """What a piece of work may ask within its transaction."""

    def execute(self, sql: str, values: Values = ..., /) -> Cursor: ...
    def executemany(self, sql: str, values: Iterable[Values], /) -> object: ...


Work = Callable[[Connection], T]


class Database(ABC):
    """Safe to use from any thread; `close` may be called twice.

    Raises StorageError, DatabaseBusy, DiskFull or Unavailable from
    every method. `where` names it in messages. `wake` is called with the name of a queue that got a
    message, or "" for any, from another thread.
    """

    where: str
    house = ""
    """What tells the machines of one database from those of another; empty: each data folder is its own."""
    shared = False
    """Whether several machines use it, each with mounts and numbers of files of its own."""
    paths = PathMap()
    """Where the folders of its records are on this machine; each path goes in and out by it."""
    wake: Callable[[str], None] = staticmethod(lambda _queue: None)

    @abstractmethod
    def write(self, work: Work[T], *, durable: bool = True, alone: bool = True) -> T:
        """Run `work` in a write transaction; its changes are committed when this returns.

        With `durable` false the record survives a kill of every process but not a power cut, until
        the next durable write, which carries everything before it. `alone`: no other transaction that
        asks to be alone runs beside it; whoever decides by what it read must be. Whatever `work`
        raises undoes its changes. It must not call `write` itself, and may run again.
        """

    @abstractmethod
    def read(self, work: Work[T]) -> T:
        """Run `work` without waiting for a writer."""

    @abstractmethod
    def close(self) -> None: ...

    @contextmanager
    def lock(self, _name: str, _busy: HevcqError | None = None) -> Iterator[Callable[[], None]]:
        """Hold a lock that all machines of the database share, beside the lock files of each.

        Wait for its holder, or raise `busy`. Yield a function that raises Unavailable if the lock was
        lost: call it before each step that the lock guards. One machine needs its lock files alone.
        """
        yield lambda: None

    def hear(self) -> None:  # noqa: B027 - a file tells nobody
        """Let `wake` be called from now on, where the engine tells at once."""

    def rows(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one reading statement."""
        return self.read(lambda connection: connection.execute(sql, values).fetchall())

    def row(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        """Return the first row of one reading statement, or None."""
        found: tuple[Any, ...] | None = self.read(lambda c: c.execute(sql, values).fetchone())
        return found

    def change(
        self, sql: str, values: Values = (), *, durable: bool = True, alone: bool = True
    ) -> int:
        """Run one writing statement; return the number of changed rows."""
        return self.write(lambda c: c.execute(sql, values).rowcount, durable=durable, alone=alone)


def flat(record: Any, raw: Callable[[Path], bytes] = os.fsencode) -> Iterator[Any]:
    """Yield the fields of a dataclass, and of those in it, as values of a row; paths by `raw`."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            yield from flat(value, raw)
        else:
            yield raw(value) if isinstance(value, Path) else value


def upsert(table: str, columns: str, key: str) -> str:
    """Return the statement that inserts a row, or overwrites the one that has its `key`."""
    names = columns.split(", ")
    new = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key.split(", "))
    return (
        f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608
        f"ON CONFLICT ({key}) DO UPDATE SET {new}"
    )
