"""Compute SHA-256 digests of files and streams in one sequential, interruptible read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

READ_BYTES = 1 << 20
"""Bytes read between two calls of `check`: under 10 ms from memory, so that a stop takes effect
quickly, and large enough that the calls cost nothing compared with the digest."""


class Readable(Protocol):
    """A readable binary stream: a file, a response body, a raw or buffered stream."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most `size` bytes, and none at the end of the stream."""


def sha256_bytes(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of `content`."""
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
