"""Decide which receiver hears of which event, and when: at least once, and in order for each receiver.

The event log keeps each receiver's position, so a kill repeats at most the message that it interrupted.
`remotes/message_delivery.py` speaks to the network.
"""

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo

from hevcq.domain.job import JobState
from hevcq.domain.keys import EVERY_PROFILE, path_of_key
from hevcq.errors import HevcqError, Unavailable, UsageError
from hevcq.ports.catalog import EVENTS, Happened, Message, NotDelivered, Reader, Receiver
from hevcq.ports.ledger import Ledger
from hevcq.sql.event_log import EventLog
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import printable, size

RETRY_DELAYS_S = (60.0, 3600.0)
"""Seconds before the second and the third try to send a message, which is the last."""
DISPATCH_BUSY_S = 120.0
"""Seconds for which one process alone serves a receiver; a delivery takes less."""
PAGE = 1000
MAX_DELIVERIES = 20
"""Deliveries to one receiver in a row, before the next receiver is served."""
MAX_REMEMBERED = 10_000


class Dispatcher:
    """Dispatches new events of the log to each receiver in turn; `zone` is the time zone of daily digests."""

    def __init__(
        self,
        log: EventLog,
        receivers: Sequence[Receiver],
        clock: Clock,
        zone: tzinfo | None = None,
    ) -> None:
        self._log, self._receivers, self._clock, self._zone = log, tuple(receivers), clock, zone
        for receiver in self._receivers:
            log.reader(receiver.identity)  # a new receiver starts at the end of the log

    def step(self) -> None:
        """Send every message that is due. Raises StorageError."""
        for receiver in self._receivers:
            self._serve(receiver)

    def _serve(self, receiver: Receiver) -> None:
        for _ in range(MAX_DELIVERIES):
            reader = self._log.reader(receiver.identity)
            if self._clock.now() < reader.next_at or not self._log.after(reader.seq, 1):
                return
            claimed = self._log.begin(receiver.identity, DISPATCH_BUSY_S)
            if claimed is None:
                return
            after = self._advance(receiver, claimed)
            self._log.end(after)
            if after.problem or after.seq == claimed.seq:
                return

    def _advance(self, receiver: Receiver, reader: Reader) -> Reader:
        """Send the receiver's next messages if they are due; return its new position in the log."""
        events = self._log.after(reader.seq, PAGE)
        wanted = [event for event in events if receiver.wants(event.name)][: receiver.most]
        if not wanted:
            return replace(reader, seq=events[-1].seq if events else reader.seq)
        now, due = self._clock.now(), self._due(receiver, reader, wanted[0])
        if now < due:
            return replace(reader, next_at=due)
        problem = _deliver(receiver, wanted)
        if not problem:
            return Reader(reader.name, wanted[-1].seq, sent_at=now)
        if reader.tries < len(RETRY_DELAYS_S):
            next_at = now + RETRY_DELAYS_S[reader.tries]
            return replace(reader, tries=reader.tries + 1, next_at=next_at, problem=problem)
        get_logger().error("message_given_up", receiver=receiver.name, messages=len(wanted))
        messages = "1 message" if len(wanted) == 1 else f"{len(wanted)} messages"
        given_up = f"Gave up {messages}: {problem}"
        return replace(reader, seq=wanted[-1].seq, tries=0, next_at=0.0, problem=given_up)

    def _due(self, receiver: Receiver, reader: Reader, first: Happened) -> float:
        """Return when the next messages may be sent, in Unix seconds."""
        if receiver.daily_at is None:
            return reader.sent_at + receiver.every_s if receiver.every_s else 0.0
        since = datetime.fromtimestamp(max(reader.sent_at, first.at), self._zone)
        hour, minute = divmod(receiver.daily_at, 60)
        due = since.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return (due if due > since else due + timedelta(days=1)).timestamp()


class DirectDispatcher:
    """Delivers each event at once, for servers that share no event log.

    This process does not repeat an event to a receiver that accepted it.
    """

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        self._receivers = tuple(receivers)
        self._delivered: dict[tuple[str, str], None] = {}

    def __call__(self, happened: Happened) -> bool:
        """Return whether every receiver that wants this event has accepted it, now or before."""
        complete = True
        for receiver in self._receivers:
            key = (receiver.identity, message_of(happened).message_id)
            if not receiver.wants(happened.name) or key in self._delivered:
                continue
            if _deliver(receiver, [happened]):
                complete = False
                continue
            self._delivered[key] = None
            if len(self._delivered) > MAX_REMEMBERED:
                del self._delivered[next(iter(self._delivered))]
        return complete


def _deliver(receiver: Receiver, events: Sequence[Happened]) -> str:
    """Deliver these events to one receiver; return why it did not accept them, or ""."""
    log = get_logger(receiver=receiver.name)
    try:
        receiver.deliver([message_of(event) for event in events])
    except NotDelivered as error:
        log.warning("message_not_delivered", reason=str(error))
        return str(error)
    except Exception as error:  # a library of a service may raise anything
        log.exception("receiver_broke")
        return f"{type(error).__name__}: {error}"
    return ""


