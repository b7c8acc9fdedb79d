"""Plant each bug in a copy of the tree, one at a time; the tests must go red for every one.

    python -m tests.chaos.planted [--most SECONDS] [WORDS]

WORDS choose the bugs whose names hold them. Exit code 1 if a bug survived, hung or broke its plant,
or if the tests chosen for it fail without it. A trial has 60 s, or as many as `--most` says: on a busy
machine the CPU seconds, printed beside, tell how long it takes on an idle one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .bugs import BUGS
from .plant import MOST_S, ROOT, Bug, Fate, Trial, copy_of, pytest_in, try_bug


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.planted")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--most", type=float, default=MOST_S)
    asked = parser.parse_args()
    chosen = [bug for bug in BUGS if all(word in bug.name for word in asked.words)]
    with (
        tempfile.TemporaryDirectory(prefix="hevcq-planted-") as folder,
        copy_of(ROOT, Path(folder)) as copy,
    ):
        trials = [_tried(bug, copy, number, asked.most) for number, bug in enumerate(chosen)]
        green = _healthy(copy, chosen, asked.most)
    caught = sum(trial.fate is Fate.CAUGHT for trial in trials)
    slowest = max((trial.seconds for trial in trials), default=0.0)
    most_cpu = max((trial.cpu_s for trial in trials), default=0.0)
    print(
        f"{caught} of {len(trials)} planted bugs caught; the slowest took {slowest:.1f} s, ", end=""
    )
    print(f"and the most work {most_cpu:.1f} s of CPU")
    return 0 if green and trials and caught == len(trials) else 1


def _healthy(copy: Path, chosen: list[Bug], most_s: float) -> bool:
    """Without a bug the same tests are green: a red test must mean the bug.

    Asked last, so that it also shows that every bug was taken out again.
    """
    red = []
    for tests in _together({bug.tests for bug in chosen}):
        ran = pytest_in(copy, tests, most_s * len(tests))
        if ran.code != 0:
            red.append(tests)
            print(f"not green without a bug ({ran.code}, {ran.seconds:.1f} s): {' '.join(tests)}")
            print(ran.words)
    return not red


def _together(wanted: set[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Put whole files into one run; what is chosen by words needs one of its own."""
    whole = {name for tests in wanted if "-k" not in tests for name in tests}
    if whole:
        yield tuple(sorted(whole))
    yield from sorted(tests for tests in wanted if "-k" in tests)


def _tried(bug: Bug, copy: Path, number: int, most_s: float) -> Trial:
    trial = try_bug(bug, copy, number, most_s)
    took = f"{trial.seconds:5.1f} s {trial.cpu_s:5.1f} s of CPU"
    print(f"{trial.fate.value:9} {took}  {trial.name}: {trial.by}", flush=True)
    return trial


if __name__ == "__main__":
    sys.exit(main())
