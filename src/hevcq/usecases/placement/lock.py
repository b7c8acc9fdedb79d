"""One placement at a time on one data folder: two ingests on one library take turns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hevcq.errors import Unavailable
from hevcq.util import file_lock

NAME = "placing.lock"


@contextmanager
def placement_lock(data_dir: Path) -> Iterator[None]:
    """Hold the data folder's placing lock; the system drops it when its holder dies.

    Whoever reads a placement's state and writes a new one does both inside, so that a placement
    which another process just finished is never set back. Raises Unavailable if the folder cannot
    be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = file_lock.acquire(data_dir / NAME)
    except OSError as error:
        raise Unavailable(
            f"The data folder {data_dir} cannot be written: {error.strerror}.",
            remedy="Give this user rights there, or name another with --data-dir.",
        ) from error
    try:
        yield
    finally:
        os.close(lock)
