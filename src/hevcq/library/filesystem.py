"""Wrap the system calls that a swap depends on, one method each, so that tests can fail each one.

The library package changes a user's folder only through a FileSystem. Each method is one call that
either happened or did not, so a test can kill the process before or after any of them. A file's
bytes are durable after `fsync_file`, its name after `fsync_dir`. A network share may lose the answer to
a call and repeat the call, so a call whose result is already in place counts as done.
"""

import ctypes
import errno
import functools
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from hevcq.domain.job import ROUNDED_NS
from hevcq.errors import DiskFull, HevcqError, LibraryError, Stopped, Unavailable, is_full
from hevcq.ports.catalog import Fingerprint
from hevcq.util import file_io
from hevcq.util.clock import Clock
from hevcq.util.file_io import sha256_bytes, sha256_stream
from hevcq.util.text import printable

BLOCK = 1 << 20
NO_REPLACE, EXCHANGE = 1, 2
"""Flags of renameat2(2): https://man7.org/linux/man-pages/man2/rename.2.html"""
AT_FDCWD = -100
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
NO_HARD_LINKS = UNSUPPORTED | {errno.EPERM, errno.EMLINK}
NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
"""Errors that mean no file exists at a path; a file with too long a name cannot exist."""
SKIPPED = ("security.", "trusted.")
"""Attribute namespaces of the kernel and its security modules: set by policy, never copied
 (https://man7.org/linux/man-pages/man7/xattr.7.html)."""


Lock = Callable[[str, HevcqError | None], AbstractContextManager[Callable[[], None]]]
"""Holds a named lock across all machines, as `sql.database.Database.lock` does."""


