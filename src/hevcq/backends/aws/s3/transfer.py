"""Upload and download whole files: in parallel parts, stoppable, with checksums.

An upload is invisible before its last call, and an aborted transfer leaves neither an open
multipart upload nor a file; `resumable_upload` keeps the parts for the next attempt.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.errors import translate_errors
from hevcq.errors import DiskFull, HevcqError, SourceGone, Stopped, Unavailable, is_full
from hevcq.ports.store import Transferred
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+)$")


def _require_range(answer: Mapping[str, Any], job: Download, span: tuple[int, int]) -> None:
    """Raise Unavailable unless status, range, length, ETag and version are those of the request.

    `span` (start, end) was asked for. Status 200 is right only where that is the whole object.
    """
    status, length = answer.get("ResponseMetadata", {}).get("HTTPStatusCode"), span[1] - span[0]
    if status == HTTPStatus.PARTIAL_CONTENT:
        got = _content_range(answer, job.key)
    elif status == HTTPStatus.OK and length == job.size:
        got = 0, int(answer["ContentLength"]), int(answer["ContentLength"])
    else:
        raise _wrong(job.key, f"status {status} to a request for bytes {span[0]}-{span[1] - 1}")
    if got[2] != job.size:
        raise _wrong(job.key, f"a size of {got[2]} bytes instead of {job.size}")
    if got[:2] != span:
        raise _wrong(job.key, f"bytes {got[0]}-{got[1] - 1} instead of {span[0]}-{span[1] - 1}")
    if int(answer["ContentLength"]) != length:
        raise _wrong(job.key, f"{answer['ContentLength']} bytes instead of {length}")
    _require_version(answer, job.key, job.pins)


def _content_range(answer: Mapping[str, Any], key: str) -> tuple[int, int, int]:
    """Return first byte, offset after the last byte, and size of the object, in bytes."""
    found = _CONTENT_RANGE.match(str(answer.get("ContentRange", "")))
    if found is None:
        raise _wrong(key, f"the Content-Range {answer.get('ContentRange')!r}")
    first, last, total = (int(part) for part in found.groups())
    return first, last + 1, total


def _require_version(answer: Mapping[str, Any], key: str, pins: Mapping[str, Any]) -> None:
    etag, version = answer.get("ETag"), answer.get("VersionId")
    if "IfMatch" in pins and etag != pins["IfMatch"]:
        raise _wrong(key, f"the ETag {etag} instead of {pins['IfMatch']}")
    if "VersionId" in pins and version is not None and version != pins["VersionId"]:
        raise _wrong(key, f"the version {version} instead of {pins['VersionId']}")


def _wrong(key: str, what: str) -> Unavailable:
    return Unavailable(
        f"The server answered the read of {key!r} with {what}.",
        remedy="A proxy, cache or S3-compatible server in between does not support ranged reads.",
    )


MIB = 1024 * 1024
PART_BYTES = 16 * MIB
"""Bytes of a part; a file of at most one part takes a single call. AWS advises 8 to 16 MB
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-design-patterns.html)."""
MAX_PARTS = 10_000
"""S3's limit (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html)."""
PARTS_AT_A_TIME = 4
"""Parts of one file in flight: at most 64 MiB of memory."""
READ_BYTES = 1 * MIB
PART_ATTEMPTS = 4
"""Attempts at the download of one part, each resumed where the one before broke off."""

_log = get_logger()


@dataclass(slots=True)
class Meter:
    """Counts the bytes of one transfer, and aborts it once `stop` is set. Thread-safe.

    `total` is the number of bytes moved so far.
    """

    moved: Transferred
    stop: threading.Event
    total: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        """Count `count` bytes; raise Stopped once `stop` is set."""
        self.check()
        self.count(count)

    def count(self, count: int) -> None:
        """Count `count` bytes of a call that can no longer be stopped."""
        with self._lock:
            self.total += count
            self.moved(self.total)

    def check(self) -> None:
        """Raise Stopped once `stop` is set."""
        if self.stop.is_set():
            raise Stopped


