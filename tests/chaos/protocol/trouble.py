"""What may go wrong, how often it still may, and what one more of it leaves."""

import itertools
from typing import NamedTuple


class Spare(NamedTuple):
    """How often each kind of trouble may still come."""

    expiries: int = 0
    kills: int = 0
    stops: int = 0
    broken: int = 0
    silent: int = 0
    slow: int = 0
    shown_again: int = 0


KINDS = {name: number for number, name in enumerate(Spare._fields)}
FREE = -1


class Troubles:
    """Every Spare that a scope can come to, by number; the last is the one it begins with."""

    def __init__(self, trouble: Spare) -> None:
        spares = [Spare(*each) for each in itertools.product(*(range(n + 1) for n in trouble))]
        order = {spare: number for number, spare in enumerate(spares)}
        self.spent = [[_spent(spare, kind, order) for kind in KINDS.values()] for spare in spares]
        """The number of what is left after one trouble of a kind, or -1 if there is none."""
        self.used = [Spare(*(a - b for a, b in zip(trouble, s, strict=True))) for s in spares]

    @property
    def first(self) -> int:
        """The number of a whole scope's trouble."""
        return len(self.used) - 1


def _spent(spare: Spare, kind: int, order: dict[Spare, int]) -> int:
    if not spare[kind]:
        return -1
    return order[Spare(*(n - (i == kind) for i, n in enumerate(spare)))]
