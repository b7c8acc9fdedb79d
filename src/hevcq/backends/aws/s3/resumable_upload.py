"""Resume multipart uploads after a kill, a stop or an outage.

S3 keeps the parts of an upload until it is completed or aborted; this machine keeps a journal entry
of each upload that it has started. An upload is resumed only for the same bytes (by SHA-256 of the
whole file), and a part is reused only if its checksum at S3 matches the bytes in the file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from pydantic import ValidationError

from hevcq.backends.aws.errors import code_of, translate_errors
from hevcq.backends.aws.s3 import metadata as object_metadata
from hevcq.backends.aws.s3 import transfer
from hevcq.backends.aws.s3.transfer import FileUpload, Meter
from hevcq.domain.model import Frozen
from hevcq.errors import SourceChanged, Unavailable
from hevcq.util import file_lock
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SUFFIX = ".json"
UNUSABLE = frozenset(
    {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "BadDigest"}
)
"""Error codes after which an upload starts again: it is gone, or its parts are wrong."""


class OpenUpload(Frozen):
    """An upload that was started and is not known to have ended.

    `file` is its local path, percent-encoded because a file name need not be Unicode. `step` is
    the size of its parts in bytes.
    """

    bucket: str
    key: str
    upload_id: str
    file: str
    size: int
    mtime_ns: int
    sha256: str
    step: int

    def is_of(self, job: FileUpload) -> bool:
        """Return whether the upload has the same bytes and part size as `job`."""
        return (self.size, self.sha256, self.step) == (
            job.size,
            job.metadata.get(object_metadata.SHA256),
            transfer.part_bytes(job.size),
        )

    def is_stale(self) -> bool:
        """Return whether the file is gone or has changed, so that the upload is never resumed."""
        try:
            now = Path(os.fsdecode(unquote_to_bytes(self.file))).stat()
        except OSError:
            return True
        return (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns)


class JournalEntry:
    """The journal entry of one upload, locked against other processes.

    `handle` is the file descriptor of the open entry at `path`.
    """

    def __init__(self, path: Path, handle: int) -> None:
        self._path, self._handle, self._there = path, handle, True

    def read(self) -> OpenUpload | None:
        """Return the recorded upload; None if there is none or a kill cut the entry off."""
        content = os.pread(self._handle, os.fstat(self._handle).st_size, 0)
        try:
            return OpenUpload.model_validate_json(content)
        except ValidationError:
            return None

    def write(self, begun: OpenUpload) -> None:
        """Record an upload, durable when the call returns."""
        content = begun.model_dump_json().encode()
        os.truncate(self._handle, 0)
        os.pwrite(self._handle, content, 0)
        os.fsync(self._handle)

    def forget(self) -> None:
        """Remove the entry of an ended upload, once: a later file at the path is another entry."""
        if self._there:
            self._path.unlink(missing_ok=True)
        self._there = False


class UploadJournal:
    """The journal of this machine's uploads, kept in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._swept = False

    @contextmanager
    def entry(self, bucket: str, key: str) -> Iterator[JournalEntry | None]:
        """Lock the entry of one key inside the context; None if another process or thread has it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(f"{bucket}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        with _locked(self._folder / (name + SUFFIX)) as note:
            yield note

    def sweep(self, s3: S3Client) -> None:
        """Abort the uploads whose file is gone or has changed, once in each process."""
        if self._swept:
            return
        self._swept = True
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            with _locked(path) as note:
                begun = note.read() if note is not None else None
                if note is not None and (begun is None or begun.is_stale()):
                    if begun is not None:
                        transfer.abort(s3, begun.bucket, begun.key, begun.upload_id)
                    note.forget()


@contextmanager
def _locked(path: Path) -> Iterator[JournalEntry | None]:
    handle = file_lock.try_acquire(path)
    if handle is None:
        yield None
        return
    try:
        note = JournalEntry(path, handle)
        yield note
        if note.read() is None:
            note.forget()
    finally:
        os.close(handle)


def upload_resumable(
    s3: S3Client, job: FileUpload, journal: UploadJournal, meter: Meter
) -> Mapping[str, Any]:
    """Upload a file as `transfer.upload` does, resuming an earlier upload of the same bytes.

    A stop or an outage leaves the parts in place for the next attempt. If the file changes during
    the upload, the upload is aborted. An upload of other bytes to the same key is aborted first.
    Raises SourceChanged, Stopped, Unavailable.
    """
    journal.sweep(s3)
    if job.size <= transfer.PART_BYTES:
        return transfer.upload(s3, job, meter)
    with journal.entry(job.bucket, job.key) as note:
        if note is None:
            return transfer.upload(s3, job, meter)
        begun, there = _resume_or_start(s3, job, note)
        try:
            answer = transfer.send_parts(s3, job, begun.upload_id, meter, there)
        except SourceChanged:
            _end(s3, begun, note)
            raise
        except Unavailable as error:
            if code_of(error.__cause__) in UNUSABLE:
                _end(s3, begun, note)
            raise
        note.forget()
        return answer


def _end(s3: S3Client, begun: OpenUpload, note: JournalEntry) -> None:
    transfer.abort(s3, begun.bucket, begun.key, begun.upload_id)
    note.forget()


def _resume_or_start(
    s3: S3Client, job: FileUpload, note: JournalEntry
) -> tuple[OpenUpload, dict[int, transfer.UploadedPart]]:
    """Return the upload to continue, and the parts that S3 has of it."""
    begun = note.read()
    if begun is not None and begun.is_of(job):
        there = _parts(s3, begun)
        if there is not None:
            get_logger().info("upload_taken_up", key=job.key, parts=len(there))
            return begun, there
    elif begun is not None:
        _end(s3, begun, note)
    begun = OpenUpload(
        bucket=job.bucket,
        key=job.key,
        upload_id=transfer.start_multipart(s3, job),
        file=quote(os.fsencode(job.path)),
        size=job.size,
        mtime_ns=job.path.stat().st_mtime_ns,
        sha256=job.metadata[object_metadata.SHA256],
        step=transfer.part_bytes(job.size),
    )
    note.write(begun)
    return begun, {}


def _parts(s3: S3Client, begun: OpenUpload) -> dict[int, transfer.UploadedPart] | None:
    """Return the parts by number, or None if the bucket's lifecycle rule aborted the upload."""
    pages = s3.get_paginator("list_parts").paginate(
        Bucket=begun.bucket, Key=begun.key, UploadId=begun.upload_id
    )
    found: dict[int, transfer.UploadedPart] = {}
    try:
        with translate_errors(f"list the parts of {begun.key!r}"):
            for page in pages:
                for part in page.get("Parts", []):
                    found[part["PartNumber"]] = transfer.UploadedPart(
                        part["Size"], part["ETag"], part.get("ChecksumSHA256", "")
                    )
    except Unavailable as error:
        if code_of(error.__cause__) == "NoSuchUpload":
            return None
        raise
    return found
