"""Hash a file of a running job; what keeps it from being read is one of the worker's errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hevcq.errors import HevcqError, SourceGone, SourceUnreadable, Unavailable
from hevcq.util import hashing


def sha256_file(
    path: Path, check: Callable[[], None], *, missing: type[HevcqError] = SourceGone
) -> str:
    """Return the hexadecimal SHA-256 of a file.

    `check` is called for every MiB and may raise. Raises `missing` if there is no such file,
    SourceUnreadable if it may not be read, and Unavailable for what may pass (a network drive).
    """
    try:
        return hashing.sha256_file(path, check)
    except FileNotFoundError as error:
        raise missing(f"{path} no longer exists.") from error
    except (PermissionError, IsADirectoryError) as error:
        raise SourceUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    except OSError as error:
        raise Unavailable(f"{path} could not be read: {error.strerror or error}.") from error
