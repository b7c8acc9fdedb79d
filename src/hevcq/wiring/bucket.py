"""Several machines with a database and a bucket: videos of libraries stay where they are, the rest is in it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import BinaryIO

from hevcq.backends.aws.factory import MARK, CompatibleStore
from hevcq.backends.sql.factory import SqlBackend, open_sql
from hevcq.domain.job import Source
from hevcq.domain.keys import LIBRARY_BUCKET
from hevcq.domain.profile import Profile
from hevcq.ports.store import Input, Publication, Store, StoredObject, Transferred
from hevcq.settings.model import Settings
from hevcq.util.clock import Clock


def open_beside(
    settings: Settings,
    profiles: Mapping[str, Profile],
    clock: Clock,
    bucket: CompatibleStore,
    notice: Callable[[str], None] | None,
) -> SqlBackend:
    """Open the database, and refuse a bucket that is another's or whose server keeps no conditions."""

    opened = open_sql(settings, profiles, clock, notice, bucket)
    try:
        bucket.prove()
    except BaseException:
        opened.close()
        raise
    return put_beside(opened, bucket.objects)


def put_beside(opened: SqlBackend, bucket: Store) -> SqlBackend:
    """Return the same backend with the renditions in a bucket."""
    store = BesideStore(opened.backend.store, bucket)
    return replace(opened, backend=replace(opened.backend, store=store))


class BesideStore(Store):
    """Sources linked from a library, or uploaded to a bucket; every rendition in the bucket."""

    def __init__(self, library: Store, bucket: Store) -> None:
        self._library, self._bucket = library, bucket

    def _of(self, source: Source) -> Store:
        return self._library if source.bucket == LIBRARY_BUCKET else self._bucket

    def accept(self, path: Path, key: str, *, moved: Transferred, stop: Event) -> Source:
        return self._library.accept(path, key, moved=moved, stop=stop)

    def follow(self, source: Source, path: Path) -> None:
        self._of(source).follow(source, path)

    def check(self, source: Source) -> None:
        self._of(source).check(source)

    def fetch(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: Event
    ) -> AbstractContextManager[Input]:
        return self._of(source).fetch(source, scratch, moved=moved, stop=stop)

    def stream(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: Event
    ) -> AbstractContextManager[Input]:
        return self._of(source).stream(source, scratch, moved=moved, stop=stop)

    def open(self, key: str) -> BinaryIO:
        return self._bucket.open(key)

    def stream_published(
        self, key: str, scratch: Path, *, stop: Event
    ) -> AbstractContextManager[Input]:
        return self._bucket.stream_published(key, scratch, stop=stop)

    def publish(self, publication: Publication) -> StoredObject:
        return self._bucket.publish(publication)

    def put(self, key: str, content: bytes, *, metadata: Mapping[str, str]) -> StoredObject:
        return self._bucket.put(key, content, metadata=metadata)

    def stat(self, key: str) -> StoredObject | None:
        return self._bucket.stat(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return (found for found in self._bucket.list(prefix) if found.key != MARK)

    def delete(self, key: str) -> bool:
        return self._bucket.delete(key)

    def collect(self, key: str, target: Path, *, moved: Transferred, stop: Event) -> str:
        return self._bucket.collect(key, target, moved=moved, stop=stop)

    def free_bytes(self) -> int | None:
        return None
