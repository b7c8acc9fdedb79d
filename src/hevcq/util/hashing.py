"""SHA-256 of files and streams, read once in order and stoppable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

READ_BYTES = 1 << 20
"""Bytes read between two calls of `check`: under 10 ms from memory, so a stop is quickly seen, and
enough that the calls cost nothing beside the digest."""


class Readable(Protocol):
    """What can be read: a file, a response's body, a raw or buffered stream."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most `size` bytes; nothing at the end."""


def sha256_bytes(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_stream(stream: Readable, check: Callable[[], None]) -> tuple[str, int]:
    """Return the hexadecimal SHA-256 and the length in bytes of an open stream.

    `check` is called for every READ_BYTES and may raise, which ends the reading.
    """
    digest, size = hashlib.sha256(), 0
    while block := stream.read(READ_BYTES):
        check()
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def sha256_file(path: Path, check: Callable[[], None]) -> str:
    """Return the hexadecimal SHA-256 of a file, links followed; `check` as in `sha256_stream`.

    Raises OSError.
    """
    with path.open("rb", buffering=0) as stream:
        return sha256_stream(stream, check)[0]
