"""Record the swaps and undos of a library root, and the originals that a user restored.

`<root>/.hevcq/journal/<job id>.json` is a swap under way, `<job id>.undo.json` an undo under way;
`<root>/.hevcq/kept/<job id>.json` is a finished swap whose original is kept. A record is committed
by renaming it from one folder to the other, so a start reads only the ones under way.
`<root>/.hevcq/undone/<size>.<job id>.json` notes that a user restored an original, so that it is not
replaced again. The note outlives the data folder, and is found by the original's content, because the
video may have been renamed or copied back from another device since.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hevcq.errors import StorageError
from hevcq.library.filesystem import (
    FileSystem,
    has_subseconds,
    is_behind_link,
    make_folders,
    open_regular,
    record_names,
    temp_of,
    write_durably,
)
from hevcq.library.own_files import is_own, kept_folder, own_folder, require_own_folders
from hevcq.ports.catalog import Fingerprint
from hevcq.util.log import get_logger
from hevcq.util.text import printable

UNDO = ".undo.json"
ENDING = ".json"


@dataclass(frozen=True, slots=True)
class Record:
    """One swap: enough to finish it, roll it back, or undo it. Times are wall seconds.

    `source` is the original's path, `target` the rendition's (the same unless the suffix changed),
    `new` the rendition's temporary path, `retained` where the original is kept. `aside` is the
    temporary name for the exchange of rendition and original, or for the original when `retained`
    is a copy on another device. `rendition_size` is in bytes. `keep_days` None keeps
    the original until it is undone. `had_certificate` says that the certificate was there before the
    swap, as that of a rendition beside the original: rolling back leaves it.
    """

    job_id: str
    profile: str
    source: Path
    target: Path
    new: Path
    retained: Path
    fingerprint: Fingerprint
    source_sha256: str
    rendition_sha256: str
    rendition_size: int
    certificate: str
    keep_days: float | None
    created_at: float
    aside: Path | None = None
    had_certificate: bool = False

    @property
    def expires_at(self) -> float | None:
        """When the original may be removed, in wall seconds; None for never."""
        return None if self.keep_days is None else self.created_at + self.keep_days * 86_400


_RECORD = TypeAdapter(Record)
_PATHS = ("source", "target", "new", "retained", "aside")


class Journal:
    """The records of one root. Paths are written relative to it, so the folder may move.

    Reading them raises SwapRefused if the root's own folders are links.
    """

    def __init__(self, root: Path, fs: FileSystem) -> None:
        self.root = root
        self._fs = fs
        self._open = own_folder(root) / "journal"
        self._kept = kept_folder(root)
        self._originals = own_folder(root) / "originals"

    def begin(self, record: Record) -> None:
        """Write a record of a swap under way, durable when it returns."""
        make_folders(self._fs, self._open)
        make_folders(self._fs, self._kept)
        write_durably(self._fs, self._open / f"{record.job_id}{ENDING}", self._dump(record))

    def commit(self, record: Record) -> None:
        """Move a record from under way to finished, in one durable step."""
        self._move(self._open / f"{record.job_id}{ENDING}", self._kept / f"{record.job_id}{ENDING}")

    def rewrite(self, record: Record) -> None:
        """Write the record of a finished swap anew, durable when it returns."""
        write_durably(self._fs, self._kept / f"{record.job_id}{ENDING}", self._dump(record))

    def drop(self, record: Record) -> None:
        """Remove the record of a swap that was rolled back or whose original is no longer kept."""
        for folder in (self._open, self._kept):
            path = folder / f"{record.job_id}{ENDING}"
            if self._fs.lstat(path) is not None:
                self._fs.unlink(path)
                self._fs.fsync_dir(folder)

    def begin_undo(self, record: Record) -> None:
        """Turn a finished swap into an undo under way, in one durable step."""
        self._move(self._kept / f"{record.job_id}{ENDING}", self._open / f"{record.job_id}{UNDO}")

    def cancel_undo(self, record: Record) -> None:
        """Turn an undo under way back into a finished swap, in one durable step."""
        self._move(self._open / f"{record.job_id}{UNDO}", self._kept / f"{record.job_id}{ENDING}")

    def end_undo(self, record: Record) -> None:
        self._fs.unlink(self._open / f"{record.job_id}{UNDO}")
        self._fs.fsync_dir(self._open)

    def find_under_way(self, job_id: str) -> Record | None:
        path = self._open / f"{job_id}{ENDING}"
        return self.load(path) if self._fs.lstat(path) is not None else None

    def under_way(self) -> Iterator[tuple[Path, bool]]:
        """Yield the file of each swap or undo under way, and whether it is an undo."""
        require_own_folders(self.root)
        for name in self._fs.names(self._open):
            if name.endswith(ENDING) and not name.startswith("."):
                yield self._open / name, name.endswith(UNDO)

    def kept(self) -> Iterator[Record]:
        """Yield the finished swaps whose originals are kept."""
        require_own_folders(self.root)
        for name in self._fs.names(self._kept):
            if name.endswith(ENDING) and not name.startswith("."):
                yield self.load(self._kept / name)

    def find(self, job_id: str) -> Record | None:
        """Return the finished swap of a job whose original is kept, or None."""
        require_own_folders(self.root)
        path = self._kept / f"{job_id}{ENDING}"
        return self.load(path) if self._fs.lstat(path) is not None else None

    def load(self, path: Path) -> Record:
        """Read one record.

        Raises StorageError if it is damaged, invalid or of a newer hevcq, and OSError.
        """
        try:
            data: dict[str, Any] = json.loads(self._fs.read(path))
            if data.pop("hevcq_swap") != 1:
                raise StorageError(f"{printable(path)} was written by a newer hevcq.")
            for name in _PATHS:
                if data[name] is not None:
                    data[name] = self._inside(data[name])
            self._require_no_links({data[name].parent for name in _PATHS if data[name]})
            record = _RECORD.validate_python(data)
            self._require_own_names(record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"The swap record {printable(path)} is damaged and cannot be read.",
                remedy="Look for the original below .hevcq/originals, then remove the record.",
            ) from error
        return record

    def clean(self) -> None:
        """Remove the temporary files of records whose writing was interrupted."""
        for folder in (self._open, self._kept):
            for name in self._fs.names(folder):
                if name.startswith(".hevcq-"):
                    self._fs.unlink(folder / name)

    def _move(self, old: Path, new: Path) -> None:
        self._fs.rename(old, new)
        self._fs.fsync_dir(new.parent)
        self._fs.fsync_dir(old.parent)

    def _dump(self, record: Record) -> bytes:
        data = dataclasses.asdict(record)
        for name in _PATHS:
            path: Path | None = data[name]
            data[name] = None if path is None else str(path.relative_to(self.root))
        # ASCII escapes carry any byte a file name can hold (as a lone surrogate) and back again.
        return json.dumps({"hevcq_swap": 1, **data}, ensure_ascii=True, indent=1).encode()

    def _inside(self, relative: str) -> Path:
        """Return a record's path below the root; raise ValueError if it leads outside."""
        parts = Path(relative).parts
        nul = b"\0" in os.fsencode(relative)  # raises ValueError for an impossible name
        if nul or not parts or Path(relative).is_absolute() or ".." in parts:
            raise ValueError(f"{relative!r} leaves the library")
        return self.root.joinpath(*parts)

    def _require_no_links(self, folders: set[Path]) -> None:
        """Raise StorageError if a record's path goes through a symbolic link.

        A folder may come from an untrusted source, records included. Only the originals folder may
        itself be a link.
        """
        for folder in sorted(folders):
            base = self._originals if folder.is_relative_to(self._originals) else self.root
            if is_behind_link(folder, base):
                raise StorageError(
                    f"{printable(_topmost_link(folder, base))} is a link now, but was a folder when"
                    " hevcq replaced a file in it; nothing was changed.",
                    remedy="Put the folder itself back, then run the same command again.",
                )

    def _require_own_names(self, record: Record) -> None:
        """Raise ValueError unless every file that a record lets hevcq remove has one of hevcq's own names."""
        temps = [path for path in (record.new, record.aside) if path is not None]
        are_own = all(is_own(path.name) for path in temps) and record.job_id.isalnum()
        if not are_own or self._originals not in record.retained.parents:
            raise ValueError("a name that hevcq never gives")


