"""Upload files in parallel parts, with checksums; uploads can be stopped, and resumed after a kill.

An upload is invisible before its last call. S3 keeps the parts of an interrupted upload. Its id is in a
note in a folder of this machine, whose name includes the digest of the file, so that it is resumed for
the same bytes only. The bucket's lifecycle rule aborts uploads that nobody resumes.
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
RESTART_CODES = frozenset(
    {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "BadDigest"}
)
"""Error codes after which an upload must start anew: it is gone, or its parts are wrong."""

Parts = Mapping[int, Mapping[str, Any]]
"""The parts that S3 holds, by number, as ListParts describes them."""


@dataclass(slots=True)
class Meter:
    """Counts the bytes of one transfer in `total`, and aborts it once `stop` is set. Thread-safe."""

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

    `require_unchanged` is called before that call and raises if the file has changed. `attributes` holds
    other arguments, such as Metadata and ContentType. With a folder `notes`, a later attempt at the same
    bytes sends only the missing parts.
    """

    bucket: str
    key: str
    path: Path
    size: int
    attributes: Mapping[str, Any]
    require_unchanged: Callable[[], None] = lambda: None
    condition: Mapping[str, Any] = field(default_factory=dict)
    notes: Path | None = None

    @property
    def place(self) -> dict[str, Any]:
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def note(self) -> Path | None:
        """The file with the id of an earlier upload of exactly these bytes, in parts of this size."""
        if self.notes is None:
            return None
        facts = (self.bucket, self.key, self.attributes["Metadata"][SHA256], part_bytes(self.size))
        name = "\0".join(map(str, facts)).encode("utf-8", "surrogatepass")
        return self.notes / hashlib.sha256(name).hexdigest()[:32]


def part_bytes(size: int, smallest: int | None = None) -> int:
    """Return the part size in bytes for a file of `size` bytes, at least `smallest` or PART_BYTES."""
    least = -(-size // MAX_PARTS)
    return max(PART_BYTES if smallest is None else smallest, -(-least // MIB) * MIB)


def upload(s3: S3Client, job: FileUpload, meter: Meter) -> Mapping[str, Any]:
    """Upload a file and return S3's last answer; S3 checks each part by SHA-256.

    After an error only the parts of an upload with a note stay, for another attempt. Raises
    SourceChanged, Stopped, Unavailable.
    """
    meter.check()
    attributes = {**job.attributes, "ChecksumAlgorithm": "SHA256"}
    if job.size <= PART_BYTES:
        content = job.path.read_bytes()
        job.require_unchanged()
        with translate_errors(f"write {job.key!r} to the bucket {job.bucket}"):
            put = s3.put_object(**job.place, **attributes, **job.condition, Body=content)
        meter.count(len(content))
        return put
    note = job.note
    upload_id, present = _find_unfinished(s3, job, note)
    try:
        if not upload_id:
            with translate_errors(f"start the upload of {job.key!r} to the bucket {job.bucket}"):
                upload_id = s3.create_multipart_upload(**job.place, **attributes)["UploadId"]
            if note is not None:
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(upload_id, encoding="ascii")
        answer = _send_parts(s3, job, upload_id, meter, present)
    except BaseException as error:
        resumable = code_of(error.__cause__) not in RESTART_CODES and not isinstance(
            error, SourceChanged
        )
        if upload_id and (note is None or not resumable):
            _abort(s3, job, upload_id)
            _delete_note(note)
        raise
    _delete_note(note)
    return answer


def _delete_note(note: Path | None) -> None:
    if note is not None:
        note.unlink(missing_ok=True)


def _find_unfinished(s3: S3Client, job: FileUpload, note: Path | None) -> tuple[str, Parts]:
    """Return the id of the upload to resume and the parts that S3 holds; "" if there is none."""
    if note is None or not note.exists() or not (upload_id := note.read_text(encoding="ascii")):
        return "", {}
    try:
        with translate_errors(f"list the parts of {job.key!r}"):
            pages = s3.get_paginator("list_parts").paginate(**job.place, UploadId=upload_id)
            present = {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}
    except Unavailable as error:
        if code_of(error.__cause__) in RESTART_CODES:  # the bucket's rule aborted it
            return "", {}
        raise
    get_logger().info("upload_resumed", key=job.key, parts=len(present))
    return upload_id, present


def _send_parts(
    s3: S3Client, job: FileUpload, upload_id: str, meter: Meter, present: Parts
) -> Mapping[str, Any]:
    """Send the parts that are not `present`, then complete the upload by one call."""
    step = part_bytes(job.size)

    def send(number: int) -> dict[str, Any]:
        meter.check()
        with job.path.open("rb") as file:
            file.seek((number - 1) * step)
            content = file.read(step)
        part: Mapping[str, Any] = present.get(number, {})
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        if not _has_content(part, content, digest):
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
    job.require_unchanged()
    with translate_errors(f"complete the upload of {job.key!r}"):
        return s3.complete_multipart_upload(
            **job.place, **job.condition, UploadId=upload_id, MultipartUpload={"Parts": parts}
        )


def _has_content(part: Mapping[str, Any], content: bytes, digest: str) -> bool:
    """Return whether a part on S3 has this content, by its SHA-256, or else by its MD5."""
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
        # It is gone already, or the bucket's lifecycle rule will abort it.
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
