"""Plant each mutant in a copy of the tree, one at a time; its test must go red.

    python -m tests.chaos.mutants [--most SECONDS] [--part N/M] [WORDS]

WORDS choose the mutants whose names hold them, `--part 2/5` the second fifth of them. Exit code 1 if
a mutant survived, hung or broke its tree, or if a test chosen for one fails without it. A trial has
60 s, or as many as `--most` says: on a busy machine the CPU seconds, printed beside, tell how long it
takes on an idle one.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from .mutant import MUTANTS, Mutant, Tree
from .trial import MOST_S, ROOT, Fate, Trial, copied, run_pytest, try_mutant


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutants")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--most", type=float, default=MOST_S)
    parser.add_argument("--part", default="1/1")
    asked = parser.parse_args()
    number, parts = map(int, asked.part.split("/"))
    chosen = [one for one in MUTANTS if all(word in one.name for word in asked.words)]
    chosen = chosen[number - 1 :: parts]
    with (
        tempfile.TemporaryDirectory(prefix="hevcq-planted-") as folder,
        copied(ROOT, Path(folder)) as tree,
    ):
        trials = [_tried(one, tree, number, asked.most) for number, one in enumerate(chosen)]
        green = _healthy(tree, chosen, asked.most)
    caught = sum(trial.fate is Fate.CAUGHT for trial in trials)
    slowest = max((trial.seconds for trial in trials), default=0.0)
    most_cpu = max((trial.cpu_s for trial in trials), default=0.0)
    print(
        f"{caught} of {len(trials)} mutants caught; the slowest took {slowest:.1f} s,"
        f" and the most work {most_cpu:.1f} s of CPU"
    )
    return 0 if green and trials and caught == len(trials) else 1


def _healthy(tree: Tree, chosen: list[Mutant], most_s: float) -> bool:
    """Without a mutant the same tests are green: a red test must mean the mutant.

    Asked last, so that it also shows that every mutant was taken out again.
    """
    ran = run_pytest(tree.root, tree.selected(chosen), most_s * len(chosen))
    if ran.code != 0:
        print(f"not green without a mutant ({ran.code}, {ran.seconds:.1f} s): {ran.output}")
    return ran.code == 0


def _tried(mutant: Mutant, tree: Tree, number: int, most_s: float) -> Trial:
    trial = try_mutant(mutant, tree, number, most_s)
    took = f"{trial.seconds:5.1f} s {trial.cpu_s:5.1f} s of CPU"
    print(f"{trial.fate.value:9} {took}  {trial.name}: {trial.by}", flush=True)
    return trial


if __name__ == "__main__":
    sys.exit(main())
