"""Follow sources to their library files, and link or copy a whole file into place.

A source is a library file, which is never copied or changed: it is linked by its path and pinned by size,
modification time and inode, where machines share it by a digest of its ends in place of the inode.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hevcq.domain.job import Source, file_version, is_same_version, share_version
from hevcq.domain.keys import LIBRARY_BUCKET, check_key, path_of_key
from hevcq.errors import (
    DENIED,
    HevcqError,
    LibraryError,
    PermanentError,
    SourceAway,
    SourceChanged,
    SourceGone,
    SourceUnreadable,
    Stopped,
    Unavailable,
    file_errors,
)
from hevcq.sql.catalog import holds_recorded_video
from hevcq.sql.database import Database, upsert
from hevcq.util import file_io
from hevcq.util.file_io import sha256_bytes, sha256_ends, sha256_file
from hevcq.util.text import printable

BLOCK = 4 * 1024 * 1024
CANNOT_LINK = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}
)
CANNOT_COPY_RANGE = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EPERM}
)
MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})
LINK_SOURCE = upsert("source", "source_id, path, device", "source_id")
FIND_SOURCE = "SELECT path, device FROM source WHERE source_id = ?"
FIND_ROOT = "SELECT root FROM placement WHERE source = ? ORDER BY seq DESC LIMIT 1"


def link(source: Path, target: Path) -> bool:
    """Create a hard link; return False if the file systems cannot.

    Raises FileExistsError if `target` exists.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in CANNOT_LINK:
            return False
        raise
    return True


def copy_new(source: Path, target: Path, *, stop: threading.Event) -> None:
    """Copy to the new name `target`, which appears only complete and durable.

    Until then the copy has a hidden name beside it, which the next attempt at this target removes.
    Raises FileExistsError if `target` exists.
    """
    part = target.with_name(f".hevcq-{sha256_bytes(os.fsencode(target))[:16]}.part")
    part.unlink(missing_ok=True)
    try:
        with source.open("rb", buffering=0) as inp, part.open("xb", buffering=0) as out:
            _transfer(inp.fileno(), out.fileno(), stop)
            os.fsync(out.fileno())
        if not link(part, target):
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
            part.rename(target)  # A file system without links: the best it can do.
    finally:
        part.unlink(missing_ok=True)


def _transfer(source: int, target: int, stop: threading.Event) -> None:
    size, done, in_kernel = os.fstat(source).st_size, 0, True
    while done < size:
        _check_stop(stop)
        if in_kernel:
            try:
                # Shares the blocks where the file system can.
                step = os.copy_file_range(source, target, BLOCK * 4, done, done)
            except OSError as error:
                if error.errno not in CANNOT_COPY_RANGE:
                    raise
                step = 0
            in_kernel = step > 0
        if not in_kernel:
            step = os.pwrite(target, os.pread(source, BLOCK, done), done)
        if step == 0:
            break
        done += step