class FileSystem:
    """Call the operating system's file system. Once `stop` is set, digest and copy raise Stopped.

    `shared` takes locks across the machines that share these folders. Such a FileSystem serves one
    thread, checks before each change that its locks are still held, and raises Unavailable if not.
    """

    def __init__(self, stop: threading.Event | None = None, shared: Lock | None = None) -> None:
        self._stop = stop if stop is not None else threading.Event()
        self._shared, self._held = shared, list[Callable[[], None]]()

    @contextmanager
    def lock(self, name: str, busy: HevcqError | None = None) -> Iterator[None]:
        """Hold a lock across machines in addition to a lock file; without `shared` do nothing."""
        if self._shared is None:
            yield
            return
        with self._shared(name, busy) as require:
            self._held.append(require)
            try:
                yield
            finally:
                self._held.remove(require)

    def _require_locks(self) -> None:
        for require in self._held:
            require()

    def lstat(self, path: Path) -> os.stat_result | None:
        """Return the status of `path` without following links; None if nothing is there."""
        try:
            return os.lstat(path)
        except OSError as error:
            if error.errno in NOWHERE:
                return None
            raise

    def names(self, folder: Path) -> list[str]:
        """Return the sorted names in a folder; [] if there is no such folder."""
        try:
            return sorted(entry.name for entry in folder.iterdir())
        except FileNotFoundError:
            return []

    def mkdir(self, folder: Path) -> None:
        """Create one folder with the process's umask; an existing one is fine."""
        self._require_locks()
        folder.mkdir(exist_ok=True)

    def rmdir(self, folder: Path) -> None:
        """Remove an empty folder; a missing one is fine. Raises OSError if it is not empty."""
        self._require_locks()
        with suppress(FileNotFoundError):
            folder.rmdir()

    def rename(self, old: Path, new: Path) -> None:
        """Rename one of hevcq's own files, replacing a file at `new`."""
        self._require_locks()
        before = self.lstat(old)
        try:
            old.rename(new)
        except FileNotFoundError:
            if not _is_same(before, self.lstat(new)):
                raise

    def rename_new(self, old: Path, new: Path) -> None:
        """Rename atomically without overwriting.

        Raises FileExistsError, and changes nothing, if `new` exists. On a file system without such a
        call it makes a hard link and then unlinks; a kill between them leaves both names.
        """
        self._require_locks()
        if not _rename2(old, new, NO_REPLACE):
            self._link_then_unlink(old, new)

    def exchange(self, one: Path, other: Path) -> bool:
        """Exchange the names of two files atomically, so that neither name is ever missing.

        Return False, with nothing changed, if the file system has no such call or the files are on
        two file systems.
        """
        self._require_locks()
        try:
            return _rename2(one, other, EXCHANGE)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return False
            raise

    def unlink(self, path: Path) -> None:
        """Remove a name; a missing one is fine."""
        self._require_locks()
        path.unlink(missing_ok=True)

    def read(self, path: Path) -> bytes:
        """Return the content of a small file. Raises FileNotFoundError."""
        return path.read_bytes()

    def write(self, path: Path, content: bytes) -> None:
        """Write a small file, replacing an existing one; not durable until `fsync_file`.

        An existing file is removed first, because writing through a link would change its target.
        """
        self._require_locks()
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            file.write(content)

    def copy(self, source: Path, target: Path) -> None:
        """Copy the bytes to the new file `target`. Raises FileExistsError if it exists, and Stopped."""
        self._require_locks()
        with source.open("rb") as reading, target.open("xb") as writing:
            while block := reading.read(BLOCK):
                self._check_stop()
                writing.write(block)

    def copy_metadata(self, source: Path, target: Path) -> tuple[str, ...]:
        """Copy metadata as the function `copy_metadata` does."""
        self._require_locks()
        return copy_metadata(source, target)

    def fsync_file(self, path: Path) -> None:
        """Make the bytes and metadata of a file durable."""
        file_io.fsync_file(path)

    def fsync_dir(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        file_io.fsync_folder(folder)

    def digest(self, path: Path) -> str:
        """Return the hexadecimal SHA-256 of a regular file. Raises OSError for a link or pipe, and Stopped."""
        try:
            return self._digest(path)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return self._digest(path)  # another machine replaced the file: read the new one

    def _digest(self, path: Path) -> str:
        with os.fdopen(open_regular(path), "rb", buffering=0) as reading:
            return sha256_stream(reading, self._check_stop)[0]

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped("Stopped while reading or copying a file; nothing was changed.")

    def _link_then_unlink(self, old: Path, new: Path) -> None:
        try:
            os.link(old, new, follow_symlinks=False)
        except FileExistsError:
            # One file under two names. A share that ignores case reports one name as both.
            second, first = self.lstat(new), self.lstat(old)
            if first is None or first.st_nlink < 2 or not _is_same(first, second):
                raise
            self.unlink(old)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            # No atomic call at all (some FUSE and network shares): check first, then rename.
            # hevcq's own swaps hold the root's lock, so only another program could race here.
            if os.path.lexists(new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from error
            self.rename(old, new)
        else:
            self.unlink(old)


def _is_same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    return one is not None and other is not None and os.path.samestat(one, other)


def make_folders(fs: FileSystem, folder: Path) -> None:
    """Create a folder and its missing parents, each durable in its parent."""
    if fs.lstat(folder) is not None:
        return
    make_folders(fs, folder.parent)
    fs.mkdir(folder)
    fs.fsync_dir(folder.parent)


def temp_of(path: Path) -> Path:
    """Return the temporary name that `write_durably` uses for `path`."""
    digest = sha256_bytes(os.fsencode(path.name))[:16]
    return path.with_name(f".hevcq-{digest}.tmp")


def write_durably(fs: FileSystem, path: Path, content: bytes) -> None:
    """Write a small file of hevcq's atomically, durable when this returns."""
    temp = temp_of(path)
    fs.write(temp, content)
    fs.fsync_file(temp)
    fs.rename(temp, path)
    fs.fsync_dir(path.parent)


def move_new(fs: FileSystem, old: Path, new: Path) -> None:
    """Rename without overwriting and make both names durable. Raises FileExistsError if `new` exists."""
    fs.rename_new(old, new)
    fs.fsync_dir(new.parent)
    if old.parent != new.parent:
        fs.fsync_dir(old.parent)


def holds(fs: FileSystem, path: Path, size: int, sha256: str) -> bool:
    """Return whether a regular file of this size in bytes and SHA-256 is at `path`."""
    facts = fs.lstat(path)
    if facts is None or not stat.S_ISREG(facts.st_mode) or facts.st_size != size:
        return False
    return fs.digest(path) == sha256


def remove_tree(fs: FileSystem, path: Path) -> None:
    """Remove a file, or a folder with all it holds; links are removed, not followed."""
    facts = fs.lstat(path)
    if facts is None or not stat.S_ISDIR(facts.st_mode):
        fs.unlink(path)
        return
    for name in fs.names(path):
        remove_tree(fs, path / name)
    fs.rmdir(path)


def fingerprint_of(facts: os.stat_result) -> Fingerprint:
    """Return the fingerprint of a file: size, modification time, inode and device."""
    return Fingerprint(facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_dev)


def same_bytes(one: Fingerprint, other: Fingerprint) -> bool:
    """Return whether two fingerprints are of the same file with unchanged bytes.

    The device is not compared: its number may change with a reboot or a new mount. A fingerprint from
    a share has no inode, and each machine rounds its time.
    """
    if 0 in {one.inode, other.inode}:
        return one.size == other.size and abs(one.mtime_ns - other.mtime_ns) <= ROUNDED_NS
    return (one.size, one.mtime_ns, one.inode) == (other.size, other.mtime_ns, other.inode)


def record_names(folder: Path) -> list[str]:
    """Return the sorted names in a folder of records in `.hevcq`; none if it cannot be listed.

    A symbolic link counts as empty: hevcq makes none here, but an unpacked archive may contain one.
    """
    if folder.parent.is_symlink() or folder.is_symlink():
        return []
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names only
    except OSError:
        return []


def has_subseconds(mtime_ns: int) -> bool:
    """Return whether a modification time in nanoseconds is finer than whole seconds.

    Only then do equal times and sizes identify a file: a recorder's segments have equal sizes, and
    copies of them have equal times in whole seconds.
    """
    return mtime_ns % 1_000_000_000 != 0


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it is unknown. Does not follow links."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def is_behind_link(folder: Path, base: Path) -> bool:
    """Return whether any component of `folder` below `base` is a symbolic link."""
    return Path(os.path.realpath(folder)) != Path(os.path.realpath(base), folder.relative_to(base))


def open_regular(path: Path) -> int:
    """Open a regular file for reading and return its descriptor.

    Raises OSError at once for a link, pipe, device or socket.
    """
    # Without O_NONBLOCK, opening a pipe in the file's place would block for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def forget_cached(descriptor: int) -> None:
    """Drop a file's clean pages from the page cache, so that the next read comes from the disk."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )
    function.restype = ctypes.c_int
    return function


def _rename2(old: Path, new: Path, how: int) -> bool:
    """Call renameat2; return False if this system lacks the call or the flag. Raises its OSErrors."""
    call = _renameat2()
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), how) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), os.fspath(old), None, os.fspath(new))


def copy_metadata(source: Path, target: Path) -> tuple[str, ...]:
    """Copy owner, mode, extended attributes and times from `source` to `target`.

    Return one sentence for each that could not be preserved, as the file system or the user's rights
    may not allow it. Raises OSError if `source` or `target` is gone.
    """
    facts = os.lstat(source)
    lost = [*_copy_owner(facts, target), *_copy_mode(facts, target)]
    lost.extend(_copy_attributes(source, target))
    # Times last: every change above touches them on some file systems.
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns), follow_symlinks=False)
    return tuple(lost)


def _copy_owner(facts: os.stat_result, target: Path) -> list[str]:
    now = os.lstat(target)
    if (now.st_uid, now.st_gid) == (facts.st_uid, facts.st_gid):
        return []
    try:
        os.chown(target, facts.st_uid, facts.st_gid, follow_symlinks=False)
    except PermissionError:
        return _copy_group(facts, target)
    except OSError as error:
        return [f"Owner not preserved: {error.strerror}."]
    return []


def _copy_group(facts: os.stat_result, target: Path) -> list[str]:
    try:
        os.chown(target, -1, facts.st_gid, follow_symlinks=False)
    except OSError:
        return ["Owner and group not preserved: only root can change them."]
    return ["Owner not preserved: only root can change it."]


def _copy_mode(facts: os.stat_result, target: Path) -> list[str]:
    try:
        # The set-id bits mean nothing on a video and must not travel to another owner's file.
        target.chmod(stat.S_IMODE(facts.st_mode) & 0o1777)
    except OSError as error:
        return [f"Mode not preserved: {error.strerror}."]
    return []


def _copy_attributes(source: Path, target: Path) -> list[str]:
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except (AttributeError, OSError):
        # Not supported by this system or file system: nothing to copy.
        return []
    lost: list[str] = []
    for name in names:
        if name.startswith(SKIPPED):
            continue
        try:
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENODATA:
                lost.append(f"Attribute {name!r} not preserved: {error.strerror}.")
    return lost


class Pace:
    """Limit reading to `bytes_s` bytes a second (0: no limit), and raise Stopped once `stop` is set."""

    def __init__(self, clock: Clock, stop: threading.Event, bytes_s: float = 0.0) -> None:
        self.clock, self._stop, self._rate = clock, stop, bytes_s
        self._free_at = clock.monotonic()

    def spend(self, count: int) -> None:
        """Wait until `count` more bytes fit the rate. Raises Stopped."""
        if self._rate > 0:
            now = self.clock.monotonic()
            # Unused time is not saved up, so that no burst follows a pause.
            self._free_at = max(self._free_at, now) + count / self._rate
            self.clock.wait(self._stop, self._free_at - now)
        if self._stop.is_set():
            raise Stopped("Stopped while a file was read; the next run goes on from there.")


BROKEN = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO, errno.EHOSTDOWN}
)
"""Errors of NFS, of SMB and of an unplugged disk; a retry may help."""


@contextmanager
def library_errors(path: Path) -> Iterator[None]:
    """Translate an OSError about `path` into DiskFull, Unavailable or LibraryError."""
    try:
        yield
    except OSError as error:
        raise library_error(path, error) from error


def library_error(path: Path, error: OSError) -> HevcqError:
    """Return the DiskFull, Unavailable or LibraryError for an OSError about `path`."""
    why = (error.strerror or str(error)).lower()
    if is_full(error):
        return DiskFull(f"No space left for {printable(path)}.", remedy="Free some space.")
    if error.errno in BROKEN:
        return Unavailable(f"The file system of {printable(path)} failed: {why}.")
    return LibraryError(
        f"{printable(path)} cannot be written: {why}.",
        remedy="Give this user write permission there, or use --output.",
    )
