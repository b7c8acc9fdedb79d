"""SHA-256 of files and streams, read once in order and stoppable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hevcq.errors import HevcqError, SourceGone, SourceUnreadable, Unavailable

CHUNK_BYTES = 1 << 20


def sha256_file(
    path: Path, check: Callable[[], None], *, missing: type[HevcqError] = SourceGone
) -> str:
    """Return the hexadecimal SHA-256 of a file.

    `check` is called for every MiB and may raise. Raises `missing` if there is no such file,
    SourceUnreadable if it may not be read, and Unavailable for what may pass (a network drive).
    """
    try:
        with path.open("rb") as stream:
            return sha256_stream(stream, check)[0]
    except FileNotFoundError as error:
        raise missing(f"{path} no longer exists.") from error
    except (PermissionError, IsADirectoryError) as error:
        raise SourceUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    except OSError as error:
        raise Unavailable(f"{path} could not be read: {error.strerror or error}.") from error


def sha256_stream(stream: BinaryIO, check: Callable[[], None]) -> tuple[str, int]:
    """Return the hexadecimal SHA-256 and the length in bytes of an open stream."""
    digest, size = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK_BYTES):
        check()
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def read_small(stream: BinaryIO, limit: int) -> bytes:
    """Return the whole of a stream that must be at most `limit` bytes; else raise Unavailable."""
    content = stream.read(limit + 1)
    if len(content) > limit:
        raise Unavailable(f"An object that should be small has over {limit} bytes.")
    return content


def sha256_bytes(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()