@dataclass(frozen=True, slots=True)
class FileUpload:
    """A file of `size` bytes to upload. `condition` holds IfNoneMatch or IfMatch for the last call.

    `unchanged` is called before that call and raises if the file has changed. An empty
    `cache_control` is not sent.
    """

    bucket: str
    key: str
    path: Path
    size: int
    metadata: Mapping[str, str]
    content_type: str
    unchanged: Callable[[], None]
    condition: Mapping[str, Any] = field(default_factory=dict)
    cache_control: str = ""

    @property
    def place(self) -> dict[str, Any]:
        """The bucket and key as arguments."""
        return {"Bucket": self.bucket, "Key": self.key}


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """A part that S3 has: its size in bytes, ETag, and SHA-256 in base64 if S3 reports it."""

    size: int
    etag: str
    sha256: str

    def matches(self, content: bytes) -> bool:
        """Return whether the part has these bytes, by SHA-256 or else by MD5 (its ETag).

        An ETag that is no MD5 (SSE-KMS) never matches, and the part is sent again.
        """
        if self.size != len(content):
            return False
        if self.sha256:
            return self.sha256 == base64.b64encode(hashlib.sha256(content).digest()).decode()
        return self.etag.strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest()

    def completed(self, number: int) -> dict[str, Any]:
        """Return the part as an argument of CompleteMultipartUpload; `number` counts from 1."""
        part = {"PartNumber": number, "ETag": self.etag}
        return part | ({"ChecksumSHA256": self.sha256} if self.sha256 else {})


