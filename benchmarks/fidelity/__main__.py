"""Print the figures of fidelity: `make fidelity`, or `python -m benchmarks.fidelity [WORD…]`.

Each figure is a module of this room with `figure(folder, words) -> Figure`; words choose clips by
their names. Exit code 1 if a figure misses its goal.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.fidelity import metadata, served, sounds

FIGURES = (served.figure, sounds.figure, metadata.figure)
"""The figures in the order in which they are printed."""


def main() -> int:
    words = tuple(sys.argv[1:])
    missed = 0
    with tempfile.TemporaryDirectory(prefix="hevcq-fidelity-") as folder:
        for number, measure in enumerate(FIGURES):
            room = Path(folder) / str(number)
            room.mkdir()
            found = measure(room, words)
            print(f"{found.name}: {found.value} (goal: {found.goal})", flush=True)
            missed += not found.met
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
