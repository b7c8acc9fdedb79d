"""Open the backend of one machine, or of several machines that share a PostgreSQL server."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError

from hevcq.backends.sql import statements as sql
from hevcq.backends.sql.ledger import SqlLedger, job_record
from hevcq.backends.sql.queue import SqlQueue, SqlTaskPublisher
from hevcq.backends.sql.store import FileStore
from hevcq.backends.sql.video_records import SqlVideoRecords
from hevcq.domain.profile import MAX_VISIBILITY_S, Profile
from hevcq.domain.verdict import LONGEST_DELAY
from hevcq.errors import ConfigError, HevcqError, file_errors
from hevcq.ports.backend import (
    SILENT_S,
    Answer,
    Backend,
    Machines,
    WorkerFacts,
    WorkerJob,
    WorkerProcess,
    minor,
)
from hevcq.ports.store import Store
from hevcq.ports.videos import VideoRecords
from hevcq.settings.model import Settings
from hevcq.sql.catalog import Catalog
from hevcq.sql.database import Connection, Database, PathMap
from hevcq.sql.sqlite import DATABASE, SqliteDatabase, database_damage
from hevcq.util.clock import Clock
from hevcq.util.file_io import write_durably
from hevcq.util.processes import FOLDER, Processes
from hevcq.util.text import printable

if TYPE_CHECKING:
    from hevcq.sql.postgres import PostgresDatabase


# A new process on a machine that is being drained is drained as well.
UPSERT_WORKER = """INSERT INTO worker (owner, machine, version, seen_at, drained_by, facts)
VALUES (:owner, :machine, :version, :now,
COALESCE((SELECT MIN(drained_by) FROM worker WHERE machine = :machine), ''), :facts)
ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at, facts = excluded.facts, ended = 0
RETURNING drained_by"""
FORGET_DEAD = """DELETE FROM worker WHERE machine = :machine AND owner <> :owner
AND (ended = 1 OR seen_at <= :alive_since)"""
OTHER_VERSIONS = """SELECT version, machine FROM worker
WHERE version <> :version AND ended = 0 AND seen_at > :alive_since"""
DELETE_WORKER = "DELETE FROM worker WHERE owner = ? AND drained_by = ''"
MARK_ENDED = "UPDATE worker SET ended = 1, facts = ? WHERE owner = ?"
SELECT_WORKERS = (
    """SELECT owner, seen_at, drained_by, ended, facts FROM worker ORDER BY machine, owner"""
)
SELECT_RUNNING = f"SELECT {sql.COLUMNS} FROM job WHERE state = 'running' AND lease_until > ?"  # noqa: S608
DRAIN = "UPDATE worker SET drained_by = ? WHERE ? IN (machine, owner)"
REMOVE = "DELETE FROM worker WHERE ? IN (machine, owner)"


class SqlMachines(Machines):
    """The processes of all machines, in the table `worker`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._told: set[str] = set()

    def tell(self, owner: str, facts: WorkerFacts) -> Answer:
        def work(connection: Connection) -> Answer:
            now = self._clock.now()
            values = {
                "owner": owner,
                "machine": facts.machine,
                "version": facts.version,
                "now": now,
                "facts": facts.model_dump_json(),
            }
            (drained_by,) = connection.execute(UPSERT_WORKER, values).fetchone()
            values = {**values, "alive_since": now - SILENT_S}
            if owner not in self._told:
                connection.execute(FORGET_DEAD, values)
            others = connection.execute(OTHER_VERSIONS, values).fetchall()
            newest = max(others, key=lambda row: minor(row[0]), default=("", ""))
            newer = newest if minor(newest[0]) > minor(facts.version) else ("", "")
            return Answer(drained_by, *newer)

        answer = self._database.write(work, durable=False, exclusive=False)
        self._told.add(owner)
        return answer

    def leave(self, owner: str, broken: WorkerFacts | None = None) -> None:
        if broken is not None:
            self.tell(owner, broken)
            self._database.change(MARK_ENDED, (broken.model_dump_json(), owner), exclusive=False)
        elif not self._database.change(DELETE_WORKER, (owner,), exclusive=False):
            self._database.change("UPDATE worker SET ended = 1 WHERE owner = ?", (owner,))

    def processes(self) -> list[WorkerProcess]:
        now, jobs = self._clock.now(), defaultdict[str, list[WorkerJob]](list)
        for record in map(job_record, self._database.rows(SELECT_RUNNING, (now,))):
            owner = record.owner.rpartition(":")[0]  # without the slot
            jobs[owner].append(WorkerJob.of(record))
        processes = []
        for owner, seen_at, drained_by, ended, text in self._database.rows(SELECT_WORKERS):
            with suppress(ValidationError):  # facts of another version
                facts = WorkerFacts.model_validate_json(text)
                processes.append(
                    WorkerProcess(
                        owner=owner,
                        facts=facts,
                        seen_s=max(0.0, now - seen_at),
                        drained_by=drained_by,
                        ended=bool(ended),
                        jobs=tuple(jobs[owner]),
                    )
                )
        return processes

    def drain(self, name: str, by: str) -> bool:
        return self._database.change(DRAIN, (by, name)) > 0

    def remove(self, name: str) -> bool:
        return self._database.change(REMOVE, (name,)) > 0


