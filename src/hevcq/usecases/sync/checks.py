"""Check one sync for `hevcq doctor`: the server answers, the folders are there, deleting is safe."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hevcq.errors import HevcqError
from hevcq.ports.encoder import Check
from hevcq.ports.sync import RemoteOf
from hevcq.util.text import printable

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
OTHERS = 0o077
"""Rights of other users on a file with a password."""


@dataclass(frozen=True, slots=True)
class SyncCheck:
    """What is to be checked, and how the server is opened."""

    name: str
    url: str
    folders: tuple[str, ...]
    target: Path
    move: bool
    password_file: Path | None
    remote: RemoteOf
    token: Callable[[], str]


def check_sync(sync: SyncCheck) -> Check:
    """Return what is wrong with a sync, or that it would run; makes a probe file if it moves."""
    name = f"sync {sync.name}"
    if not (sync.target.is_dir() and os.access(sync.target, os.W_OK | os.X_OK)):
        remedy = "Make it, mount its disk, or allow this user to write there."
        detail = f"There is no writable folder {printable(sync.target)}."
        return Check(name, ok=False, detail=detail, remedy=remedy)
    try:
        remote = sync.remote()
        try:
            files = sum(len(remote.folder(folder).files) for folder in sync.folders)
            unsafe = remote.unsafe_to_remove(sync.folders[0], sync.token()) if sync.move else ""
        finally:
            remote.close()
    except HevcqError as error:
        return Check(name, ok=False, detail=error.message, remedy=error.remedy)
    if unsafe:
        detail = (
            f"Its files are copied, not moved: the server can't be trusted to delete, {unsafe}."
        )
        return Check(
            name, ok=False, detail=detail, remedy='Set mode = "copy", or use another server.'
        )
    done = "moves" if sync.move else "copies"
    notes = "".join(f"; {note}" for note in _notes(sync))
    return Check(name, ok=True, detail=f"{done}, {files} files at the top of its folders{notes}")


def _notes(sync: SyncCheck) -> list[str]:
    notes = []
    parts = urlsplit(sync.url)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        notes.append("the password is sent unencrypted (http)")
    path = sync.password_file
    if path is not None and path.stat().st_mode & OTHERS:
        notes.append(f"other users may read {printable(path)} (chmod 600)")
    return notes
