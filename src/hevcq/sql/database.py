"""The interface of a database, and the rules for statements that run on both engines.

A statement writes its values as `?`, `?1` or `:name`, names the columns of `ON CONFLICT`, and never
uses a comparison as a number. The SELECT of a claim ends with SKIP_LOCKED.
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

SCHEMA_VERSION = 30
"""Raise it with every change of `schema.sql` or of an engine's triggers. A database of another version
is refused."""
SCHEMA = Path(__file__).with_name("schema.sql")
SKIP_LOCKED = "/* skip locked */"
"""Skips the rows that another transaction has locked, on an engine with concurrent writers."""


class PathMap:
    """The setting `paths`, which maps the common path of a folder to its path on this machine.

    The longest common path matches first. A record stores the common path (`stored_path` or
    `unambiguous_path`), and `local_path` maps it back when the record is read.
    """

    def __init__(self, folders: Mapping[Path, Path] | None = None) -> None:
        self.folders = dict(
            sorted((folders or {}).items(), key=lambda pair: len(pair[0].parts), reverse=True)
        )

    def local_path(self, stored: bytes) -> Path:
        """Return the path on this machine of a path in a record."""
        path = Path(os.fsdecode(stored))
        for common, folder in self.folders.items():
            if path.is_relative_to(common):
                return folder / path.relative_to(common)
        return path

    def common_path(self, path: Path) -> Path:
        """Return the common path of a path on this machine; an unmapped path is its own common path."""
        mapping = self.mapping_of(path)
        return path if mapping is None else mapping[0] / path.relative_to(mapping[1])

    def stored_path(self, path: Path) -> bytes:
        """Return the common path of a path on this machine, as records store it."""
        return os.fsencode(self.common_path(path))

    def stored_prefixes(self, path: Path) -> list[bytes]:
        """Return the stored paths of a folder: its own, and those of the mapped folders below it."""
        below = (common for common, folder in self.folders.items() if path in folder.parents)
        return [self.stored_path(path), *map(os.fsencode, below)]

    def unambiguous_path(self, path: Path) -> bytes:
        """Return `stored_path`; raise ConfigError if that names another file on the other machines."""
        stored = self.stored_path(path)
        if self.folders and (local := self.local_path(stored)) != path:
            raise ConfigError(
                f"{printable(path)} cannot be recorded: by that name the other machines mean what is"
                f" {printable(local)} here.",
                remedy="Say where it is by the setting `paths`, or correct that.",
            )
        return stored

    def mapping_of(self, path: Path) -> tuple[Path, Path] | None:
        """Return the common and the local path of the mapped folder that holds a local path."""
        return next((pair for pair in self.folders.items() if path.is_relative_to(pair[1])), None)


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """The statements that a `Work` may run within its transaction."""

    def execute(self, sql: str, values: Values = ..., /) -> Cursor: ...
    def executemany(self, sql: str, values: Iterable[Values], /) -> object: ...


Work = Callable[[Connection], T]


class Database(ABC):
    """A database that any thread may use; `close` may be called twice.

    Every method raises StorageError, DatabaseBusy, DiskFull or Unavailable. `where` names the database in
    messages.
    """

    where: str
    farm_id = ""
    """Identifies the machines that share this database; empty if each data folder has its own."""
    shared = False
    """Whether several machines use it. Each has its own mounts and inode numbers."""
    paths = PathMap()
    """Maps the paths in records to this machine's paths."""
    wake: Callable[[str], None] = staticmethod(lambda _queue: None)
    """Called from another thread with the name of a queue that got a message; "" means any queue."""

    @abstractmethod
    def write(self, work: Work[T], *, durable: bool = True, exclusive: bool = True) -> T:
        """Run `work` in a write transaction, which is committed when this returns.

        A write that is not `durable` survives a kill of every process, but a power cut may undo it
        until the next durable write. `exclusive` transactions run one at a time: a transaction that
        decides by the rows it reads must be exclusive. An exception in `work` rolls back. `work` must
        not call `write` itself, and may run more than once.
        """

    @abstractmethod
    def read(self, work: Work[T]) -> T:
        """Run `work`, which only reads, without waiting for a writer."""

    @abstractmethod
    def close(self) -> None: ...

    @contextmanager
    def lock(self, _name: str, _busy: HevcqError | None = None) -> Iterator[Callable[[], None]]:
        """Hold a lock that all machines of the database share.

        Wait while another holds it, or raise `busy`. Yield a function that raises Unavailable if the lock
        was lost: call it before each step that the lock guards. A database of one machine takes no lock,
        because lock files suffice there.
        """
        yield lambda: None

    def listen(self) -> None:  # noqa: B027 - SQLite sends no notifications
        """Call `wake` from now on, if the engine sends notifications."""

    def rows(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one reading statement."""
        return self.read(lambda connection: connection.execute(sql, values).fetchall())

    def row(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        """Return the first row of one reading statement, or None."""
        result: tuple[Any, ...] | None = self.read(lambda c: c.execute(sql, values).fetchone())
        return result

    def change(
        self, sql: str, values: Values = (), *, durable: bool = True, exclusive: bool = True
    ) -> int:
        """Run one writing statement; return the number of changed rows."""
        return self.write(
            lambda c: c.execute(sql, values).rowcount, durable=durable, exclusive=exclusive
        )


def flatten(record: Any, encode: Callable[[Path], bytes] = os.fsencode) -> Iterator[Any]:
    """Yield the values of a dataclass's fields, nested dataclasses included; paths are encoded."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, encode)
        else:
            yield encode(value) if isinstance(value, Path) else value


def upsert(table: str, columns: str, key: str) -> str:
    """Return the statement that inserts a row, or overwrites the row with the same `key` columns."""
    names = columns.split(", ")
    new = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key.split(", "))
    return (
        f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608
        f"ON CONFLICT ({key}) DO UPDATE SET {new}"
    )
