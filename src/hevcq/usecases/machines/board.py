"""The farm's side: joined machines that poll, and their waiting and running orders.

Everything is in memory. An order lives as long as the job that waits for it; after a restart of the farm,
a machine hears that its order is no longer wanted.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hevcq.domain.orders import MachineFacts, Order, OrderEnd, OrderProgress
from hevcq.errors import LimitExceeded, NoSuchVideo, QuotaExceeded, SourceChanged, Stopped
from hevcq.ports.backend import Errand, source_tag
from hevcq.ports.encoder import StopEvent
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger

GONE_S = 60.0
"""Seconds of silence after which a machine counts as gone and its orders are given up."""
LOOK_S = 0.25
"""Seconds between two checks of a running order."""
MAX_COMPLAINTS = 3
"""Unusable results in a row after which a machine gets no more orders until it restarts."""
NEXT_CHUNK_AT = 0.9
"""Finished share of a chunk from which its machine may get the next chunk."""
UNKNOWN = "This order is no longer wanted."
SHARED = "Two machines work by this token: let one of them join anew by an invitation of its own."


@dataclass(eq=False, slots=True)
class Commission:
    """An errand given to a machine; `answer` ends it. `heard_at` is when the machine last reported on it.

    Whoever holds `receiving` may write to the received file, until `closed` is set.
    """

    errand: Errand
    taken: bool = False
    heard_at: float = 0.0
    held: bool = False
    progress: OrderProgress | None = None
    answer: OrderEnd | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    receiving: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False

    @property
    def order(self) -> Order:
        return self.errand.order

    @property
    def is_chunk(self) -> bool:
        return self.order.work is not None and self.order.work.chunk is not None

    def source(self) -> Path:
        """Return the source file. Raises SourceChanged if it is no longer the ordered version."""
        source, work = self.errand.source, self.order.work
        if source is None or work is None:
            raise NoSuchVideo(UNKNOWN)
        try:
            same = source_tag(source) == work.source_tag
        except OSError:
            same = False
        if not same:
            raise SourceChanged
        return source

    def target(self, size: int = 0) -> Path:
        """Return the path for the encoded file of `size` bytes. Raises QuotaExceeded if it is too large."""
        if self.errand.target is None:
            raise NoSuchVideo(UNKNOWN)
        if size > self.errand.most_bytes:
            raise QuotaExceeded("The file is larger than an encode of this video may be.")
        return self.errand.target


class JoinedMachine:
    """One machine. It is thread-safe, because jobs and requests use it in different threads."""

    def __init__(self, name: str, facts: MachineFacts, clock: Clock) -> None:
        self.name, self.facts, self._clock = name, facts, clock
        self._lock = threading.Lock()
        self._commissions: dict[str, Commission] = {}
        self._complaints: list[str] = []
        self.seen_at = clock.monotonic()
        self._left = False
        self._passed: set[str] = set()
        self._former_starts: set[str] = set()
        self._shared = False
        self.unfit: Mapping[str, str] = {}

    @property
    def gone(self) -> bool:
        return self._left or self._clock.monotonic() - self.seen_at > GONE_S

    @property
    def refused(self) -> str:
        """Why the machine gets no more orders, or ""."""
        with self._lock:
            if self._shared:
                return SHARED
            if len(self._complaints) < MAX_COMPLAINTS:
                return ""
            return f"{MAX_COMPLAINTS} orders in a row failed: {self._complaints[-1]}"

    @property
    def full(self) -> bool:
        """Whether the machine has as many chunks as slots, so that another chunk would wait."""
        with self._lock:
            chunks = [each for each in self._commissions.values() if each.is_chunk]
        begun = [
            each
            for each in chunks
            if each.progress is None or each.progress.fraction < NEXT_CHUNK_AT
        ]
        return len(begun) >= self.facts.slots

    def greet(self, facts: MachineFacts) -> None:
        """Record a poll. A former start that polls again means that two machines share this token."""
        if facts.start != self.facts.start:
            self._shared = facts.start in self._former_starts
            self._former_starts.add(self.facts.start)
            self.praise()
            self._requeue()
        self.seen_at, self.facts, self._left = self._clock.monotonic(), facts, False

    def note_progress(self, commission: Commission, progress: OrderProgress) -> None:
        commission.progress = progress
        self.facts = self.facts.model_copy(update=progress.load_facts())

    def _requeue(self) -> None:
        """Let all orders wait again, because a restarted machine has forgotten them."""
        with self._lock:
            for each in self._commissions.values():
                each.taken, each.progress = False, None
                if each.errand.target is not None:
                    each.errand.target.unlink(missing_ok=True)

    def end(self, commission: Commission, answer: OrderEnd) -> None:
        """Record an order's answer; a stopped machine gives back all its orders."""
        self._left = self._left or answer.stopped
        commission.answer = answer
        if commission.order.work is None and answer.report is not None:
            self._passed.add(commission.order.profile.name)
        commission.ended.set()

    def take(self) -> Order | None:
        """Assign the order that has waited longest to the machine, and return it; None if none waits."""
        with self._lock:
            for each in self._commissions.values():
                if not each.taken:
                    each.taken, each.heard_at = True, self._clock.monotonic()
                    return each.order
        return None

    def find(self, order_id: str) -> Commission:
        """Return an order that the machine works on. Raises NoSuchVideo for any other id."""
        self.seen_at = self._clock.monotonic()
        with self._lock:
            commission = self._commissions.get(order_id)
        if commission is None or not commission.taken:
            raise NoSuchVideo(UNKNOWN)
        commission.heard_at = self.seen_at
        return commission

    def carry_out(
        self, errand: Errand, on_progress: Callable[[OrderProgress], None], stop: threading.Event
    ) -> OrderEnd:
        commission = Commission(errand)
        with self._lock:
            self._commissions[errand.order.order_id] = commission
        try:
            return self._await_answer(commission, on_progress, stop)
        finally:
            with self._lock:
                del self._commissions[errand.order.order_id]
            with commission.receiving:  # waits until a running upload has ended
                commission.closed = True

    def _await_answer(
        self,
        commission: Commission,
        on_progress: Callable[[OrderProgress], None],
        stop: threading.Event,
    ) -> OrderEnd:
        work, reported = commission.order.work, None
        began = self._clock.monotonic()
        while not self._clock.wait(commission.ended, LOOK_S):
            if stop.is_set():
                raise Stopped
            silent_s = self._clock.monotonic() - commission.heard_at
            if self.gone or (commission.taken and silent_s > GONE_S):
                get_logger().warning("machine_gone", machine=self.name)
                raise Stopped(f"The machine {self.name} no longer answers.")
            if self.refused and not commission.taken:
                raise Stopped(f"The machine {self.name} gets no more orders: {self.refused}")
            commission.held = isinstance(stop, StopEvent) and stop.held
            held_s = stop.held_s if isinstance(stop, StopEvent) else 0.0
            if work is not None and self._clock.monotonic() - began - held_s > work.max_seconds:
                raise LimitExceeded(f"The machine {self.name} did not end in time.")
            if commission.progress is not reported:
                reported = commission.progress
                if reported is not None:
                    on_progress(reported)
        answer = commission.answer or OrderEnd(reason="it returned nothing")
        if answer.stopped:
            raise Stopped(f"The machine {self.name} was stopped.")
        return answer

    def complain(self, reason: str) -> None:
        with self._lock:
            self._complaints.append(reason)

    def praise(self) -> None:
        with self._lock:
            self._complaints.clear()

    def note_unfit(self, problems: Mapping[str, str]) -> None:
        self.unfit = dict(problems)

    def passed(self, profile: str) -> bool:
        """Return whether the machine passed the self-test of a profile."""
        return profile in self._passed and profile not in self.unfit

    def trouble(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._complaints[-1:])
