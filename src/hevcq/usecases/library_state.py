"""Look at the folder of a library: can it be read and written, how full is its disk, is it watched?"""

import os
from dataclasses import dataclass
from pathlib import Path

from hevcq.errors import StorageError
from hevcq.library.scanning.fs_events import Mount, mount_of
from hevcq.library.scanning.scan import Filter, FoundFile, find
from hevcq.settings.libraries import Library
from hevcq.util.host import free_beside
from hevcq.util.text import printable, size

REMEDY = "Mount it, or correct the path or its permissions."


@dataclass(frozen=True, slots=True)
class FolderState:
    """What is known of a library without opening a video; `free` is in bytes, None: unknown.

    `problem` is why nothing can be ingested, or ""; `identity` is another one once another disk or
    folder is at the path, on which nothing is watched yet.
    """

    problem: str
    free: int | None
    mount: Mount
    identity: tuple[str, int, int] = ("", 0, 0)


def folder_state(library: Library) -> FolderState:
    """Return the state of a library's folder, and of the folder of its renditions."""
    problem, home = _problem(library), library.output or library.path
    try:
        free: int | None = free_beside(home)
    except OSError:
        free = None
    mount = mount_of(library.path)
    try:
        facts = library.path.stat()
    except OSError:
        return FolderState(problem, free, mount)
    return FolderState(problem, free, mount, (mount.kind, facts.st_dev, facts.st_ino))


def _problem(library: Library) -> str:
    path, name = library.path, printable(library.path)
    if not path.exists():
        return f"{name} is not there: is its disk mounted?"
    if not path.is_dir():
        return f"{name} is no folder."
    if not os.access(path, os.R_OK | os.X_OK):
        return f"{name} cannot be read: give this user read permission."
    home = library.output or path
    there = home
    while not there.exists() and there != there.parent:
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        if _read_only(there):
            return (
                f"{printable(home)} is mounted read-only here. Under systemd or Docker: add it to the"
                " unit's ReadWritePaths, or mount the folder for writing."
            )
        return f"{printable(home)} cannot be written: give this user write permission."
    return ""


def _read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def library_words(library: Library) -> str:
    """Return what `hevcq doctor` says of a library. Raises StorageError for one that cannot be used."""
    state = folder_state(library)
    if state.problem:
        raise StorageError(state.problem, remedy=REMEDY)
    return words(library, state)


def words(library: Library, state: FolderState) -> str:
    free = "unknown" if state.free is None else size(state.free)
    return f"{printable(library.path)}: {free} free, {watching(state)}"


def watching(state: FolderState) -> str:
    """Return how new files are found there."""
    kind = state.mount.kind or "unknown file system"
    if state.mount.gives_events:
        return f"new files are seen at once ({kind})"
    return f"new files are looked for every few minutes ({kind} reports no changes)"


def count_videos(path: Path, skip: Path) -> tuple[int, int]:
    """Return the number of video files below a folder by their names, and their bytes."""
    sizes = [
        each.fingerprint.size
        for each in find([path], Filter(skip=[skip]))
        if isinstance(each, FoundFile)
    ]
    return len(sizes), sum(sizes)
