"""Points of the campaign's own, around the calls of the ports that no numbered point surrounds.

Every method of a worker's queues, ledger and store is watched. A call inside a numbered point is that
point's. Of the others, heartbeats, receives and progress have their own names here wherever they are
made; what is left is known by the method. A call that is neither is noted, and counted at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from hevcq.errors import DatabaseBusy, Unavailable
from hevcq.ports.backend import Backend
from hevcq.ports.ledger import JobLedger
from hevcq.ports.queue import Queue
from hevcq.ports.skip_memory import SkipMemory
from hevcq.ports.store import Store
from hevcq.ports.subjob_ledger import SubjobLedger

ALWAYS = frozenset({"receive", "extend", "renew", "progress"})
"""Made by threads of their own, or in the middle of another step."""
OUTSIDE = {
    "get": "get",
    "open": "open",
    "list": "list",
    "delete": "delete",
    "forget_parts": "forget-parts",
    "release": "give-back",
}
"""By method, where no numbered point surrounds it: a part looks at its job, a join opens its chunks'
reports, a start removes leftovers, and a message that came as the worker was told to stop goes back."""
LEFTOVERS = ("list", "delete", "forget-parts")
"""Only made where a worker tidies the store as it starts: in a data folder."""
QUIET = frozenset({"listen", "wake", "free_bytes"})
"""Neither reads nor writes what a kill could spoil: bells in this process, and a look at the disk."""


def points(*, on_aws: bool) -> tuple[str, ...]:
    """Return the points at this kind of place.

    One queue of several is received from in a thread of its own only where looks cost money, and
    only there a message may come to a worker that has no slot for it any more.
    """
    names = sorted({*ALWAYS, *OUTSIDE.values()})
    names = [name for name in names if name not in (LEFTOVERS if on_aws else ("give-back",))]
    return tuple(f"{side}-{name}" for name in names for side in ("before", "after"))


class Calls:
    """Reports the calls to `come_to`; `unknown` is told of those that have no point at all.

    It is handed to the worker as its faults, to know which numbered point a thread is inside.
    """

    def __init__(self, come_to: Callable[[str], None], unknown: Callable[[str], None]) -> None:
        self._come_to, self._unknown = come_to, unknown
        self._here = threading.local()
        self._worked = False

    def __call__(self, point: str) -> None:
        self._here.inside = point.startswith("before-")
        self._come_to(point)

    def watch(self, backend: Backend) -> None:
        """Watch every call of these ports from now on."""
        for port, kind in (
            *((queue, Queue) for queue in backend.queues.values()),
            *((backend.ledger, kind) for kind in (JobLedger, SubjobLedger, SkipMemory)),
            (backend.store, Store),
        ):
            for name, method in vars(kind).items():
                if callable(method) and not name.startswith("_") and name not in QUIET:
                    setattr(port, name, self._watched(name, getattr(port, name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **named: Any) -> Any:
            inner = getattr(self._here, "calling", False)
            point = None if inner else self._point(name)
            if point is None:
                return self._called(call, *args, **named)
            # A receive before the first that brought something has nothing to lose or to leave.
            if name != "receive" or self._worked:
                self._come_to(f"before-{point}")
            found = self._called(call, *args, **named)
            if name == "list":
                found = list(found)
            # An empty poll every 50 ms, or nothing left over, is no site worth dying at.
            if found != []:
                self._worked = self._worked or name == "receive"
                self._come_to(f"after-{point}")
            return found

        return watched

    def _point(self, name: str) -> str | None:
        """Return the name of the point around this call, if it is no numbered one."""
        if name in ALWAYS:
            return name
        if getattr(self._here, "inside", False):
            return None
        if name not in OUTSIDE:
            self._unknown(name)
        return OUTSIDE.get(name)

    def _called(self, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        outer = getattr(self._here, "calling", False)
        self._here.calling = True
        try:
            return call(*args, **named)
        except (Unavailable, DatabaseBusy):
            raise  # it may be repeated, in the same step
        except Exception:
            # The step it was in ends without a word.
            self._here.inside = False
            raise
        finally:
            self._here.calling = outer
