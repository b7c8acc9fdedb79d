"""Move the records of a data folder to PostgreSQL, or back: all rows in one transaction of the target.

The source is only read, and then marked so that nothing opens it any more. The target's triggers are off
during the copy, because the rows that they would write are copied too.
"""

# ruff: noqa: S608 - statements are built from names of the schema only

import filecmp
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hevcq.backends.sql import statements as sql
from hevcq.backends.sql.factory import CATALOG, MOVED, OBJECTS, create_folders, open_postgres
from hevcq.errors import ConfigError, StorageError, Unavailable, UsageError, file_errors
from hevcq.settings.model import Settings
from hevcq.sql.database import Connection, Database
from hevcq.sql.sqlite import DATABASE, SqliteDatabase
from hevcq.util.clock import Clock
from hevcq.util.file_io import fsync_folder, replace_durably
from hevcq.util.processes import process_rows
from hevcq.util.text import counted, printable

LOCAL_TABLES = ("file", "hashed_file", "lived", "kept_original", "encode_cost")
"""Tables that concern one machine only: with a server they are in the data folder's own database."""
SKIPPED_TABLES = ("worker",)
"""Each process inserts its own row when it starts."""
FOLDERS = (OBJECTS, "videos")
SELECT_TABLE_NAMES = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1"
)
SELECT_COLUMNS = (
    "SELECT name, type = 'INTEGER' AND pk = 1 AND \"notnull\" = 0 FROM pragma_table_info(?)"
)
COUNT_RUNNING = "SELECT COUNT(*) FROM job WHERE state = 'running' AND lease_until > ?"
COUNT_CONNECTED = """SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'hevcq'
AND datname = current_database() AND pid <> pg_backend_pid()"""
SELECT_TRIGGERS = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the schema; `serial` is its auto-numbered column, or ""."""

    name: str
    columns: tuple[str, ...]
    serial: str = ""

    @property
    def select(self) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.name}"

    @property
    def insert(self) -> str:
        marks = ", ".join("?" * len(self.columns))
        return f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES ({marks})"


@dataclass(frozen=True, slots=True)
class Migration:
    """The two sides of a migration. `here` are this machine's tables, `shared` all others."""

    source: Database
    source_here: Database
    target: Database
    target_here: Database
    shared: tuple[Table, ...]
    here: tuple[Table, ...]
    files: tuple[Path, Path]
    data_dir: Path
    clock: Clock

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each table that has any."""
        tables = [(self.source, table) for table in self.shared]
        tables += [(self.source_here, table) for table in self.here]
        counts = {table.name: _count(database, table) for database, table in tables}
        return {name: count for name, count in counts.items() if count}

    def require_still(self) -> None:
        """Raise UsageError if a hevcq works on either side, or if the target has records."""
        self._require_alone(self.target.row)
        running = self.source.row(COUNT_RUNNING, (self.clock.now(),))
        if running and running[0]:
            raise UsageError(f"{counted(running[0], 'job')} still run: let them end, or wait.")
        filled = [table.name for table in self.shared if _count(self.target, table)]
        if filled:
            raise UsageError(
                f"{self.target.where} holds records already ({', '.join(filled)}); they are not mixed.",
                remedy="Move it away, or use an empty database.",
            )

    def _require_alone(self, query_target: Callable[[str], tuple[Any, ...] | None]) -> None:
        if next(process_rows(self.data_dir), None) is not None:
            raise UsageError(f"hevcq runs on {printable(self.data_dir)}: stop it first.")
        for database, query in ((self.source, self.source.row), (self.target, query_target)):
            others = query(COUNT_CONNECTED) if database.shared else None
            if others and others[0]:
                raise UsageError(
                    f"Another hevcq uses {database.where}: stop it on every machine first."
                )

    def run(self) -> None:
        """Link the files, then copy and compare all rows; raise StorageError if they differ."""
        link_files(*self.files)

        def copy(connection: Connection) -> None:
            with _without_triggers(connection, self.shared, server=self.target.shared):
                for table in self.shared:
                    _copy(self.source, connection, table)
                    _continue_numbers(self.source, connection, table, server=self.target.shared)
            if self.target_here is self.target:
                self._copy_here(connection)
            else:
                self.target_here.write(self._copy_here)
            self._require_alone(lambda statement: connection.execute(statement).fetchone())
            self._mark(moved=True)  # before the commit: a kill must not leave two farms

        try:
            self.target.write(copy)
        except Unavailable:
            raise  # it may have been committed
        except BaseException:
            self._mark(moved=False)
            raise
        if not self.target.shared:
            (self.data_dir / MOVED).unlink(missing_ok=True)

    def _mark(self, *, moved: bool) -> None:
        """Mark the records of the source as moved, or take the mark back."""
        if self.source.shared:
            mark = self.source.farm_id
            self.source.change(sql.MARK_FILES, (f"{MOVED}{mark}" if moved else mark,))
            return
        path = self.data_dir / MOVED
        with file_errors("written", path):
            if moved:
                path.touch()
                fsync_folder(self.data_dir)
            else:
                path.unlink(missing_ok=True)

    def _copy_here(self, connection: Connection) -> None:
        for table in self.here:
            connection.execute(f"DELETE FROM {table.name}")
            _copy(self.source_here, connection, table)


@contextmanager
def open_migration(settings: Settings, to: str, clock: Clock) -> Iterator[Migration]:
    """Open both sides. Raises ConfigError or UsageError if the settings allow no migration."""
    folder = settings.data_dir.absolute()
    on_server = settings.model_copy(update={"backend": "postgres"})
    if to == "postgres" and not (folder / DATABASE).exists():
        raise UsageError(f"{printable(folder)} has no records of the embedded backend.")
    if settings.paths:
        remedy = "Migrate on the machine where the folders have their common names."
        raise UsageError("The setting `paths` gives folders other names here.", remedy=remedy)
    if settings.s3.bucket:
        remedy = "Take [s3] out to migrate to a folder; what is in a bucket stays there."
        raise UsageError("Records of renditions in a bucket are not migrated.", remedy=remedy)
    if not settings.postgres.dsn.get_secret_value():
        remedy = "Set it in the settings file, also where PGHOST names the server."
        raise ConfigError("postgres.dsn is empty.", remedy=remedy)
    files_dir = on_server.files_dir
    create_folders(folder, files_dir)
    with ExitStack() as opened:
        server = open_postgres(on_server, clock, for_migration=True)
        opened.callback(server.close)
        embedded = SqliteDatabase(folder / DATABASE)
        opened.callback(embedded.close)
        local = SqliteDatabase(folder / CATALOG)
        opened.callback(local.close)
        tables = [_table(embedded, name) for (name,) in embedded.rows(SELECT_TABLE_NAMES)]
        sides: tuple[Database, Database, Database, Database] = embedded, embedded, server, local
        if to == "embedded":
            sides = server, local, embedded, embedded
        yield Migration(
            *sides,
            shared=tuple(t for t in tables if t.name not in LOCAL_TABLES + SKIPPED_TABLES),
            here=tuple(t for t in tables if t.name in LOCAL_TABLES),
            files=(folder, files_dir) if to == "postgres" else (files_dir, folder),
            data_dir=folder,
            clock=clock if to == "postgres" else server.clock,
        )


def link_files(source: Path, target: Path) -> None:
    """Link the renditions below `target`; copy uploads, and files that cannot be linked."""
    if source.absolute() == target.absolute():
        return
    for path in (file for name in FOLDERS for file in sorted((source / name).rglob("*"))):
        copy = target / path.relative_to(source)
        with file_errors("written", copy):
            if path.is_dir():
                copy.mkdir(mode=0o700, parents=True, exist_ok=True)
                continue
            copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if copy.exists() and filecmp.cmp(path, copy, shallow=False):
                continue
            if OBJECTS in path.relative_to(source).parts:  # an upload may still grow
                with suppress(OSError):
                    os.link(path, copy)
                    continue
            part = copy.with_name(f"{copy.name}.part")
            shutil.copy2(path, part)
            replace_durably(part, copy)
            if not filecmp.cmp(path, copy, shallow=False):
                raise StorageError(f"{printable(copy)} was not written whole.")


def _table(database: Database, name: str) -> Table:
    columns = database.rows(SELECT_COLUMNS, (name,))
    serial = next((column for column, is_serial in columns if is_serial), "")
    return Table(name, tuple(column for column, _ in columns), serial)


def _count(database: Database, table: Table) -> int:
    (count,) = database.row(f"SELECT COUNT(*) FROM {table.name}") or (0,)
    return int(count)


def _copy(source: Database, connection: Connection, table: Table) -> None:
    """Copy the rows of a table and read them back; raise StorageError if they differ."""
    rows = source.rows(table.select)
    connection.executemany(table.insert, rows)
    copied = connection.execute(table.select).fetchall()
    if (len(rows), _digest(rows)) != (len(copied), _digest(copied)):
        raise StorageError(
            f"{table.name}: {len(copied)} rows came back of {len(rows)}, or others; nothing is moved."
        )


def _digest(rows: Iterable[Sequence[Any]]) -> int:
    """Return a digest of rows that ignores their order. PostgreSQL stores no NUL in a text."""
    total = 0
    for row in rows:
        plain = [
            value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row
        ]
        total ^= int.from_bytes(blake2b(repr(plain).encode("utf-8", "replace")).digest(), "big")
    return total


@contextmanager
def _without_triggers(
    connection: Connection, tables: Sequence[Table], *, server: bool
) -> Iterator[None]:
    if server:
        connection.execute("SET LOCAL statement_timeout = 0")
        for table in tables:
            connection.execute(f"ALTER TABLE {table.name} DISABLE TRIGGER USER")
        yield
        for table in tables:
            connection.execute(f"ALTER TABLE {table.name} ENABLE TRIGGER USER")
        return
    triggers = connection.execute(SELECT_TRIGGERS).fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    yield
    for _, create in triggers:
        connection.execute(create)


def _continue_numbers(
    source: Database, connection: Connection, table: Table, *, server: bool
) -> None:
    """Continue the row numbers of the source, because readers remember the last number they read."""
    if not table.serial:
        return
    counted_by = (
        f"SELECT last_value FROM {table.name}_{table.serial}_seq"
        if source.shared
        else f"SELECT seq FROM sqlite_sequence WHERE name = '{table.name}'"
    )
    highest = f"SELECT MAX({table.serial}) FROM {table.name}"
    number = max((source.row(sql) or (0,))[0] or 0 for sql in (counted_by, highest))
    if server:
        name = f"{table.name}_{table.serial}_seq"
        connection.execute("SELECT setval(CAST(? AS regclass), ?)", (name, max(1, number)))
        return
    connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table.name,))
    create = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table.name,))
    if "AUTOINCREMENT" in create.fetchone()[0]:
        connection.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table.name, number))
