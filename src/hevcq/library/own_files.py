"""Name and lock hevcq's own files in a library, and find its certificates.

- `.hevcq/` at a library root: lock, journal, certificates, kept originals and their records.
- `.hevcq-…`: a temporary file beside its final name; the next start removes leftovers.

A certificate is found by content even after its files moved: its name holds the sizes of rendition
and source, so one listing shows which few certificates must be read.

The locks of a library during a swap, and of a job during its placement, are `flock` locks on files below
`.hevcq`. They exclude two processes on one library and two threads of one process; the kernel drops them
when the holder dies, even by kill -9. Not every share carries them to other machines, so whoever holds
one also holds a lock of the `FileSystem`.
"""

import functools
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.certificate import Certificate
from hevcq.domain.keys import MASTER, is_set_version
from hevcq.errors import SwapRefused, Unavailable, VerificationFailed
from hevcq.library.filesystem import FileSystem, open_regular, record_names
from hevcq.util import file_lock
from hevcq.util.file_io import fsync_folder
from hevcq.util.file_lock import LocksUnsupported
from hevcq.util.text import printable

OWN_FOLDER = ".hevcq"
OWN_PREFIX = ".hevcq-"
CERTIFICATE_NAME = r"[0-9a-f]{32}\.([0-9]{1,19})\.([0-9]{1,19})\.\w{1,64}\.json"
"""The name of a certificate in a library's `.hevcq`: the head of the rendition's SHA-256, the sizes
of rendition and source in bytes, and the job."""
SET_SUFFIX = ".hls"
"""The end of the name of a folder that holds a set of files."""
MAX_NAME_BYTES = 255
"""NAME_MAX of ext4, XFS, btrfs, APFS and NTFS."""


def shown_path(target: Path) -> Path:
    """Return the path to show to people: the rendition's file, or the folder of a set."""
    return target.parent if target.name == MASTER else target


def holds_own_set(folder: Path) -> bool:
    """Return whether a folder is a set that hevcq placed, whose files a scan must not take for videos.

    Its name, its master playlist and the folder of a job's files beside that identify it.
    """
    if not folder.name.endswith(SET_SUFFIX):
        return False
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names only
    except OSError:
        return False
    return MASTER in names and any(is_set_version(name) for name in names)


def is_own(name: str) -> bool:
    """Return whether a name is one of hevcq's own folders or temporary files."""
    return name == OWN_FOLDER or name.startswith(OWN_PREFIX)


RECORDS = ("busy", "certificates", "journal", "kept", "undone")
"""Folders of records in `.hevcq`. `originals` is not one of them: it may be a link to another disk."""


def own_folder(root: Path) -> Path:
    """Return the folder of hevcq's records at a library root."""
    return root / OWN_FOLDER


def find_linked_folder(root: Path) -> Path | None:
    """Return the `.hevcq` of a root, or the first folder of RECORDS in it, that is a symbolic link."""
    own = own_folder(root)
    places = (own, *(own / name for name in RECORDS))
    return next((place for place in places if place.is_symlink()), None)


def kept_folder(root: Path) -> Path:
    """Return the folder of the records of a library's kept originals."""
    return own_folder(root) / "kept"


def temp_beside(target: Path, job_id: str) -> Path:
    """Return the temporary name of a job's rendition beside its target."""
    return target.with_name(f"{OWN_PREFIX}{job_id}.part")


def aside_beside(source: Path, job_id: str) -> Path:
    """Return the temporary name of an original that is being moved away."""
    return source.with_name(f"{OWN_PREFIX}{job_id}.original")


def certificates_folder(root: Path) -> Path:
    return own_folder(root) / "certificates"


def certificate_path(root: Path, sha256: str, sizes: tuple[int, int], job_id: str) -> Path:
    """Return the path of a rendition's certificate, named by its content (see CERTIFICATE_NAME).

    `sizes` are those of rendition and source in bytes. The path stays valid when the library is moved
    or its files are renamed.
    """
    return certificates_folder(root) / f"{sha256[:32]}.{sizes[0]}.{sizes[1]}.{job_id}.json"


def truncate(raw: bytes, size: int) -> bytes:
    """Return at most `size` bytes of a name, never splitting a UTF-8 character."""
    if len(raw) <= size:
        return raw
    while size > 0 and raw[size] & 0xC0 == 0x80:
        size -= 1
    return raw[:size]


def case_twin(name: str, names: list[str]) -> str | None:
    """Return the one of `names` that differs from `name` only by case, or None."""
    folded = name.casefold()
    return next((other for other in names if other != name and other.casefold() == folded), None)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A certificate's file, with the sizes that its name holds (in bytes)."""

    path: Path
    rendition_size: int
    source_size: int


