"""Run one sync: list the server's folders, let files settle, move each, and say what became of it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from hevcq.errors import (
    FULL,
    DiskFull,
    HevcqError,
    LibraryError,
    SourceChanged,
    SourceGone,
    SourceUnreadable,
    Unavailable,
    UsageError,
)
from hevcq.library.names import is_own
from hevcq.library.pace import Pace
from hevcq.ports.sync import RemoteFile, Removal, Stage, SyncEntry
from hevcq.usecases.sync.move import Mover, OnBytes, SyncJob, SyncPorts
from hevcq.usecases.sync.put_back import PutBack
from hevcq.util.host import free_beside
from hevcq.util.retry import RetryPolicy
from hevcq.util.text import printable, reason_of

Result = TypeVar("Result")
RETRY = RetryPolicy(base_s=2.0, cap_s=30.0, attempts=4, jitter=0.0)
"""For a file whose transfer broke off; each attempt goes on where the last one ended."""
GIVE_UP = 3
"""Files in a row whose transfer broke off for good, after which the server counts as gone."""
CHECK_AGAIN_S = 7 * 86400.0
"""Seconds for which it is believed that a server deletes safely."""
MAX_DEPTH = 64
ROUND_S, LEAST_ROUND_S = 60.0, 5.0
"""Most and fewest seconds between two rounds of a watch."""


REPEATED = frozenset({"waiting", "left", "failed", "refused"})
"""Results that every round of a watch would report again."""


def pause_s(settle_s: Iterable[float]) -> float:
    """Return the seconds between two rounds of a watch: half the shortest settling time, within limits."""
    return min([ROUND_S, *(max(LEAST_ROUND_S, each / 2) for each in settle_s)])


class Fate(StrEnum):
    """What became of one file; stable words."""

    MOVED = "moved"
    COPIED = "copied"
    WAITING = "waiting"
    KNOWN = "known"
    LEFT = "left"
    CHANGED = "changed"
    FAILED = "failed"
    PUT_BACK = "put_back"
    WOULD = "would"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Synced:
    """One file of a sync. `reason` says why, where that is not plain."""

    path: str
    size: int
    fate: Fate
    target: Path | None = None
    reason: str = ""


@dataclass
class Session:
    """One run of one sync; `on_file` hears of each file that is not simply unchanged."""

    ports: SyncPorts
    job: SyncJob
    on_file: Callable[[Synced], None]
    notice: Callable[[str], None]
    on_bytes: OnBytes = lambda _path, _have, _size: None
    dry_run: bool = False
    reported: set[tuple[str, str, str]] = field(default_factory=set)
    """What earlier rounds of the same watch reported, which is not repeated."""
    unsafe: str = ""
    """Why the server's files are not deleted although asked; "" where they are."""
    _entries: dict[str, SyncEntry] = field(default_factory=dict)
    _broken: int = 0

    def __post_init__(self) -> None:
        pace = Pace(self.ports.clock, self.ports.stop, self.job.bytes_s)
        self._mover = Mover(self.ports, self.job, pace, self.on_bytes)
        self._report_file, self.on_file = self.on_file, self._once

    def _once(self, each: Synced) -> None:
        key = (each.path, each.fate.value, each.reason)
        if each.fate.value in REPEATED:
            if key in self.reported:
                return
            self.reported.add(key)
        self._report_file(each)

    def run(self) -> None:
        """Look once at every folder, and move what has settled.

        Raises ConfigError, UsageError, Unavailable, DiskFull, StorageError or Stopped; what was done
        until then is done.
        """
        self._require_target()
        account = self._mover.account
        self._entries = dict(self.ports.journal.entries(account))
        self._broken = 0
        if not self.dry_run:
            self._finish_interrupted()
        found = self._listed()
        if not self.dry_run:
            self._mover.sweep(self._entries, found)
            self._note_new(found)
            self._forget_gone(found)
            if found:
                self._check_removal()
        for file in sorted(found.values(), key=lambda each: each.path):
            self._one(file)
        if self.job.put_back and not self.dry_run:
            self._put_back()

    def _require_target(self) -> None:
        if not self.job.target.is_dir():
            # Never made here: below an unmounted disk it would be another folder.
            raise UsageError(
                f"There is no folder {printable(self.job.target)} for the files of {self.job.name}.",
                remedy="Make it once, or mount its disk.",
            )

    def _put_back(self) -> None:
        """Put renditions of what came into their folder on the server."""
        for put in PutBack(self.ports, self.job, self._mover.pace).run(self._patient):
            self.on_file(
                Synced(
                    put.path,
                    put.size,
                    Fate.FAILED if put.reason else Fate.PUT_BACK,
                    put.source,
                    put.reason,
                )
            )

    def _finish_interrupted(self) -> None:
        for path, entry in list(self._entries.items()):
            if entry.stage is Stage.NAMED:
                try:
                    self._entries[path] = self._mover.finish(entry)
                except OSError as error:
                    self.notice(f"{printable(path)}: {reason_of(error)}.")

    def _listed(self) -> dict[str, RemoteFile]:
        found: dict[str, RemoteFile] = {}
        seen: set[str] = set()
        waiting = [(folder, 0) for folder in reversed(self.job.folders)]
        while waiting:
            folder, depth = waiting.pop()
            if folder in seen:
                continue
            seen.add(folder)
            self._mover.pace.spend(0)
            listing = self._patient(lambda folder=folder: self.ports.remote.folder(folder))  # type: ignore[misc]
            for address in listing.refused:
                self.on_file(Synced(address, 0, Fate.REFUSED, reason="no name for a file here"))
            for file in listing.files:
                if not is_own(file.path.rpartition("/")[2]):
                    found[file.path] = file
            if depth < MAX_DEPTH:
                waiting += [(inner, depth + 1) for inner in reversed(listing.folders)]
        return found

    def _forget_gone(self, found: dict[str, RemoteFile]) -> None:
        """Forget entries of files that are no longer there; a landing is never among those cut off."""
        gone = [
            path
            for path, entry in self._entries.items()
            if path not in found and entry.stage is not Stage.NAMED and self._is_ours(path)
        ]
        self.ports.journal.forget(self._mover.account, gone)
        for path in gone:
            del self._entries[path]

    def _is_ours(self, path: str) -> bool:
        return any(not folder or path.startswith(f"{folder}/") for folder in self.job.folders)

    def _note_new(self, found: dict[str, RemoteFile]) -> None:
        """Note each version that was not seen before, with the time."""
        by_id = {(e.file_id, e.version): e for e in self._entries.values() if e.file_id}
        now, fresh = self.ports.clock.now(), []
        for file in found.values():
            entry = self._entries.get(file.path)
            if entry is not None and entry.stage is Stage.NAMED:
                continue
            same = entry is not None and (entry.version, entry.size) == (file.version, file.size)
            if entry is not None and same and (entry.stage is not Stage.SEEN or entry.since <= now):
                continue  # a time in the future is of a clock that was wrong
            noted = SyncEntry(file.path, file.version, file.size, now, file_id=file.file_id)
            twin = by_id.get((file.file_id, file.version)) if file.etag else None
            if twin is not None and twin.size == file.size and twin.sha256:
                # Renamed on the server: the same bytes under another path.
                noted = replace(twin, path=file.path, stage=Stage.KNOWN)
            fresh.append(noted)
        self.ports.journal.record(self._mover.account, fresh)
        self._entries.update((entry.path, entry) for entry in fresh)

    def _check_removal(self) -> None:
        """Find out whether the server deletes safely; where it does not, copies are made."""
        self.unsafe = ""
        if not self.job.move:
            return
        account, now = self._mover.account, self.ports.clock.now()
        known = self.ports.journal.removal_checked(account)
        if known is not None and not known[1] and 0 <= now - known[0] < CHECK_AGAIN_S:
            return
        try:
            self.unsafe = self._patient(
                lambda: self.ports.remote.unsafe_to_remove(self.job.folders[0], self.ports.token())
            )
        except Unavailable as error:
            if known is None or known[1]:
                self.unsafe = f"that could not be tried ({error.message.rstrip('.')})"
        else:
            self.ports.journal.record_removal_check(account, now, self.unsafe)
        if self.unsafe:
            self.notice(
                f"{self.job.name}: files are copied, not moved. The server can't be trusted to delete "
                f"only the version that was copied: {self.unsafe}."
            )

    def _one(self, file: RemoteFile) -> None:
        entry = self._entries.get(file.path)
        if self.dry_run:
            self._preview(file, entry)
            return
        if entry is None or (entry.version, entry.size) != (file.version, file.size):
            return
        if entry.stage is Stage.SEEN:
            brought = self._brought(file, entry)
            if brought is None:
                return
            entry = self._entries[file.path] = brought
            self._report_landed(file, entry)
            return
        if entry.stage in {Stage.LANDED, Stage.KNOWN} and self._moves(file):
            self._report_landed(file, entry)

    def _moves(self, file: RemoteFile) -> bool:
        return self.job.move and not self.unsafe and bool(file.etag)

    def _preview(self, file: RemoteFile, entry: SyncEntry | None) -> None:
        same = entry is not None and (entry.version, entry.size) == (file.version, file.size)
        if entry is not None and same and entry.stage in {Stage.LANDED, Stage.KNOWN}:
            if self.job.move:
                detail = "its bytes are here; the server's copy would be deleted"
                self.on_file(Synced(file.path, file.size, Fate.WOULD, entry.target, detail))
            return
        try:
            folder, name = self._mover.place(file.path)
        except ValueError:
            return
        self.on_file(Synced(file.path, file.size, Fate.WOULD, folder / name))

    def _brought(self, file: RemoteFile, entry: SyncEntry) -> SyncEntry | None:
        """Fetch and land a settled file; report why where it did not land."""
        if self.ports.clock.now() - entry.since < self.job.settle_s:
            self.on_file(Synced(file.path, file.size, Fate.WAITING))
            return None
        try:
            self._require_room(file)
            brought = self._patient(lambda: self._mover.bring(file, entry))
        except SourceGone:
            return None
        except SourceChanged as error:
            again = replace(entry, since=self.ports.clock.now(), version="")
            self.ports.journal.record(self._mover.account, [again])
            self.on_file(Synced(file.path, file.size, Fate.CHANGED, reason=error.message))
            return None
        except (SourceUnreadable, LibraryError, Unavailable, ValueError, OSError) as error:
            self._failed(file, error)
            return None
        self._broken = 0
        return brought

    def _failed(self, file: RemoteFile, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in FULL | {errno.EFBIG}:
            raise DiskFull(
                f"The disk of {printable(self.job.target)} is full.", remedy="Free some space."
            ) from error
        reason = str(error) if isinstance(error, HevcqError) else f"{reason_of(error)}."
        self.on_file(Synced(file.path, file.size, Fate.FAILED, reason=reason))
        if isinstance(error, Unavailable):
            self._broken += 1
            if self._broken >= GIVE_UP:
                raise error

    def _report_landed(self, file: RemoteFile, entry: SyncEntry) -> None:
        """Delete the server's copy of what landed, where that is asked and safe, and report it."""
        copied = Fate.COPIED if entry.stage is Stage.LANDED else Fate.KNOWN
        if not self._moves(file):
            self.on_file(Synced(file.path, file.size, copied, entry.target))
            return
        if not self._mover.is_here(entry):
            detail = "its bytes came before and are no longer where they landed; left on the server"
            self.on_file(Synced(file.path, file.size, Fate.LEFT, entry.target, detail))
            return
        try:
            removal = self._patient(lambda: self._mover.remove(file, entry))
        except Unavailable as error:
            detail = f"landed; not deleted on the server yet: {error.message}"
            self.on_file(Synced(file.path, file.size, Fate.LEFT, entry.target, detail))
            return
        moved = Fate.MOVED if entry.stage is Stage.LANDED else Fate.KNOWN
        fate, detail = {
            Removal.REMOVED: (moved, ""),
            Removal.GONE: (moved, "the server's copy was gone already"),
            Removal.CHANGED: (Fate.CHANGED, "landed; the server has another version by now"),
            Removal.REFUSED: (
                Fate.LEFT,
                "landed; the server does not allow its copy to be deleted",
            ),
        }[removal]
        self.on_file(Synced(file.path, file.size, fate, entry.target, detail))

    def _require_room(self, file: RemoteFile) -> None:
        self._require_target()
        if free_beside(self.job.target) < file.size + self.job.least_free:
            raise DiskFull(
                f"Too little space in {printable(self.job.target)} for {printable(file.path)} "
                f"({file.size} bytes, and min_free_mib to spare).",
                remedy="Free some space; the files stay on the server.",
            )

    def _patient(self, step: Callable[[], Result]) -> Result:
        """Return the result of `step`, tried again while the server is away or busy."""
        for failures in range(RETRY.attempts - 1):
            try:
                return step()
            except Unavailable:
                self.ports.clock.wait(self.ports.stop, RETRY.wait_s(failures, lambda: 1.0))
                self._mover.pace.spend(0)
        return step()
