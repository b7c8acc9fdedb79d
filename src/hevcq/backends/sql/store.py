"""Implement the store port: immutable version folders, and one database row that names the visible one.

The bytes of an object are in `objects/<2 hex>/<sha256 of the key>/<version>/data`. They are durable
before the row in `object` names their version: that one commit, conditional on the fence, is the
publication. Readers follow the row.
"""

import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from hevcq.backends.sql import files
from hevcq.domain.job import Source
from hevcq.domain.keys import check_key
from hevcq.errors import (
    HevcqError,
    SourceGone,
    StaleFence,
    Stopped,
    StorageError,
    Unavailable,
    UsageError,
    file_errors,
)
from hevcq.ports.store import Input, Publication, Store, StoredObject, Transferred
from hevcq.sql.database import Connection, Database
from hevcq.util import file_io
from hevcq.util.clock import Clock
from hevcq.util.file_io import sha256_bytes, sha256_file

T = TypeVar("T")

WORD = re.compile(r"[a-z0-9][a-z0-9_-]*")
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
VERSIONS = "SELECT version FROM object WHERE version >= ? || '-' AND version < ? || '.'"
"""Versions of a process; '.' is the character after '-'."""


Visible = tuple[StoredObject, str, int]
"""A visible object, with the job and fence that published it."""


def stale(there: Visible, publication: Publication) -> bool:
    """Return whether the same job already published under the same or a later fence."""
    _, job_id, fence = there
    return job_id == publication.job_id and fence >= publication.fence


def visible_object(connection: Connection, key: str) -> Visible | None:
    row = connection.execute(FIND, (key,)).fetchone()
    return None if row is None else (stored_object(row[:6]), row[6], row[7])


def stored_object(row: tuple[Any, ...]) -> StoredObject:
    """Return the object of a row that was selected as COLUMNS."""
    key, version, size, sha256, metadata, modified_at = row
    return StoredObject(key, version, size, sha256, json.loads(metadata), modified_at)


def make_visible(
    connection: Connection, stored: StoredObject, job_id: str, fence: int
) -> str | None:
    """Make a version visible; return the previous one, recorded as discarded."""
    old = discard_object(connection, stored.key)
    metadata = json.dumps(dict(stored.metadata), sort_keys=True)
    head = (stored.key, stored.version, stored.size, stored.sha256, metadata)
    connection.execute(WRITE, (*head, stored.modified_at, job_id, fence))
    return old


def discard_object(connection: Connection, key: str) -> str | None:
    """Remove the row of `key`; return its version, recorded as discarded."""
    row = connection.execute(DELETE, (key,)).fetchone()
    if row is None:
        return None
    connection.execute(DISCARD, (key, row[0]))
    return str(row[0])


