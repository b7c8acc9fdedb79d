"""Run one sync: list the server's folders, let files settle, move each file, and report the results."""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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
from hevcq.library.filesystem import Pace
from hevcq.library.own_files import is_own
from hevcq.ports.catalog import RemoteFile, Removal, SyncEntry
from hevcq.settings.libraries import SyncSettings
from hevcq.usecases.sync.move import Mover, OnBytes, SyncPorts
from hevcq.util.capacity import free_disk_bytes
from hevcq.util.retry import RetryPolicy
from hevcq.util.text import printable, reason_of

Result = TypeVar("Result")
RETRY = RetryPolicy(base_s=2.0, cap_s=30.0, attempts=4, jitter=0.0)
"""For a file whose transfer broke off; each attempt resumes where the last one ended."""
GIVE_UP = 3
"""Files in a row whose transfer failed after all attempts, after which the server counts as gone."""
MAX_DEPTH = 64
ROUND_S, MIN_ROUND_S = 60.0, 5.0
"""Most and least seconds between two rounds of a watch."""


def pause_s(settle_s: Iterable[float]) -> float:
    """Return the seconds between two rounds of a watch: half the shortest settling time, within limits."""
    return min([ROUND_S, *(max(MIN_ROUND_S, each / 2) for each in settle_s)])


class Fate(StrEnum):
    """The result for one file; values are stable."""

    MOVED = "moved"
    COPIED = "copied"
    WAITING = "waiting"
    KNOWN = "known"
    LEFT = "left"
    CHANGED = "changed"
    FAILED = "failed"
    WOULD = "would"
    REFUSED = "refused"


REPEATED = frozenset({Fate.WAITING, Fate.LEFT, Fate.FAILED, Fate.REFUSED})
"""Results that each round of a watch would repeat."""


@dataclass(frozen=True, slots=True)
class Synced:
    """The result for one file of a sync; `reason` explains it where needed."""

    path: str
    size: int
    fate: Fate
    target: Path | None = None
    reason: str = ""