OBJECTS = "objects"
FILES_MARK = "hevcq-files"
MOVED = "moved"
"""Marks migrated records: the name of a file in the data folder, or the prefix of the server's mark. If
they were used again, there would be two farms for the same libraries."""
CATALOG = "catalog.db"
"""The file name of this machine's own database when the shared one is on a server."""


@dataclass(frozen=True, slots=True)
class SqlBackend:
    """A backend on one database, with the catalog and the video records in it."""

    backend: Backend
    catalog: Catalog
    database: Database
    processes: Processes
    open_queue: Callable[[Profile], None]
    """Opens the queue of a new profile."""

    @property
    def videos(self) -> VideoRecords:
        return SqlVideoRecords(self.database)

    def with_store(self, beside: Callable[[Store], Store]) -> SqlBackend:
        """Return this backend with the store that `beside` builds on the present one."""
        return replace(self, backend=replace(self.backend, store=beside(self.backend.store)))

    def close(self) -> None:
        """Release this process's lock and close the database; may be called twice."""
        self.backend.close()
        self.catalog.close()


class MarkedStorage(Protocol):
    """The folder or bucket with the renditions of a server's database, whose mark it carries."""

    where: str

    def read_mark(self) -> str:
        """Return the mark, or "" if there is none."""

    def write_mark(self, mark: str) -> None: ...


class MarkedFolder:
    """A folder that each machine mounts."""

    def __init__(self, folder: Path) -> None:
        self._mark, self.where = folder / FILES_MARK, printable(folder)

    def read_mark(self) -> str:
        with file_errors("read", self._mark):
            return self._mark.read_text("utf-8") if self._mark.is_file() else ""

    def write_mark(self, mark: str) -> None:
        with file_errors("written", self._mark):
            write_durably(self._mark, mark)


def open_sql(
    settings: Settings,
    profiles: Mapping[str, Profile],
    clock: Clock,
    storage: MarkedStorage | None = None,
) -> SqlBackend:
    """Open or create the backend of the settings, and free the work of this machine's dead processes.

    A new folder gets mode 0700. `storage` holds the renditions of a server's database, by default the
    folder `files_dir`. Raises StorageError (also if renditions exist without their database), DatabaseBusy,
    ConfigError, DiskFull or Unavailable.
    """
    folder, files = settings.data_dir.absolute(), settings.files_dir
    create_folders(folder, files)
    if settings.backend == "postgres":
        shared = open_postgres(settings, clock, storage=storage)
        local = SqliteDatabase(folder / CATALOG)
        return open_backend(folder, files, profiles, shared.clock, shared, local)
    if (folder / MOVED).exists():
        raise _moved_error(f"in {printable(folder)}", "postgres")
    if not (folder / DATABASE).exists():
        refuse_orphaned_renditions(folder, str(folder / DATABASE))
    return open_backend(folder, files, profiles, clock, SqliteDatabase(folder / DATABASE))


