"""Take SHA-256 digests, make files and their names durable, replace a file in one atomic step.

A digest is one sequential, interruptible read. The bytes of a file and its directory entry are each
durable only after an fsync (https://man7.org/linux/man-pages/man2/fsync.2.html).
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

READ_BYTES = 1 << 20
"""Bytes read between two calls of `check`: under 10 ms from memory, so that a stop takes effect
quickly, and large enough that the calls cost nothing compared with the digest."""


ENDS_BYTES = 256 * 1024
"""Bytes at each end of a file that identify it: a video's tables are at one of its ends."""


class Readable(Protocol):
    """A readable binary stream: a file, a response body, a raw or buffered stream."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most `size` bytes, and none at the end of the stream."""


def sha256_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_stream(stream: Readable, check: Callable[[], None]) -> tuple[str, int]:
    """Return the hexadecimal SHA-256 and the length in bytes of an open stream.

    `check` is called once per READ_BYTES; an exception it raises ends the read.
    """
    digest, size = hashlib.sha256(), 0
    while block := stream.read(READ_BYTES):
        check()
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def sha256_file(path: Path, check: Callable[[], None]) -> str:
    """Return the hexadecimal SHA-256 of a file; `check` as in `sha256_stream`.

    Follows symbolic links. Raises OSError.
    """
    with path.open("rb", buffering=0) as stream:
        return sha256_stream(stream, check)[0]


def sha256_ends(descriptor: int) -> str:
    """Return the hexadecimal SHA-256 of an open file's first and last ENDS_BYTES. Raises OSError."""
    last = max(0, os.fstat(descriptor).st_size - ENDS_BYTES)
    return sha256_bytes(
        os.pread(descriptor, ENDS_BYTES, 0) + os.pread(descriptor, ENDS_BYTES, last)
    )


def fsync_file(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, durable. Raises OSError."""
    _fsync(path, os.O_RDONLY)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises NotADirectoryError if `folder` is not a directory, else OSError.
    """
    _fsync(folder, os.O_RDONLY | os.O_DIRECTORY)


def replace_durably(temp: Path, path: Path) -> None:
    """Rename the complete file `temp` to `path`, atomically and durably.

    `temp` must be in the folder of `path`. Its bytes are durable before the rename, and the new name
    before this returns. So a power cut leaves either the old or the new file, complete. Raises OSError.
    """
    fsync_file(temp)
    temp.rename(path)
    fsync_folder(path.parent)


def write_durably(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a whole small file in one atomic, durable step; `mode` is for a new one. Raises OSError."""
    temp = path.with_name(f".{path.name}.new")
    try:
        temp.unlink(missing_ok=True)
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as writing:
            writing.write(text)
        replace_durably(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
