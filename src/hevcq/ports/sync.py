"""The ports of a sync: a remote (files on another server) and the journal of what was moved.

A path on a server is relative to the account's root, decoded, with `/` between its parts. Bytes of
names that are not UTF-8 are lone surrogates, as in the paths of `os`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One version of a file on a server; `size` is in bytes, `modified` in Unix seconds.

    `etag` is opaque and without quotes, "" where the server has none. `checksums` are those that the
    server states, by their names in lower case (`sha1`).
    """

    path: str
    size: int
    etag: str = ""
    modified: float | None = None
    checksums: tuple[tuple[str, str], ...] = ()

    @property
    def version(self) -> str:
        """What changes with the file's bytes: the ETag, else the time of the last change."""
        return self.etag or f"modified-{self.modified}"


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """What is in one folder. `refused` are names that no honest server sends, as it sent them."""

    folders: tuple[str, ...] = ()
    files: tuple[RemoteFile, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of a file from `start` on, in blocks of any length."""

    start: int
    blocks: Iterator[bytes]


class Removal(StrEnum):
    """What became of a conditional delete."""

    REMOVED = "removed"
    CHANGED = "changed"
    GONE = "gone"
    REFUSED = "refused"


class Remote(ABC):
    """Files on another server, read and removed one version at a time.

    Every method raises Unavailable if the server does not answer, is busy or has a file locked, and
    ConfigError if it does not accept the user or the password. No error holds a password.
    """

    @property
    @abstractmethod
    def account(self) -> str:
        """Identify server and user, the same for the same files whatever the settings call them."""

    @abstractmethod
    def folder(self, path: str) -> RemoteFolder:
        """List one folder, not what is below it. Raises UsageError if there is none."""

    @abstractmethod
    def stat(self, path: str) -> RemoteFile | None:
        """Return the file that is at a path now, or None."""

    @abstractmethod
    def read(self, file: RemoteFile, start: int) -> AbstractContextManager[Body]:
        """Open this version of a file, from byte `start` on.

        The body may start earlier (at 0) where the server cannot send a part. Raises SourceChanged
        if the server has another version, SourceGone if it has none, SourceUnreadable if it refuses.
        A body that ends early or is too long is the caller's to find.
        """

    @abstractmethod
    def remove(self, file: RemoteFile) -> Removal:
        """Delete this version of a file, and no other; only where `unsafe_to_remove` returned ""."""

    @abstractmethod
    def unsafe_to_remove(self, folders: Sequence[str], token: str, target: Path) -> str:
        """Return why the server might delete a version that it was not asked to, or "".

        It is tried on a small file made in each of `folders` for that, whose name holds `token`; if
        that file appears in or above `target`, the server would delete what landed. Raises
        Unavailable if that file could not be made for want of space.
        """

    def close(self) -> None:
        """Close connections; may be called twice."""


@dataclass(frozen=True, slots=True)
class SyncEntry:
    """One version of a file on the server, first seen at `since` (Unix seconds).

    `sha256` is "" and `target` None until it has landed: is there, durable, with the bytes that came.
    """

    path: str
    version: str
    size: int
    since: float
    sha256: str = ""
    target: Path | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes that came to `target`, or were about to (not `landed`) when the process ended."""

    sha256: str
    size: int
    target: Path
    landed: bool = False
