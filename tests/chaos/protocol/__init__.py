"""Every interleaving of two workers and two jobs: the production handler, lease, heartbeat and
settling, and the production queue and ledger rules, searched state by state.

`python -m tests.chaos.protocol` searches every scope and prints how many states each has.
"""

import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parents[2])
if _TESTS not in sys.path:
    # The fakes are top-level packages of the test tree, also for a person's command line.
    sys.path.insert(0, _TESTS)
