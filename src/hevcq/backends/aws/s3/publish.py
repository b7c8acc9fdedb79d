"""Publish a rendition on S3: one conditional call makes it visible, and a read confirms it."""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING

from hevcq.backends.aws.errors import code_of
from hevcq.backends.aws.s3 import metadata as object_metadata
from hevcq.backends.aws.s3.metadata import find_object
from hevcq.backends.aws.s3.transfer import FileUpload, Meter, upload
from hevcq.errors import (
    SourceChanged,
    SourceGone,
    StaleFence,
    Unavailable,
    VerificationFailed,
)
from hevcq.ports.store import Publication, StoredObject
from hevcq.util.clock import Clock
from hevcq.util.file_io import sha256_file
from hevcq.util.retry import RetryPolicy

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

CONFLICTS = RetryPolicy(attempts=8, base_s=0.2, cap_s=30.0, jitter=0.0)
"""Consecutive conflicts, each caused by another writer. This is no retry of a request."""


class Publisher:
    """Publishes to one bucket.

    The object carries its job, fence and SHA-256. The visible object decides the condition: none
    (If-None-Match) or exactly the object that was read (If-Match), so that of two workers one
    write wins and the other reads again. The same read recovers from a lost answer.
    """

    def __init__(self, s3: S3Client, bucket: str, clock: Clock) -> None:
        self._s3, self._bucket, self._clock = s3, bucket, clock

    def publish(self, publication: Publication) -> StoredObject:
        """Upload the file unless it is already there; delete it once the object is confirmed.

        Raises StaleFence, VerificationFailed if the file does not match its SHA-256, Stopped,
        Unavailable, also after too many conflicts.
        """
        meter = Meter(lambda _total: None, publication.stop)
        self._require_bytes(publication, meter)
        last: Exception | None = None
        for attempt in range(CONFLICTS.attempts):
            there = self._head(publication.key)
            if there is not None:
                if self._is_ours(there, publication):
                    publication.file.unlink(missing_ok=True)
                    return object_metadata.stored(publication.key, there)
                publication.recheck(object_metadata.stored(publication.key, there))
            try:
                self._upload(publication, there, meter)
            except _Conflict as conflict:
                last = conflict
                if not conflict.decided:
                    self._clock.wait(publication.stop, CONFLICTS.wait_s(attempt, lambda: 1.0))
                continue
            seen = self._head(publication.key)
            if seen is not None and self._is_ours(seen, publication):
                publication.file.unlink(missing_ok=True)
                return object_metadata.stored(publication.key, seen)
        raise Unavailable(f"{publication.key!r} is being written by others.") from last

    def _require_bytes(self, publication: Publication, meter: Meter) -> None:
        if sha256_file(publication.file, meter.check) != publication.sha256:
            raise VerificationFailed(f"{publication.file} is not the file that was verified.")

    def _is_ours(self, there: HeadObjectOutputTypeDef, publication: Publication) -> bool:
        """Return whether the visible object is this rendition; raise StaleFence if it is newer."""
        metadata = object_metadata.unpack(there["Metadata"])
        if metadata.get(object_metadata.JOB) != publication.job_id:
            return False
        if metadata.get(object_metadata.SHA256) == publication.sha256:
            return True
        fence = metadata.get(object_metadata.FENCE, "")
        if not fence.isdecimal() or int(fence) >= publication.fence:
            raise StaleFence(f"{publication.key} was published under fence {fence or 'unknown'}.")
        return False

    def _upload(
        self, publication: Publication, there: HeadObjectOutputTypeDef | None, meter: Meter
    ) -> None:
        own = {
            object_metadata.JOB: publication.job_id,
            object_metadata.FENCE: str(publication.fence),
            object_metadata.SHA256: publication.sha256,
        }
        job = FileUpload(
            bucket=self._bucket,
            key=publication.key,
            path=publication.file,
            size=publication.file.stat().st_size,
            metadata=object_metadata.pack({**publication.metadata, **own}),
            content_type=publication.content_type
            or mimetypes.guess_type(publication.key)[0]
            or "application/octet-stream",
            unchanged=lambda: None,
            condition={"IfNoneMatch": "*"} if there is None else {"IfMatch": there["ETag"]},
            cache_control=publication.cache_control,
        )
        try:
            upload(self._s3, job, meter)
        except (SourceChanged, SourceGone) as error:
            # 412: another writer came between read and call; 404: the object to replace is gone.
            raise _Conflict(str(error), decided=True) from error
        except Unavailable as error:
            # NoSuchUpload: our own completion may have succeeded although its answer was lost.
            if code_of(error.__cause__) in {"ConditionalRequestConflict", "NoSuchUpload"}:
                raise _Conflict(str(error), decided=False) from error
            raise

    def _head(self, key: str) -> HeadObjectOutputTypeDef | None:
        return find_object(self._s3, self._bucket, key, unknown_is_absent=True)


class _Conflict(Exception):
    """Another writer interfered; `decided` says that its write is already visible."""

    def __init__(self, message: str, *, decided: bool) -> None:
        super().__init__(message)
        self.decided = decided
