"""Open the backend of one machine, or of several that share a PostgreSQL server; know which of them work."""

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
from hevcq.sql.sqlite import DATABASE, SqliteDatabase, damage_error
from hevcq.util.clock import Clock
from hevcq.util.file_io import write_durably
from hevcq.util.processes import FOLDER, Processes
from hevcq.util.text import printable

if TYPE_CHECKING:
    from hevcq.sql.postgres import PostgresDatabase


# A new process of a machine takes no work where none of the others may.
TELL = """INSERT INTO worker (owner, machine, version, seen_at, drained_by, facts)
VALUES (:owner, :machine, :version, :now,
COALESCE((SELECT MIN(drained_by) FROM worker WHERE machine = :machine), ''), :facts)
ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at, facts = excluded.facts, ended = 0
RETURNING drained_by"""
FORGET_DEAD = """DELETE FROM worker WHERE machine = :machine AND owner <> :owner
AND (ended = 1 OR seen_at <= :alive_since)"""
OTHER_VERSIONS = """SELECT version, machine FROM worker
WHERE version <> :version AND ended = 0 AND seen_at > :alive_since"""
LEAVE = "DELETE FROM worker WHERE owner = ? AND drained_by = ''"
END = "UPDATE worker SET ended = 1, facts = ? WHERE owner = ?"
ALL = """SELECT owner, seen_at, drained_by, ended, facts FROM worker ORDER BY machine, owner"""
RUNNING = f"SELECT {sql.COLUMNS} FROM job WHERE state = 'running' AND lease_until > ?"  # noqa: S608
DRAIN = "UPDATE worker SET drained_by = ? WHERE ? IN (machine, owner)"
REMOVE = "DELETE FROM worker WHERE ? IN (machine, owner)"


class SqlMachines(Machines):
    """The table `worker`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._known: set[str] = set()

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
            (drained_by,) = connection.execute(TELL, values).fetchone()
            values = {**values, "alive_since": now - SILENT_S}
            if owner not in self._known:
                connection.execute(FORGET_DEAD, values)
            others = connection.execute(OTHER_VERSIONS, values).fetchall()
            newest = max(others, key=lambda row: minor(row[0]), default=("", ""))
            newer = newest if minor(newest[0]) > minor(facts.version) else ("", "")
            return Answer(drained_by, *newer)

        answer = self._database.write(work, durable=False, exclusive=False)
        self._known.add(owner)
        return answer

    def leave(self, owner: str, broken: WorkerFacts | None = None) -> None:
        if broken is not None:
            self.tell(owner, broken)
            self._database.change(END, (broken.model_dump_json(), owner), exclusive=False)
        elif not self._database.change(LEAVE, (owner,), exclusive=False):
            self._database.change("UPDATE worker SET ended = 1 WHERE owner = ?", (owner,))

    def processes(self) -> list[WorkerProcess]:
        now, jobs = self._clock.now(), defaultdict[str, list[WorkerJob]](list)
        for record in map(job_record, self._database.rows(RUNNING, (now,))):
            jobs[record.owner.rpartition(":")[0]].append(WorkerJob.of(record))  # without the slot
        processes = []
        for owner, seen_at, drained_by, ended, text in self._database.rows(ALL):
            with suppress(ValidationError):  # of another hevcq
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
"""The file in a data folder whose records went to a server; the word before a server's mark whose
records went to a data folder. Used on, they would be a second farm for the same libraries."""
CATALOG = "catalog.db"
"""What this machine knows of files, where the database is on a server."""


@dataclass(frozen=True, slots=True)
class SqlBackend:
    """The ports of one database, with the catalog and the videos in it."""

    backend: Backend
    catalog: Catalog
    database: Database
    processes: Processes
    open_queue: Callable[[Profile], None]
    """Opens the queue of a profile that is new."""

    @property
    def videos(self) -> VideoRecords:
        return SqlVideoRecords(self.database)

    def with_store(self, beside: Callable[[Store], Store]) -> SqlBackend:
        """Return the same backend with the store that `beside` makes of its own."""
        backend = replace(self.backend, store=beside(self.backend.store))
        return replace(self, backend=backend)

    def close(self) -> None:
        """Let this process's row go and close the database; may be called twice."""
        self.backend.close()
        self.catalog.close()


