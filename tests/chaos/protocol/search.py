"""Breadth first through every state of a scope; then, from each state, whether a good end remains."""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos.protocol.automaton import Automaton
from chaos.protocol.farm import (
    FILM_BITS,
    FILM_MASK,
    FREE,
    KINDS,
    WORKER_BITS,
    WORKER_MASK,
    Farm,
    Scope,
    Spare,
    Step,
)
from chaos.protocol.local import stepped
from chaos.protocol.shared import MemoryShared, Shared
from chaos.sim.campaign import silent

SECOND_FILM, FIRST_WORKER = FILM_BITS, 2 * FILM_BITS
SECOND_WORKER, SPARE = FIRST_WORKER + WORKER_BITS, FIRST_WORKER + 2 * WORKER_BITS


class Violation(AssertionError):
    """A state that must not be, with the way to it."""


@dataclass
class Found:
    """What a search saw."""

    scope: Scope
    states: int = 0
    transitions: int = 0
    depth: int = 0
    nodes: int = 0
    runs: int = 0
    calls: int = 0
    whole: bool = False
    ends: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        how = "every state" if self.whole else "bounded"
        ends = ", ".join(f"{name} {count}" for name, count in self.ends.most_common())
        return (
            f"{self.scope.name}: {self.states:,} states, {self.transitions:,} transitions, "
            f"depth {self.depth}, {how}; worker {self.nodes:,} nodes from {self.runs:,} runs; "
            f"{self.calls:,} calls of queue, ledger and store; ends: {ends}"
        )


def search(
    scope: Scope,
    shared: Shared | None = None,
    automaton: Automaton | None = None,
    *,
    most: int = 100_000_000,
    said: Callable[[str], None] = lambda _line: None,
) -> Found:
    """Search a scope; raise Violation at the first state that is wrong."""
    automaton = automaton or Automaton()
    with silent(), stepped():
        try:
            farm = Farm(scope, automaton, shared or MemoryShared())
            found = Search(farm, most, said).run()
        finally:
            automaton.close()
    found.nodes, found.runs = len(automaton.nodes), automaton.runs
    return found


class Kept(dict):
    """A function of numbers that is worked out once each."""

    def __init__(self, work: Callable[..., object]) -> None:
        self._work = work

    def __missing__(self, key):
        value = self[key] = self._work(*key) if isinstance(key, tuple) else self._work(key)
        return value


