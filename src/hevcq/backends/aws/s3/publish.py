"""Publish a rendition on S3: one conditional call makes it visible, and a read confirms it."""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.errors import code_of
from hevcq.backends.aws.s3 import metadata as object_metadata
from hevcq.backends.aws.s3.metadata import find_object
from hevcq.backends.aws.s3.transfer import FileUpload, Meter, upload
from hevcq.errors import (
    HevcqError,
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

CONFLICTS = RetryPolicy(attempts=9, base_s=0.2, cap_s=30.0, jitter=0.0)
"""Looks at the object, with a write between each two. This is no retry of a request."""
UNDECIDED = frozenset({"ConditionalRequestConflict", "NoSuchUpload"})
"""Error codes that leave open whose write is visible; it may be ours, whose answer was lost."""


def publish(s3: S3Client, bucket: str, clock: Clock, publication: Publication) -> StoredObject:
    """Upload the file unless it is already there; delete it once the object is confirmed.

    The object carries its job, fence and SHA-256. The visible object decides the condition: none
    (If-None-Match) or exactly the object that was read (If-Match), so that of two workers one
    write wins and the other reads again. The same read recovers from a lost answer. Raises
    StaleFence, VerificationFailed if the file does not match its SHA-256, Stopped, Unavailable, also
    after too many conflicts.
    """
    meter = Meter(lambda _total: None, publication.stop)
    if sha256_file(publication.file, meter.check) != publication.sha256:
        raise VerificationFailed(f"{publication.file} is not the file that was verified.")
    conflict: HevcqError | None = None
    for attempt in range(CONFLICTS.attempts):
        there = find_object(s3, bucket, publication.key, unknown_is_absent=True)
        if there is not None:
            if _is_ours(there, publication):
                publication.file.unlink(missing_ok=True)
                return object_metadata.stored(publication.key, there)
            publication.recheck(object_metadata.stored(publication.key, there))
        conflict = _upload(s3, bucket, publication, there, meter)
        if isinstance(conflict, Unavailable):
            clock.wait(publication.stop, CONFLICTS.wait_s(attempt, lambda: 1.0))
    raise Unavailable(f"{publication.key!r} is being written by others.") from conflict


def _is_ours(there: HeadObjectOutputTypeDef, publication: Publication) -> bool:
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
    s3: S3Client,
    bucket: str,
    publication: Publication,
    there: HeadObjectOutputTypeDef | None,
    meter: Meter,
) -> HevcqError | None:
    """Upload the file on condition that `there` is still what is visible; return a conflict."""
    own = {
        object_metadata.JOB: publication.job_id,
        object_metadata.FENCE: str(publication.fence),
        object_metadata.SHA256: publication.sha256,
    }
    kind = publication.content_type or mimetypes.guess_type(publication.key)[0]
    described: dict[str, Any] = {
        "Metadata": object_metadata.pack({**publication.metadata, **own}),
        "ContentType": kind or object_metadata.OCTETS,
    }
    if publication.cache_control:
        described["CacheControl"] = publication.cache_control
    job = FileUpload(
        bucket=bucket,
        key=publication.key,
        path=publication.file,
        size=publication.file.stat().st_size,
        described=described,
        condition={"IfNoneMatch": "*"} if there is None else {"IfMatch": there["ETag"]},
    )
    try:
        upload(s3, job, meter)
    except (SourceChanged, SourceGone) as error:
        # 412: another writer came between read and call; 404: the object to replace is gone.
        return error
    except Unavailable as error:
        if code_of(error.__cause__) not in UNDECIDED:
            raise
        return error
    return None
