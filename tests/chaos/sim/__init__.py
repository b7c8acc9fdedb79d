"""The farm in simulation: production worker, lease, ledger and queue code under a seeded scheduler.

`python -m tests.chaos.sim --seed N` replays one world and prints the end of its trace.
"""

import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parents[2])
if _TESTS not in sys.path:
    # The fakes are top-level packages of the test tree, also for a person's command line.
    sys.path.insert(0, _TESTS)
