"""Hash a file of a running job, and say in the worker's own errors why it cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hevcq.errors import DiskFull, HevcqError, SourceGone, SourceUnreadable, Unavailable
from hevcq.util import hashing
from hevcq.worker.delivery.context import WorkerContext


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


def require_free_space(context: WorkerContext, size: int, name: str) -> None:
    """Raise DiskFull unless scratch and store have `size` bytes free, and what must stay so on top."""
    needed = size + context.min_free_bytes
    there, room = (
        context.scratch.free_bytes(),
        context.retry_control_call(context.backend.store.free_bytes),
    )
    free = there if room is None else min(there, room)
    if free < needed:
        least = -(-needed >> 20)  # rounded up, or it may seem to be there already
        raise DiskFull(
            f"{name} needs {least} MiB free, and there are {free >> 20} MiB.",
            remedy="The work goes on by itself once there is room.",
        )
