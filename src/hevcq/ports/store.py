"""The store port: read sources, and publish renditions atomically."""

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
    """A visible object. `size` is in bytes, `modified_at` in Unix seconds, `sha256` hexadecimal."""

    key: str
    version: str
    size: int
    sha256: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    modified_at: float = 0.0


PROXY_SCHEME = "relay+http://"
"""The URL prefix of a source that this process serves to this machine only. The local proxy resumes
broken reads and records errors, so the encoder opens it without retries of its own. What follows
the question mark is the proxy's password, of the user PROXY_USER."""
PROXY_USER = "hevcq"


@dataclass(frozen=True, slots=True)
class Input:
    """A source readable by the encoder: a path, a URL, or an address of the local proxy."""

    location: str
    path: Path | None
    """The local file, if there is one."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A file to publish under a key; a successful publication consumes (moves or deletes) the file.

    `fence` orders the publications of one job: a lower fence never replaces a higher one. `stop`
    aborts a publication that is not visible yet with Stopped. `recheck` is called with the visible
    object before it is replaced, and raises if that may come from a newer source. `content_type` is
    derived from the key if it is empty; it and `cache_control` matter only where players read the
    store itself.
    """

    key: str
    file: Path
    sha256: str
    job_id: str
    fence: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event, compare=False)
    recheck: Callable[[StoredObject], None] = field(default=lambda _seen: None, compare=False)
    content_type: str = ""
    cache_control: str = ""


Transferred = Callable[[int], None]
"""Called with the total number of bytes transferred so far."""
Write = Callable[[int, bytes], None]
"""Called with bytes of a source and their offset."""


class Store(ABC):
    """Objects by key. Specification, held by tests/contracts for every backend:

    - Publishing is atomic: a reader sees the old object, the new one or none, never a partial one.
    - A publication carries its SHA-256 and metadata; metadata keys are lower-case ASCII words.
    - A source is pinned to its version: a replaced one raises SourceChanged, a missing one
      SourceGone; other bytes are never returned.
    - Keys with spaces, Unicode, `+`, `%`, leading dots and 1,024 bytes survive; `..`, absolute
      and empty keys raise BadKey.
    - Every method may raise Unavailable or StorageError.
    """

    @abstractmethod
    def accept(self, path: Path, key: str, *, moved: Transferred, stop: threading.Event) -> Source:
        """Add a library file as a source: link it (embedded) or upload it (S3).

        Raises BadKey, SourceGone, SourceChanged if the file changes meanwhile, Stopped.
        """

    def follow(self, source: Source, path: Path) -> None:
        """Record that the library file of a linked source moved to `path`; ignored for any other file."""

    @abstractmethod
    def check(self, source: Source) -> None:
        """Raise SourceGone, SourceChanged or SourceUnreadable unless the source is unchanged."""

    @abstractmethod
    def fetch(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: threading.Event
    ) -> AbstractContextManager[Input]:
        """Make the source readable for ffmpeg inside the context; remove temporary files after it.

        Raises SourceGone, SourceChanged, SourceUnreadable, SourceDamaged, DiskFull, Stopped.
        """

    def stream(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: threading.Event
    ) -> AbstractContextManager[Input]:
        """Make the source readable inside the context, transferring only the bytes that are read.

        Leaving the context raises the error of a failed read, because the reader may have taken it for
        the end of the source. Raises as `fetch`.
        """
        return self.fetch(source, scratch, moved=moved, stop=stop)

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """Open a published object for streaming. Raises BadKey, SourceGone if there is none."""

    @abstractmethod
    def stream_published(
        self, key: str, scratch: Path, *, stop: threading.Event
    ) -> AbstractContextManager[Input]:
        """Make a published object readable for ffmpeg inside the context, as `stream` does a source.

        Raises BadKey, SourceGone, Stopped, OSError.
        """

    @abstractmethod
    def publish(self, publication: Publication) -> StoredObject:
        """Publish a file under its key in one step, durable when the call returns.

        If the same job has published there, the same SHA-256 returns the visible object, and
        another SHA-256 with an equal or higher fence raises StaleFence. An object of another job
        or of a lower fence is replaced, unless `recheck` raises. Raises BadKey, Stopped,
        VerificationFailed.
        """

    @abstractmethod
    def put(self, key: str, content: bytes, *, metadata: Mapping[str, str]) -> StoredObject:
        """Write a small object in one step, replacing any existing one. Raises BadKey."""

    @abstractmethod
    def stat(self, key: str) -> StoredObject | None:
        """Return the visible object at `key`, or None. Raises BadKey."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose key starts with `prefix`, in key order, page by page.

        A server that is only compatible with S3 may have another order.
        """

    def sources(self, prefix: str) -> Iterator[Source]:
        """Yield the newest version of each source that others uploaded below `prefix`, page by page."""
        return iter(())

    def mark_source_finished(self, source: Source, *, collected: bool) -> bool:
        """Mark this version as finished, so that the store's lifecycle rules may expire it.

        `collected` says that the renditions were copied to the machine that ingested the source;
        a source from `accept` stays until then. Returns False if the source has to stay.
        """
        return False

    def unmark_source_finished(self, source: Source) -> None:
        """Remove the mark of `mark_source_finished`, before the source is encoded again."""

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Delete the object; return False if there is none. Raises BadKey."""

    @abstractmethod
    def collect(self, key: str, target: Path, *, stop: threading.Event) -> str:
        """Copy an object to the new file `target` (by a link where the file system can).

        `target` appears only when it is complete. Returns the SHA-256 of its bytes as read back
        after writing. Raises FileExistsError if `target` exists, BadKey, SourceGone if there is no
        such object, DiskFull, Stopped.
        """

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Return the free space for renditions in bytes, or None if it is unlimited."""
