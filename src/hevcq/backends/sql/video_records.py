"""The records of uploaded videos and the page's accounts in SQL, and uploaded files in a folder.

The size of a file in the folder tells how much of its upload arrived.
"""

import heapq
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from hevcq.domain.job import Source
from hevcq.domain.videos import (
    Quota,
    Video,
    VideoStatus,
    VideoUsage,
    Visibility,
    quota_refusal,
    raw_key,
)
from hevcq.errors import BadUpload, Conflict, PermanentError, SourceChanged, SourceGone, file_errors
from hevcq.ports.store import Store
from hevcq.ports.videos import (
    MAX_PAGE,
    AccountKind,
    Accounts,
    ByteReceiver,
    Page,
    UploadWay,
    VideoFiles,
    VideoFilter,
    VideoOrder,
    VideoRecords,
)
from hevcq.sql.database import Connection, Database, upsert
from hevcq.util import file_lock
from hevcq.util.file_io import fsync_file, fsync_folder

COLUMNS = "video_id, owner, status, slug, due_at, words, bytes, revision, record"
ADD = f"INSERT INTO video ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
CHANGE = """UPDATE video SET owner = ?, status = ?, slug = ?, due_at = ?, words = ?, bytes = ?,
revision = ?, record = ? WHERE video_id = ? AND revision = ?"""
REMOVE = "DELETE FROM video WHERE video_id = ? AND revision = ?"
GET = "SELECT record FROM video WHERE video_id = ?"
BY_SLUG = "SELECT record FROM video WHERE slug = ?"
DUE = """SELECT due_at, video_id, record FROM video WHERE due_at IS NOT NULL AND due_at <= :now
AND (due_at, video_id) > (:due_at, :video_id) ORDER BY due_at, video_id LIMIT 100"""
ORDERS = {
    VideoOrder.NEWEST: "video_id DESC",
    VideoOrder.NAME: "words, video_id",  # the words begin with the title
    VideoOrder.SIZE: "CAST(json_extract(record, '$.upload.size') AS BIGINT) DESC, video_id",
}
USAGE = "SELECT videos, open, bytes FROM video_usage WHERE scope = ?"


class SqlVideoRecords(VideoRecords):
    """One row for each video, with its record as JSON."""

    sends_ends = True  # by a trigger
    orders = frozenset(ORDERS)

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, video: Video, quota: Quota) -> None:

        def work(connection: Connection) -> None:
            if connection.execute(GET, (video.video_id,)).fetchone() is not None:
                raise Conflict(f"There is a video {video.video_id} already.")
            owner, farm = _usage(connection, video.owner), _usage(connection, None)
            if refusal := quota_refusal(quota, owner, farm, video.charged_bytes):
                raise refusal
            connection.execute(ADD, (video.video_id, *_row(video)))

        self._database.write(work)

    def get(self, video_id: str) -> Video | None:
        return self._find(GET, video_id)

    def update(self, video: Video) -> Video:
        new = video.model_copy(update={"revision": video.revision + 1})

        def work(connection: Connection) -> bool:
            if new.slug is not None:
                other = connection.execute(BY_SLUG, (new.slug,)).fetchone()
                if other is not None and _video_in(other[0]).video_id != new.video_id:
                    return False
            values = (*_row(new), video.video_id, video.revision)
            return connection.execute(CHANGE, values).rowcount == 1

        if not self._database.write(work):
            raise Conflict(f"The video {video.video_id} was changed meanwhile.")
        return new

    def delete(self, video: Video) -> None:
        values = (video.video_id, video.revision)
        if self._database.change(REMOVE, values) == 0 and self.get(video.video_id) is not None:
            raise Conflict(f"The video {video.video_id} was changed meanwhile.")

    def page(self, wanted: VideoFilter) -> Page:
        """Merge the rows of each state, newest first; each state is a walk along one index.

        Any other order reads all matching rows.
        """
        limit = max(1, min(wanted.limit, MAX_PAGE))
        newest = wanted.order is VideoOrder.NEWEST
        walks = [[state] for state in wanted.in_order] if newest else [wanted.in_order]

        def work(connection: Connection) -> list[tuple[str, str]]:
            rows = [
                connection.execute(*_select_page(wanted, states, limit + 1)) for states in walks
            ]
            return list(islice(heapq.merge(*rows, reverse=True), limit + 1))

        rows = self._database.read(work)
        videos = tuple(_video_in(record) for _, record in rows[:limit])
        last = videos[-1].video_id if newest and videos else str(int(wanted.before or 0) + limit)
        return Page(videos, last if len(rows) > limit else "")

    def by_slug(self, slug: str) -> Video | None:
        video = self._find(BY_SLUG, slug)
        return video if video is not None and video.visibility is Visibility.PUBLIC else None

    def due(self, now: float) -> Iterator[Video]:
        after: dict[str, Any] = {"now": now, "due_at": float("-inf"), "video_id": ""}
        while rows := self._database.rows(DUE, after):
            yield from (_video_in(row[2]) for row in rows)
            after.update(due_at=rows[-1][0], video_id=rows[-1][1])

    def usage(self, owner: str | None = None) -> VideoUsage:
        return self._database.read(lambda connection: _usage(connection, owner))

    def _find(self, sql: str, value: str) -> Video | None:
        row = self._database.row(sql, (value,))
        return None if row is None else _video_in(row[0])