class FileStore(Store):
    """Sources linked from the library, renditions in `folder`. Versions are named by `owner`, so
    that a sweep can tell the leftovers of a dead process from the work of a live one."""

    def __init__(self, folder: Path, database: Database, clock: Clock, *, owner: str) -> None:
        self._folder = folder
        self._database = database
        self._clock = clock
        self._owner = owner
        self._unfinished: set[str] = set()
        with file_errors("created", folder):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                file_io.fsync_file(folder.parent)

    @property
    def unfinished(self) -> bool:
        """Whether this process left versions that it neither published nor removed."""
        return bool(self._unfinished)

    def accept(self, path: Path, key: str, *, moved: Transferred, stop: threading.Event) -> Source:
        if stop.is_set():
            raise Stopped
        source = files.link_source(self._database, path, key)
        moved(source.size)
        return source

    def follow(self, source: Source, path: Path) -> None:
        files.follow_source(self._database, source, path)

    def check(self, source: Source) -> None:
        files.source_path(self._database, source)

    @contextmanager
    def fetch(
        self,
        source: Source,
        scratch: Path,  # noqa: ARG002 - a linked source needs no room of its own
        *,
        moved: Transferred,
        stop: threading.Event,
    ) -> Iterator[Input]:
        if stop.is_set():
            raise Stopped
        path = files.source_path(self._database, source)
        moved(source.size)
        yield Input(location=str(path), path=path)

    def open(self, key: str) -> BinaryIO:

        def work(data: Path) -> BinaryIO:
            with file_errors("read", data):
                return data.open("rb")

        return self._reading(key, work)

    @contextmanager
    def stream_published(
        self,
        key: str,
        scratch: Path,  # noqa: ARG002 - the bytes are on this machine
        *,
        stop: threading.Event,
    ) -> Iterator[Input]:
        if stop.is_set():
            raise Stopped

        def work(data: Path) -> Path:
            with file_errors("read", data):
                data.stat()
            return data

        path = self._reading(check_key(key), work)
        yield Input(location=str(path), path=path)

    def publish(self, publication: Publication) -> StoredObject:
        """Bring the bytes into a version folder, then name it in one conditional commit.

        Raises StaleFence also if the ledger has granted the job a later fence, visible or not.
        """
        key = check_key(publication.key)
        there = self._find(key)
        if there is not None:
            if stale(there, publication):
                return self._already_published(there, publication)
            publication.recheck(there[0])
        version = self._new_version(key)
        data = version / "data"
        try:
            with file_errors("published", publication.file):
                size = self._store_bytes(publication, data)
            stored = self._stored(key, version.name, size, publication)
            visible, old = self._commit(stored, publication)
        except BaseException:
            self._withdraw(key, version)
            raise
        with suppress(OSError):  # Already published; the scratch folder is swept later.
            publication.file.unlink(missing_ok=True)
        if visible is stored:
            self._unfinished.discard(version.name)
        else:
            self._remove(key, version.name)
        self._discard(key, old)
        return visible

    def _already_published(self, there: Visible, publication: Publication) -> StoredObject:
        stored, _, fence = there
        if stored.sha256 != publication.sha256:
            raise StaleFence(
                f"{publication.key!r} was published under fence {fence}; "
                f"fence {publication.fence} comes too late."
            )
        publication.file.unlink(missing_ok=True)
        return stored

    def _commit(
        self, stored: StoredObject, publication: Publication
    ) -> tuple[StoredObject, str | None]:
        """Return the visible object and the previous version."""

        def work(connection: Connection) -> tuple[StoredObject, str | None]:
            there = visible_object(connection, stored.key)
            if there is not None and stale(there, publication):
                return self._already_published(there, publication), None
            job = connection.execute(GRANTED, (publication.job_id,)).fetchone()
            if job is not None and job[0] > publication.fence:
                # Ledger and store are one database: a zombie's rendition is never seen at all.
                raise StaleFence(f"The job of {stored.key!r} went on under fence {job[0]}.")
            return stored, make_visible(connection, stored, publication.job_id, publication.fence)

        return self._database.write(work)

    def put(self, key: str, content: bytes, *, metadata: Mapping[str, str]) -> StoredObject:
        version = self._new_version(check_key(key))
        digest = sha256_bytes(content)
        wanted = Publication(key, version / "data", digest, "", 0, metadata)
        try:
            with file_errors("written", wanted.file):
                wanted.file.write_bytes(content)
                _make_durable(wanted.file)
            stored = self._stored(key, version.name, len(content), wanted)
            old = self._database.write(lambda c: make_visible(c, stored, "", 0))
        except BaseException:
            self._withdraw(key, version)
            raise
        self._unfinished.discard(version.name)
        self._discard(key, old)
        return stored

    def stat(self, key: str) -> StoredObject | None:
        found = self._find(check_key(key))
        return None if found is None else found[0]

    def list(self, prefix: str) -> Iterator[StoredObject]:
        after = ""
        while True:
            rows = self._database.rows(LIST, {"after": after, "prefix": prefix})
            yield from (stored_object(row) for row in rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def delete(self, key: str) -> bool:
        check_key(key)
        old = self._database.write(lambda c: discard_object(c, key))
        if old is not None:
            self._discard(key, old)
        return old is not None

    def collect(self, key: str, target: Path, *, stop: threading.Event) -> str:
        return self._reading(key, lambda data: files.place_new(data, target, stop=stop))

    def _reading(self, key: str, work: Callable[[Path], T]) -> T:
        """Run `work` on the visible bytes, again if they were replaced before it opened them."""
        while True:
            version = self._expect(key).version
            data = self._version(key, version) / "data"
            try:
                return work(data)
            except Unavailable as error:
                if self._expect(key).version != version:
                    continue
                if self._folder.is_dir() and not os.path.lexists(data):
                    # Not a file system that will answer later: a backup restored in part.
                    raise SourceGone(f"{data} is missing from the data folder.") from error
                raise

    def free_bytes(self) -> int | None:
        """Return what an unprivileged process may still write."""
        with file_errors("looked at", self._folder):
            facts = os.statvfs(self._folder)
        return facts.f_bavail * facts.f_frsize

    def tidy(self) -> None:
        """Remove replaced or deleted versions that were left behind."""
        for key, version in self._database.rows(DISCARDED):
            self._discard(key, version)

    def sweep(self, owner: str) -> None:
        """Remove the versions that a dead process left unpublished."""
        named = {row[0] for row in self._database.rows(VERSIONS, (owner, owner))}
        for version in self._folder.glob(f"??/*/{owner}-*"):
            if version.name not in named:
                shutil.rmtree(version, ignore_errors=True)
                _prune(version.parent)

    def _find(self, key: str) -> Visible | None:
        return self._database.read(lambda c: visible_object(c, key))

    def _expect(self, key: str) -> StoredObject:
        found = self.stat(key)
        if found is None:
            raise SourceGone(f"There is no object {key!r}.")
        return found

    def _version(self, key: str, version: str) -> Path:
        digest = sha256_bytes(key.encode())
        return self._folder / digest[:2] / digest / version

    def _new_version(self, key: str) -> Path:
        folder = self._version(key, f"{self._owner}-{secrets.token_hex(6)}")
        self._unfinished.add(folder.name)
        with file_errors("created", folder):
            while True:
                try:
                    # Never the store's own folder: a share that went away is not made anew.
                    folder.parent.parent.mkdir(mode=0o700, exist_ok=True)
                    folder.parent.mkdir(mode=0o700, exist_ok=True)
                    folder.mkdir(mode=0o700)
                except FileNotFoundError:
                    if not self._folder.is_dir():
                        raise
                    continue  # another thread pruned the empty parent just now
                return folder

    def _stored(self, key: str, version: str, size: int, publication: Publication) -> StoredObject:
        metadata = dict(publication.metadata)
        for name in metadata:
            if not WORD.fullmatch(name):
                raise UsageError(f"The metadata key {name!r} is not a lower-case ASCII word.")
        return StoredObject(key, version, size, publication.sha256, metadata, self._clock.now())

    def _store_bytes(self, publication: Publication, data: Path) -> int:
        file = publication.file
        if not files.link(file, data):
            files.copy_new(file, data, stop=publication.stop)
            if sha256_file(data, lambda: None) != publication.sha256:
                raise StorageError(f"The copy of {file} does not have the bytes of the original.")
        _make_durable(data)
        return data.stat().st_size

    def _discard(self, key: str, version: str | None) -> None:
        if version is not None:
            self._remove(key, version)
            with suppress(HevcqError):  # The note stays, and the next start heeds it.
                self._database.change(FORGET, (version,), durable=False)

    def _withdraw(self, key: str, version: Path) -> None:
        """Remove a version after a failure, unless it became the visible one all the same.

        A commit may go through and still raise (an interrupt, a failing disk); where that is
        unknown, the folder stays for the sweep after this process.
        """
        with suppress(HevcqError):
            # On a server a commit may still be going on: it ends before whoever asks as a writer.
            ask = self._database.write if self._database.shared else self._database.read
            if ask(lambda c: c.execute(NAMED, (key, version.name)).fetchone()) is None:
                self._remove(key, version.name)
            self._unfinished.discard(version.name)

    def _remove(self, key: str, version: str) -> None:
        folder = self._version(key, version)
        shutil.rmtree(folder, ignore_errors=True)
        _prune(folder.parent)
        self._unfinished.discard(version)


def _make_durable(data: Path) -> None:
    for path in (data, *list(data.parents)[:4]):
        file_io.fsync_file(path)


def _prune(folder: Path) -> None:
    """Remove the folders of a key that are empty now."""
    for empty in (folder, folder.parent):
        try:
            empty.rmdir()
        except OSError:
            return
