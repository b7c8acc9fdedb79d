"""Implement the store port: immutable version folders, and one row that names the visible version.

The bytes of an object are in `objects/<2 hex>/<sha256 of the key>/<version>/data`. They are durable
before the row in `object` names their version: that commit, conditional on the fence, publishes the
object. Readers follow the row.
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

from hevcq.backends.sql import source_files
from hevcq.domain.job import Source
from hevcq.domain.keys import check_key
from hevcq.errors import (
    HevcqError,
    SourceGone,
    StaleFence,
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
"""The published versions of a process; '.' is the character after '-'."""
Visible = tuple[StoredObject, str, int]
"""A visible object, and the job and fence that published it."""


def is_stale(publication: Publication, visible: Visible) -> bool:
    """Return whether the same job already published under the same or a later fence."""
    _, job_id, fence = visible
    return job_id == publication.job_id and fence >= publication.fence


def visible_object(connection: Connection, key: str) -> Visible | None:
    row = connection.execute(FIND, (key,)).fetchone()
    return None if row is None else (stored_object(row[:6]), row[6], row[7])


def stored_object(row: tuple[Any, ...]) -> StoredObject:
    """Return the object in a row of COLUMNS."""
    key, version, size, sha256, metadata, modified_at = row
    return StoredObject(key, version, size, sha256, json.loads(metadata), modified_at)


def make_visible(
    connection: Connection, stored: StoredObject, job_id: str, fence: int
) -> str | None:
    """Make a version visible; discard the previous version and return it."""
    old = discard_object(connection, stored.key)
    metadata = json.dumps(dict(stored.metadata), sort_keys=True)
    head = (stored.key, stored.version, stored.size, stored.sha256, metadata)
    connection.execute(WRITE, (*head, stored.modified_at, job_id, fence))
    return old


def discard_object(connection: Connection, key: str) -> str | None:
    """Delete the row of `key`, record its version as discarded and return it."""
    row = connection.execute(DELETE, (key,)).fetchone()
    if row is None:
        return None
    connection.execute(DISCARD, (key, row[0]))
    return str(row[0])


class FileStore(Store):
    """Sources are library files, renditions are in `folder`.

    The name of a version begins with its `owner`, so that a sweep finds the leftovers of a dead process.
    """

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
        """Whether this process has versions that it neither published nor removed."""
        return bool(self._unfinished)

    def accept(self, path: Path, key: str, *, moved: Transferred, stop: threading.Event) -> Source:
        source_files.check_stop(stop)
        source = source_files.link_source(self._database, path, key)
        moved(source.size)
        return source

    def follow(self, source: Source, path: Path) -> None:
        source_files.follow_source(self._database, source, path)

    def check(self, source: Source) -> None:
        source_files.source_path(self._database, source)

    @contextmanager
    def fetch(
        self,
        source: Source,
        scratch: Path,  # noqa: ARG002 - the source is a file on this machine
        *,
        moved: Transferred,
        stop: threading.Event,
    ) -> Iterator[Input]:
        source_files.check_stop(stop)
        path = source_files.source_path(self._database, source)
        moved(source.size)
        yield Input(location=str(path), path=path)

    def open(self, key: str) -> BinaryIO:

        def work(data: Path) -> BinaryIO:
            with file_errors("read", data):
                return data.open("rb")

        return self._read_visible(key, work)

    @contextmanager
    def stream_published(
        self,
        key: str,
        scratch: Path,  # noqa: ARG002 - the bytes are on this machine
        *,
        stop: threading.Event,
    ) -> Iterator[Input]:
        source_files.check_stop(stop)

        def work(data: Path) -> Path:
            with file_errors("read", data):
                data.stat()
            return data

        path = self._read_visible(check_key(key), work)
        yield Input(location=str(path), path=path)

    def publish(self, publication: Publication) -> StoredObject:
        """Store the bytes in a version folder, then make it visible by one conditional commit.

        Also raises StaleFence if the ledger has granted the job a later fence, published or not.
        """
        key = check_key(publication.key)
        current = self._visible(key)
        if current is not None:
            if is_stale(publication, current):
                return self._already_published(current, publication)
            publication.recheck(current[0])
        version = self._new_version(key)
        data = version / "data"
        try:
            with file_errors("published", publication.file):
                size = self._store_bytes(publication, data)
            stored = self._describe(key, version.name, size, publication)
            visible, old = self._commit(stored, publication)
        except BaseException:
            self._withdraw(key, version)
            raise
        with suppress(OSError):  # it is published, and the scratch folder is swept later
            publication.file.unlink(missing_ok=True)
        if visible is stored:
            self._unfinished.discard(version.name)
        else:
            self._remove(key, version.name)
        self._discard(key, old)
        return visible

    def _already_published(self, visible: Visible, publication: Publication) -> StoredObject:
        stored, _, fence = visible
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
        """Make the object visible; return the visible object and the previous version."""

        def work(connection: Connection) -> tuple[StoredObject, str | None]:
            current = visible_object(connection, stored.key)
            if current is not None and is_stale(publication, current):
                return self._already_published(current, publication), None
            job = connection.execute(GRANTED, (publication.job_id,)).fetchone()
            if job is not None and job[0] > publication.fence:
                # Ledger and store share the database, so a zombie's rendition never becomes visible.
                raise StaleFence(f"The job of {stored.key!r} went on under fence {job[0]}.")
            return stored, make_visible(connection, stored, publication.job_id, publication.fence)

        return self._database.write(work)

    def put(self, key: str, content: bytes, *, metadata: Mapping[str, str]) -> StoredObject:
        version = self._new_version(check_key(key))
        digest = sha256_bytes(content)
        publication = Publication(key, version / "data", digest, "", 0, metadata)
        try:
            with file_errors("written", publication.file):
                publication.file.write_bytes(content)
                _make_durable(publication.file)
            stored = self._describe(key, version.name, len(content), publication)
            old = self._database.write(lambda c: make_visible(c, stored, "", 0))
        except BaseException:
            self._withdraw(key, version)
            raise
        self._unfinished.discard(version.name)
        self._discard(key, old)
        return stored

    def stat(self, key: str) -> StoredObject | None:
        visible = self._visible(check_key(key))
        return None if visible is None else visible[0]

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
        return self._read_visible(key, lambda data: source_files.place_new(data, target, stop=stop))

    def _read_visible(self, key: str, work: Callable[[Path], T]) -> T:
        """Run `work` on the visible bytes; repeat it if they were replaced before it opened them."""
        while True:
            version = self._require_object(key).version
            data = self._version_folder(key, version) / "data"
            try:
                return work(data)
            except Unavailable as error:
                if self._require_object(key).version != version:
                    continue
                if self._folder.is_dir() and not os.path.lexists(data):
                    # The file system answers, so the file is lost: a backup was restored in part.
                    raise SourceGone(f"{data} is missing from the data folder.") from error
                raise

    def free_bytes(self) -> int | None:
        """Return how many bytes an unprivileged process may still write."""
        with file_errors("looked at", self._folder):
            facts = os.statvfs(self._folder)
        return facts.f_bavail * facts.f_frsize

    def remove_discarded(self) -> None:
        """Remove the files of replaced and deleted versions that a kill left behind."""
        for key, version in self._database.rows(DISCARDED):
            self._discard(key, version)

    def sweep(self, owner: str) -> None:
        """Remove the versions that a dead process left unpublished."""
        published = {row[0] for row in self._database.rows(VERSIONS, (owner, owner))}
        for version in self._folder.glob(f"??/*/{owner}-*"):
            if version.name not in published:
                shutil.rmtree(version, ignore_errors=True)
                _prune(version.parent)

    def _visible(self, key: str) -> Visible | None:
        return self._database.read(lambda c: visible_object(c, key))

    def _require_object(self, key: str) -> StoredObject:
        stored = self.stat(key)
        if stored is None:
            raise SourceGone(f"There is no object {key!r}.")
        return stored

    def _version_folder(self, key: str, version: str) -> Path:
        digest = sha256_bytes(key.encode())
        return self._folder / digest[:2] / digest / version

    def _new_version(self, key: str) -> Path:
        folder = self._version_folder(key, f"{self._owner}-{secrets.token_hex(6)}")
        self._unfinished.add(folder.name)
        with file_errors("created", folder):
            while True:
                try:
                    # Never create the store's own folder: an unmounted share must not be replaced.
                    folder.parent.parent.mkdir(mode=0o700, exist_ok=True)
                    folder.parent.mkdir(mode=0o700, exist_ok=True)
                    folder.mkdir(mode=0o700)
                except FileNotFoundError:
                    if not self._folder.is_dir():
                        raise
                    continue  # another thread pruned the empty parent just now
                return folder

    def _describe(
        self, key: str, version: str, size: int, publication: Publication
    ) -> StoredObject:
        metadata = dict(publication.metadata)
        for name in metadata:
            if not WORD.fullmatch(name):
                raise UsageError(f"The metadata key {name!r} is not a lower-case ASCII word.")
        return StoredObject(key, version, size, publication.sha256, metadata, self._clock.now())

    def _store_bytes(self, publication: Publication, data: Path) -> int:
        file = publication.file
        if not source_files.hard_link(file, data):
            source_files.copy_new(file, data, stop=publication.stop)
            if sha256_file(data, lambda: None) != publication.sha256:
                raise StorageError(f"The copy of {file} does not have the bytes of the original.")
        _make_durable(data)
        return data.stat().st_size

    def _discard(self, key: str, version: str | None) -> None:
        if version is not None:
            self._remove(key, version)
            with suppress(HevcqError):  # the row stays, and the next start removes the version
                self._database.change(FORGET, (version,), durable=False)

    def _withdraw(self, key: str, version: Path) -> None:
        """Remove a version after a failure, unless it became visible nevertheless.

        A commit may succeed and still raise (an interrupt, a failing disk). If the outcome is unknown, the
        folder stays until a sweep after the end of this process.
        """
        with suppress(HevcqError):
            # A server may still be committing: an exclusive write waits until it has ended.
            ask = self._database.write if self._database.shared else self._database.read
            if ask(lambda c: c.execute(NAMED, (key, version.name)).fetchone()) is None:
                self._remove(key, version.name)
            self._unfinished.discard(version.name)

    def _remove(self, key: str, version: str) -> None:
        folder = self._version_folder(key, version)
        shutil.rmtree(folder, ignore_errors=True)
        _prune(folder.parent)
        self._unfinished.discard(version)


def _make_durable(data: Path) -> None:
    for path in (data, *list(data.parents)[:4]):
        file_io.fsync_file(path)


def _prune(folder: Path) -> None:
    """Remove the empty folders of a key."""
    for empty in (folder, folder.parent):
        try:
            empty.rmdir()
        except OSError:
            return