class Certificates:
    """Find certificates in the `.hevcq` folders of `homes` and of every folder above a file.

    Each folder is listed once, so every scan needs an instance of its own.
    """

    def __init__(self, homes: Iterable[Path] = ()) -> None:
        self._homes = tuple(homes)
        self._listed: dict[Path, tuple[_Entry, ...]] = {}
        self._above: dict[Path, tuple[Path, ...]] = {}
        self._behind_link: dict[Path, bool] = {}

    def of_rendition(self, path: Path, size: int) -> Iterator[Certificate]:
        """Yield the valid certificates of a rendition of `size` bytes that may be the one at `path`.

        Only the size is compared; the caller must compare the digest where it matters.
        """
        yield from _valid_certificates(self.paths_of_rendition(path, size))

    def paths_of_rendition(self, path: Path, size: int) -> Iterator[Path]:
        """Yield the paths of the certificates that may be of the rendition at `path`."""
        for home in self._homes_of(path):
            yield from (e.path for e in self._entries(home) if e.rendition_size == size)

    def of_source(self, path: Path, size: int) -> Iterator[Certificate]:
        """Yield the valid certificates of a source of `size` bytes. Only the size is compared."""
        for home in self._homes_of(path):
            yield from _valid_certificates(
                e.path for e in self._entries(home) if e.source_size == size
            )

    def of_job_prefixes(
        self, path: Path, prefixes: Container[str]
    ) -> Iterator[tuple[Path, Certificate]]:
        """Yield the paths and the valid certificates of jobs whose first 8 digits are in `prefixes`."""
        for home in self._homes_of(path):
            for entry in self._entries(home):
                if entry.path.name.split(".")[3][:8] in prefixes:
                    yield from ((entry.path, proof) for proof in _valid_certificates([entry.path]))

    def is_behind_link(self, path: Path) -> bool:
        """Return whether the records of a library above `path` are behind a symbolic link.

        Nothing may be placed there: whoever made the link would choose what is written where.
        """
        return any(self._has_link(home) for home in path.parents)

    def _has_link(self, home: Path) -> bool:
        if home not in self._behind_link:
            self._behind_link[home] = find_linked_folder(home) is not None
        return self._behind_link[home]

    def _homes_of(self, path: Path) -> tuple[Path, ...]:
        folder = path.parent
        if folder not in self._above:
            homes = dict.fromkeys((folder, *folder.parents, *self._homes))
            self._above[folder] = tuple(home for home in homes if self._entries(home))
        return self._above[folder]

    def _entries(self, home: Path) -> tuple[_Entry, ...]:
        if home not in self._listed:
            self._listed[home] = tuple(_list_certificates(home))
        return self._listed[home]


def certificate_at(path: Path) -> Certificate:
    """Return the certificate at a path in a user's folder.

    Raises OSError, and VerificationFailed if it is not a certificate. Pipes and huge files are not
    read: they would block the reader or fill the memory.
    """
    with os.fdopen(open_regular(path), "rb") as reading:
        return Certificate.read(reading)


def _list_certificates(home: Path) -> Iterator[_Entry]:
    folder = certificates_folder(home)
    for name in record_names(folder):
        sizes = re.fullmatch(CERTIFICATE_NAME, name)
        if sizes is not None:
            yield _Entry(folder / name, int(sizes[1]), int(sizes[2]))


def _valid_certificates(paths: Iterable[Path]) -> Iterator[Certificate]:
    for path in paths:
        try:
            yield certificate_at(path)
        except (OSError, VerificationFailed):
            continue


BUSY = "busy"
IN_USE = "in-use"
LOCK = "lock"
MAX_NAME = 4096
SWAPS = "swap"
"""The one lock of all swaps across machines, since each machine may know a library by another path."""


def require_own_folders(root: Path) -> None:
    """Raise SwapRefused if `<root>/.hevcq`, or a folder of records in it, is a symbolic link.

    A library may come with a download: whoever made the link would choose what is written where.
    """
    if (path := find_linked_folder(root)) is not None:
        raise SwapRefused(
            f"{printable(path)} is a symbolic link; hevcq keeps its records only in folders of the"
            " library itself.",
            remedy="Remove the link, or put the folder itself in its place.",
        )


def has_records(root: Path) -> bool:
    """Return whether `<root>/.hevcq` holds more than lock files, or is a link. Raises OSError.

    A caller asks this before it takes a lock, which would leave a lock file behind.
    """
    own = own_folder(root)
    try:
        names = os.listdir(own)  # noqa: PTH208 - names only
    except (FileNotFoundError, NotADirectoryError):
        return False
    return own.is_symlink() or not {IN_USE, LOCK}.issuperset(names)


