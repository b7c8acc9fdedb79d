"""Breadth first through every state of a scope; then, from each state, whether a good end remains.

A state is one number of 64 bits: two scenes (`scenes`) and what trouble may still come. It is kept
whole in arrays (`visited`), with the numbers of the states that follow it. What is taken for the
same is in `normal`; a plain search (`reduced=False`) takes nothing for the same.

Reductions by independent steps would save nothing here: a step of one job's worker and a step of
the other's may come in either order, but a tick may come between them, and time passes for both.
"""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from chaos.protocol.automaton import Automaton
from chaos.protocol.farm import Farm, Scope
from chaos.protocol.local import stepped
from chaos.protocol.scenes import NOBODY, Scene, Scenes
from chaos.protocol.shared import MemoryShared, Shared
from chaos.protocol.trouble import KINDS
from chaos.protocol.visited import FIRST, Visited
from chaos.sim.campaign import silent

SCENE_BITS = 24
SPARE = 2 * SCENE_BITS
EXPIRY = KINDS["expiries"]
SCENE = (1 << SCENE_BITS) - 1


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
    scenes: int = 0
    whole: bool = False
    ends: Counter[str] = field(default_factory=Counter)
    kinds: set[str] = field(default_factory=set)
    """What jobs came to, as said by `Scenes.kind`."""

    def __str__(self) -> str:
        how = "every state" if self.whole else "bounded"
        ends = ", ".join(f"{name} {count}" for name, count in self.ends.most_common())
        return (
            f"{self.scope.name}: {self.states:,} states, {self.transitions:,} transitions, "
            f"depth {self.depth}, {how}; {self.scenes:,} scenes of one job; "
            f"worker {self.nodes:,} nodes from {self.runs:,} runs; "
            f"{self.calls:,} calls of queue, ledger and store; ends: {ends}"
        )


def search(
    scope: Scope,
    shared: Shared | None = None,
    automaton: Automaton | None = None,
    *,
    most: int = 1_000_000_000,
    reduced: bool = True,
    said: Callable[[str], None] = lambda _line: None,
) -> Found:
    """Search a scope; raise Violation at the first state that is wrong."""
    automaton = automaton or Automaton()
    with silent(), stepped():
        try:
            farm = Farm(scope, automaton, shared or MemoryShared())
            found = Search(farm, most, said, reduced=reduced).run()
        finally:
            automaton.close()
    found.nodes, found.runs = len(automaton.nodes), automaton.runs
    return found