def message_of(happened: Happened) -> Message:
    source = _source(happened)
    before, after = happened.before or 0, happened.after or 0
    saved = None if None in (happened.before, happened.after) else before - after
    name = printable(source)
    parts = [f"{name}: {happened.reason}" if name and happened.reason else name or happened.reason]
    if saved is not None and happened.name in {"job.done", "video.replaced", "video.placed"}:
        share = f" ({100 * saved / before:.0f} % smaller)" if before and saved > 0 else ""
        parts.append(f"{size(before)} became {size(after)}{share}")
    if happened.failure_class:
        parts.append(f"class {happened.failure_class}")
    text = "; ".join(part for part in parts if part)
    return Message(
        message_id=f"hevcq-{happened.video_id or happened.seq}-{int(happened.at * 1000)}",
        event=happened.name,
        at=happened.at,
        title=EVENTS.get(happened.name, happened.name),
        text=text if text.endswith((".", "!", "?")) else f"{text}.",
        data=_data(happened, source, saved),
        path=happened.path,
    )


def _source(happened: Happened) -> str:
    """Return the path of an event's source if it is in a library, else its key."""
    path = path_of_key(happened.source)
    if path is not None:
        return path
    folder, _, rest = happened.source.removeprefix("TODO/").partition("/")
    if happened.source.startswith("/") or not happened.source.startswith("TODO/"):
        return happened.source
    return f"/{rest}" if folder == EVERY_PROFILE else rest


def _data(happened: Happened, source: str, saved: int | None) -> dict[str, object]:
    at = datetime.fromtimestamp(happened.at, UTC).isoformat(timespec="seconds")
    facts: dict[str, object | None] = {
        "at": at.replace("+00:00", "Z"),
        "job": happened.job_id or None,
        "video": happened.video_id or None,
        "profile": happened.profile or None,
        "source": printable(source) or None,
        "path": None if happened.path is None else printable(str(happened.path)),
        "reason": happened.reason or None,
        "failure_class": happened.failure_class or None,
        "size_before": happened.before,
        "size_after": happened.after,
        "saved": saved,
        "cpu_s": happened.cpu_s,
    }
    return {name: value for name, value in facts.items() if value is not None}


EVERY_S = 5.0
"""Seconds between polls for new events; a poll costs one index lookup."""
ORIGINALS_EVERY_S = 6 * 3600.0


class EventWatch:
    """Runs the `tasks` that follow the event log (totals, messages), in this order at each `step`.

    `expiring` returns a sentence about kept originals whose retention ends soon, or ""; it is called
    every ORIGINALS_EVERY_S seconds.
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
        """Run every task. Raises StorageError or Unavailable."""
        now = self._clock.now()
        if now >= self._next_originals:
            self._next_originals = now + ORIGINALS_EVERY_S
            if sentence := self._expiring():
                self.notify("originals.expiring", sentence, unless_within_s=20 * 3600.0)
        for task in self._tasks:
            task()

    def try_step(self) -> float:
        """Run every task and log an error; return the seconds until the next step."""
        try:
            self.step()
        except HevcqError as error:
            get_logger().info("messages_wait", reason=str(error))
        return EVERY_S


def try_receivers(
    log: EventLog, receivers: Sequence[Receiver], names: Sequence[str], now: float
) -> list[tuple[str, str]]:
    """Send a test message to the named receivers (none: all); return each name, and its problem or "".

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
    """Return the receivers' names in a sentence, or "" without any; sends nothing.

    Raises Unavailable if the last delivery to a receiver failed. `log` is opened only if there are receivers.
    """
    if not receivers:
        return ""
    opened = log()
    readers = [(each.name, opened.reader(each.identity)) for each in receivers]
    if troubles := [f"{name}: {reader.problem}" for name, reader in readers if reader.problem]:
        raise Unavailable(
            "; ".join(troubles), remedy="Mend it, then run `hevcq config notify test`."
        )
    return f"to {', '.join(name for name, _ in readers)}; `hevcq config notify test` tries them"


READER = "batch"
BUSY_S = 60.0
OPEN = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.SPLIT})
ENDS = {"job.done": "done", "job.skipped": "skipped", "job.failed": "failed"}


class BatchWatch:
    """Adds the event `batch.finished` when no job is open and some ended since the last one."""

    def __init__(self, log: EventLog, ledger: Ledger, clock: Clock) -> None:
        self._log, self._ledger, self._clock = log, ledger, clock
        log.reader(READER)

    def step(self) -> bool:
        """Check once; return whether a batch has finished. Raises StorageError or Unavailable."""
        start = self._log.reader(READER).seq
        if not self._log.after(start, 1) or self._has_open_jobs():
            return False
        reader = self._log.begin(READER, BUSY_S)
        if reader is None:
            return False
        seq, ends = reader.seq, list[Happened]()
        while page := self._log.after(seq, PAGE):
            ends += [event for event in page if event.name in ENDS]
            seq = page[-1].seq
        is_worth_sending = any(event.name != "job.skipped" for event in ends)
        # A kill between the two writes repeats the event, which is better than losing it.
        if is_worth_sending:
            self._log.add(self._summary(ends))
        self._log.end(replace(reader, seq=seq))
        return is_worth_sending

    def _has_open_jobs(self) -> bool:
        return any(count for (_, state), count in self._ledger.counts().items() if state in OPEN)

    def _summary(self, ends: list[Happened]) -> Happened:
        counts = Counter(ENDS[event.name] for event in ends)
        done = [event for event in ends if event.name == "job.done"]
        before = sum(event.before or 0 for event in done)
        after = sum(event.after or 0 for event in done)
        words = ", ".join(f"{n} {state}" for state, n in counts.items())
        if before:
            change = "less" if after <= before else "more"
            words += f"; {size(before)} became {size(after)}, {size(abs(before - after))} {change}"
        return Happened(
            "batch.finished",
            self._clock.now(),
            reason=f"{words}.",
            before=before,
            after=after,
            cpu_s=sum(event.cpu_s or 0.0 for event in done),
        )