def open_postgres(
    settings: Settings,
    clock: Clock,
    *,
    for_migration: bool = False,
    storage: MarkedStorage | None = None,
) -> PostgresDatabase:
    """Open the server's database, or create it.

    Unless `for_migration`, refuse to create it if `files_dir` has renditions of another database, and to
    open one whose records were migrated.
    """
    try:
        from hevcq.sql.postgres import PostgresDatabase
    except ImportError as error:
        raise ConfigError(
            f"backend = postgres needs psycopg: {error}.", remedy="Install hevcq[postgres]."
        ) from error
    files = settings.files_dir
    database = PostgresDatabase(
        settings.postgres.dsn.get_secret_value(),
        clock,
        before_create=lambda: (
            None if for_migration else refuse_orphaned_renditions(files, "of postgres.dsn")
        ),
    )
    # A scan resolves symbolic links in the paths of files.
    mounts = {name: Path(os.path.realpath(local)) for name, local in settings.paths.items()}
    database.paths = PathMap(mounts)
    try:
        for name, local in mounts.items():
            if (other := database.paths.common_path(local)) != name:
                raise ConfigError(
                    f"`paths` gives {printable(local)} two names, {printable(name)} and {printable(other)}.",
                    remedy="Keep the one by which the other machines know it.",
                )
        _require_same_mark(database, storage or MarkedFolder(files), for_migration=for_migration)
    except BaseException:
        database.close()
        raise
    return database


def _require_same_mark(
    database: PostgresDatabase, storage: MarkedStorage, *, for_migration: bool
) -> None:
    """Raise ConfigError if storage and database have different marks, as before a folder is mounted.

    The first machine marks both.
    """

    def work(connection: Connection) -> str:
        (mark,) = connection.execute(sql.FILES_MARK).fetchone()
        if not mark:
            mark = secrets.token_hex(16)
            storage.write_mark(mark)
            connection.execute(sql.MARK_FILES, (mark,))
        return str(mark)

    # Only the first machine needs to write, and so to wait for other writers.
    mark = (database.row(sql.FILES_MARK) or ("",))[0] or database.write(work)
    if mark.startswith(MOVED):
        if not for_migration:
            raise _moved_error(f"of {database.where}", "embedded")
        mark = mark.removeprefix(MOVED)
    database.farm_id = mark
    if storage.read_mark() != mark:
        raise ConfigError(
            f"{storage.where} is not what holds the renditions of {database.where}.",
            remedy="Mount the right folder and set postgres.files_dir to it, or correct [s3].",
        )


def _moved_error(where: str, to: str) -> ConfigError:
    return ConfigError(
        f"The records {where} were moved by `hevcq config migrate`, or that was interrupted.",
        remedy=f'Set backend = "{to}"; if nothing is there, run `hevcq config migrate --to {to}` again.',
    )