def _topmost_link(folder: Path, base: Path) -> Path:
    """Return the topmost symbolic link between `base` and `folder`."""
    below = [each for each in reversed((folder, *folder.parents)) if base in each.parents]
    return next((each for each in below if os.path.islink(each)), folder)  # noqa: PTH114 - any name


NAME = r"([0-9]{1,19})\.\w{1,64}\.json"
MAX_BYTES = 1 << 16


def note_undone(fs: FileSystem, root: Path, record: Record) -> None:
    """Note that a job's original was restored.

    A failure to write the note is only logged, since the original is already back.
    """
    path = _note_path(root, record)
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
    """Remove the note that a job's original was restored, after a user replaced it again.

    A failure is only logged: the swap is committed and must not be reported as refused, and the note
    only prevents an unattended replacement.
    """
    path = _note_path(root, record)
    try:
        if fs.lstat(path) is not None:
            fs.unlink(path)
            fs.fsync_dir(path.parent)
    except OSError as error:
        get_logger().warning("undo_still_noted", path=printable(path), reason=error.strerror)


class UndoneOriginals:
    """Find the notes on restored originals above the videos of one scan; list each folder once."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._listed: dict[Path, list[tuple[int, Path]]] = {}

    def holds(self, video: Path, size: int, mtime_ns: int, profile: str) -> bool:
        """Return whether this video was restored after the profile's rendition had replaced it.

        Size and a modification time finer than seconds identify it; otherwise the file is read for its
        SHA-256. Raises Stopped.
        """
        for folder in video.parents:
            for noted_size, path in self._notes(folder):
                note = _read_note(path) if noted_size == size else {}
                if note.get("profile") != profile or note.get("size") != size:
                    continue
                if has_subseconds(mtime_ns) and note.get("mtime_ns") == mtime_ns:
                    return True
                if self._digest(video) == note.get("source_sha256"):
                    return True
        return False

    def _notes(self, root: Path) -> list[tuple[int, Path]]:
        if root not in self._listed:
            self._listed[root] = list(_list_notes(root))
        return self._listed[root]

    def _digest(self, path: Path) -> str:
        try:
            return self._fs.digest(path)
        except OSError:
            return ""


def _note_path(root: Path, record: Record) -> Path:
    return own_folder(root) / "undone" / f"{record.fingerprint.size}.{record.job_id}.json"


def _list_notes(root: Path) -> Iterator[tuple[int, Path]]:
    folder = own_folder(root) / "undone"
    for name in record_names(folder):
        size = re.fullmatch(NAME, name)
        if size is not None:
            yield int(size[1]), folder / name


def _read_note(path: Path) -> dict[str, object]:
    try:
        with os.fdopen(open_regular(path), "rb") as reading:
            note = json.loads(reading.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}