def _select_page(
    wanted: VideoFilter, states: Sequence[VideoStatus], limit: int
) -> tuple[str, list[Any]]:
    newest = wanted.order is VideoOrder.NEWEST
    where = [f"status IN ({', '.join('?' * len(states))})"]
    values: list[Any] = [state.value for state in states]
    for condition, value in (
        ("owner = ?", wanted.owner),
        ("video_id < ?", (newest and wanted.before) or None),
        ("instr(words, ?) > 0", wanted.text.casefold() or None),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    order = f"ORDER BY {ORDERS[wanted.order]}"
    skipped = 0 if newest else int(wanted.before or 0)
    # The inner query needs an index only; reading whole records costs many times as much.
    page = f"FROM video WHERE {' AND '.join(where)} {order} LIMIT {limit} OFFSET {skipped}"
    ids = f"SELECT video_id {page}"
    return f"SELECT video_id, record FROM video WHERE video_id IN ({ids}) {order}", values  # noqa: S608


def _usage(connection: Connection, owner: str | None) -> VideoUsage:
    scope = "farm" if owner is None else f"owner:{owner}"
    row = connection.execute(USAGE, (scope,)).fetchone()
    return VideoUsage() if row is None else VideoUsage(*row)


def _row(video: Video) -> tuple[Any, ...]:
    return (
        video.owner,
        video.status.value,
        video.slug,
        video.due_at,
        video.search_text,
        video.charged_bytes,
        video.revision,
        video.model_dump_json(),
    )


def _video_in(record: str) -> Video:
    return Video.model_validate_json(record)


ALL_ACCOUNTS = "SELECT key, row FROM accounts WHERE kind = ? ORDER BY key"
ONE_ACCOUNT = "SELECT row FROM accounts WHERE kind = ? AND key = ?"
PUT_ACCOUNT = upsert("accounts", "kind, key, row, expires_at", "kind, key")
REMOVE_ACCOUNT = "DELETE FROM accounts WHERE kind = ? AND key = ?"
FORGET_ACCOUNTS = "DELETE FROM accounts WHERE kind = ? AND expires_at < ?"


class SqlAccounts(Accounts):
    """Store accounts as rows in a database, which the caller closes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.where = database.where

    def all(self, kind: AccountKind) -> Mapping[str, Mapping[str, Any]]:
        return {key: json.loads(row) for key, row in self._database.rows(ALL_ACCOUNTS, (kind,))}

    def get(self, kind: AccountKind, key: str) -> Mapping[str, Any] | None:
        stored = self._database.row(ONE_ACCOUNT, (kind, key))
        return None if stored is None else dict(json.loads(stored[0]))

    def put(
        self,
        kind: AccountKind,
        key: str,
        row: Mapping[str, Any],
        *,
        expires_at: float | None = None,
    ) -> bool:

        def work(connection: Connection) -> bool:
            previous = connection.execute(ONE_ACCOUNT, (kind, key)).fetchone()
            connection.execute(PUT_ACCOUNT, (kind, key, json.dumps(dict(row)), expires_at))
            return previous is None

        return self._database.write(work)

    def remove(self, kind: AccountKind, key: str) -> bool:
        return self._database.change(REMOVE_ACCOUNT, (kind, key)) > 0

    def forget(self, kind: AccountKind, now: float) -> None:
        self._database.change(FORGET_ACCOUNTS, (kind, now))


class FolderVideoFiles(VideoFiles):
    """One file for each upload, named by its id. Whoever writes it holds the lock file beside it."""

    receives = True

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder, self._store = folder, store

    def prepare(self, video: Video) -> str:
        path = self._path(video)
        with file_errors("created", path):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            ByteReceiver(path).close()
            fsync_folder(self._folder)
        return ""

    def way(self, video: Video) -> UploadWay:
        return UploadWay("tus", url=f"/uploads/{video.video_id}")

    @contextmanager
    def receive(self, video: Video) -> Iterator[ByteReceiver]:
        with self._upload_lock(video), closing(ByteReceiver(self._path(video))) as receiver:
            yield receiver

    def received_bytes(self, video: Video) -> int:
        path = self._path(video)
        with file_errors("looked at", path):
            try:
                return path.lstat().st_size
            except FileNotFoundError:
                return 0

    def complete(self, video: Video) -> Source | int:
        """Compare the file's size with the declared one, make it durable and link it as a source."""
        path, size, received = self._path(video), video.upload.size, self.received_bytes(video)
        if received < size:
            return received
        if received > size:
            raise BadUpload(f"{received:,} bytes came where {size:,} were declared.")
        with self._upload_lock(video), file_errors("written", path):
            fsync_file(path)
        with suppress(FileNotFoundError):
            self._lock_path(video).unlink()
        return self._store.accept(
            path, raw_key(video), moved=lambda _count: None, stop=threading.Event()
        )

    def discard(self, video: Video) -> None:
        if not self._folder.is_dir():
            return
        with self._upload_lock(video):
            self._unlink(video)
            self._lock_path(video).unlink(missing_ok=True)

    def delete_raw(self, video: Video) -> None:
        if video.source is None:
            return
        try:
            self._store.check(video.source)
        except SourceGone:
            return
        except SourceChanged:
            raise
        except PermanentError as error:
            raise SourceChanged(
                f"The uploaded file is not the one that was encoded: {error}"
            ) from error
        self._unlink(video)

    def raw(self, video: Video, **_shown: object) -> Path:
        if video.source is None:
            raise SourceGone("The upload is not complete.")
        self._store.check(video.source)
        return self._path(video)

    def published(self, key: str, **_shown: object) -> Path:
        with self._store.stream_published(key, self._folder, stop=threading.Event()) as file:
            return Path(file.location)

    def _unlink(self, video: Video) -> None:
        path = self._path(video)
        with file_errors("deleted", path):
            path.unlink(missing_ok=True)
            fsync_folder(self._folder)

    @contextmanager
    def _upload_lock(self, video: Video) -> Iterator[None]:
        lock = self._lock_path(video)
        with file_errors("opened", lock):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = file_lock.try_acquire(lock)
        if descriptor is None:
            raise Conflict("Another client is sending this upload just now.")
        try:
            yield
        finally:
            os.close(descriptor)

    def _path(self, video: Video) -> Path:
        return self._folder / raw_key(video).rpartition("/")[2]

    def _lock_path(self, video: Video) -> Path:
        return self._folder / f".{video.video_id}.lock"