def place_new(source: Path, target: Path, *, stop: threading.Event) -> str:
    """Link or copy `source` to the new name `target`; return the SHA-256 read back from there.

    Raises LibraryError if `target` exists, DiskFull, StorageError or Stopped; then nothing new
    is at `target`.
    """
    _check_stop(stop)
    with file_errors("written", target):
        try:
            if not link(source, target):
                copy_new(source, target, stop=stop)
        except FileExistsError as error:
            raise LibraryError(
                f"{printable(target)} exists already and was left as it is."
            ) from error
        try:
            file_io.fsync_file(target)
            file_io.fsync_file(target.parent)
            return sha256_file(target, lambda: _check_stop(stop))
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _check_stop(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def link_source(database: Database, path: Path, key: str) -> Source:
    """Link the file at `path`; raise SourceGone or SourceUnreadable if it cannot be read."""
    check_key(key)
    path = path.absolute()
    raw = database.paths.unambiguous_path(path)
    with _opened(path) as (facts, descriptor):
        if database.shared:
            ends = sha256_ends(descriptor)
            version = share_version(facts.st_size, facts.st_mtime_ns, ends)
        else:
            version = file_version(facts.st_size, facts.st_mtime_ns, facts.st_ino)
    source = Source(bucket=LIBRARY_BUCKET, key=key, version=version, size=facts.st_size)
    # Not durable by itself: the publisher's commit that queues the source carries it along.
    database.change(LINK_SOURCE, (source.source_id, raw, facts.st_dev), durable=False)
    return source


def follow_source(database: Database, source: Source, path: Path) -> None:
    """Link a source to the new path of its file; do nothing if the file there is another one."""
    try:
        same = source.bucket == LIBRARY_BUCKET and _is_same(source, path.absolute())
    except PermanentError:
        return
    if same:
        link_source(database, path, source.key)


def source_path(database: Database, source: Source) -> Path:
    """Return the source's file after checking that it is still the same version.

    Raises SourceGone, SourceAway if the whole folder that was ingested is not there,
    SourceChanged or SourceUnreadable. The device number is recorded but not compared: it may
    change when the machine starts again.
    """
    row = None
    if source.bucket == LIBRARY_BUCKET:
        row = database.row(FIND_SOURCE, (source.source_id,))
    if row is None:
        raise SourceGone(
            f"The source {printable(path_of_key(source.key) or source.key)} is not known here."
        )
    path = database.paths.local_path(row[0])
    try:
        same = _is_same(source, path)
    except SourceGone as gone:
        _require_root(database, path, device=row[1])
        _require_right_folder(database, path)
        raise gone from None
    if not same:
        _require_right_folder(database, path)
        raise SourceChanged(
            f"The source {printable(path)} was replaced or written to since it was queued."
        )
    return path


def _is_same(source: Source, path: Path) -> bool:
    """Return whether the file at `path` is this version. Raises what a file that cannot be read does."""
    with _opened(path) as (facts, descriptor):
        return is_same_version(source.version, facts, lambda: sha256_ends(descriptor))


def _require_right_folder(database: Database, path: Path) -> None:
    """Raise SourceAway for a file in a mapped folder where no other video is as it was recorded either.

    Perhaps the setting leads to other bytes: no job is ended by that.
    """
    found = database.paths.mapping_of(path)
    if found is not None and not holds_recorded_video(database, found[0], except_for=path):
        raise SourceAway(
            f"{printable(path)} is not the queued video, and nothing shows that {printable(found[1])} is"
            f" {printable(found[0])}.",
            remedy="Correct the setting `paths` on this machine, or ingest that folder again.",
        )


def _require_root(database: Database, path: Path, device: int) -> None:
    """Raise SourceAway if the ingested folder of a missing file is missing, or an empty mount point."""
    row = database.row(FIND_ROOT, (database.paths.stored_path(path),))
    if row is None:
        return
    root = database.paths.local_path(row[0])
    try:
        same = root.stat().st_dev == device and not database.shared
        if same or (any(root.iterdir()) and (path.parent.is_dir() or not database.shared)):
            return
    except OSError as error:
        if error.errno not in MISSING:
            return
    raise SourceAway(
        f"The folder {printable(root)} is not there.",
        remedy="Mount its disk: the work goes on. If it is gone for good, `hevcq cancel` that folder.",
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[os.stat_result, int]]:
    """Open a source; yield its status and descriptor. Raises SourceGone, SourceUnreadable or Unavailable."""
    try:
        # Opening proves the right to read; O_NONBLOCK, so that a named pipe cannot hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise _source_error(error, path) from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise SourceUnreadable(f"The source {printable(path)} is not a file.")
        yield facts, descriptor
    except OSError as error:  # a stale handle, or a disk that fails
        raise _source_error(error, path) from error
    finally:
        os.close(descriptor)


def _source_error(error: OSError, path: Path) -> HevcqError:
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in MISSING:
        return SourceGone(f"The source {printable(path)} no longer exists.")
    if error.errno in DENIED or error.errno in {errno.ELOOP, errno.ENAMETOOLONG}:
        return SourceUnreadable(f"The source {printable(path)} cannot be read: {why}.")
    return Unavailable(f"The source {printable(path)} cannot be reached: {why}.")