class Search:
    """One search. A state is one number: two films, two workers with their jobs, spare trouble."""

    def __init__(self, farm: Farm, most: int, said: Callable[[str], None]) -> None:
        self._farm, self._most, self._said = farm, most, said
        scope = farm.scope
        self._jobs = range(scope.jobs)
        self._numbers: dict[int, int] = {}
        self._parents = array("I")
        self._from, self._to = array("I"), array("I")
        self._good = bytearray()
        spares = [
            Spare(*each) for each in itertools.product(*(range(n + 1) for n in scope.trouble))
        ]
        order = {spare: number for number, spare in enumerate(spares)}
        self._spares = spares
        self._spent = [[_spent(spare, kind, order) for kind in KINDS.values()] for spare in spares]
        self._works = Kept(farm.works)
        self._receives, self._later = Kept(farm.receives), Kept(farm.later)
        self._older, self._shown = Kept(farm.older), Kept(farm.shown)
        self._killed, self._ended = Kept(farm.killed), Kept(farm.ended)
        self._holds, self._faults = Kept(farm.holds), Kept(self._fault)
        self.found = Found(scope)

    def run(self) -> Found:
        found, first = self.found, self._farm.first_film
        start = self._packed((first, first), 0, 0, len(self._spares) - 1)
        self._add(start, 0)
        layer = [start]
        while layer and len(self._numbers) < self._most:
            layer = self._next(layer)
            found.depth += 1
            self._said(f"depth {found.depth}: {len(self._numbers):,} states")
        found.whole = not layer
        found.states, found.transitions = len(self._numbers), len(self._from)
        found.calls = self._farm.shared.calls
        if found.whole:
            self._all_can_end()
        return found

    def _next(self, layer: list[int]) -> list[int]:
        fresh: list[int] = []
        numbers, origins, targets = self._numbers, self._from, self._to
        for state in layer:
            here, after = numbers[state], []
            fault = self._moves(state, after)
            if fault:
                raise Violation(f"{fault}\n{self._way(here)}")
            for one in after:
                there = numbers.get(one)
                if there is None:
                    there = self._add(one, here)
                    fresh.append(one)
                origins.append(here)
                targets.append(there)
        return fresh

    def _moves(self, state: int, after: list[int], said: list[str] | None = None) -> str:
        """Append every state that may come next, and what happens; return what is wrong."""
        films = (state & FILM_MASK, state >> SECOND_FILM & FILM_MASK)
        slots = (state >> FIRST_WORKER & WORKER_MASK, state >> SECOND_WORKER & WORKER_MASK)
        spare = state >> SPARE
        fault = ""
        for number, slot in enumerate(slots):
            if not slot:
                for job in self._jobs:
                    step = self._receives[number, films[job]]
                    if step is not None:
                        after.append(self._after(films, slots, spare, number, job, step))
                        if said is not None:
                            said.append(f"{step.what} job {job}")
                continue
            job = slot & 1
            for step in self._works[number, slot >> 1, films[job]]:
                left = spare if step.kind == FREE else self._spent[spare][step.kind]
                if left < 0:
                    continue
                fault = fault or (step.fault and f"{step.what}: {step.fault}")
                after.append(self._after(films, slots, left, number, job, step))
                if said is not None:
                    said.append(step.what)
        self._tick(films, slots, spare, after, said)
        self._again(films, slots, spare, after, said)
        return fault

    def _after(self, films, slots, spare: int, number: int, job: int, step: Step) -> int:
        one, two = films
        other = films[1 - job]
        if step.kind == 1:  # a kill: the process may also be the owner of another film
            other = self._killed[number, other]
        one, two = (other, step.film) if job else (step.film, other)
        slot = step.worker << 1 | job if step.worker else 0
        first, second = (slots[0], slot) if number else (slot, slots[1])
        return self._packed((one, two), first, second, spare)

    def _packed(self, films, first: int, second: int, spare: int) -> int:
        """Return the state's number; which of two films is called 0 makes no difference."""
        one, two = films
        if len(self._jobs) == 1:
            two = 0
        elif one > two or (one == two and (first or second) & 1):
            one, two = two, one
            first, second = first and first ^ 1, second and second ^ 1
        return (
            one
            | two << SECOND_FILM
            | first << FIRST_WORKER
            | second << SECOND_WORKER
            | spare << SPARE
        )

    def _tick(self, films, slots, spare: int, after: list[int], said: list[str] | None) -> None:
        first, cost = self._later[slots[0] >> 1, films[slots[0] & 1]]
        second, more = self._later[slots[1] >> 1, films[slots[1] & 1]]
        for _ in range(cost + more):
            spare = self._spent[spare][KINDS["expiries"]]
            if spare < 0:
                return
        older = (self._older[films[0]], self._older[films[1]])
        first, second = first << 1 | slots[0] & 1, second << 1 | slots[1] & 1
        after.append(self._packed(older, first, second, spare))
        if said is not None:
            said.append(f"{self._farm.scope.tick_s:.0f} s pass")

    def _again(self, films, slots, spare: int, after: list[int], said: list[str] | None) -> None:
        left = self._spent[spare][KINDS["shown_again"]]
        if left < 0:
            return
        for job in self._jobs:
            shown = self._shown[films[job]]
            if shown is not None:
                two = (films[0], shown) if job else (shown, films[1])
                after.append(self._packed(two, *slots, left))
                if said is not None:
                    said.append(f"job {job} is shown again")

    # --- what must hold

    def _fault(self, film: int, spare: int) -> str:
        trouble = self._farm.scope.trouble
        used = Spare(*(a - b for a, b in zip(trouble, self._spares[spare], strict=True)))
        return self._farm.fault(film, used)

    def _wrong(self, state: int) -> str:
        films = (state & FILM_MASK, state >> SECOND_FILM & FILM_MASK)
        first, second = state >> FIRST_WORKER & WORKER_MASK, state >> SECOND_WORKER & WORKER_MASK
        for job in self._jobs:
            fault = self._faults[films[job], state >> SPARE]
            if fault:
                return f"job {job}: {fault}"
        same = first and second and not (first ^ second) & 1
        if same and self._holds[first >> 1] and self._holds[second >> 1]:
            return f"both workers take job {first & 1} to be theirs"
        return ""

    def _end(self, state: int) -> str:
        if state >> FIRST_WORKER & ((1 << 2 * WORKER_BITS) - 1):
            return ""
        films = (state & FILM_MASK, state >> SECOND_FILM & FILM_MASK)
        ends = [self._ended[films[job]] for job in self._jobs]
        return " + ".join(sorted(ends)) if all(ends) else ""

    def _add(self, state: int, parent: int) -> int:
        number = self._numbers[state] = len(self._numbers)
        self._parents.append(parent)
        fault = self._wrong(state)
        if fault:
            raise Violation(f"{fault}\n{self._way(number)}")
        end = self._end(state)
        self._good.append(bool(end))
        if end:
            self.found.ends[end] += 1
        return number

    def _all_can_end(self) -> None:
        """Deadlock and livelock: a state from which no good end can be reached any more."""
        starts = array("I", [0]) * (len(self._good) + 1)
        for to in self._to:
            starts[to + 1] += 1
        for number in range(len(self._good)):
            starts[number + 1] += starts[number]
        place, back = array("I", starts), array("I", [0]) * len(self._to)
        for origin, to in zip(self._from, self._to, strict=True):
            back[place[to]] = origin
            place[to] += 1
        waiting = [number for number, good in enumerate(self._good) if good]
        reached = bytearray(self._good)
        while waiting:
            to = waiting.pop()
            for origin in back[starts[to] : starts[to + 1]]:
                if not reached[origin]:
                    reached[origin] = 1
                    waiting.append(origin)
        stuck = reached.find(0)
        if stuck >= 0:
            raise Violation(f"no good end can be reached any more\n{self._way(stuck)}")

    def _way(self, number: int) -> str:
        """Return what happened up to a state, by making the moves again."""
        way = [number]
        while way[-1]:
            way.append(self._parents[way[-1]])
        way.reverse()
        wanted = set(way)
        states = {number: state for state, number in self._numbers.items() if number in wanted}
        lines = []
        for here, there in itertools.pairwise(way):
            after, said = [], []
            self._moves(states[here], after, said)
            lines.append(said[after.index(states[there])])
        return "\n".join([*lines, self._shown_as(states[number])])

    def _shown_as(self, state: int) -> str:
        films = (state & FILM_MASK, state >> SECOND_FILM & FILM_MASK)
        return "\n".join(str(self._farm.films.values[films[job]]) for job in self._jobs)


def _spent(spare: Spare, kind: int, order: dict[Spare, int]) -> int:
    """Return the number of what is left after one trouble of a kind, or -1 if there is none."""
    if not spare[kind]:
        return -1
    return order[Spare(*(n - (i == kind) for i, n in enumerate(spare)))]
