"""Crash points: a place to kill a worker before and after every call that it makes of its ports.

A point is named by what a worker asked of which port, as `ledger.complete:before` and
`ledger.complete:after`; the second and third call of one method since the claim are `store.check#2`
and `store.check#3`, which also stands for all later ones. In front of it is what kind of task the
thread had claimed, where the queue it came from is watched as well: `join/ledger.complete:after`.
Nothing is named by private code, so that renaming that needs no edit here.

Between two of its calls a worker only computes, and writes to its own scratch folder: it hashes a file,
parses a report, decides. Nothing of that outlives the process, for the scratch folder is swept. So a kill
anywhere between two calls leaves what a kill right after the first or right before the second
does, and these two points stand for all of it. A call that raised has no point after it: what
follows is on the way to the next call.

Three calls are more than one place. `store.fetch`, `store.stream` and `scratch.job` are contexts:
their points lie around the entry, those of `store.fetch.exit` around the exit. A call that a port
makes back into the worker lies inside another (`ledger.progress` inside `encoder.encode`, the
third `store.check` inside `store.publish`), and so does its kill.
"""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from hevcq.ports.backend import Backend
from hevcq.ports.queue import Delivery
from hevcq.worker.delivery.claim import WorkerContext

ComeTo = Callable[[str], None]
"""Called with the name of each point that a thread comes to; may kill it."""
CONTEXTS = frozenset({"store.fetch", "store.stream", "scratch.job"})
CLAIMS = frozenset({"ledger.claim", "ledger.claim_subjob"})
ENDS = frozenset({"queue.ack", "queue.release", "queue.bury"})
QUIET = frozenset({"listen", "wake", "free_bytes", "total_bytes", "version", "build"})
"""Neither read nor write what a kill could spoil: bells in this process, and looks at this machine."""
MOST = 3
"""Calls of one method are told apart up to this one."""


@dataclass
class _Work:
    """What one thread has in hand, and how often it called what since it claimed that."""

    kind: str = ""
    calls: Counter[str] = field(default_factory=Counter)


class Calls:
    """Stands before the ports of one worker process, and tells `come_to` of every point.

    `thread` returns what is the same for as long as one thread runs.
    """

    def __init__(
        self, come_to: ComeTo, *, thread: Callable[[], Hashable] = threading.get_ident
    ) -> None:
        self._come_to, self._thread = come_to, thread
        self._works: dict[Hashable, _Work] = {}
        self._kinds: dict[str, str] = {}
        self._worked = False

    def context(self, context: WorkerContext) -> WorkerContext:
        """Return a kit all of whose ports are watched."""
        return replace(
            context,
            backend=self.backend(context.backend),
            encoder=self.port("encoder", context.encoder),
            scratch=self.port("scratch", context.scratch),
        )

    def backend(self, backend: Backend) -> Backend:
        """Return a backend all of whose ports are watched."""
        return replace(
            backend,
            queues={name: self.port("queue", queue) for name, queue in backend.queues.items()},
            ledger=self.port("ledger", backend.ledger),
            store=self.port("store", backend.store),
            task_publisher=self.port("fanout", backend.task_publisher),
        )

    def port(self, name: str, inner: Any) -> Any:
        """Return a port that does what `inner` does, with a point before and after each call."""
        if inner is None:
            return None
        return _Watched(self, name, inner)

    def carried(self, site: str, call: Callable[..., Any], args: Any, named: Any) -> Any:
        """Make one call between its two points."""
        work = self._begun(site, args)
        point = self._point(work, site)
        # A receive before the first that brought something has nothing to lose or to leave.
        if site != "queue.receive" or self._worked:
            self._come_to(f"{point}:before")
        result = call(*args, **named)
        if site == "store.list":
            result = iter(list(result))
        work.calls[site] += 1
        if site == "queue.receive":
            self._received(result)
        # An empty poll every 50 ms is no place worth dying at.
        if site != "queue.receive" or result:
            with _closed_by_death(result):
                self._come_to(f"{point}:after")
        if site in ENDS:
            self._works.pop(self._thread(), None)
        return result

    @contextmanager
    def inside(self, site: str, call: Callable[..., Any], args: Any, named: Any) -> Iterator[Any]:
        """Enter a port's context between two points, and leave it between two others."""
        with ExitStack() as stack:
            context = call(*args, **named)
            yield self.carried(site, stack.enter_context, (context,), {})
            self.carried(f"{site}.exit", stack.close, (), {})

    def _begun(self, site: str, args: Any) -> _Work:
        """Return what this thread has in hand; a claim takes something new into it."""
        thread = self._thread()
        if site in CLAIMS:
            kind = "encode" if site == "ledger.claim" else self._kinds.get(args[0], "part")
            self._works[thread] = _Work(kind)
        elif site == "queue.receive":
            self._works.pop(thread, None)
        return self._works.setdefault(thread, _Work())

    def _point(self, work: _Work, site: str) -> str:
        if not work.kind:
            return site
        number = min(work.calls[site] + 1, MOST)
        return f"{work.kind}/{site}" if number == 1 else f"{work.kind}/{site}#{number}"

    def _received(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self._worked = True
            self._kinds.update({task.unit_id: task.kind.value for task in delivery.tasks})


@contextmanager
def _closed_by_death(opened: Any) -> Iterator[None]:
    """Close what was opened where the caller is killed before it has it, as the kernel does."""
    try:
        yield
    except BaseException:
        if hasattr(opened, "close"):
            opened.close()
        raise


class _Watched:
    """A port before which `Calls` stands. What is no method is that of the port itself."""

    def __init__(self, calls: Calls, name: str, inner: Any) -> None:
        self._calls, self._name, self._inner = calls, name, inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or name in QUIET or name.startswith("_"):
            return found
        site, calls, inner = f"{self._name}.{name}", self._calls, self._inner
        way = calls.inside if site in CONTEXTS else calls.carried

        def call(*args: Any, **named: Any) -> Any:
            return way(site, getattr(inner, name), args, named)

        self.__dict__[name] = call
        return call