def part_bytes(size: int, smallest: int | None = None) -> int:
    """Return the part size in bytes for a file of `size` bytes; `smallest`: PART_BYTES by default."""
    least = -(-size // MAX_PARTS)
    return max(PART_BYTES if smallest is None else smallest, -(-least // MIB) * MIB)


def upload(s3: S3Client, job: FileUpload, meter: Meter) -> Mapping[str, Any]:
    """Upload a file and return S3's last answer; S3 checks each part by SHA-256.

    Raises SourceChanged, Stopped, Unavailable.
    """
    meter.check()
    if job.size <= PART_BYTES:
        content = job.path.read_bytes()
        job.unchanged()
        with translate_errors(f"write {job.key!r} to the bucket {job.bucket}"):
            answer = s3.put_object(**job.place, **_described(job), **job.condition, Body=content)
        meter.count(len(content))
        return answer
    upload_id = start_multipart(s3, job)
    try:
        return send_parts(s3, job, upload_id, meter)
    except BaseException:
        abort(s3, job.bucket, job.key, upload_id)
        raise


def _described(job: FileUpload) -> dict[str, Any]:
    cached = {"CacheControl": job.cache_control} if job.cache_control else {}
    return {
        "Metadata": dict(job.metadata),
        "ContentType": job.content_type,
        "ChecksumAlgorithm": "SHA256",
        **cached,
    }


def start_multipart(s3: S3Client, job: FileUpload) -> str:
    """Start a multipart upload; return its id. Raises Unavailable."""
    with translate_errors(f"start the upload of {job.key!r} to the bucket {job.bucket}"):
        return s3.create_multipart_upload(**job.place, **_described(job))["UploadId"]


def send_parts(
    s3: S3Client,
    job: FileUpload,
    upload_id: str,
    meter: Meter,
    there: Mapping[int, UploadedPart] = MappingProxyType({}),
) -> Mapping[str, Any]:
    """Send the parts that are not `there` yet, then complete the upload by one call.

    Raises SourceChanged, Stopped, Unavailable.
    """
    step = part_bytes(job.size)

    def send(number: int) -> dict[str, Any]:
        meter.check()
        content = _read(job.path, (number - 1) * step, step)
        found = there.get(number)
        if found is None or not found.matches(content):
            found = _send(s3, job, upload_id, number, content)
        meter.add(len(content))
        return found.completed(number)

    parts = run_parallel(send, range(1, -(-job.size // step) + 1))
    meter.check()
    job.unchanged()
    with translate_errors(f"complete the upload of {job.key!r}"):
        return s3.complete_multipart_upload(
            **job.place, **job.condition, UploadId=upload_id, MultipartUpload={"Parts": parts}
        )


def _send(
    s3: S3Client, job: FileUpload, upload_id: str, number: int, content: bytes
) -> UploadedPart:
    with translate_errors(f"write part {number} of {job.key!r}"):
        answer = s3.upload_part(
            **job.place,
            UploadId=upload_id,
            PartNumber=number,
            Body=content,
            ChecksumAlgorithm="SHA256",
        )
    return UploadedPart(len(content), answer["ETag"], answer.get("ChecksumSHA256", ""))


def abort(s3: S3Client, bucket: str, key: str, upload_id: str) -> None:
    """Abort a multipart upload. Never raises a HevcqError."""
    try:
        with translate_errors(f"abort the upload of {key!r}"):
            s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    except HevcqError as error:
        # Already gone, or S3 is unreachable: the bucket's lifecycle rule removes it later.
        _log.info("multipart_not_aborted", key=key, why=str(error))


def _read(path: Path, start: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(count)


def run_parallel(work: Callable[[int], Any], numbers: range) -> list[Any]:
    """Run `work` for every number, PARTS_AT_A_TIME in parallel; return the results in order.

    After the first error the pending calls are cancelled, the running ones awaited, and the error
    is raised.
    """
    if len(numbers) == 1:
        return [work(numbers[0])]
    pool = ThreadPoolExecutor(PARTS_AT_A_TIME, thread_name_prefix="s3-part")
    try:
        futures = [pool.submit(work, number) for number in numbers]
        wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((f for f in futures if f.done() and f.exception() is not None), None)
        if failed is not None:
            failed.result()
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Download:
    """An object of `size` bytes to download; `pins` (VersionId, IfMatch) keep it to one version."""

    bucket: str
    key: str
    size: int
    pins: Mapping[str, str]


def download(s3: S3Client, job: Download, path: Path, meter: Meter) -> None:
    """Download an object into the new file `path`, which is removed on failure.

    Raises SourceChanged or SourceGone if the object is no longer the pinned one, FileExistsError,
    DiskFull, Unavailable, Stopped.
    """
    meter.check()
    made = False
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        made = True
        try:
            if job.size:
                os.posix_fallocate(handle, 0, job.size)
                _download_parts(s3, job, handle, meter)
        finally:
            os.close(handle)
    except BaseException as error:
        if made:
            path.unlink(missing_ok=True)
        if is_full(error):
            raise DiskFull(f"There is no room for {job.size} bytes in {path.parent}.") from error
        raise


def _download_parts(s3: S3Client, job: Download, handle: int, meter: Meter) -> None:
    step = part_bytes(job.size)

    def get(number: int) -> None:
        span = (number * step, min(job.size, (number + 1) * step))
        fetch_span(s3, job, span, lambda at, b: write_at(handle, at, b, meter))

    run_parallel(get, range(-(-job.size // step)))


def fetch_span(
    s3: S3Client, job: Download, span: tuple[int, int], write: Callable[[int, bytes], None]
) -> None:
    """Read the bytes of `span` (start, end) and pass them to `write` with their offset, each once.

    A broken stream is resumed where it broke, and an answer with other bytes than those asked for
    (see `ranges`) is asked for again. Raises SourceChanged or SourceGone if the object is no longer
    the pinned one, and Unavailable.
    """
    start, end = span
    for attempt in range(1, PART_ATTEMPTS + 1):
        try:
            start = _stream(s3, job, (start, end), write)
        except _Broken as broken:
            start = broken.reached
            if attempt == PART_ATTEMPTS:
                raise broken.error from broken.error.__cause__
        if start == end:
            return
    raise Unavailable(f"S3 answered {job.key!r} with fewer bytes than it has.")


class _Broken(Exception):
    """A stream broke off at `reached`, by `error`."""

    def __init__(self, reached: int, error: Unavailable) -> None:
        super().__init__(reached)
        self.reached, self.error = reached, error


def _stream(
    s3: S3Client, job: Download, span: tuple[int, int], write: Callable[[int, bytes], None]
) -> int:
    """Read one range; return the offset reached.

    Raises _Broken if the connection broke, or if the answer is not that range.
    """
    at, end = span
    asked = {"Bucket": job.bucket, "Key": job.key, "Range": f"bytes={at}-{end - 1}"}
    with translate_errors(
        f"read {job.key!r}", {"InvalidRange": (SourceGone, "it has become shorter")}
    ):
        answer = s3.get_object(**asked, **job.pins)  # type: ignore[arg-type]
    body = answer["Body"]
    try:
        _require_range(answer, job, span)
        while at < end:
            with translate_errors(f"read {job.key!r}"):
                content = body.read(min(READ_BYTES, end - at))
            if not content:
                break
            write(at, content)
            at += len(content)
    except Unavailable as error:
        raise _Broken(at, error) from error
    finally:
        body.close()
    return at


def write_at(handle: int, at: int, content: bytes, meter: Meter) -> None:
    """Write `content` at byte offset `at` of the file descriptor `handle`, and count its bytes.

    Raises Stopped once the transfer is to stop.
    """
    view = memoryview(content)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written
    meter.add(len(content))
