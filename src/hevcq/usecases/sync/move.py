"""Move one version of a file, journalled: each step may be the last one before a power cut.

1. The bytes come to a temporary file in the target's folder, which is made durable.
2. The journal gets their digest and the name they will have (NAMED).
3. The temporary file is renamed to it without overwriting; the name is made durable.
4. The file is read again from the disk, and recorded as landed with its bytes (LANDED).
5. The server is asked to delete exactly that version, if the local file is still what it was.

Whatever happens, the bytes are on the server until after step 4.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hevcq.errors import LibraryError, SourceUnreadable
from hevcq.library.filesystem import (
    FileSystem,
    forget_cached,
    make_folders,
    move_new,
    open_regular,
)
from hevcq.library.names import case_twin
from hevcq.library.pace import Pace
from hevcq.ports.sync import Remote, RemoteFile, Removal, Stage, SyncEntry, SyncJournal
from hevcq.usecases.sync import local_names
from hevcq.usecases.sync.fetch import fetch
from hevcq.usecases.sync.presence import is_here
from hevcq.util.clock import Clock
from hevcq.util.text import printable

OnBytes = Callable[[str, int, int], None]
"""Hears of a path on the server, how many of its bytes are here, and its size."""


@dataclass(frozen=True, slots=True)
class SyncPorts:
    """What a sync works with; `token` names the file by which a server is tried."""

    remote: Remote
    journal: SyncJournal
    clock: Clock
    fs: FileSystem
    stop: threading.Event
    token: Callable[[], str]


@dataclass(frozen=True, slots=True)
class SyncJob:
    """What one sync is asked for. `least_free` is in bytes."""

    name: str
    folders: tuple[str, ...]
    target: Path
    move: bool
    settle_s: float
    bytes_s: float = 0.0
    least_free: int = 0
    put_back: str = ""


@dataclass
class Mover:
    """Moves the files of one sync, one at a time; `on_bytes` gets how much of a file came."""

    ports: SyncPorts
    job: SyncJob
    pace: Pace
    on_bytes: OnBytes = lambda _path, _have, _size: None
    _proved: set[tuple[Path, str]] = field(default_factory=set)

    @property
    def account(self) -> str:
        """The account of the remote."""
        return self.ports.remote.account

    def place(self, path: str) -> tuple[Path, str]:
        """Return the local folder and name of a path on the server.

        Raises ValueError if it is in none of the folders.
        """
        folders = sorted(self.job.folders, key=len, reverse=True)
        own = next((f for f in folders if not f or path.startswith(f"{f}/")), None)
        if own is None:
            raise ValueError("in none of the folders")
        *parents, name = local_names.local_parts(path, own)
        return self.job.target.joinpath(*parents), name

    def bring(self, file: RemoteFile, entry: SyncEntry) -> SyncEntry:
        """Fetch and land one version; return its entry as LANDED or KNOWN.

        Raises what `fetch` raises, OSError, and LibraryError if the disk does not return what was
        written. The server's file is untouched.
        """
        fs, journal = self.ports.fs, self.ports.journal
        folder, name = self.place(file.path)
        make_folders(fs, folder)
        part = folder / local_names.arriving(self.account, self.ports.clock.boot(), file)
        fetched = fetch(
            self.ports.remote,
            file,
            part,
            self.pace,
            lambda have: self.on_bytes(file.path, have, file.size),
        )
        known = journal.arrival(self.account, fetched.sha256)
        if known is not None:
            done = replace(entry, stage=Stage.KNOWN, sha256=fetched.sha256, target=known.target)
            fs.unlink(part)  # first: nobody looks for the part of an entry that is known
            journal.record(self.account, [done])
            return done
        if file.modified is not None:
            os.utime(part, (file.modified, file.modified), follow_symlinks=False)
        fs.fsync_file(part)
        return self._land(replace(entry, sha256=fetched.sha256), part, name)

    def finish(self, entry: SyncEntry) -> SyncEntry:
        """Finish or undo a landing that was interrupted at NAMED; return LANDED, or SEEN.

        Raises OSError and LibraryError.
        """
        fs = self.ports.fs
        if entry.target is not None and self._same(entry.target, entry):
            fs.fsync_dir(entry.target.parent)
            return self._record_landed(entry, entry.target)
        again = replace(entry, stage=Stage.SEEN, sha256="", target=None)
        self.ports.journal.record(self.account, [again])
        return again

    def _land(self, entry: SyncEntry, part: Path, name: str) -> SyncEntry:
        """Give a complete, durable temporary file its name, and prove what is there."""
        fs, folder = self.ports.fs, part.parent
        taken = fs.names(folder)
        for candidate in local_names.numbered(name):
            target = folder / candidate
            if candidate in taken and self._same(target, entry):
                fs.unlink(part)
                return self._record_landed(entry, target)
            if candidate in taken or case_twin(candidate, taken) is not None:
                continue
            named = replace(entry, stage=Stage.NAMED, target=target)
            self.ports.journal.record(self.account, [named])
            try:
                move_new(fs, part, target)
            except FileExistsError:
                continue
            _forget(target)
            if fs.digest(target) != entry.sha256:
                raise LibraryError(
                    f"{printable(target)} reads back with other bytes than were written.",
                    remedy="The server's file is untouched; check this disk.",
                )
            return self._record_landed(named, target)
        raise SourceUnreadable(f"{printable(folder / name)} has no free name left.")

    def _same(self, target: Path, entry: SyncEntry) -> bool:
        """Return whether a file with exactly these bytes has the name already."""
        fs = self.ports.fs
        return _is_file_of(fs, target, entry.size) and fs.digest(target) == entry.sha256

    def _record_landed(self, entry: SyncEntry, target: Path) -> SyncEntry:
        landed = replace(entry, stage=Stage.LANDED, target=target)
        self.ports.journal.land(self.account, landed, self.ports.clock.now())
        self._proved.add((target, landed.sha256))
        return landed

    def is_here(self, entry: SyncEntry) -> bool:
        """Return whether the entry's bytes are still on this machine, or a rendition of them."""
        fs, target = self.ports.fs, entry.target
        return target is not None and (
            ((target, entry.sha256) in self._proved and _is_file_of(fs, target, entry.size))
            or is_here(fs, target, entry.size, entry.sha256)
        )

    def remove(self, file: RemoteFile, entry: SyncEntry) -> Removal:
        """Delete this version on the server; the entry goes, the memory of its bytes stays.

        Only called where `is_here`. Raises Unavailable, then the next sync tries again.
        """
        removal = self.ports.remote.remove(file)
        if removal in {Removal.REMOVED, Removal.GONE}:
            self.ports.journal.forget(self.account, [entry.path])
        elif removal is Removal.CHANGED:
            self._proved.discard((entry.target or Path(), entry.sha256))
        return removal

    def sweep(self, entries: dict[str, SyncEntry], wanted: dict[str, RemoteFile]) -> None:
        """Remove temporary files of this account that nothing will resume."""
        fs, boot = self.ports.fs, self.ports.clock.boot()
        keep = {local_names.arriving(self.account, boot, file) for file in wanted.values()}
        folders = set()
        for path, entry in entries.items():
            if entry.stage in {Stage.SEEN, Stage.NAMED}:
                try:
                    folders.add(self.place(path)[0])
                except ValueError:
                    continue  # of a folder that the settings no longer name
        prefix = local_names.parts_prefix(self.account)
        for folder in folders:
            for name in fs.names(folder) if folder.is_dir() else ():
                if name.startswith(prefix) and name not in keep:
                    fs.unlink(folder / name)


def _is_file_of(fs: FileSystem, path: Path, size: int) -> bool:
    facts = fs.lstat(path)
    return facts is not None and stat.S_ISREG(facts.st_mode) and facts.st_size == size


def _forget(path: Path) -> None:
    descriptor = open_regular(path)
    try:
        forget_cached(descriptor)
    finally:
        os.close(descriptor)