class Holder(Protocol):
    """Where the renditions of a server's database are: a folder, or a bucket.

    `write` marks it for a database, `read` returns the mark or "".
    """

    where: str

    def read(self) -> str: ...
    def write(self, mark: str) -> None: ...


class FolderHolder:
    """A folder that each machine mounts."""

    def __init__(self, folder: Path) -> None:
        self._mark, self.where = folder / FILES_MARK, printable(folder)

    def read(self) -> str:
        with file_errors("read", self._mark):
            return self._mark.read_text("utf-8") if self._mark.is_file() else ""

    def write(self, mark: str) -> None:
        with file_errors("written", self._mark):
            write_durably(self._mark, mark)


def open_sql(
    settings: Settings,
    profiles: Mapping[str, Profile],
    clock: Clock,
    holder: Holder | None = None,
) -> SqlBackend:
    """Open or create what the settings name, and free what dead processes of this machine held.

    A new folder gets mode 0700. With a server `holder` has the renditions, by default `files_dir`. Raises
    StorageError (also if renditions exist without the database that names them), DatabaseBusy,
    ConfigError, DiskFull or Unavailable.
    """
    folder, files = settings.data_dir.absolute(), settings.files_dir
    for each in (folder, files):
        with file_errors("created", each):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings.backend == "postgres":
        shared = open_postgres(settings, clock, holder=holder)
        local = SqliteDatabase(folder / CATALOG)
        return open_backend(folder, files, profiles, shared.clock, shared, local)
    if (folder / MOVED).exists():
        raise _moved(f"in {printable(folder)}", "postgres")
    if not (folder / DATABASE).exists():
        refuse_orphans(folder, str(folder / DATABASE))
    return open_backend(folder, files, profiles, clock, SqliteDatabase(folder / DATABASE))


def open_postgres(
    settings: Settings,
    clock: Clock,
    *,
    alone: bool = True,
    holder: Holder | None = None,
) -> PostgresDatabase:
    """Open the server's tables; unless not `alone` (a migration), make none beside renditions of other
    ones, and use none whose records were moved."""
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
        before_create=lambda: refuse_orphans(files, "of postgres.dsn") if alone else None,
    )
    # A scan names files by what a link in their folder's place leads to.
    mounts = {name: Path(os.path.realpath(here)) for name, here in settings.paths.items()}
    database.paths = PathMap(mounts)
    try:
        for name, here in mounts.items():
            if (other := database.paths.common_path(here)) != name:
                raise ConfigError(
                    f"`paths` gives {printable(here)} two names, {printable(name)} and {printable(other)}.",
                    remedy="Keep the one by which the other machines know it.",
                )
        _require_same_files(database, holder or FolderHolder(files), alone=alone)
    except BaseException:
        database.close()
        raise
    return database


def _require_same_files(database: PostgresDatabase, holder: Holder, *, alone: bool) -> None:
    """Raise ConfigError if it does not hold the database's renditions, as a folder before its mount.

    The first machine marks it.
    """

    def work(connection: Connection) -> tuple[str]:
        (known,) = connection.execute(sql.FILES_MARK).fetchone()
        if not known:
            known = secrets.token_hex(16)
            holder.write(known)
            connection.execute(sql.MARK_FILES, (known,))
        return (known,)

    # A writer waits for the others: only whoever is first has to be one.
    known = (database.row(sql.FILES_MARK) or ("",))[0] or database.write(work)[0]
    if known.startswith(MOVED):
        if alone:
            raise _moved(f"of {database.where}", "embedded")
        known = known.removeprefix(MOVED)
    database.farm_id = known
    if holder.read() != known:
        raise ConfigError(
            f"{holder.where} is not what holds the renditions of {database.where}.",
            remedy="Mount the right folder and set postgres.files_dir to it, or correct [s3].",
        )


