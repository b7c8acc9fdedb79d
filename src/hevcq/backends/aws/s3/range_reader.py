"""Read an S3 object by ranges, pinned to one version: into a sparse file, or as a stream.

A broken range is resumed where it broke. A byte that cannot be read is an error, never shorter or
different content.
"""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.s3.transfer import (
    Download,
    Meter,
    fetch_span,
    write_at,
)
from hevcq.errors import DiskFull, is_full

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

BLOCK_BYTES = 64 * 1024
"""Bytes of the smallest fetch: about what a seeking demuxer reads at each position."""
MAX_BLOCKS = 4
"""Blocks of the largest fetch, for sequential reads: the unread rest is wasted where a chunk ends.
At 30 ms a request this is 8 MB/s, and an encode reads less."""


class SparseFile:
    """A local sparse file at `path` whose bytes are fetched from the pinned object on first use.

    Each byte is fetched at most once. `failure` is the first error of a read. Thread-safe.
    """

    def __init__(self, s3: S3Client, job: Download, path: Path, meter: Meter) -> None:
        self.failure: BaseException | None = None
        self.size = job.size
        self._s3, self._job, self._meter = s3, job, meter
        self._present_blocks = bytearray(-(-job.size // BLOCK_BYTES))
        self._lock = threading.Lock()
        self._next_block, self._run = -1, 1
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.truncate(self._handle, job.size)

    def read(self, at: int, count: int) -> bytes:
        """Return up to `count` bytes from offset `at`, at least one; b"" at the end of the object.

        Raises SourceGone or SourceChanged if the object is no longer the pinned one, DiskFull,
        Unavailable or Stopped. After a failure every read raises the same error.
        """
        end = min(self.size, at + count)
        if at >= end:
            return b""
        with self._lock:
            if self.failure is not None:
                raise self.failure
            try:
                self._meter.check()
                have = self._present(at, end)
                return os.pread(self._handle, have - at, at)
            except BaseException as error:
                self.failure = _named(error, self._job)
                raise self.failure from error

    def _present(self, at: int, end: int) -> int:
        """Fetch the block of `at` if it is missing; return the end of the bytes present, at most `end`."""
        first = at // BLOCK_BYTES
        if not self._present_blocks[first]:
            self._fetch(first)
        last = first
        while (
            last < len(self._present_blocks)
            and self._present_blocks[last]
            and last * BLOCK_BYTES < end
        ):
            last += 1
        return min(end, last * BLOCK_BYTES)

    def _fetch(self, first: int) -> None:
        """Fetch a block, and more of the following ones the longer the reads are sequential."""
        self._run = min(MAX_BLOCKS, 2 * self._run) if first == self._next_block else 1
        last = first + 1
        while (
            last < len(self._present_blocks)
            and last - first < self._run
            and not self._present_blocks[last]
        ):
            last += 1
        span = (first * BLOCK_BYTES, min(self.size, last * BLOCK_BYTES))
        fetch_span(
            self._s3, self._job, span, lambda at, b: write_at(self._handle, at, b, self._meter)
        )
        self._present_blocks[first:last] = b"\1" * (last - first)
        self._next_block = last

    def fail(self, error: BaseException) -> None:
        """Record a failure to serve a reader."""
        with self._lock:
            self.failure = self.failure or error

    def close(self) -> None:
        """Close the file; later reads fail."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1


def _named(error: BaseException, job: Download) -> BaseException:
    if is_full(error):
        return DiskFull(f"There is no room for what is read of {job.key!r}.")
    return error


class ObjectReader(io.RawIOBase):
    """A stream of the bytes of one pinned object; each read is one range, resumed where it breaks.

    Reads raise SourceGone or SourceChanged if the object is no longer the pinned one, and
    Unavailable when a range breaks too often or the server answers with other bytes.
    """

    def __init__(self, s3: S3Client, job: Download) -> None:
        super().__init__()
        self._s3, self._job, self._at = s3, job, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the object goes; return the number of bytes, 0 at the end."""
        start, end = self._at, min(self._job.size, self._at + len(buffer))

        def put(at: int, content: bytes) -> None:
            buffer[at - start : at - start + len(content)] = content

        if start < end:
            fetch_span(self._s3, self._job, (start, end), put)
        self._at = end
        return end - start

    def readall(self) -> bytes:
        """Return the rest by one range."""
        return self.read(self._job.size - self._at) or b""
