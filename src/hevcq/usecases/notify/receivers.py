"""Who is notified: do what is due for them, say how far each one is, and sum up a finished batch."""

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hevcq.domain.job import JobState
from hevcq.errors import HevcqError, Unavailable, UsageError
from hevcq.ports.event_log import Happened, NotDelivered, Receiver
from hevcq.ports.ledger import Ledger
from hevcq.sql.event_log import EventLog
from hevcq.usecases.context import LibraryPorts
from hevcq.usecases.notify.sender import message_of
from hevcq.usecases.placement.originals import kept_originals
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import size

EVERY_S = 5.0
"""Seconds between looks for new events: one lookup in an index each."""
ORIGINALS_EVERY_S = 6 * 3600.0
MAX_WAITING = 1000


class EventWatch:
    """Add up events and send their messages.

    `tasks` are done in turn by each `step`; `expiring` returns a sentence about kept originals whose time
    ends soon, or "", and is asked every few hours.
    """

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        tasks: Sequence[Callable[[], object]],
        expiring: Callable[[], str] = str,
    ) -> None:
        self._log, self._clock, self._tasks, self._expiring = log, clock, tuple(tasks), expiring
        self._next_originals = 0.0

    def notify(self, name: str, reason: str, *, unless_within_s: float = 6 * 3600.0) -> None:
        """Add an event about this machine; never raises a HevcqError."""
        happened = Happened(name, self._clock.now(), source=socket.gethostname(), reason=reason)
        try:
            self._log.add(happened, unless_within_s=unless_within_s)
        except HevcqError as error:
            get_logger().info("event_not_kept", reason=str(error))

    def step(self) -> None:
        """Do everything that is due. Raises StorageError or Unavailable."""
        now = self._clock.now()
        if now >= self._next_originals:
            self._next_originals = now + ORIGINALS_EVERY_S
            if sentence := self._expiring():
                self.notify("originals.expiring", sentence, unless_within_s=20 * 3600.0)
        for task in self._tasks:
            task()

    def try_step(self) -> float:
        """Do everything that is due; return the seconds until the next time."""
        try:
            self.step()
        except HevcqError as error:
            get_logger().info("messages_wait", reason=str(error))
        return EVERY_S


def states(log: EventLog, receivers: Sequence[Receiver]) -> list[dict[str, Any]]:
    """Return for each receiver its name, events, number of waiting events, and last problem."""
    states: list[dict[str, Any]] = []
    for receiver in receivers:
        reader = log.reader(receiver.identity)
        events = log.after(reader.seq, MAX_WAITING)
        states.append(
            {
                "name": receiver.name,
                "events": sorted(receiver.events),
                "waiting": sum(receiver.wants(event.name) for event in events),
                "problem": reader.problem,
            }
        )
    return states


def try_receivers(
    log: EventLog, receivers: Sequence[Receiver], names: Sequence[str], now: float
) -> list[tuple[str, str]]:
    """Send a test to the named receivers (none: all); return each name and what went wrong, or "".

    Raises UsageError for an unknown name.
    """
    if unknown := set(names) - {receiver.name for receiver in receivers}:
        known = ", ".join(receiver.name for receiver in receivers) or "none"
        raise UsageError(f"No receiver is named {min(unknown)}; there are: {known}.")
    message = message_of(Happened("test", now, reason="This is a test of hevcq."))
    results = []
    for receiver in receivers:
        if names and receiver.name not in names:
            continue
        try:
            receiver.test(message)
        except NotDelivered as error:
            results.append((receiver.name, str(error)))
            continue
        log.end(replace(log.reader(receiver.identity), problem="", tries=0, next_at=0.0))
        results.append((receiver.name, ""))
    return results


def check_receivers(log: Callable[[], EventLog], receivers: Sequence[Receiver]) -> str:
    """Return who is notified; sends nothing. Raises HevcqError if a receiver took nothing lately.

    `log` is opened only where somebody is notified.
    """
    found = states(log(), receivers) if receivers else []
    if troubles := [f"{state['name']}: {state['problem']}" for state in found if state["problem"]]:
        raise Unavailable(
            "; ".join(troubles), remedy="Mend it, then run `hevcq config notify test`."
        )
    names = ", ".join(state["name"] for state in found)
    return f"to {names}; `hevcq config notify test` tries them" if names else ""


READER = "batch"
BUSY_S = 60.0
PAGE = 1000
SOON_DAYS = 3
OPEN = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.SPLIT})
ENDS = {"job.done": "done", "job.skipped": "skipped", "job.failed": "failed"}


class BatchWatch:
    """Add `batch.finished` once no job is open and some ended since the last time."""

    def __init__(self, log: EventLog, ledger: Ledger, clock: Clock) -> None:
        self._log, self._ledger, self._clock = log, ledger, clock
        log.reader(READER)

    def step(self) -> bool:
        """Look once; return whether a batch was found finished. Raises StorageError or Unavailable."""
        known = self._log.reader(READER)
        if not self._log.after(known.seq, 1) or self._is_open():
            return False
        reader = self._log.begin(READER, BUSY_S)
        if reader is None:
            return False
        seq, found = reader.seq, list[Happened]()
        while page := self._log.after(seq, PAGE):
            found += [event for event in page if event.name in ENDS]
            seq = page[-1].seq
        is_worth_sending = any(event.name != "job.skipped" for event in found)
        # Told twice after a kill here, which is better than never.
        if is_worth_sending:
            self._log.add(self._summary(found))
        self._log.end(replace(reader, seq=seq))
        return is_worth_sending

    def _is_open(self) -> bool:
        return any(count for (_, state), count in self._ledger.counts().items() if state in OPEN)

    def _summary(self, found: list[Happened]) -> Happened:
        counts = Counter(ENDS[event.name] for event in found)
        made = [event for event in found if event.name == "job.done"]
        before = sum(event.before or 0 for event in made)
        after = sum(event.after or 0 for event in made)
        words = ", ".join(f"{n} {what}" for what, n in counts.items())
        if before:
            change = "less" if after <= before else "more"
            words += f"; {size(before)} became {size(after)}, {size(abs(before - after))} {change}"
        return Happened(
            "batch.finished",
            self._clock.now(),
            reason=f"{words}.",
            before=before,
            after=after,
            cpu_s=sum(event.cpu_s or 0.0 for event in made),
        )


def expiring(ports: LibraryPorts) -> str:
    """Return a sentence about the originals whose time ends within three days, or "".

    Raises StorageError if a record cannot be read.
    """
    until = ports.clock.now() + SOON_DAYS * 86_400.0
    found = [
        kept
        for kept in kept_originals(ports)
        if kept.record.expires_at is not None and kept.record.expires_at <= until
    ]
    if not found:
        return ""
    count = "1 original" if len(found) == 1 else f"{len(found)} originals"
    freed = size(sum(kept.size for kept in found))
    return f"{count} ({freed}) will be deleted within {SOON_DAYS} days; `hevcq originals list` names them."
