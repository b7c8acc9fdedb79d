"""A bug as data: which words of which file become which other words, and which tests must object."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
COPIED = ("src", "tests", "workers", "pyproject.toml")
MOST_S = 60.0
TESTS_FAILED = 1
"""pytest's exit code where tests ran and some failed
(https://docs.pytest.org/en/stable/reference/exit-codes.html); any other but 0 proves nothing."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug. `old` occurs exactly once in `file`; `tests` are pytest's arguments."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def planted(self, root: Path) -> str:
        """Return the file with the bug in it; raise ValueError if it does not apply any more."""
        text = (root / self.file).read_text(encoding="utf-8")
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: its words are {count} times in {self.file}, not once")
        changed = text.replace(self.old, self.new)
        compile(changed, self.file, "exec")
        return changed


class Fate(StrEnum):
    """What became of a planted bug."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    HUNG = "HUNG"
    BROKEN = "BROKEN"


@dataclass(frozen=True, slots=True)
class Trial:
    """What the tests said to a bug, and which of them failed first."""

    name: str
    fate: Fate
    seconds: float
    by: str


@contextmanager
def copy_of(root: Path, folder: Path) -> Iterator[Path]:
    """Make a copy of the tree, without what was compiled from it."""
    copy = folder / "tree"
    copy.mkdir()
    for name in COPIED:
        here, there = root / name, copy / name
        if here.is_dir():
            shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(here, there)
    yield copy
    shutil.rmtree(copy)


def pytest_in(copy: Path, tests: Sequence[str]) -> tuple[int | None, str, float]:
    """Run some tests on a copy; return the exit code (None: it took too long), words, seconds."""
    began = time.monotonic()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(copy),
        "PYTHONPATH": str(copy / "src"),
        "PYTHONPYCACHEPREFIX": str(copy / ".compiled"),
    }
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    child = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=copy,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        words, _ = child.communicate(timeout=MOST_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        words, _ = child.communicate()
        return None, words, time.monotonic() - began
    return child.returncode, words, time.monotonic() - began


def try_bug(bug: Bug, copy: Path, number: int) -> Trial:
    """Plant one bug in the copy, run its tests, and take it out again."""
    path = copy / bug.file
    before = path.read_text(encoding="utf-8")
    try:
        # Python trusts a compiled file whose source has the same second and size: give each its own.
        path.write_text(bug.planted(copy), encoding="utf-8")
        os.utime(path, (2 * number + 1_000_001, 2 * number + 1_000_001))
        code, words, seconds = pytest_in(copy, bug.tests)
    finally:
        path.write_text(before, encoding="utf-8")
        os.utime(path, (2 * number + 1_000_002, 2 * number + 1_000_002))
    return Trial(bug.name, _fate(code), seconds, _first_failure(words))


def _fate(code: int | None) -> Fate:
    if code is None:
        return Fate.HUNG
    return {0: Fate.SURVIVED, TESTS_FAILED: Fate.CAUGHT}.get(code, Fate.BROKEN)


def _first_failure(words: str) -> str:
    lines = [line for line in words.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[0].partition("::")[2].partition(" - ")[0] if lines else words[-300:]
