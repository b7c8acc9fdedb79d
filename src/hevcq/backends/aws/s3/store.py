"""Implement the store port over S3: sources in the input bucket, renditions in the output bucket."""

from __future__ import annotations

import builtins
import io
import mimetypes
import os
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from hevcq.backends.aws.clients import code_of, translate_errors
from hevcq.backends.aws.s3 import metadata as object_metadata
from hevcq.backends.aws.s3.metadata import (
    FENCE,
    JOB,
    OCTETS,
    SHA256,
    find_object,
    pack,
    pins_of,
    require_source,
    to_stored_object,
    unpack,
    version_of,
)
from hevcq.backends.aws.s3.range_reader import Download, ObjectReader, download, serve_object
from hevcq.backends.aws.s3.transfer import MIB, FileUpload, Meter, upload
from hevcq.domain.job import Source
from hevcq.domain.keys import INBOX, UPLOADS, check_key
from hevcq.errors import (
    HevcqError,
    SourceChanged,
    SourceGone,
    StaleFence,
    Stopped,
    Unavailable,
    VerificationFailed,
)
from hevcq.ports.store import Input, Publication, Store, StoredObject, Transferred
from hevcq.util.clock import Clock
from hevcq.util.file_io import fsync_file, fsync_folder, sha256_bytes, sha256_file
from hevcq.util.retry import RetryPolicy

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef


CONFLICTS = RetryPolicy(attempts=9, base_s=0.2, cap_s=30.0, jitter=0.0)
"""Attempts of read and conditional write. This is no retry of a failed request."""
UNDECIDED_CODES = frozenset({"ConditionalRequestConflict", "NoSuchUpload"})
"""Error codes after which it is unknown whose write is visible; it may be ours, with a lost answer."""


def publish(s3: S3Client, bucket: str, clock: Clock, publication: Publication) -> StoredObject:
    """Upload the file unless it is published already; delete it once the object is confirmed.

    The object's metadata holds job, fence and SHA-256. The write is conditional on the object that was
    read before: on its absence (If-None-Match) or its ETag (If-Match). So of two workers one write wins
    and the other reads again; the same read recovers from a lost answer. Raises StaleFence,
    VerificationFailed if the file does not match its SHA-256, Stopped, and Unavailable, also after too
    many conflicts.
    """
    meter = Meter(lambda _total: None, publication.stop)
    if sha256_file(publication.file, meter.check) != publication.sha256:
        raise VerificationFailed(f"{publication.file} is not the file that was verified.")
    conflict: HevcqError | None = None
    for attempt in range(CONFLICTS.attempts):
        current = find_object(s3, bucket, publication.key, unknown_is_absent=True)
        if current is not None:
            if _is_ours(current, publication):
                publication.file.unlink(missing_ok=True)
                return to_stored_object(publication.key, current)
            publication.recheck(to_stored_object(publication.key, current))
        conflict = _upload(s3, bucket, publication, current, meter)
        if isinstance(conflict, Unavailable):
            clock.wait(publication.stop, CONFLICTS.wait_s(attempt, lambda: 1.0))
    raise Unavailable(f"{publication.key!r} is being written by others.") from conflict


def _is_ours(current: HeadObjectOutputTypeDef, publication: Publication) -> bool:
    """Return whether the visible object is this rendition. Raises StaleFence if it is newer."""
    metadata = unpack(current["Metadata"])
    if metadata.get(JOB) != publication.job_id:
        return False
    if metadata.get(SHA256) == publication.sha256:
        return True
    fence = metadata.get(FENCE, "")
    if not fence.isdecimal() or int(fence) >= publication.fence:
        raise StaleFence(f"{publication.key} was published under fence {fence or 'unknown'}.")
    return False


def _upload(
    s3: S3Client,
    bucket: str,
    publication: Publication,
    current: HeadObjectOutputTypeDef | None,
    meter: Meter,
) -> HevcqError | None:
    """Upload the file on condition that `current` is still visible; return the conflict, if any."""
    own = {JOB: publication.job_id, FENCE: str(publication.fence), SHA256: publication.sha256}
    kind = publication.content_type or mimetypes.guess_type(publication.key)[0]
    attributes: dict[str, Any] = {
        "Metadata": pack({**publication.metadata, **own}),
        "ContentType": kind or OCTETS,
    }
    if publication.cache_control:
        attributes["CacheControl"] = publication.cache_control
    job = FileUpload(
        bucket=bucket,
        key=publication.key,
        path=publication.file,
        size=publication.file.stat().st_size,
        attributes=attributes,
        condition={"IfNoneMatch": "*"} if current is None else {"IfMatch": current["ETag"]},
    )
    try:
        upload(s3, job, meter)
    except (SourceChanged, SourceGone) as error:
        # 412: another worker wrote in between; 404: the object to replace is gone.
        return error
    except Unavailable as error:
        if code_of(error.__cause__) not in UNDECIDED_CODES:
            raise
        return error
    return None


