"""Upload whole files: in parallel parts, stoppable, with checksums, resumed after a kill or an outage.

An upload is invisible before its last call. S3 keeps the parts of one that was cut off; its id is noted in
a folder of this machine, under a name that holds the digest of the file, so it is resumed for the same
bytes only. What nobody resumes is aborted by the bucket's lifecycle rule.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.clients import code_of, translate_errors
from hevcq.backends.aws.s3.metadata import SHA256
from hevcq.errors import HevcqError, SourceChanged, Stopped, Unavailable
from hevcq.ports.store import Transferred
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MIB = 1024 * 1024
PART_BYTES = 16 * MIB
"""Bytes of a part; a file of at most one part takes a single call. AWS advises 8 to 16 MB
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-design-patterns.html)."""
MAX_PARTS = 10_000
"""S3's limit (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html)."""
PARTS_AT_A_TIME = 4
"""Parts of one file in flight: at most 64 MiB of memory."""
UNUSABLE = frozenset(
    {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "BadDigest"}
)
"""Error codes after which an upload starts again: it is gone, or its parts are wrong."""

Parts = Mapping[int, Mapping[str, Any]]
"""The parts that S3 has, by number, as ListParts describes them."""


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
        if self.stop.is_set():
            raise Stopped


@dataclass(frozen=True, slots=True)
class FileUpload:
    """A file of `size` bytes to upload. `condition` holds IfNoneMatch or IfMatch for the last call.

    `unchanged` is called before that call and raises if the file has changed. `described` holds the
    other arguments, such as Metadata and ContentType. With `notes`, a folder, a part that arrived is
    not sent again by a later attempt at the same bytes.
    """

    bucket: str
    key: str
    path: Path
    size: int
    described: Mapping[str, Any]
    unchanged: Callable[[], None] = lambda: None
    condition: Mapping[str, Any] = field(default_factory=dict)
    notes: Path | None = None

    @property
    def place(self) -> dict[str, Any]:
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def note(self) -> Path | None:
        """The file that keeps the id of an upload of exactly these bytes, in parts of this size."""
        if self.notes is None:
            return None
        facts = (self.bucket, self.key, self.described["Metadata"][SHA256], part_bytes(self.size))
        name = "\0".join(map(str, facts)).encode("utf-8", "surrogatepass")
        return self.notes / hashlib.sha256(name).hexdigest()[:32]


def part_bytes(size: int, smallest: int | None = None) -> int:
    """Return the part size in bytes for a file of `size` bytes; `smallest`: PART_BYTES by default."""
    least = -(-size // MAX_PARTS)
    return max(PART_BYTES if smallest is None else smallest, -(-least // MIB) * MIB)


def upload(s3: S3Client, job: FileUpload, meter: Meter) -> Mapping[str, Any]:
    """Upload a file and return S3's last answer; S3 checks each part by SHA-256.

    After an error nothing is left but the parts that `job.notes` keep for another attempt. Raises
    SourceChanged, Stopped, Unavailable.
    """
    meter.check()
    described = {**job.described, "ChecksumAlgorithm": "SHA256"}
    if job.size <= PART_BYTES:
        content = job.path.read_bytes()
        job.unchanged()
        with translate_errors(f"write {job.key!r} to the bucket {job.bucket}"):
            put = s3.put_object(**job.place, **described, **job.condition, Body=content)
        meter.count(len(content))
        return put
    note = job.note
    upload_id, there = _begun(s3, job, note)
    try:
        if not upload_id:
            with translate_errors(f"start the upload of {job.key!r} to the bucket {job.bucket}"):
                upload_id = s3.create_multipart_upload(**job.place, **described)["UploadId"]
            if note is not None:
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(upload_id, encoding="ascii")
        answer = _send_parts(s3, job, upload_id, meter, there)
    except BaseException as error:
        resumable = code_of(error.__cause__) not in UNUSABLE and not isinstance(
            error, SourceChanged
        )
        if upload_id and (note is None or not resumable):
            _abort(s3, job, upload_id)
            _forget(note)
        raise
    _forget(note)
    return answer


def _forget(note: Path | None) -> None:
    if note is not None:
        note.unlink(missing_ok=True)


def _begun(s3: S3Client, job: FileUpload, note: Path | None) -> tuple[str, Parts]:
    """Return the id of the upload to continue and the parts that S3 has of it; "" if there is none."""
    if note is None or not note.exists() or not (upload_id := note.read_text(encoding="ascii")):
        return "", {}
    try:
        with translate_errors(f"list the parts of {job.key!r}"):
            pages = s3.get_paginator("list_parts").paginate(**job.place, UploadId=upload_id)
            there = {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}
    except Unavailable as error:
        if code_of(error.__cause__) in UNUSABLE:  # the bucket's rule aborted it
            return "", {}
        raise
    get_logger().info("upload_resumed", key=job.key, parts=len(there))
    return upload_id, there


def _send_parts(
    s3: S3Client, job: FileUpload, upload_id: str, meter: Meter, there: Parts
) -> Mapping[str, Any]:
    """Send the parts that are not `there` yet, then complete the upload by one call."""
    step = part_bytes(job.size)

    def send(number: int) -> dict[str, Any]:
        meter.check()
        with job.path.open("rb") as file:
            file.seek((number - 1) * step)
            content = file.read(step)
        part: Mapping[str, Any] = there.get(number, {})
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        if not _is_of(part, content, digest):
            with translate_errors(f"write part {number} of {job.key!r}"):
                part = s3.upload_part(
                    **job.place,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=content,
                    ChecksumSHA256=digest,
                )
        meter.add(len(content))
        facts = {name: part[name] for name in ("ETag", "ChecksumSHA256") if name in part}
        return {"PartNumber": number, **facts}

    parts = run_parallel(send, range(1, -(-job.size // step) + 1))
    meter.check()
    job.unchanged()
    with translate_errors(f"complete the upload of {job.key!r}"):
        return s3.complete_multipart_upload(
            **job.place, **job.condition, UploadId=upload_id, MultipartUpload={"Parts": parts}
        )


def _is_of(part: Mapping[str, Any], content: bytes, digest: str) -> bool:
    """Return whether S3 has these bytes as this part: by SHA-256, or by MD5 where it states no other."""
    if "ChecksumSHA256" in part or not part:
        return part.get("ChecksumSHA256") == digest
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return bool(part["ETag"].strip('"') == md5)


def _abort(s3: S3Client, job: FileUpload, upload_id: str) -> None:
    """Abort a multipart upload. Never raises a HevcqError."""
    try:
        with translate_errors(f"abort the upload of {job.key!r}"):
            s3.abort_multipart_upload(**job.place, UploadId=upload_id)
    except HevcqError as error:
        # Already gone, or S3 is unreachable: the bucket's lifecycle rule removes it later.
        get_logger().info("multipart_not_aborted", key=job.key, why=str(error))


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
