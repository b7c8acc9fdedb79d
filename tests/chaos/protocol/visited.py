"""Numbers of 64 bits by the order in which they were met: a dictionary of a sixth of its size."""

from array import array
from collections.abc import Iterable

MIX = 0x9E3779B97F4A7C15
"""Fibonacci hashing: an odd number far from every pattern in the states."""
FIRST = 1
"""The number of the first state; 0 marks a free place."""


class Visited:
    """States by number and numbers by state.

    The states themselves are kept, eight bytes each, and compared: two that fall on one place are
    never taken for the same, so nothing depends on luck as it would with digests of states.
    """

    def __init__(self, places: int = 4095) -> None:
        self.states = array("Q", [0])
        self._table = array("I", [0]) * places

    def __len__(self) -> int:
        return len(self.states) - FIRST

    def add(self, states: Iterable[int], numbers: array) -> None:
        """Append each state's number to `numbers`; a new state gets the next one."""
        known, table = self.states, self._table
        size = len(table)
        for state in states:
            place = state * MIX % size
            while number := table[place]:
                if known[number] == state:
                    break
                place = place + 1 if place + 1 < size else 0
            else:
                number = table[place] = len(known)
                known.append(state)
            numbers.append(number)
        if 2 * len(known) > size:
            self._grow()

    def _grow(self) -> None:
        """Make the table twice as large. Its size stays odd: of an even one low bits alone would decide."""
        size = 4 * len(self.states) - 1
        table = self._table = array("I", [0]) * size
        for number in range(FIRST, len(self.states)):
            place = self.states[number] * MIX % size
            while table[place]:
                place = place + 1 if place + 1 < size else 0
            table[place] = number
