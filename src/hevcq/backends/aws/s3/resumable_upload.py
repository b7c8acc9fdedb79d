"""Uploads that go on where a kill, a stop or an outage left them, part by part.

S3 keeps the parts of an upload until it is completed or aborted; this machine keeps a note of each
upload it has begun. An upload is taken up only for the very bytes it was begun with (by SHA-256 of
the whole file), and a part only if what S3 says of it fits the bytes in the file.
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
from hevcq.backends.aws.s3.transfer import Meter, Upload
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
"""Answers after which an upload is begun anew: it is gone, or its parts are not what they should be."""


class OpenUpload(Frozen):
    """An upload that was begun and is not known to have ended.

    `file` is its local path, percent-encoded: a file's name need not be Unicode.
    """

    bucket: str
    key: str
    upload_id: str
    file: str
    size: int
    mtime_ns: int
    sha256: str
    step: int

    def is_of(self, job: Upload) -> bool:
        """Return whether the upload was begun with these very bytes, cut in this way."""
        return (self.size, self.sha256, self.step) == (
            job.size,
            job.metadata.get(object_metadata.SHA256),
            transfer.part_bytes(job.size),
        )

    def is_stale(self) -> bool:
        """Return whether the file is gone or was changed, so that nobody will go on."""
        try:
            now = Path(os.fsdecode(unquote_to_bytes(self.file))).stat()
        except OSError:
            return True
        return (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns)


class JournalEntry:
    """One upload's note, locked: another process that uploads to the same key gets none."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path, self._handle, self._there = path, handle, True

    def read(self) -> OpenUpload | None:
        """Return what was begun, or None; a note cut off by a kill says nothing."""
        content = os.pread(self._handle, os.fstat(self._handle).st_size, 0)
        try:
            return OpenUpload.model_validate_json(content)
        except ValidationError:
            return None

    def write(self, begun: OpenUpload) -> None:
        """Note an upload, durable when it returns."""
        content = begun.model_dump_json().encode()
        os.truncate(self._handle, 0)
        os.pwrite(self._handle, content, 0)
        os.fsync(self._handle)

    def forget(self) -> None:
        """Remove the note: the upload has ended. Once only: what is there next is another's."""
        if self._there:
            self._path.unlink(missing_ok=True)
        self._there = False


class UploadJournal:
    """The notes of one machine, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._swept = False

    @contextmanager
    def note(self, bucket: str, key: str) -> Iterator[JournalEntry | None]:
        """Hold the note of one key; None if another process or thread does."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(f"{bucket}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        with _locked(self._folder / (name + SUFFIX)) as note:
            yield note

    def sweep(self, s3: S3Client) -> None:
        """Abort, once a process, what nobody will go on with: its file is gone or has changed."""
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
    s3: S3Client, job: Upload, journal: UploadJournal, meter: Meter
) -> Mapping[str, Any]:
    """Upload a file as `transfer.upload` does, taking up what was sent of it before.

    A stop or an outage leaves the parts in place for the next time. A file that changes while it
    is uploaded ends it for good. Parts of other bytes under the same key are aborted first.
    """
    journal.sweep(s3)
    if job.size <= transfer.PART_BYTES:
        return transfer.upload(s3, job, meter)
    with journal.note(job.bucket, job.key) as note:
        if note is None:
            return transfer.upload(s3, job, meter)
        begun, there = _taken_up(s3, job, note)
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


def _taken_up(
    s3: S3Client, job: Upload, note: JournalEntry
) -> tuple[OpenUpload, dict[int, transfer.UploadedPart]]:
    """Return the upload to go on with, and the parts that S3 has of it."""
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
    """Return the parts by number, or None if the upload is gone (the bucket's rule aborted it)."""
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
