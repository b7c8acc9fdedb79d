"""The worker as a finite automaton: its nodes are found by running the production code.

A node is the history of port calls and answers since the delivery came, reduced to what can still
decide something (`mark`). No look is taken into the code: what it asks and is answered is all. So
the search runs the production code once for each edge, however many states of the farm it looks at.

Why two histories of one mark go on alike. The worker is a deterministic program of two threads,
which change places only where one waits: for an answer, for the clock or for the other. Between
two waits nothing comes in but the answer, the time, and what the other thread did to the lease.

- **The main thread** may keep every answer it was given, so all are in the mark, in their order, and
  with them how it found the lease each time it came to wait: every look at a lease leaves its trace
  there, as who finds it run out ends it. Times that it reads go into a pause asked for at once,
  or into the lease.
- **The heartbeat** begins anew each time it waits for the clock: what it was answered before is
  then in the lease, or gone. While a beat is under way, its answers are in the mark as the main
  thread's are.
- **The lease** has its deadline, how it was ended, and the two times that the deadline is reckoned
  from: until when the queue hides the message, and when the claim or its last renewal was sent. Each
  later one takes the earlier one's place, and one past a whole lease is past for good. Whoever
  has asked the ledger for an end renews no more.
- **max_job_s** is the one time that decides something much later, and no search is so long.

`differs` tries it out: it goes on from every other way to a node. A program that kept more than is
said here, as a count of its heartbeats, would come to different marks there.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from chaos.protocol.local import SETTLING, Run, Strand
from chaos.protocol.values import VISIBILITY_S

LEASING = frozenset({"claim", "renew"})
"""The calls whose time of asking a lease is reckoned from."""
LONG_AGO_S = VISIBILITY_S - 3.0
AHEAD = 12
"""How many steps a way is followed beyond the node that it came to."""
Action = tuple


@dataclass
class Node:
    """A place where a worker stands still. `calls` are (strand, request), `timers` those due."""

    history: tuple[Action, ...]
    attempt: int
    calls: tuple[tuple[int, tuple], ...]
    timers: tuple[int, ...]
    alive: bool
    """Whether the worker takes its lease to be alive."""
    holds: bool
    """Whether it takes the job to be its own."""
    over: bool
    stopped: bool
    fault: str
    edges: dict[Action, int] = field(default_factory=dict)
    live: Run | None = None


class Automaton:
    """All nodes found so far. `runs` counts executions, `steps` what was executed in them."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.runs = self.steps = 0
        self.others: list[tuple[int, tuple[Action, ...]]] = []
        """Nodes that another way came to as well, with that way."""
        self._known: dict[Any, int] = {}
        self._starts: dict[int, int] = {}

    def start(self, attempt: int) -> int:
        """Return the node of a worker that has just received a message."""
        if attempt not in self._starts:
            self.runs += 1
            self._starts[attempt] = self._place(Run(attempt), ())
        return self._starts[attempt]

    def step(self, number: int, action: Action) -> int:
        """Return the node after `action`."""
        node = self.nodes[number]
        found = node.edges.get(action)
        if found is None:
            run = self._at(node)
            run.step(action)
            self.steps += 1
            found = self._place(run, (*node.history, action))
            node.edges[action] = found
        return found

    def _at(self, node: Node) -> Run:
        run, node.live = node.live, None
        if run is None:
            self.runs += 1
            run = Run(node.attempt)
            for action in node.history:
                run.step(action)
                self.steps += 1
        return run

    def _place(self, run: Run, history: tuple[Action, ...]) -> int:
        key = mark(run)
        number = self._known.get(key)
        if number is not None:
            self.others.append((number, history))
            run.close()
            return number
        number = self._known[key] = len(self.nodes)
        self.nodes.append(_node(run, history))
        if run.strands[0].over:
            run.close()
        else:
            self.nodes[number].live = run
        return number

    def differs(self, number: int, history: tuple[Action, ...], random: Random) -> str:
        """Return where another way to a node goes on otherwise than the node says, or nothing.

        Each edge of the node is taken, and then some more, by chance: what the worker keeps and
        the mark does not say may show itself only steps later.
        """
        for first in self.nodes[number].edges:
            run, here, action, ahead = Run(self.nodes[number].attempt), number, first, AHEAD
            for one in history:
                run.step(one)
            while action is not None:
                run.step(action)
                here, before = self.nodes[here].edges[action], here
                if self._known.get(mark(run)) != here:
                    return f"{action} from {before} leads not to {here} by {history}, {first}"
                edges, ahead = [*self.nodes[here].edges], ahead - 1
                action = random.choice(edges) if edges and ahead else None
            run.close()
        return ""

    def close(self) -> None:
        """Let all executions go."""
        for node in self.nodes:
            if node.live is not None:
                node.live.close()
                node.live = None


def _node(run: Run, history: tuple[Action, ...]) -> Node:
    lease, main = run.lease, run.strands[0]
    alive = not main.over and run.found() not in {"", "lost"} and run.now < lease.deadline
    # A lease runs from before its claim was sent: one that is answered later than that is lost.
    waits = run.now - main.asked_at if main.request == ("claim",) else 0.0
    alive = alive and waits < VISIBILITY_S - run.margin_s
    return Node(
        history=history,
        attempt=run.attempt,
        calls=tuple(
            (number, strand.request)
            for number, strand in enumerate(run.strands)
            if strand.request is not None and not strand.over
        ),
        timers=tuple(
            number
            for number, strand in enumerate(run.strands)
            if not strand.over and strand.until is not None and strand.until <= run.now
        ),
        alive=alive,
        holds=alive and run.holds,
        over=main.over,
        stopped=run.stopped,
        fault=_fault(run),
    )


def _fault(run: Run) -> str:
    """Return what is wrong inside the process, or nothing."""
    beating = any(not strand.over for strand in run.strands[1:])
    for strand in run.strands:
        if strand.error is not None:
            return f"{strand.name} broke: {strand.error!r}"
        if strand.request is not None and strand.request[0] in SETTLING and beating:
            return f"{strand.request[0]} is sent with the heartbeat alive"
    if len(run.verbs) > 1:
        return f"one delivery is settled by {sorted(run.verbs)}"
    return ""


def mark(run: Run) -> tuple:
    """Return what decides how this execution goes on: see above. Of one that is over, nothing does."""
    if run.strands[0].over:
        return (_fault(run),)
    return (run.attempt, run.stopped, _lease(run), *(_strand(run, one) for one in run.strands))


def _lease(run: Run) -> tuple:
    if run.lease is None:
        return ()
    return (
        run.found(),
        run.lease.stop.is_set(),
        max(0.0, run.lease.deadline - run.now),
        max(0.0, run.hidden_until - run.margin_s - run.now),
        run.holds and _age(run, run.claimed_at),
    )


def _strand(run: Run, strand: Strand) -> tuple:
    if strand.over:
        return ()
    due = None if strand.until is None else max(0.0, strand.until - run.now)
    asked = _age(run, strand.asked_at) if strand.request and strand.request[0] in LEASING else 0.0
    waits = tuple(event.number for event in strand.events)
    return (strand.request, asked, due, waits, tuple(strand.story))


def _age(run: Run, at: float) -> float:
    return min(run.now - at, LONG_AGO_S)
