"""Make what many tests need once for all testers of one run: whoever is first makes it, others wait."""

import atexit
import contextlib
import functools
import hashlib
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hevcq.util import file_lock


@functools.cache
def _shared() -> Path:
    """Return a folder of this run of pytest; the last tester that leaves removes it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"alone-{os.getpid()}"
    folder = Path(tempfile.gettempdir()) / f"hevcq-test-once-{run}"
    mine = folder / "testers" / str(os.getpid())
    while not mine.exists():
        with contextlib.suppress(FileNotFoundError):  # the last of the others has just left
            mine.parent.mkdir(parents=True, exist_ok=True)
            mine.touch()
    atexit.register(_leave, folder, mine, os.getpid())
    return folder


def _leave(folder: Path, mine: Path, tester: int) -> None:
    if os.getpid() != tester:  # a fork of the tester
        return
    with contextlib.suppress(OSError):
        mine.unlink()
        mine.parent.rmdir()
        shutil.rmtree(folder)


def made_once(key: object, make: Callable[[Path], None], suffix: str = "") -> Path:
    """Return the file that `make` writes at the path it is given; equal keys are one file."""
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:24] + suffix
    target = _shared() / name
    if target.exists():
        return target
    lock = file_lock.acquire(_shared() / f"{name}.lock")
    try:
        if not target.exists():
            draft = target.with_name(f"draft-{name}")
            make(draft)
            draft.replace(target)
    finally:
        os.close(lock)
    return target


def folder_once(key: object, make: Callable[[Path], Any]) -> Any:
    """Return what `make` tells of the files it makes in a folder; equal keys are made once, and stay as they are."""

    def write(path: Path) -> None:
        folder = path.with_suffix(".files")
        shutil.rmtree(folder, ignore_errors=True)  # a tester was killed
        folder.mkdir()
        path.write_bytes(pickle.dumps(make(folder)))

    return pickle.loads(made_once(key, write, ".pickle").read_bytes())
