"""Record library files as sources, find them again, and link or copy a file into place.

A source is a library file that is never copied or changed. It is recorded by its path and pinned by size,
modification time and inode; where machines share it, a digest of its ends replaces the inode.
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


def hard_link(source: Path, target: Path) -> bool:
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
    """Copy a file to the new path `target`, which appears only when it is complete and durable.

    Meanwhile the copy has a hidden name beside it, which the next attempt removes. Raises FileExistsError
    if `target` exists.
    """
    part = target.with_name(f".hevcq-{sha256_bytes(os.fsencode(target))[:16]}.part")
    part.unlink(missing_ok=True)
    try:
        with source.open("rb", buffering=0) as inp, part.open("xb", buffering=0) as out:
            _transfer(inp.fileno(), out.fileno(), stop)
            os.fsync(out.fileno())
        if not hard_link(part, target):
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
            part.rename(target)  # not atomic with the check, but this file system has no links
    finally:
        part.unlink(missing_ok=True)


def _transfer(source: int, target: int, stop: threading.Event) -> None:
    size, done, in_kernel = os.fstat(source).st_size, 0, True
    while done < size:
        check_stop(stop)
        if in_kernel:
            try:
                # Shares the blocks if the file system can.
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
    """Link or copy `source` to the new path `target`; return the SHA-256 read back from there.

    Raises LibraryError if `target` exists, DiskFull, StorageError or Stopped, and leaves no new file.
    """
    check_stop(stop)
    with file_errors("written", target):
        try:
            if not hard_link(source, target):
                copy_new(source, target, stop=stop)
        except FileExistsError as error:
            raise LibraryError(
                f"{printable(target)} exists already and was left as it is."
            ) from error
        try:
            file_io.fsync_file(target)
            file_io.fsync_file(target.parent)
            return sha256_file(target, lambda: check_stop(stop))
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def check_stop(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def link_source(database: Database, path: Path, key: str) -> Source:
    """Record the file at `path` as a source. Raises SourceGone or SourceUnreadable."""
    check_key(key)
    path = path.absolute()
    raw = database.paths.unambiguous_path(path)
    with _open_source(path) as (facts, descriptor):
        if database.shared:
            ends = sha256_ends(descriptor)
            version = share_version(facts.st_size, facts.st_mtime_ns, ends)
        else:
            version = file_version(facts.st_size, facts.st_mtime_ns, facts.st_ino)
    source = Source(bucket=LIBRARY_BUCKET, key=key, version=version, size=facts.st_size)
    # Not durable by itself: the commit that queues the source makes it durable.
    database.change(LINK_SOURCE, (source.source_id, raw, facts.st_dev), durable=False)
    return source


def follow_source(database: Database, source: Source, path: Path) -> None:
    """Record the new path of a source's file; do nothing if the file there is another one."""
    try:
        same = source.bucket == LIBRARY_BUCKET and _is_current(source, path.absolute())
    except PermanentError:
        return
    if same:
        link_source(database, path, source.key)


def source_path(database: Database, source: Source) -> Path:
    """Return the path of a source after checking that its file is still the same version.

    Raises SourceGone, SourceAway if the whole ingested folder is missing, SourceChanged or
    SourceUnreadable. The device number is not compared, because a reboot may change it.
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
        same = _is_current(source, path)
    except SourceGone as gone:
        _require_root(database, path, device=row[1])
        _require_mapping(database, path)
        raise gone from None
    if not same:
        _require_mapping(database, path)
        raise SourceChanged(
            f"The source {printable(path)} was replaced or written to since it was queued."
        )
    return path


def _is_current(source: Source, path: Path) -> bool:
    """Return whether the file at `path` is this version of the source. Raises as `_open_source`."""
    with _open_source(path) as (facts, descriptor):
        return is_same_version(source.version, facts, lambda: sha256_ends(descriptor))


def _require_mapping(database: Database, path: Path) -> None:
    """Raise SourceAway if a file is in a mapped folder that holds no other recorded video either.

    The setting `paths` may lead to another folder, and that must not end a job.
    """
    mapping = database.paths.mapping_of(path)
    if mapping is not None and not holds_recorded_video(database, mapping[0], except_for=path):
        raise SourceAway(
            f"{printable(path)} is not the queued video, and nothing shows that {printable(mapping[1])} is"
            f" {printable(mapping[0])}.",
            remedy="Correct the setting `paths` on this machine, or ingest that folder again.",
        )


def _require_root(database: Database, path: Path, device: int) -> None:
    """Raise SourceAway if the ingested folder of a missing file is missing or an empty mount point."""
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
def _open_source(path: Path) -> Iterator[tuple[os.stat_result, int]]:
    """Open a source; yield its status and descriptor. Raises SourceGone, SourceUnreadable or Unavailable."""
    try:
        # Opening proves the right to read. O_NONBLOCK keeps a named pipe from blocking.
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
