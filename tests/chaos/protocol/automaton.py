"""The worker as a finite automaton: its nodes are found by running the production code.

Two executions that stand at the same instructions, ask the same, and have the same time left on
their leases and timers are one node. So the search runs the production code once for each edge,
however many states of the farm it looks at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chaos.protocol.local import SETTLING, Run
from chaos.protocol.values import VISIBILITY_S
from hevcq.domain.verdict import Abandon, Bury, Done, Release, RetryIn, Skipped
from hevcq.ports.ledger import AlreadySettled, Granted, Held
from hevcq.worker.settle import delay
from hevcq.worker.take import Taken

CLAIMS = (Granted, Held, AlreadySettled)
STEPPED = Run._go.__code__.co_filename
"""The search's own frames, whose values say nothing of the worker."""
INERT = frozenset({"now", "began", "overtime", "seconds", "delivery", "deadline"})
"""Times that nothing is decided by any more once they are read."""
LONG_AGO_S = VISIBILITY_S - 3.0
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
    beating: bool
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
        mark = fingerprint(run)
        number = self._known.get(mark)
        if number is not None:
            self.others.append((number, history))
            run.close()
            return number
        number = self._known[mark] = len(self.nodes)
        self.nodes.append(_node(run, history))
        if run.strands[0].over:
            run.close()
        else:
            self.nodes[number].live = run
        return number

    def differs(self, number: int, history: tuple[Action, ...]) -> str:
        """Return where another way to a node goes on otherwise than the node says, or nothing."""
        node = self.nodes[number]
        for action, after in node.edges.items():
            run = Run(node.attempt)
            for one in (*history, action):
                run.step(one)
            found = self._known.get(fingerprint(run))
            run.close()
            if found != after:
                return f"{action} leads from {number} to {after}, and by {history} to {found}"
        return ""

    def close(self) -> None:
        """Let all executions go."""
        for node in self.nodes:
            if node.live is not None:
                node.live.close()
                node.live = None


def _node(run: Run, history: tuple[Action, ...]) -> Node:
    lease, main = run.lease, run.strands[0]
    alive = lease is not None and not lease._lost and run.now < lease.deadline
    # A lease runs from before its claim was sent: one that is answered later than that is lost.
    waits = run.now - main.asked_at if main.request == ("claim",) else 0.0
    alive = alive and waits < VISIBILITY_S - lease._margin_s
    beating = any(not strand.over for strand in run.strands[1:])
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
        alive=alive and not main.over,
        holds=alive and not main.over and lease._fence is not None,
        beating=beating,
        over=main.over,
        stopped=run.stopped,
        fault=_fault(run, beating=beating),
    )


def _fault(run: Run, *, beating: bool) -> str:
    """Return what is wrong inside the process, or nothing."""
    for strand in run.strands:
        if strand.error is not None:
            return f"{strand.name} broke: {strand.error!r}"
        if strand.request is not None and strand.request[0] in SETTLING and beating:
            return f"{strand.request[0]} is sent with the heartbeat alive"
    if len(run.verbs) > 1:
        return f"one delivery is settled by {sorted(run.verbs)}"
    return ""


def fingerprint(run: Run) -> tuple:
    """Return what decides how this execution goes on."""
    return (
        run.attempt,
        run.stopped,
        _lease(run),
        tuple(sorted(run.verbs)),
        tuple(_strand(run, strand) for strand in run.strands),
    )


def _lease(run: Run) -> tuple:
    lease = run.lease
    if lease is None:
        return ()
    margin = lease._margin_s
    return (
        max(margin, lease._queue_until - run.now),
        max(margin, min(1e6, lease._fence_until - run.now)),
        lease._fence is None,
        # Why a lease is lost is told to people and decides nothing.
        lease._lost or type(lease._cause).__name__,
        lease.stop.is_set(),
    )


def _strand(run: Run, strand: Any) -> tuple:
    if strand.over:
        return ()
    due = None if strand.until is None else max(0.0, strand.until - run.now)
    return (strand.request, due, tuple(_frames(run, strand.greenlet.gr_frame)))


def _frames(run: Run, frame: Any):
    while frame is not None:
        code = frame.f_code
        values = frame.f_locals
        kept = tuple(
            (name, _value(run, values[name]))
            for name in code.co_varnames
            if name in values and name not in INERT and code.co_filename != STEPPED
        )
        yield (code.co_filename, code.co_firstlineno, frame.f_lasti, kept)
        frame = frame.f_back


def _value(run: Run, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return "a sentence" if " " in value else value
    if isinstance(value, float):
        # A time is used with the visibility added and the margin taken off: older is past for good.
        return round(max(value - run.now, -LONG_AGO_S), 3) if value > 1e5 else round(value, 3)
    if isinstance(value, (Abandon, Done, Skipped)):
        return type(value).__name__
    if isinstance(value, (RetryIn, Release)):
        return (type(value).__name__, delay(value))
    if isinstance(value, Bury):
        return value.failure_class.value
    if isinstance(value, Taken):
        return (repr(value.claim), _value(run, value.sent))
    return repr(value) if isinstance(value, CLAIMS) else type(value).__name__
