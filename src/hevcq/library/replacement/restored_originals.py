"""Remember in the library which originals were restored on request, so that none is replaced again.

`<root>/.hevcq/undone/<size>.<job id>.json` outlives the data folder, and is found by content: the video
may have been renamed or copied back from another device since.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hevcq.library.filesystem import (
    FileSystem,
    is_fine_time,
    make_folders,
    open_regular,
    record_names,
    temp_of,
    write_durably,
)
from hevcq.library.names import own_folder
from hevcq.library.replacement.journal import Record
from hevcq.util.log import get_logger
from hevcq.util.text import printable

NAME = r"([0-9]{1,19})\.\w{1,64}\.json"
MAX_BYTES = 1 << 16


def note_undone(fs: FileSystem, root: Path, record: Record) -> None:
    """Remember that a job's original was restored.

    A note that cannot be written is logged: the original is back, which is what matters.
    """
    path = _path(root, record)
    facts = {
        "hevcq_undone": 1,
        "profile": record.profile,
        "size": record.fingerprint.size,
        "mtime_ns": record.fingerprint.mtime_ns,
        "source_sha256": record.source_sha256,
    }
    try:
        make_folders(fs, path.parent)
        write_durably(fs, path, json.dumps(facts).encode())
    except OSError as error:
        get_logger().warning("undo_not_noted", path=printable(path), reason=error.strerror)
        fs.unlink(temp_of(path))


def forget_undone(fs: FileSystem, root: Path, record: Record) -> None:
    """Forget that a job's original was restored: it was replaced again on request.

    A note that cannot be removed is logged: the swap is committed, so it must not be reported as
    refused, and the note only keeps the restored original from being replaced by itself.
    """
    path = _path(root, record)
    try:
        if fs.lstat(path) is not None:
            fs.unlink(path)
            fs.fsync_dir(path.parent)
    except OSError as error:
        get_logger().warning("undo_still_noted", path=printable(path), reason=error.strerror)


class UndoneOriginals:
    """The notes above the videos of one scan, each folder listed once."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._listed: dict[Path, list[tuple[int, Path]]] = {}

    def holds(self, video: Path, size: int, mtime_ns: int, profile: str) -> bool:
        """Return whether this video was restored after the profile's rendition had replaced it.

        Size and modification time to the nanosecond decide, else the SHA-256, for which the file of
        `size` bytes is read. Raises Stopped.
        """
        for folder in video.parents:
            for wanted, path in self._notes(folder):
                note = _read(path) if wanted == size else {}
                if note.get("profile") != profile or note.get("size") != size:
                    continue
                if is_fine_time(mtime_ns) and note.get("mtime_ns") == mtime_ns:
                    return True
                if self._digest(video) == note.get("source_sha256"):
                    return True
        return False

    def _notes(self, root: Path) -> list[tuple[int, Path]]:
        if root not in self._listed:
            self._listed[root] = list(_list(root))
        return self._listed[root]

    def _digest(self, path: Path) -> str:
        try:
            return self._fs.digest(path)
        except OSError:
            return ""


def _path(root: Path, record: Record) -> Path:
    return own_folder(root) / "undone" / f"{record.fingerprint.size}.{record.job_id}.json"


def _list(root: Path) -> Iterator[tuple[int, Path]]:
    folder = own_folder(root) / "undone"
    for name in record_names(folder):
        size = re.fullmatch(NAME, name)
        if size is not None:
            yield int(size[1]), folder / name


def _read(path: Path) -> dict[str, object]:
    try:
        with os.fdopen(open_regular(path), "rb") as reading:
            note = json.loads(reading.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}