HEADS_AT_A_TIME = 8
OPEN_BYTES = 4 * MIB
SAFE_SUFFIX = re.compile(r"^\.[A-Za-z0-9]{1,8}$")
INPUTS = (f"{INBOX}/", f"{UPLOADS}/")


@dataclass(frozen=True, slots=True)
class Buckets:
    """The names of the buckets of sources and renditions, which may be the same."""

    input: str
    output: str


class S3Store(Store):
    """Objects on S3.

    A source must be the newest object at its key: a later upload supersedes it even in a versioned
    bucket, so that an old rendition never overwrites a newer one. `reused` holds the ids of sources
    whose bytes were already in the bucket, for which S3 sends no event. The folder `notes` keeps the ids
    of unfinished uploads. `control` sends head, put and delete requests, which the caller may retry.
    """

    def __init__(
        self,
        s3: S3Client,
        buckets: Buckets,
        clock: Clock,
        notes: Path,
        *,
        tag_done: bool = False,
        control: S3Client,
    ) -> None:
        self.reused: set[str] = set()
        self._s3, self._buckets, self._clock = s3, buckets, clock
        self._control, self._notes, self._tag_done = control, notes, tag_done

    def accept(self, path: Path, key: str, *, moved: Transferred, stop: threading.Event) -> Source:
        """Upload a file to the input bucket unless its key holds the same bytes; see `transfer`."""
        check_key(key)
        meter = Meter(moved, stop)
        try:
            before = path.stat()
            sha256 = sha256_file(path, meter.check)
        except OSError as error:
            raise SourceGone(f"{path} cannot be read: {error.strerror}.") from error

        def require_unchanged() -> None:
            now = path.stat()
            if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise SourceChanged(f"{path} changed while it was read.")

        present = self._uploaded_before(key, sha256, before.st_size)
        if present is not None:
            require_unchanged()
            meter.add(before.st_size)
            self.unmark_source_finished(present)
            self.reused.add(present.source_id)
            return present
        job = FileUpload(
            bucket=self._buckets.input,
            key=key,
            path=path,
            size=before.st_size,
            attributes={
                "Metadata": {SHA256: sha256},
                "ContentType": mimetypes.guess_type(path.name)[0] or OCTETS,
            },
            require_unchanged=require_unchanged,
            notes=self._notes,
        )
        return self._source(key, upload(self._s3, job, meter), before.st_size)

    def _uploaded_before(self, key: str, sha256: str, size: int) -> Source | None:
        """Return the source with these bytes at the key, or None."""
        current = self._head(self._buckets.input, key)
        if current is None or current["ContentLength"] != size:
            return None
        if unpack(current["Metadata"]).get(SHA256) != sha256:
            return None
        return self._source(key, current, size)

    def _source(self, key: str, answer: Mapping[str, Any], size: int) -> Source:
        bucket = self._buckets.input
        return Source(bucket=bucket, key=key, version=version_of(answer), size=size)

    def _head(self, bucket: str, key: str) -> HeadObjectOutputTypeDef | None:
        # An input whose existence is unknown must not count as absent: its job would be buried.
        mine = bucket == self._buckets.output and not key.startswith(INPUTS)
        return find_object(self._control, bucket, key, unknown_is_absent=mine)

    def check(self, source: Source) -> None:
        self._require_newest(source)

    def _require_newest(self, source: Source) -> HeadObjectOutputTypeDef:
        head = self._head(source.bucket, source.key)
        if head is None:
            raise SourceGone(f"{source.key} is no longer in the bucket {source.bucket}.")
        require_source(head, source)
        return head

    @contextmanager
    def fetch(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: threading.Event
    ) -> Iterator[Input]:
        """Download the source into `scratch`; check its size, and its SHA-256 if it is known."""
        head = self._require_newest(source)
        path = _scratch_path(source, scratch)
        job = Download(source.bucket, source.key, source.size, pins_of(head))
        try:
            self._download(job, path, Meter(moved, stop), head)
            yield Input(location=str(path), path=path)
        finally:
            path.unlink(missing_ok=True)

    def _download(
        self, job: Download, path: Path, meter: Meter, head: HeadObjectOutputTypeDef
    ) -> str:
        """Download an object; return its SHA-256, checked, or "" if its metadata has none."""
        download(self._s3, job, path, meter)
        sha256 = unpack(head["Metadata"]).get(SHA256, "")
        if sha256 and sha256_file(path, meter.check) != sha256:
            raise Unavailable(f"The bytes of {job.key!r} arrived with another SHA-256.")
        return sha256

    @contextmanager
    def stream(
        self, source: Source, scratch: Path, *, moved: Transferred, stop: threading.Event
    ) -> Iterator[Input]:
        """Serve the source by ranges through the local proxy, pinned to its version."""
        pins = pins_of(self._require_newest(source))
        job = Download(source.bucket, source.key, source.size, pins)
        path = _scratch_path(source, scratch)
        meter = Meter(moved, stop)
        with serve_object(self._s3, job, path, meter) as location:
            yield Input(location=location, path=None)

    def open(self, key: str) -> BinaryIO:
        """Stream one version of a published object, in ranges of OPEN_BYTES."""
        head = self._published(key)
        job = Download(self._buckets.output, key, head["ContentLength"], pins_of(head))
        return cast(BinaryIO, io.BufferedReader(ObjectReader(self._s3, job), OPEN_BYTES))

    @contextmanager
    def stream_published(
        self, key: str, scratch: Path, *, stop: threading.Event
    ) -> Iterator[Input]:
        """Serve the object by ranges through the local proxy, pinned to its bytes by the ETag.

        It is not pinned by its version, because readers may lack the right to read versions.
        """
        if stop.is_set():
            raise Stopped
        head = self._published(key)
        pins = {"IfMatch": head["ETag"]}
        job = Download(self._buckets.output, key, head["ContentLength"], pins)
        path = scratch / f"{sha256_bytes(key.encode())[:32]}.part"
        path.unlink(missing_ok=True)
        meter = Meter(lambda _n: None, stop)
        with serve_object(self._s3, job, path, meter) as location:
            yield Input(location=location, path=None)

    def _published(self, key: str) -> HeadObjectOutputTypeDef:
        head = self._head(self._buckets.output, check_key(key))
        if head is None:
            raise SourceGone(f"There is no object {key!r} in the bucket {self._buckets.output}.")
        return head

    def publish(self, publication: Publication) -> StoredObject:
        check_key(publication.key)
        return publish(self._s3, self._buckets.output, self._clock, publication)

    def put(self, key: str, content: bytes, *, metadata: Mapping[str, str]) -> StoredObject:
        check_key(key)
        own = {SHA256: sha256_bytes(content)}
        with translate_errors(f"write {key!r} to the bucket {self._buckets.output}"):
            self._control.put_object(
                Bucket=self._buckets.output,
                Key=key,
                Body=content,
                Metadata=pack({**metadata, **own}),
                ContentType=mimetypes.guess_type(key)[0] or OCTETS,
                ChecksumAlgorithm="SHA256",
            )
        return to_stored_object(key, self._published(key))

    def stat(self, key: str) -> StoredObject | None:
        head = self._head(self._buckets.output, check_key(key))
        return None if head is None else to_stored_object(key, head)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield objects in key order; each costs a HeadObject, because listings carry no metadata."""
        pages = self._s3.get_paginator("list_objects_v2")
        listing = iter(pages.paginate(Bucket=self._buckets.output, Prefix=prefix))
        with ThreadPoolExecutor(HEADS_AT_A_TIME, thread_name_prefix="s3-head") as pool:
            while True:
                with translate_errors(f"list {prefix!r} in the bucket {self._buckets.output}"):
                    page = next(listing, None)
                if page is None:
                    return
                keys: builtins.list[str] = [entry["Key"] for entry in page.get("Contents", [])]
                for key, head in zip(
                    keys, pool.map(partial(self._head, self._buckets.output), keys), strict=True
                ):
                    if head is not None:
                        yield to_stored_object(key, head)

    def sources(self, prefix: str) -> Iterator[Source]:
        bucket = self._buckets.input
        pages = iter(
            self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        )
        while True:
            with translate_errors(f"list {prefix!r} in the bucket {bucket}"):
                page = next(pages, None)
            if page is None:
                return
            for entry in page.get("Versions", []):
                if entry["IsLatest"] and not entry["Key"].endswith("/"):
                    yield self._source(entry["Key"], entry, entry["Size"])

    def mark_source_finished(self, source: Source, *, collected: bool) -> bool:
        return self._tag_done and object_metadata.mark_source_finished(
            self._s3, source, collected=collected
        )

    def unmark_source_finished(self, source: Source) -> None:
        if self._tag_done:
            object_metadata.unmark_source_finished(self._s3, source)

    def delete(self, key: str) -> bool:
        if self._head(self._buckets.output, check_key(key)) is None:
            return False
        with translate_errors(f"delete {key!r} from the bucket {self._buckets.output}"):
            self._control.delete_object(Bucket=self._buckets.output, Key=key)
        return True

    def collect(self, key: str, target: Path, *, stop: threading.Event) -> str:
        """Download beside `target`, make the file durable, then link it to its name."""
        head = self._published(key)
        meter = Meter(lambda _total: None, stop)
        digest = sha256_bytes(os.fsencode(target))[:16]
        part = target.parent / f".hevcq-{digest}-{os.getpid()}-{threading.get_ident()}.part"
        part.unlink(missing_ok=True)
        job = Download(self._buckets.output, key, head["ContentLength"], pins_of(head))
        try:
            sha256 = self._download(job, part, meter, head) or sha256_file(part, meter.check)
            fsync_file(part)
            os.link(part, target)
        finally:
            part.unlink(missing_ok=True)
        fsync_folder(target.parent)
        return sha256

    def free_bytes(self) -> int | None:
        return None


def _scratch_path(source: Source, scratch: Path) -> Path:
    """Return the path of a source in `scratch`, and remove the file of an earlier attempt."""
    suffix = Path(source.key).suffix
    path = scratch / (source.source_id + (suffix if SAFE_SUFFIX.match(suffix) else ""))
    path.unlink(missing_ok=True)
    return path
