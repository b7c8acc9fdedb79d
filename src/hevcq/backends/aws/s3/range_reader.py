"""A pinned object of which only what is read is fetched: ranges of S3, kept in a sparse file.

Every byte comes from S3 at most once. All of them are of one version, and a broken range is taken
up where it broke; what cannot be read is an error, never a shorter or another content.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from hevcq.backends.aws.s3.transfer import Download, Meter, fetch_span, write_at
from hevcq.errors import DiskFull

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

BLOCK_BYTES = 64 * 1024
"""The least that is fetched: what a demuxer that jumps about wants of each place."""
MOST_BLOCKS = 4
"""The most that is fetched at once for one that reads straight on: what is left of it is waste where
a chunk ends. At 30 ms a request this is 8 MB/s, and an encode reads less."""
HEAD_BLOCKS = 128
"""How much of a source is kept for its next reader: 8 MiB hold the index of a video of three hours."""


class HeadBlockCache:
    """What was read first of the source that was read last: its index, and what probing looks at.

    Every reader of a source begins with these, so a process that makes several chunks of one video
    fetches them once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._whose: tuple[str, ...] = ()
        self._blocks: dict[int, bytes] = {}

    def of(self, job: Download) -> dict[int, bytes]:
        """Return the blocks kept of this very version, to be added to."""
        whose = (job.bucket, job.key, str(job.size), *map(str, job.pins.values()))
        with self._lock:
            if whose != self._whose:
                self._whose, self._blocks = whose, {}
            return self._blocks


class SparseFile:
    """The bytes of one object, as `job` pins it, fetched on first use into the new file `path`.

    `head` holds blocks by number that are known already, and takes the first ones fetched.
    `failure` is the first error that a read met. Use it from any number of threads.
    """

    def __init__(
        self, s3: S3Client, job: Download, path: Path, meter: Meter, head: dict[int, bytes]
    ) -> None:
        self.failure: BaseException | None = None
        self.size = job.size
        self._s3, self._job, self._meter = s3, job, meter
        self._here = bytearray(-(-job.size // BLOCK_BYTES))
        self._lock = threading.Lock()
        self._follows, self._run = -1, 1
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.truncate(self._handle, job.size)
        self._head = head
        for number, content in list(head.items()):
            os.pwrite(self._handle, content, number * BLOCK_BYTES)
            self._here[number] = 1

    def read(self, at: int, count: int) -> bytes:
        """Return at most `count` bytes from `at` on, at least one before the end; b"" at the end.

        Raises SourceGone or SourceChanged if the object is not the pinned one any more,
        DiskFull, Unavailable or Stopped; and again what an earlier read raised.
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
        """Have the block of `at` here; return up to where, at most `end`, all is here."""
        first = at // BLOCK_BYTES
        if not self._here[first]:
            self._fetch(first)
        last = first
        while last < len(self._here) and self._here[last] and last * BLOCK_BYTES < end:
            last += 1
        return min(end, last * BLOCK_BYTES)

    def _fetch(self, first: int) -> None:
        """Fetch a block, and of those after it the more the longer the reads go straight on."""
        self._run = min(MOST_BLOCKS, 2 * self._run) if first == self._follows else 1
        last = first + 1
        while last < len(self._here) and last - first < self._run and not self._here[last]:
            last += 1
        span = (first * BLOCK_BYTES, min(self.size, last * BLOCK_BYTES))
        fetch_span(
            self._s3, self._job, span, lambda at, b: write_at(self._handle, at, b, self._meter)
        )
        self._here[first:last] = b"\1" * (last - first)
        self._follows = last
        for number in range(first, last):
            if len(self._head) < HEAD_BLOCKS:
                place = number * BLOCK_BYTES
                self._head[number] = os.pread(self._handle, BLOCK_BYTES, place)

    def fail(self, error: BaseException) -> None:
        """Note that a reader was not given what it asked for."""
        with self._lock:
            self.failure = self.failure or error

    def close(self) -> None:
        """Forget the bytes; a read after this fails."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1


def _named(error: BaseException, job: Download) -> BaseException:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"There is no room for what is read of {job.key!r}.")
    return error