class Search:
    """One search."""

    def __init__(
        self,
        farm: Farm,
        most: int,
        said: Callable[[str], None] = lambda _line: None,
        *,
        reduced: bool,
    ) -> None:
        self._farm, self._most, self._said = farm, most, said
        self.scenes = Scenes(farm, reduced=reduced)
        self._visited = Visited()
        self._next = array("I")
        """The numbers of the states that follow, of one state after another."""
        self._ends_at = array("Q", [0])
        """Where in `_next` those of each state end: what follows it begins where the one before ends."""
        self._good = bytearray(1)
        self._spent = farm.troubles.spent
        self.found = Found(farm.scope)

    def run(self) -> Found:
        found, scenes, visited = self.found, self.scenes, self._visited
        first = self._farm.first_video
        jobs = [scenes.number(Scene(first, (0, 0), job)) for job in range(self._farm.scope.jobs)]
        one, two = sorted([NOBODY, *jobs][-2:])
        visited.add([self._packed(one, two, self._farm.troubles.first)], array("I"))
        self._look(FIRST)
        here = FIRST
        while here <= len(visited) < self._most:
            last = len(visited)
            while here <= last and len(visited) < self._most:
                self._expand(here)
                here += 1
            found.depth += 1
            self._said(f"depth {found.depth}: {len(visited):,} states")
        found.whole = here > len(visited)
        found.states, found.transitions = len(visited), len(self._next)
        found.calls, found.scenes = self._farm.shared.calls, len(scenes.values) - 1
        found.kinds = {scenes.kind(scene) for scene in scenes.values if scene is not None}
        if found.whole:
            self._all_can_end()
        return found

    def _packed(self, one: int, two: int, spare: int) -> int:
        assert one <= SCENE >= two, "more scenes than a state has room for"
        return (one | two << SCENE_BITS if one <= two else two | one << SCENE_BITS) | spare << SPARE

    def _expand(self, here: int) -> None:
        """Find what follows a state, and look at what of it is new."""
        fresh = len(self._visited) + FIRST
        self._visited.add(self._after(here), self._next)
        self._ends_at.append(len(self._next))
        for number in range(fresh, len(self._visited) + FIRST):
            self._look(number)

    def _after(self, here: int) -> list[int]:
        """Return every state that may follow; raise Violation where a step is wrong."""
        state, scenes = self._visited.states[here], self.scenes
        one, two, spare = state & SCENE, state >> SCENE_BITS & SCENE, state >> SPARE
        after: list[int] = []
        for job, other in ((one, two), (two, one)):
            free, dear, fault = scenes.moves[job << 2 | scenes.busy[other]]
            if fault:
                raise Violation(f"{fault}\n{self._way(here)}")
            left, right = other | spare << SPARE, other << SCENE_BITS | spare << SPARE
            for scene in free:
                after.append(scene | right if scene <= other else left | scene << SCENE_BITS)
            if dear:
                self._dear(here, dear, other, spare, after)
        for _ in range(scenes.lost[one] + scenes.lost[two]):
            spare = self._spent[spare][EXPIRY]
            if spare < 0:
                return after
        after.append(self._packed(scenes.later[one], scenes.later[two], spare))
        return after

    def _dear(self, here: int, dear: tuple, other: int, spare: int, after: list[int]) -> None:
        """Append what follows by moves that take some trouble, where it may still come."""
        for kind, scene, killed, what, fault in dear:
            left = self._spent[spare][kind]
            if left < 0:
                continue
            if fault:
                raise Violation(f"{what}: {fault}\n{self._way(here)}")
            # The process that is killed may also be the owner of the other job.
            beside = other if killed < 0 else self.scenes.killed[killed, other]
            after.append(self._packed(self.scenes.number(scene), beside, left))

    # --- what must hold

    def _look(self, number: int) -> None:
        state, scenes = self._visited.states[number], self.scenes
        one, two, spare = state & SCENE, state >> SCENE_BITS & SCENE, state >> SPARE
        fault = scenes.bad[one, spare] or scenes.bad[two, spare]
        if fault:
            raise Violation(f"{fault}\n{self._way(number)}")
        ends = scenes.ended[one], scenes.ended[two]
        self._good.append(all(ends))
        if all(ends):
            self.found.ends[" + ".join(sorted(end for end in ends if end != "nothing"))] += 1

    def _all_can_end(self) -> None:
        """Deadlock and livelock: a state from which no good end can be reached any more.

        A state is good if one that follows it is. What follows was mostly met later, so one pass
        from the last state to the first finds nearly all; passes over the rest end with one that
        finds none.
        """
        good, follows, ends_at = self._good, self._next, self._ends_at
        waiting: list[int] | range = range(len(self._visited), 0, -1)
        while waiting:
            left = []
            for number in waiting:
                if not good[number]:
                    for place in range(ends_at[number - 1], ends_at[number]):
                        if good[follows[place]]:
                            good[number] = 1
                            break
                    else:
                        left.append(number)
            if len(left) == len(waiting):
                raise Violation(f"no good end can be reached any more\n{self._way(left[-1])}")
            waiting = left

    # --- for people

    def _way(self, number: int) -> str:
        """Return what happened up to a state: by the way on which it was met first."""
        way = [number]
        while way[-1] != FIRST:
            way.append(bisect_right(self._ends_at, self._next.index(way[-1])))
        way.reverse()
        return "\n".join([*map(self._reported_of, way, way[1:]), self._shown_as(number)])

    def _reported_of(self, here: int, there: int) -> str:
        wanted = self._visited.states[there]
        for after, what in self._reported(here):
            if after == wanted:
                return what
        return f"{self._farm.scope.tick_s:.0f} s pass"

    def _reported(self, here: int) -> Iterator[tuple[int, str]]:
        state, scenes = self._visited.states[here], self.scenes
        one, two, spare = state & SCENE, state >> SCENE_BITS & SCENE, state >> SPARE
        for name, job, other in (("one", one, two), ("the other", two, one)):
            scene = scenes.values[job]
            if scene is None:
                continue
            for kind, after, killed, what, _ in scenes.reported(scene, scenes.busy[other]):
                left = spare if kind < 0 else self._spent[spare][kind]
                beside = other if killed < 0 else scenes.killed[killed, other]
                if left >= 0:
                    yield self._packed(scenes.number(after), beside, left), f"{name}: {what}"

    def _shown_as(self, number: int) -> str:
        state = self._visited.states[number]
        shown = map(self.scenes.shown_as, (state & SCENE, state >> SCENE_BITS & SCENE))
        return "\n".join(filter(None, shown))
