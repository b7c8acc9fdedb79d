"""The store port: where sources are read from and renditions are published, atomically."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from hevcq.domain.job import Source


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that is visible. `sha256` is hexadecimal, of the whole content."""

    key: str
    version: str
    size: int
    sha256: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    modified_at: float = 0.0


PROXY_SCHEME = "relay+http://"
"""How a location begins that is served by this process, to this machine only. The relay takes up
what breaks and knows what failed, so the encoder opens it without any repetition of its own."""


@dataclass(frozen=True, slots=True)
class Input:
    """A source made readable for the encoder: a path, a URL, or a relay of this process."""

    location: str
    path: Path | None
    """The local file, where there is one."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What to publish: the file is consumed (moved where it can be) when publish succeeds.

    `fence` orders publications of one key by one job: a lower fence never replaces a higher.
    `stop` ends one that takes long and is not visible yet: it raises Stopped. `recheck` is called
    with what is visible before that is replaced, and raises if it may be of a newer source.
    """

    key: str
    file: Path
    sha256: str
    job_id: str
    fence: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event, compare=False)
    recheck: Callable[[StoredObject], None] = field(default=lambda _seen: None, compare=False)


Transferred = Callable[[int], None]
"""Called with the total number of bytes moved so far."""


class Store(ABC):
    """Objects by key. Specification, held by tests/contracts for every backend:

    - Publishing is atomic: a reader sees the old object, the new one or none, never a part.
    - A publication carries its SHA-256 and metadata; metadata keys are lower-case ASCII words.
    - A source is pinned to its version: one that was replaced meanwhile raises SourceChanged,
      one that is gone SourceGone; other bytes are never handed out.
    - Keys with spaces, Unicode, `+`, `%`, leading dots and 1,024 bytes survive; `..`, absolute
      and empty keys raise BadKey.
    """

    @abstractmethod
    def accept(self, path: Path, key: str, *, moved: Transferred, stop: threading.Event) -> Source:
        """Take in a library file as a source: link it (embedded) or upload it (S3)."""

    @abstractmethod
    def check(self, source: Source) -> None:
        """Raise SourceGone, SourceChanged or SourceUnreadable unless the source is as it was."""

    @abstractmethod
    def fetch(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: threading.Event
    ) -> AbstractContextManager[Input]:
        """Make the source readable for ffmpeg inside the context; what it made is removed after."""

    def stream(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: threading.Event
    ) -> AbstractContextManager[Input]:
        """Make the source readable inside the context, bringing here only what is read of it.

        For who reads a small share of a source. Leaving the context raises the error that a read
        met: a reader may have taken the break for the source's end. Where a source is near, or
        only a whole one can be had, this is `fetch`.
        """
        return self.fetch(source, scratch, moved=moved, stop=stop)

    @abstractmethod
    def open(self, key: str, *, start: int = 0, end: int | None = None) -> BinaryIO:
        """Open a published object for streaming, bytes `start` to `end` (exclusive).

        Raises SourceGone if there is none.
        """

    @abstractmethod
    def publish(self, publication: Publication) -> StoredObject:
        """Make the file visible under its key in one step, durable when it returns.

        Raises StaleFence if an object is visible there from the same job with a fence at or above
        this one and another SHA-256; with the same SHA-256 it returns the visible object. An
        object of another job, or of a lower fence, is replaced, unless `recheck` raises.
        """

    @abstractmethod
    def put(self, key: str, content: bytes, *, metadata: Mapping[str, str]) -> StoredObject:
        """Write a small object in one step, replacing what is there."""

    @abstractmethod
    def stat(self, key: str) -> StoredObject | None:
        """Return the visible object at `key`, or None."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield objects whose key starts with `prefix`, in key order, a page at a time."""

    def sources(self, prefix: str) -> Iterator[Source]:  # noqa: ARG002 - for those that keep them
        """Yield the newest version of each source whose key starts with `prefix`, a page at a time.

        Only a store that others put sources into by themselves (S3) knows any; for files on this
        machine `hevcq ingest` looks into their folders instead.
        """
        return iter(())

    def mark_source_finished(self, source: Source, *, collected: bool) -> bool:  # noqa: ARG002 - for those that can
        """Mark this very version as finished with, so that the store's own rules may let it go.

        `collected` says that its renditions were brought to the machine that took it in, without
        which a source that `accept` took in stays. False if it has to stay, or if the store has
        no such mark; marking twice is harmless. Nothing is deleted here.
        """
        return False

    def unmark_source_finished(self, source: Source) -> None:  # noqa: B027 - only for those that mark
        """Take the mark of `mark_source_finished` off again, before the source is worked on anew."""

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Remove the object; False if there is none."""

    @abstractmethod
    def collect(self, key: str, target: Path, *, moved: Transferred, stop: threading.Event) -> str:
        """Copy the object to the new file `target` (linking where the file system can).

        `target` must not exist; it appears only whole. Returns the SHA-256 of the bytes at
        `target` as read back after writing. Raises SourceGone if there is no such object.
        """

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Return the free space where renditions go, or None where it has no limit."""
