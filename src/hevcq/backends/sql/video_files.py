"""Keep uploaded files in a folder of the data folder; their size there is the truth about an upload."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hevcq.domain.videos.record import Video
from hevcq.domain.videos.rules import raw_key
from hevcq.errors import Conflict, PermanentError, SourceChanged, SourceGone
from hevcq.ports.store import Store
from hevcq.ports.videos import (
    ByteReceiver,
    Complete,
    Completion,
    Incomplete,
    UploadWay,
    VideoFiles,
    Wrong,
)
from hevcq.sql.database import file_errors
from hevcq.util import file_lock
from hevcq.util.file_io import fsync_file, fsync_folder

FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderVideoFiles(VideoFiles):
    """One file for each upload, named by its id. A lock file beside it names the one who writes."""

    receives = True

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder, self._store = folder, store

    def prepare(self, video: Video) -> str:
        path = self._path(video)
        with file_errors("created", path):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, FLAGS, 0o600))
            fsync_folder(self._folder)
        return ""

    def way(self, video: Video) -> UploadWay:
        return UploadWay("tus", url=f"/uploads/{video.video_id}")

    @contextmanager
    def receive(self, video: Video) -> Iterator[ByteReceiver]:
        path = self._path(video)
        with self._alone(video), file_errors("written", path):
            descriptor = os.open(path, FLAGS, 0o600)
            try:
                yield _FileReceiver(descriptor, path)
            finally:
                os.close(descriptor)

    def received_bytes(self, video: Video) -> int:
        path = self._path(video)
        with file_errors("looked at", path):
            try:
                return path.lstat().st_size
            except FileNotFoundError:
                return 0

    def complete(self, video: Video) -> Completion:
        """Compare the file's size with the declared one, make it durable and link it as a source."""
        path, size, came = self._path(video), video.upload.size, self.received_bytes(video)
        if came < size:
            return Incomplete(came)
        if came > size:
            return Wrong(f"{came:,} bytes came where {size:,} were declared.")
        with self._alone(video), file_errors("written", path):
            fsync_file(path)
        with suppress(FileNotFoundError):
            self._lock(video).unlink()
        return Complete(
            self._store.accept(path, raw_key(video), moved=_ignore, stop=threading.Event())
        )

    def discard(self, video: Video) -> None:
        if not self._folder.is_dir():
            return
        with self._alone(video):
            self._unlink(video)
            self._lock(video).unlink(missing_ok=True)

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
        with self._store.stream_published(key, self._folder, stop=threading.Event()) as there:
            return Path(there.location)

    def _unlink(self, video: Video) -> None:
        path = self._path(video)
        with file_errors("deleted", path):
            path.unlink(missing_ok=True)
            fsync_folder(self._folder)

    @contextmanager
    def _alone(self, video: Video) -> Iterator[None]:
        lock = self._lock(video)
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

    def _lock(self, video: Video) -> Path:
        return self._folder / f".{video.video_id}.lock"


class _FileReceiver(ByteReceiver):
    """The open file of an upload."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor, self._path = descriptor, path
        self._end = os.lseek(descriptor, 0, os.SEEK_END)

    @property
    def offset(self) -> int:
        return self._end

    def append(self, block: bytes | bytearray | memoryview) -> None:
        with file_errors("written", self._path):
            view = memoryview(block)
            while view:
                written = os.pwrite(self._descriptor, view, self._end)
                self._end += written
                view = view[written:]

    def sync(self) -> int:
        with file_errors("written", self._path):
            os.fdatasync(self._descriptor)
        return self._end

    def cut(self, offset: int) -> None:
        with file_errors("written", self._path):
            os.ftruncate(self._descriptor, offset)
            self._end = offset


def _ignore(_count: int) -> None:
    """Nothing is transferred: the file is linked."""