@contextmanager
def root_lock(root: Path, fs: FileSystem) -> Iterator[None]:
    """Hold the swap lock of a root; wait while another holder has it.

    Raises SwapRefused if the root cannot be written, its file system has no locks, or its own
    folders are links.
    """
    require_own_folders(root)
    folder = own_folder(root)
    try:
        folder.mkdir(exist_ok=True)
        descriptor = file_lock.acquire(folder / LOCK)
    except LocksUnsupported as error:
        raise _no_locks(folder, error) from error
    except OSError as error:
        raise SwapRefused(
            f"Files in {printable(root)} cannot be replaced: {printable(folder)} cannot be written"
            f" ({error.strerror}).",
            remedy="Give this user write permission there, or use `hevcq ingest --output`.",
        ) from error
    try:
        with fs.lock(SWAPS):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def reserve_libraries(homes: Iterable[Path], user: str, where: str) -> Iterator[None]:
    """Reserve libraries for one data folder: `user` is its identity, `where` names it to people.

    Processes of one data folder share a library. Those of two data folders would encode the same
    videos and collide when they place them. Libraries above a given one are reserved too. Raises
    Unavailable if another data folder has reserved one. One that cannot be locked is not reserved.
    """
    with ExitStack() as stack:
        for home in homes:
            above = [folder for folder in home.parents if own_folder(folder).is_dir()]
            for folder in (home, *above):
                descriptor = _reserve_library(folder, f"{user} {where}".encode()[:MAX_NAME])
                if descriptor is not None:
                    stack.callback(_release_library, folder, descriptor)
        yield


def _release_library(root: Path, descriptor: int) -> None:
    file_lock.unshare(descriptor, own_folder(root) / IN_USE)
    with suppress(OSError):
        own_folder(root).rmdir()  # only if nothing else was written


def _reserve_library(root: Path, user: bytes) -> int | None:
    """Share a library's lock file with this `user`; return None if it cannot be made."""
    path = own_folder(root) / IN_USE
    try:
        if own_folder(root).is_symlink():
            return None
        own_folder(root).mkdir(exist_ok=True)
        descriptor = file_lock.share(path, user)
        if descriptor is not None:
            return descriptor
        _, _, where = path.read_bytes()[:MAX_NAME].decode(errors="replace").partition(" ")
    except OSError:
        return None
    raise Unavailable(
        f"Another hevcq is working in {printable(root)}, with another data folder"
        f" ({printable(where)}).",
        remedy="Wait until it has finished, or use its data folder (--data-dir).",
    )


@contextmanager
def job_lock(root: Path, job_id: str, note: bytes, fs: FileSystem) -> Iterator[Callable[[], None]]:
    """Hold the placement lock of one job below `root`; `note` lists what a later sweep must remove.

    Yield a function that removes the lock file `<root>/.hevcq/busy/<job id>` with the note; call it
    when nothing is left to sweep. Raises Unavailable if another holder is alive, SwapRefused if
    the file system has no locks or the root's own folders are links.
    """
    require_own_folders(root)
    path = own_folder(root) / BUSY / job_id
    descriptor = _try_lock(path)
    busy = Unavailable(f"Waiting: another hevcq is writing to the library {printable(root)}.")
    if descriptor is None:
        raise busy
    try:
        with fs.lock(f"job {job_id}", busy):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, note)
            os.fsync(descriptor)
            # Before the files that the note lists, or a power cut could orphan them.
            for folder in (path.parent, path.parent.parent, root):
                fsync_folder(folder)
            yield functools.partial(path.unlink, missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def stale_job_lock(root: Path, job_id: str, fs: FileSystem) -> Iterator[bytes | None]:
    """Take over a dead holder's lock and yield its note; remove the lock file afterwards.

    Yield None if the holder is alive or left no note.
    """
    path = own_folder(root) / BUSY / job_id
    descriptor = _try_lock(path) if path.exists() else None
    if descriptor is None:
        yield None
        return
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(fs.lock(f"job {job_id}", Unavailable("held")))
            except Unavailable:
                note = None  # another machine holds it, or the database cannot be reached
            else:
                note = os.pread(descriptor, 1 << 16, 0)
            yield note
            if note is not None:
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def noted_jobs(root: Path) -> list[str]:
    """Return the ids of jobs with a lock file below `root`, whether or not the holder is alive.

    Anything but a regular file is not hevcq's and is ignored.
    """
    folder = own_folder(root) / BUSY
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found if entry.is_file(follow_symlinks=False))


def _try_lock(path: Path) -> int | None:
    """Open and lock the file at `path`; return None if another holder has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return file_lock.try_acquire(path)
    except LocksUnsupported as error:
        raise _no_locks(path, error) from error


def _no_locks(path: Path, error: OSError) -> SwapRefused:
    return SwapRefused(
        f"The file system of {printable(path)} does not support locks ({error.strerror}), so two"
        " hevcq processes could work on one file.",
        remedy="Mount it with lock support, or use --output.",
    )
