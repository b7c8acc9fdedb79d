"""Plant each bug in a copy of the tree, one at a time; the tests must go red for every one.

    python -m tests.chaos.planted [WORDS]

WORDS choose the bugs whose names hold them. Exit code 1 if a bug survived, hung or broke its plant,
or if the tests chosen for it fail without it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .bugs import BUGS
from .plant import ROOT, Bug, Fate, Trial, copy_of, pytest_in, try_bug


def main(words: list[str]) -> int:
    chosen = [bug for bug in BUGS if all(word in bug.name for word in words)]
    with (
        tempfile.TemporaryDirectory(prefix="hevcq-planted-") as folder,
        copy_of(ROOT, Path(folder)) as copy,
    ):
        green = _healthy(copy, chosen)
        trials = [_tried(bug, copy, number) for number, bug in enumerate(chosen)]
    caught = sum(trial.fate is Fate.CAUGHT for trial in trials)
    slowest = max((trial.seconds for trial in trials), default=0.0)
    print(f"{caught} of {len(trials)} planted bugs caught; the slowest took {slowest:.1f} s")
    return 0 if green and trials and caught == len(trials) else 1


def _healthy(copy: Path, chosen: list[Bug]) -> bool:
    """Without a bug the same tests are green: a red test must mean the bug."""
    red = []
    for tests in sorted({bug.tests for bug in chosen}):
        code, words, seconds = pytest_in(copy, tests)
        if code != 0:
            red.append(tests)
            print(f"not green without a bug ({code}, {seconds:.1f} s): {' '.join(tests)}\n{words}")
    return not red


def _tried(bug: Bug, copy: Path, number: int) -> Trial:
    trial = try_bug(bug, copy, number)
    print(f"{trial.fate.value:9} {trial.seconds:5.1f} s  {trial.name}: {trial.by}", flush=True)
    return trial


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