def _moved(where: str, to: str) -> ConfigError:
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
    """Open the ports on a database, with this machine's `folder` and the `files` of all."""
    with file_errors("written", folder / FOLDER):
        processes = Processes(folder / FOLDER, clock, shared=local is not None)
    store = FileStore(files / OBJECTS, database, clock, owner=processes.owner)
    queues: dict[str, SqlQueue] = {}

    def free(owner: str, died_alone: bool) -> None:  # noqa: FBT001 - as Processes.reap calls it
        free_owner(database, owner, now=clock.now(), died_alone=died_alone)
        store.sweep(owner)

    def wake(name: str) -> None:
        for queue in list(queues.values()):  # one may be opened meanwhile
            if name in {queue.name, ""}:
                queue.notify()

    database.wake = wake
    reap = partial(processes.reap, free)
    reap(now=True)
    recall_too_late(database, clock.now(), _longest_delay_s(profiles))
    store.tidy()

    def open_queue(each: Profile) -> None:
        made = SqlQueue(each.name, database, clock, each.queue, owner=processes.owner, reap=reap)
        queues[each.name] = made

    for each in profiles.values():
        open_queue(each)
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


def _longest_delay_s(profiles: Mapping[str, Profile]) -> float:
    delays = [LONGEST_DELAY * profile.queue.backoff_base_s for profile in profiles.values()]
    return max([*delays, float(MAX_VISIBILITY_S)])


def _close(database: Database, processes: Processes, store: FileStore) -> None:
    tidy = False
    with suppress(HevcqError):  # Closed already, or damaged: the next start looks after it.
        tidy = not store.unfinished and not holds(database, processes.owner)
    processes.close(forget=tidy)
    database.close()


def open_catalog(path: Path, clock: Clock) -> Catalog:
    """Open or create a catalog in its own database file, for the AWS backend."""
    with file_errors("created", path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Catalog(SqliteDatabase(path.absolute()), clock)


def free_owner(
    database: Database, owner: str, *, now: float = 0.0, died_alone: bool = True
) -> None:
    """Return a dead process's messages to their queues and end its leases, in one transaction.

    If it died alone, the next claim of each of its jobs counts a crash. Else its jobs were
    interrupted at `now` (wall seconds), and that receive of their messages does not count.
    """

    def work(connection: Connection) -> None:
        if died_alone:
            connection.execute(sql.FREE_MESSAGES, (owner,))
            connection.execute(sql.END_LEASES, {"owner": owner})
        else:
            connection.execute(sql.INTERRUPT_MESSAGES, (owner,))
            connection.execute(sql.INTERRUPT_JOBS, {"owner": owner, "now": now})
        connection.execute(LEAVE, (owner,))

    database.write(work)


def recall_too_late(database: Database, now: float, longest_s: float) -> None:
    """Make delayed messages due whose time is further away than any delay: the clock was set back.

    `now` is in wall seconds, `longest_s` the longest delay. Otherwise a delay that was set while the
    clock ran 60 days ahead would last for 60 days.
    """
    last = now + longest_s
    if database.row(sql.TOO_LATE, (last,)) is not None:
        database.write(lambda c: c.execute(sql.RECALL_TOO_LATE, (now, last)))


def holds(database: Database, owner: str) -> bool:
    """Return whether the owner still holds a delivery or a lease."""
    queued = database.row(sql.HELD_BY, (owner,))
    running = database.row(sql.LEASED_BY, {"owner": owner})
    return queued is not None or running is not None


def refuse_orphans(folder: Path, where: str) -> None:
    """Raise StorageError if renditions are in the folder of a database that is not there."""
    objects = folder / OBJECTS
    if objects.is_dir() and any(objects.iterdir()):
        raise damage_error(Path(where), "it is missing, but renditions are in its folder")
