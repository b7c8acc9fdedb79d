"""When a chunk is better given to another worker: this one is far slower than the others were. Pure.

One worker in a hundred that is five times slower (a neighbour on its host, a throttled core) would
else decide when the film is done. What a chunk should take is known from the chunks that are done,
by their share of the film's modelled work.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

SLOWER = 3.0
"""So many times longer than expected: the model of the work is off by a fifth, not by two thirds."""
LEAST_DONE = 3
"""So many chunks must be done before one is measured by them."""
WORTH = 1.5
"""What is left must take so many times longer here than the whole chunk elsewhere."""
LOOK_S = 10.0
"""How often a chunk that is encoded is looked at; each look reads the records of the parts."""


def trails(
    cost: float, share: float, elapsed_s: float, done: Sequence[tuple[float, float]]
) -> bool:
    """Return whether a chunk of this modelled cost, of which a share is encoded, trails far behind.

    `done` holds the cost and the seconds of each chunk of the film that is done.
    """
    known = [seconds / each for each, seconds in done if each > 0 and seconds > 0]
    if len(known) < LEAST_DONE or cost <= 0:
        return False
    expected = median(known) * cost
    if share <= 0:
        # Encoders look far ahead before their first frame: its absence says nothing of their speed.
        return elapsed_s > expected
    whole = elapsed_s / share
    return whole > SLOWER * expected and whole - elapsed_s > WORTH * expected
