"""Read one version of an S3 object: whole into a file, by ranges for ffmpeg, or as a stream.

A broken range is resumed where it broke. A byte that cannot be read is an error: content is never
shorter or different.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.clients import translate_errors
from hevcq.backends.aws.s3 import transfer
from hevcq.backends.aws.s3.transfer import MIB, Meter
from hevcq.errors import DiskFull, SourceGone, Unavailable, is_full
from hevcq.ports.store import Write
from hevcq.relay import serve
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

READ_BYTES = 1 * MIB
PART_ATTEMPTS = 4
"""Attempts at one range; each resumes where the previous one broke off."""


@dataclass(frozen=True, slots=True)
class Download:
    """An object of `size` bytes to read; `pins` (VersionId, IfMatch) keep it to one version."""

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
    step = transfer.PART_BYTES
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def get(number: int) -> None:
        span = (number * step, min(job.size, (number + 1) * step))
        fetch_span(s3, job, span, lambda at, content: write_at(handle, at, content, meter))

    try:
        if job.size:
            os.posix_fallocate(handle, 0, job.size)
            transfer.run_parallel(get, range(-(-job.size // step)))
    except BaseException as error:
        path.unlink(missing_ok=True)
        if is_full(error):
            raise DiskFull(f"There is no room for {job.size} bytes in {path.parent}.") from error
        raise
    finally:
        os.close(handle)


def fetch_span(
    s3: S3Client, job: Download, span: tuple[int, int], write: Callable[[int, bytes], None]
) -> None:
    """Read the bytes of `span` (start, end) and pass each once to `write`, with its offset.

    A broken stream is resumed where it broke; an answer with the wrong bytes is requested again. Raises
    SourceChanged or SourceGone if the object is no longer the pinned one, and Unavailable.
    """
    at, end = span
    for left in reversed(range(PART_ATTEMPTS)):
        request = {"Bucket": job.bucket, "Key": job.key, "Range": f"bytes={at}-{end - 1}"}
        gone = {"InvalidRange": (SourceGone, "it has become shorter")}
        with translate_errors(f"read {job.key!r}", gone):
            answer = s3.get_object(**request, **job.pins)  # type: ignore[arg-type]
        try:
            with closing(answer["Body"]) as body:
                _require_range(answer, job, at, end)
                for content in _blocks(body, end - at, job.key):
                    write(at, content)
                    at += len(content)
        except Unavailable:
            if left == 0:
                raise
        if at == end:
            return
    raise Unavailable(f"S3 answered {job.key!r} with fewer bytes than it has.")


def _blocks(body: Any, count: int, key: str) -> Iterator[bytes]:
    """Yield at most `count` bytes, block by block, until the connection ends."""
    while count > 0:
        with translate_errors(f"read {key!r}"):
            content = body.read(min(READ_BYTES, count))
        if not content:
            return
        count -= len(content)
        yield content


def _require_range(answer: Mapping[str, Any], job: Download, start: int, end: int) -> None:
    """Raise Unavailable unless status, range, length, ETag and version fit the request.

    Status 200 fits only a request for the whole object.
    """
    status, span = answer["ResponseMetadata"]["HTTPStatusCode"], answer.get("ContentRange")
    partial = (HTTPStatus.PARTIAL_CONTENT, f"bytes {start}-{end - 1}/{job.size}")
    whole = status == HTTPStatus.OK and end - start == job.size
    pinned = {"IfMatch": answer.get("ETag"), "VersionId": answer.get("VersionId")}
    right = ((status, span) == partial or whole) and answer["ContentLength"] == end - start
    if not right or any(pinned[name] not in (None, value) for name, value in job.pins.items()):
        raise Unavailable(
            f"The server answered the read of bytes {start}-{end - 1} of {job.key!r} with others: "
            f"status {status}, {span}, {answer['ContentLength']} bytes, ETag {answer.get('ETag')}.",
            remedy="A proxy, cache or S3-compatible server in between does not support ranged reads.",
        )


def write_at(handle: int, at: int, content: bytes, meter: Meter) -> None:
    """Write `content` at byte offset `at` of the descriptor `handle` and count it. Raises Stopped."""
    view = memoryview(content)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written
    meter.add(len(content))


@contextmanager
def serve_object(s3: S3Client, job: Download, path: Path, meter: Meter) -> Iterator[str]:
    """Serve the object by ranges under the folder and name of `path`; see `relay.serve`.

    After a failed read, leaving the context raises SourceGone, SourceChanged, DiskFull, Unavailable or
    Stopped.
    """

    def fetch(start: int, end: int, write: Write) -> None:
        def put(at: int, content: bytes) -> None:
            write(at, content)
            meter.add(len(content))

        meter.check()
        fetch_span(s3, job, (start, end), put)

    try:
        with serve(path.parent, job.size, fetch, path.name) as location:
            yield location
    finally:
        get_logger().info("source_streamed", key=job.key, read=meter.total, size=job.size)


class ObjectReader(io.RawIOBase):
    """A stream of the bytes of one pinned object; each read is one range, resumed where it breaks.

    Reads raise SourceGone or SourceChanged if the object is no longer the pinned one, and Unavailable
    if a range breaks too often or the server answers with the wrong bytes.
    """

    def __init__(self, s3: S3Client, job: Download) -> None:
        super().__init__()
        self._s3, self._job, self._at = s3, job, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        start, end = self._at, min(self._job.size, self._at + len(buffer))

        def put(at: int, content: bytes) -> None:
            buffer[at - start : at - start + len(content)] = content

        if start < end:
            fetch_span(self._s3, self._job, (start, end), put)
        self._at = end
        return end - start

    def readall(self) -> bytes:
        return self.read(self._job.size - self._at) or b""
