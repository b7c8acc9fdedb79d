"""Run a mutant's test in a copy of the tree, with the mutant in it."""

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

from .mutant import Mutant, Tree

ROOT = Path(__file__).resolve().parents[3]
COPIED = ("src", "tests", "benchmarks", "scripts", "workers", "pyproject.toml")
MOST_S = 60.0
TESTS_FAILED = 1
"""pytest's exit code where tests ran and some failed
(https://docs.pytest.org/en/stable/reference/exit-codes.html); any other but 0 proves nothing."""


class Fate(StrEnum):
    """What became of a mutant."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    HUNG = "HUNG"
    BROKEN = "BROKEN"


@dataclass(frozen=True, slots=True)
class Trial:
    """What the test said to a mutant, and which test failed."""

    name: str
    fate: Fate
    seconds: float
    cpu_s: float
    by: str


@dataclass(frozen=True, slots=True)
class Run:
    """How a run of pytest ended: its exit code (None: it took too long), output, seconds."""

    code: int | None
    output: str
    seconds: float
    cpu_s: float


@contextmanager
def copied(root: Path, folder: Path) -> Iterator[Tree]:
    """Make a copy of the tree, without what was compiled from it."""
    copy = folder / "tree"
    copy.mkdir()
    for name in COPIED:
        here, there = root / name, copy / name
        if here.is_dir():
            shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(here, there)
    yield Tree(copy)
    shutil.rmtree(copy)


def run_pytest(root: Path, arguments: Sequence[str], most_s: float = MOST_S) -> Run:
    """Run some tests of a tree, for `most_s` seconds at most."""
    began, spent = time.monotonic(), _spent()
    child = _started(root, arguments)
    code: int | None = None
    try:
        output, _ = child.communicate(timeout=most_s)
        code = child.returncode
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        output, _ = child.communicate()
    return Run(code, output, time.monotonic() - began, _spent() - spent)


def _started(root: Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "PYTHONPATH": str(root / "src"),
    }
    options = [
        "-x",
        "-q",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:schemathesis",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=root,
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


def try_mutant(mutant: Mutant, tree: Tree, number: int, most_s: float = MOST_S) -> Trial:
    """Put one mutant into the copy, run its test, and take it out again."""
    path, changed = tree.mutated(mutant)
    before = path.read_text(encoding="utf-8")
    try:
        # Python trusts a compiled file whose source has the same second and size: give each its own.
        path.write_text(changed, encoding="utf-8")
        os.utime(path, (2 * number + 1_000_001, 2 * number + 1_000_001))
        ran = run_pytest(tree.root, tree.selected([mutant]), most_s)
    finally:
        path.write_text(before, encoding="utf-8")
        os.utime(path, (2 * number + 1_000_002, 2 * number + 1_000_002))
    return Trial(mutant.name, _fate(ran.code), ran.seconds, ran.cpu_s, _first_failure(ran.output))


def _fate(code: int | None) -> Fate:
    if code is None:
        return Fate.HUNG
    return {0: Fate.SURVIVED, TESTS_FAILED: Fate.CAUGHT}.get(code, Fate.BROKEN)


def _first_failure(output: str) -> str:
    lines = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[0].partition("::")[2].partition(" - ")[0] if lines else output[-300:]
