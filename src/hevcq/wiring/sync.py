"""Open what a sync of the settings works with: the remote, the journal, and one lock for each."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hevcq.errors import ConfigError, Unavailable, UsageError
from hevcq.util import file_lock
from hevcq.util.text import printable, reason_of

if TYPE_CHECKING:
    from hevcq.ports.sync import Remote
    from hevcq.settings.sync import SyncSettings
    from hevcq.usecases.sync.move import SyncPorts
    from hevcq.wiring.app import App

MIB = 1024 * 1024


def chosen(settings: Sequence[SyncSettings], names: Sequence[str]) -> list[SyncSettings]:
    """Return the syncs of these names, or all.

    Raises UsageError if there are none.
    """
    if not settings:
        raise UsageError(
            "No [[sync]] is in the settings.",
            remedy="docs/home/sync.md shows one; `hevcq config show` says which file is read.",
        )
    known = {each.name: each for each in settings}
    for name in names:
        if name not in known:
            raise UsageError(
                f"There is no sync {printable(name)!r}.", remedy=f"Available: {', '.join(known)}."
            )
    return [known[name] for name in dict.fromkeys(names)] or list(settings)


@contextmanager
def opened(app: App, sync: SyncSettings, stop: threading.Event) -> Iterator[SyncPorts]:
    """Open one sync and close it afterwards; only one process at a time has it open.

    Raises ConfigError, StorageError, or Unavailable if another process has it open.
    """
    from hevcq.library.filesystem import FileSystem
    from hevcq.sqlite.catalog import SyncJournal
    from hevcq.usecases.sync.move import SyncPorts

    journal = SyncJournal(app.records)  # makes the data folder
    with _alone(app.settings.data_dir, sync.name):
        remote = open_remote(sync)
        try:
            yield SyncPorts(
                remote,
                journal,
                app.clock,
                FileSystem(stop),
                stop,
                token=secrets.token_hex(8),
                least_free=app.settings.min_free_mib * MIB,
            )
        finally:
            remote.close()


def open_remote(sync: SyncSettings) -> Remote:
    """Open the server of a sync; asks it nothing yet.

    Raises ConfigError if the password cannot be read.
    """
    from hevcq.remotes.webdav.client import Account, WebDavRemote

    return WebDavRemote(Account(sync.url, sync.user, _password(sync), sync.ca_file))


def _password(sync: SyncSettings) -> str:
    if sync.password_file is None:
        if sync.user:
            raise ConfigError(
                f"The sync {sync.name} has a user but no password_file.",
                remedy="Write the password into a file that only you can read, and name it there.",
            )
        return ""
    path = sync.password_file
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = reason_of(error) if isinstance(error, OSError) else "it is not text"
        raise ConfigError(
            f"Cannot read the password_file {printable(path)} of the sync {sync.name}: {why}."
        ) from error
    if not lines or not lines[0].strip():
        raise ConfigError(f"The password_file {printable(path)} of the sync {sync.name} is empty.")
    return lines[0].strip()


@contextmanager
def _alone(data_dir: Path, name: str) -> Iterator[None]:
    path = data_dir / f"sync-{name}.lock"
    try:
        lock = file_lock.try_acquire(path)
    except OSError as error:
        raise Unavailable(f"Cannot write to {printable(path)}: {reason_of(error)}.") from error
    if lock is None:
        raise Unavailable(
            f"Another process is busy with the sync {name}.", remedy="Let it end first."
        )
    try:
        yield
    finally:
        os.close(lock)