@dataclass
class SyncSession:
    """One run of one sync; `on_file` gets the result of each file that is not unchanged."""

    ports: SyncPorts
    job: SyncSettings
    on_file: Callable[[Synced], None]
    notice: Callable[[str], None]
    on_bytes: OnBytes = lambda _path, _have, _size: None
    dry_run: bool = False
    may_go_on: Callable[[], bool] = lambda: True
    """Whether another file may be started; the current one is finished."""
    reported: set[tuple[str, str, str]] = field(default_factory=set)
    """The REPEATED results that earlier rounds of the same watch reported."""
    _broken: int = 0

    def __post_init__(self) -> None:
        pace = Pace(self.ports.clock, self.ports.stop, self.job.limit)
        self._mover = Mover(self.ports, self.job, pace, self.on_bytes)

    def run(self) -> None:
        """List every folder once, and move the files that have settled.

        Raises ConfigError, UsageError, Unavailable, DiskFull, StorageError or Stopped; files moved until
        then stay moved.
        """
        self._require_target()
        entries = dict(self.ports.journal.entries(self._mover.account))
        files = self._list_files()
        if not self.dry_run:
            self._mover.sweep(files.values())
            self._record_versions(files, entries)
        for path, file in sorted(files.items()):
            if not self.may_go_on():
                return
            if self.dry_run:
                self._preview(file, entries.get(path))
            else:
                self._sync_file(file, entries[path])

    def _require_target(self) -> None:
        if not self.job.target.is_dir():
            # It is never created, because the path may be the mount point of a disk that is away.
            raise UsageError(
                f"There is no folder {printable(self.job.target)} for the files of {self.job.name}.",
                remedy="Make it once, or mount its disk.",
            )

    def _list_files(self) -> dict[str, RemoteFile]:
        files: dict[str, RemoteFile] = {}
        seen: set[str] = set()
        waiting = [(folder, 0) for folder in reversed(self.job.folders)]
        while waiting:
            folder, depth = waiting.pop()
            if folder in seen:
                continue
            seen.add(folder)
            self._mover.pace.spend(0)
            listing = self._with_retries(lambda folder=folder: self.ports.remote.folder(folder))  # type: ignore[misc]
            for address in listing.refused:
                self._report(Synced(address, 0, Fate.REFUSED, reason="no name for a file here"))
            for file in listing.files:
                if not is_own(file.path.rpartition("/")[2]):
                    files[file.path] = file
            if depth < MAX_DEPTH:
                waiting += [(inner, depth + 1) for inner in reversed(listing.folders)]
        return files

    def _record_versions(self, files: dict[str, RemoteFile], entries: dict[str, SyncEntry]) -> None:
        """Record new versions with the time of their first sight, and forget deleted files."""
        journal, account, now = self.ports.journal, self._mover.account, self.ports.clock.now()
        fresh = []
        for file in files.values():
            entry = entries.get(file.path)
            # A time in the future comes from a wrong clock.
            is_timed = entry is not None and (entry.sha256 or entry.since <= now)
            if entry is None or not is_timed or not _is_same(file, entry):
                fresh.append(SyncEntry(file.path, file.version, file.size, now))
        gone = [
            path
            for path in entries
            if path not in files and self._mover.folder_of(path) is not None
        ]
        journal.record(account, fresh)
        journal.forget(account, gone)
        entries.update((entry.path, entry) for entry in fresh)

    def _sync_file(self, file: RemoteFile, entry: SyncEntry) -> None:
        if entry.sha256:
            if self.job.mode == "move":
                self._remove(file, entry, None)
            return
        if self.ports.clock.now() - entry.since < self.job.settle:
            self._report(Synced(file.path, file.size, Fate.WAITING))
            return
        result = self._try_bring(file, entry)
        if result is None:
            return
        landed, known = result
        fate = Fate.KNOWN if known else Fate.COPIED
        if self.job.mode == "move":
            self._remove(file, landed, fate)
        else:
            self._report(Synced(file.path, file.size, fate, landed.target))

    def _preview(self, file: RemoteFile, entry: SyncEntry | None) -> None:
        if entry is not None and _is_same(file, entry) and entry.sha256:
            if self.job.mode == "move":
                detail = "its bytes are here; the server's copy would be deleted"
                self._report(Synced(file.path, file.size, Fate.WOULD, entry.target, detail))
            return
        try:
            folder, name = self._mover.place(file.path)
        except ValueError:
            return
        self._report(Synced(file.path, file.size, Fate.WOULD, folder / name))

    def _try_bring(self, file: RemoteFile, entry: SyncEntry) -> tuple[SyncEntry, bool] | None:
        """Fetch and land a settled file; report the reason and return None if it did not land."""
        try:
            self._require_room(file)
            result = self._with_retries(lambda: self._mover.bring(file, entry))
        except SourceGone:
            return None
        except SourceChanged as error:
            self._report(Synced(file.path, file.size, Fate.CHANGED, reason=error.message))
            return None
        except (SourceUnreadable, LibraryError, Unavailable, ValueError, OSError) as error:
            self._failed(file, error)
            return None
        self._broken = 0
        return result

    def _failed(self, file: RemoteFile, error: Exception) -> None:
        """Report an error; raise DiskFull, or Unavailable after GIVE_UP files in a row."""
        if isinstance(error, OSError) and error.errno in FULL | {errno.EFBIG}:
            raise DiskFull(
                f"The disk of {printable(self.job.target)} is full.", remedy="Free some space."
            ) from error
        reason = str(error) if isinstance(error, HevcqError) else f"{reason_of(error)}."
        self._report(Synced(file.path, file.size, Fate.FAILED, reason=reason))
        if isinstance(error, Unavailable):
            self._broken += 1
            if self._broken >= GIVE_UP:
                raise error

    def _remove(self, file: RemoteFile, entry: SyncEntry, came: Fate | None) -> None:
        """Delete the server's copy if that is safe, and report the result.

        `came` is None for a file that landed in an earlier run.
        """
        if self._mover.distrust:
            self.notice(
                f"{self.job.name}: files are copied, not moved. The server can't be trusted to delete "
                f"only the version that was copied: {self._mover.distrust}."
            )
            if came is not None:
                self._report(Synced(file.path, file.size, came, entry.target))
            return
        stays = self._mover.why_stays(file, entry, just_read=came is Fate.COPIED)
        if stays:
            fate, detail = Fate.LEFT, f"{stays}; left on the server"
        else:
            fate, detail = self._try_remove(file, Fate.KNOWN if came is Fate.KNOWN else Fate.MOVED)
        self._report(Synced(file.path, file.size, fate, entry.target, detail))

    def _try_remove(self, file: RemoteFile, fate: Fate) -> tuple[Fate, str]:
        try:
            removal = self._with_retries(lambda: self._mover.remove(file))
        except Unavailable as error:
            return Fate.LEFT, f"landed; not deleted on the server yet: {error.message}"
        return {
            Removal.REMOVED: (fate, ""),
            Removal.GONE: (fate, "the server's copy was gone already"),
            Removal.CHANGED: (Fate.CHANGED, "landed; the server has another version by now"),
            Removal.REFUSED: (
                Fate.LEFT,
                "landed; the server does not allow its copy to be deleted",
            ),
        }[removal]

    def _require_room(self, file: RemoteFile) -> None:
        self._require_target()
        if free_disk_bytes(self.job.target) < file.size + self.ports.least_free:
            raise DiskFull(
                f"Too little space in {printable(self.job.target)} for {printable(file.path)} "
                f"({file.size} bytes, and min_free_mib to spare).",
                remedy="Free some space; the files stay on the server.",
            )

    def _with_retries(self, step: Callable[[], Result]) -> Result:
        """Return the result of `step`, which is retried while the server is away or busy."""
        for failures in range(RETRY.attempts - 1):
            try:
                return step()
            except Unavailable:
                self.ports.clock.wait(self.ports.stop, RETRY.wait_s(failures, lambda: 1.0))
                self._mover.pace.spend(0)
        return step()

    def _report(self, each: Synced) -> None:
        key = (each.path, each.fate.value, each.reason)
        if each.fate not in REPEATED or key not in self.reported:
            self.on_file(each)
        if each.fate in REPEATED:
            self.reported.add(key)


def _is_same(file: RemoteFile, entry: SyncEntry) -> bool:
    return (entry.version, entry.size) == (file.version, file.size)