def open_backend(
    folder: Path,
    files: Path,
    profiles: Mapping[str, Profile],
    clock: Clock,
    database: Database,
    local: Database | None = None,
) -> SqlBackend:
    """Open the ports on a database. `folder` is this machine's; the machines share the folder `files`."""
    with file_errors("written", folder / FOLDER):
        processes = Processes(folder / FOLDER, clock, shared=local is not None)
    store = FileStore(files / OBJECTS, database, clock, owner=processes.owner)
    queues: dict[str, SqlQueue] = {}

    def free(owner: str, died_alone: bool) -> None:  # noqa: FBT001 - as Processes.reap calls it
        free_owner(database, owner, now=clock.now(), died_alone=died_alone)
        store.sweep(owner)

    def wake(name: str) -> None:
        for queue in list(queues.values()):  # another thread may open a queue
            if name in {queue.name, ""}:
                queue.notify()

    database.wake = wake
    reap = partial(processes.reap, free)
    reap(now=True)
    recall_excessive_delays(database, profiles, clock.now())
    store.remove_discarded()

    def open_queue(profile: Profile) -> None:
        queues[profile.name] = SqlQueue(
            profile.name, database, clock, profile.queue, owner=processes.owner, reap=reap
        )

    for profile in profiles.values():
        open_queue(profile)
    backend = Backend(
        owner=processes.owner,
        queues=queues,
        ledger=SqlLedger(database, clock, dead=processes.is_dead),
        store=store,
        task_publisher=SqlTaskPublisher(database, clock, queues),
        close=lambda: _close(database, processes, store),
        database=database.where if local is not None else "",
        machines=SqlMachines(database, clock),
        common=database.paths.common_path,
    )
    catalog = Catalog(database, clock, local)
    return SqlBackend(backend, catalog, database, processes, open_queue)


def _close(database: Database, processes: Processes, store: FileStore) -> None:
    is_clean = False
    with suppress(HevcqError):  # closed already, or damaged: the next start cleans up
        is_clean = not store.unfinished and not holds_work(database, processes.owner)
    processes.close(forget=is_clean)
    database.close()


def open_catalog(path: Path, clock: Clock) -> Catalog:
    """Open or create a catalog in its own database file, for the AWS backend."""
    create_folders(path.parent)
    return Catalog(SqliteDatabase(path.absolute()), clock)


def create_folders(*folders: Path) -> None:
    """Create missing folders for the user alone (mode 0700)."""
    for folder in folders:
        with file_errors("created", folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def free_owner(
    database: Database, owner: str, *, now: float = 0.0, died_alone: bool = True
) -> None:
    """Return a dead process's messages to their queues and end its leases, in one transaction.

    If only this process died, the next claim of each of its jobs counts a crash. Otherwise its jobs were
    interrupted at `now` (wall seconds), and this receive of their messages does not count.
    """

    def work(connection: Connection) -> None:
        if died_alone:
            connection.execute(sql.FREE_MESSAGES, (owner,))
            connection.execute(sql.END_LEASES, {"owner": owner})
        else:
            connection.execute(sql.INTERRUPT_MESSAGES, (owner,))
            connection.execute(sql.INTERRUPT_JOBS, {"owner": owner, "now": now})
        connection.execute(DELETE_WORKER, (owner,))

    database.write(work)


def recall_excessive_delays(
    database: Database, profiles: Mapping[str, Profile], now: float
) -> None:
    """Make messages due that are delayed for longer than any delay of these profiles.

    Then the clock was set back: a delay set while it ran 60 days ahead would last for 60 days. `now` is
    in wall seconds.
    """
    delays = (LONGEST_DELAY * profile.queue.backoff_base_s for profile in profiles.values())
    last = now + max([*delays, float(MAX_VISIBILITY_S)])
    if database.row(sql.EXCESSIVE_DELAY, (last,)) is not None:
        database.write(lambda c: c.execute(sql.RECALL_EXCESSIVE_DELAYS, (now, last)))


def holds_work(database: Database, owner: str) -> bool:
    """Return whether the owner still holds a delivery or a lease."""
    queued = database.row(sql.HELD_BY, (owner,))
    running = database.row(sql.LEASED_BY, {"owner": owner})
    return queued is not None or running is not None


def refuse_orphaned_renditions(folder: Path, where: str) -> None:
    """Raise StorageError if a folder holds renditions although its database is missing."""
    objects = folder / OBJECTS
    if objects.is_dir() and any(objects.iterdir()):
        raise database_damage(Path(where), "it is missing, but renditions are in its folder")
