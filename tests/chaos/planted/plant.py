"""A bug as data: which words of which file become which other words, and which tests must object."""

from __future__ import annotations

import os
import resource
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
    cpu_s: float
    by: str


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run of pytest ended: its exit code (None: it took too long) and words, and its time."""

    code: int | None
    words: str
    seconds: float
    cpu_s: float


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


def pytest_in(copy: Path, tests: Sequence[str], most_s: float = MOST_S) -> Ran:
    """Run some tests on a copy, for `most_s` seconds at most."""
    began, spent = time.monotonic(), _spent()
    child = _started(copy, tests)
    code: int | None = None
    try:
        words, _ = child.communicate(timeout=most_s)
        code = child.returncode
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        words, _ = child.communicate()
    return Ran(code, words, time.monotonic() - began, _spent() - spent)


def _started(copy: Path, tests: Sequence[str]) -> subprocess.Popen[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(copy),
        "PYTHONPATH": str(copy / "src"),
        "PYTHONPYCACHEPREFIX": str(copy / ".compiled"),
    }
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=copy,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _spent() -> float:
    """Return the CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def try_bug(bug: Bug, copy: Path, number: int, most_s: float = MOST_S) -> Trial:
    """Plant one bug in the copy, run its tests, and take it out again."""
    path = copy / bug.file
    before = path.read_text(encoding="utf-8")
    try:
        # Python trusts a compiled file whose source has the same second and size: give each its own.
        path.write_text(bug.planted(copy), encoding="utf-8")
        os.utime(path, (2 * number + 1_000_001, 2 * number + 1_000_001))
        ran = pytest_in(copy, bug.tests, most_s)
    finally:
        path.write_text(before, encoding="utf-8")
        os.utime(path, (2 * number + 1_000_002, 2 * number + 1_000_002))
    return Trial(bug.name, _fate(ran.code), ran.seconds, ran.cpu_s, _first_failure(ran.words))


def _fate(code: int | None) -> Fate:
    if code is None:
        return Fate.HUNG
    return {0: Fate.SURVIVED, TESTS_FAILED: Fate.CAUGHT}.get(code, Fate.BROKEN)


def _first_failure(words: str) -> str:
    lines = [line for line in words.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[0].partition("::")[2].partition(" - ")[0] if lines else words[-300:]
