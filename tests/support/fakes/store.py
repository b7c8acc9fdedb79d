"""A store in memory."""

import hashlib
import io
import itertools
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hevcq.domain.job import Source
from hevcq.domain.keys import LIBRARY_BUCKET, check_key
from hevcq.errors import SourceChanged, SourceGone, SourceUnreadable, StaleFence, Stopped
from hevcq.ports.store import Input, Publication, Store, StoredObject, Transferred
from hevcq.util.clock import Clock


class MemoryStore(Store):
    """Objects in a dict. Feed sources with `add_source` (bytes) or `accept` (a real file).

    `published` lists every publication that took effect, as (key, job id, fence); `marked` what
    `mark_source_finished` was called with.
    """

    def __init__(self, clock: Clock) -> None:
        self.free: int | None = None
        self.published: list[tuple[str, str, int]] = []
        self.marked: list[tuple[Source, bool]] = []
        self._clock = clock
        self._lock = threading.RLock()
        self._objects: dict[str, tuple[StoredObject, bytes, str, int]] = {}
        self._sources: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._paths: dict[tuple[str, str], Path] = {}
        self._numbers = itertools.count(1)

    def add_source(self, key: str, content: bytes, *, bucket: str = "uploads") -> Source:
        """Upload bytes as a source; a second upload to the key is a new version."""
        with self._lock:
            version = f"v{next(self._numbers)}"
            self._sources[bucket, key] = (version, content)
            return Source(bucket=bucket, key=key, version=version, size=len(content))

    def remove_source(self, source: Source) -> None:
        """Delete a source, as a person may at any time."""
        with self._lock:
            del self._sources[source.bucket, source.key]

    def accept(self, path: Path, key: str, *, moved: Transferred, stop: threading.Event) -> Source:
        check_key(key)
        size, version = _fingerprint(path)
        if stop.is_set():
            raise Stopped
        moved(size)
        with self._lock:
            self._paths[LIBRARY_BUCKET, key] = path
        return Source(bucket=LIBRARY_BUCKET, key=key, version=version, size=size)

    def follow(self, source: Source, path: Path) -> None:
        with self._lock:
            if (source.bucket, source.key) in self._paths and _fingerprint(path)[
                1
            ] == source.version:
                self._paths[source.bucket, source.key] = path

    def check(self, source: Source) -> None:
        self._content(source)

    def _content(self, source: Source) -> bytes:
        with self._lock:
            path = self._paths.get((source.bucket, source.key))
            if path is not None:
                if _fingerprint(path)[1] != source.version:
                    raise SourceChanged(f"{source.key} was replaced since it was queued.")
                return path.read_bytes()
            found = self._sources.get((source.bucket, source.key))
        if found is None:
            raise SourceGone(f"{source.key} no longer exists.")
        if found[0] != source.version:
            raise SourceChanged(f"{source.key} was replaced since it was queued.")
        return found[1]

    @contextmanager
    def fetch(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: threading.Event
    ) -> Iterator[Input]:
        content = self._content(source)
        if stop.is_set():
            raise Stopped
        path = scratch / "source"
        path.write_bytes(content)
        moved(len(content))
        try:
            yield Input(location=str(path), path=path)
        finally:
            path.unlink(missing_ok=True)

    def mark_source_finished(self, source: Source, *, collected: bool) -> bool:
        self.marked.append((source, collected))
        return True

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self._entry(key)[1])

    @contextmanager
    def stream_published(
        self, key: str, scratch: Path, *, stop: threading.Event
    ) -> Iterator[Input]:
        if stop.is_set():
            raise Stopped
        path = scratch / hashlib.sha256(key.encode()).hexdigest()
        path.write_bytes(self._entry(key)[1])
        try:
            yield Input(location=str(path), path=path)
        finally:
            path.unlink()

    def content(self, key: str) -> bytes:
        """Return all bytes of a visible object."""
        return self._entry(key)[1]

    def _entry(self, key: str) -> tuple[StoredObject, bytes, str, int]:
        with self._lock:
            if check_key(key) not in self._objects:
                raise SourceGone(f"There is no object {key!r}.")
            return self._objects[key]

    def publish(self, publication: Publication) -> StoredObject:
        check_key(publication.key)
        seen = self._objects.get(publication.key)
        if seen is not None and (seen[2], seen[0].sha256) != (
            publication.job_id,
            publication.sha256,
        ):
            publication.recheck(seen[0])
        with self._lock:
            there = self._objects.get(publication.key)
            if there is not None and there[2] == publication.job_id:
                if there[0].sha256 == publication.sha256:
                    publication.file.unlink(missing_ok=True)
                    return there[0]
                if there[3] >= publication.fence:
                    raise StaleFence(f"{publication.key} was published under a newer fence.")
            content = publication.file.read_bytes()
            made = self._object(publication.key, content, publication.metadata)
            assert made.sha256 == publication.sha256, "the caller named another digest"
            self._objects[publication.key] = (
                made,
                content,
                publication.job_id,
                publication.fence,
            )
            self.published.append((publication.key, publication.job_id, publication.fence))
            publication.file.unlink()
            return made

    def _object(self, key: str, content: bytes, metadata: Mapping[str, str]) -> StoredObject:
        return StoredObject(
            key=key,
            version=f"v{next(self._numbers)}",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            metadata=dict(metadata),
            modified_at=self._clock.now(),
        )

    def put(self, key: str, content: bytes, *, metadata: Mapping[str, str]) -> StoredObject:
        with self._lock:
            made = self._object(check_key(key), content, metadata)
            self._objects[key] = (made, content, "", 0)
            return made

    def stat(self, key: str) -> StoredObject | None:
        with self._lock:
            found = self._objects.get(check_key(key))
            return found[0] if found else None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        with self._lock:
            names = sorted(self._objects, key=lambda k: k.encode())
            return iter([self._objects[n][0] for n in names if n.startswith(prefix)])

    def delete(self, key: str) -> bool:
        with self._lock:
            return self._objects.pop(check_key(key), None) is not None

    def collect(self, key: str, target: Path, *, stop: threading.Event) -> str:
        content = self._entry(key)[1]
        if stop.is_set():
            raise Stopped
        if os.path.lexists(target):
            raise FileExistsError(target)
        part = target.with_name(f".{target.name[:200]}.part")
        part.write_bytes(content)
        os.link(part, target)
        part.unlink()
        return hashlib.sha256(target.read_bytes()).hexdigest()

    def free_bytes(self) -> int | None:
        return self.free


def _fingerprint(path: Path) -> tuple[int, str]:
    try:
        facts = path.stat()
    except FileNotFoundError as error:
        raise SourceGone(f"{path} no longer exists.") from error
    except OSError as error:
        raise SourceUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    if not os.access(path, os.R_OK):
        raise SourceUnreadable(f"{path} cannot be read: permission denied.")
    return facts.st_size, f"{facts.st_size}-{facts.st_mtime_ns}-{facts.st_ino}"
