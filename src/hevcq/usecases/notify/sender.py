"""Send what happened to its receivers: at least once, in order for each, none waits for another.

How far a receiver is lives in the event log, so a kill repeats at most the message it interrupted.
"""

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo

from hevcq.domain.job import JobState
from hevcq.domain.keys import EVERY_PROFILE, path_of_key
from hevcq.errors import HevcqError, Unavailable, UsageError
from hevcq.ports.catalog import EVENTS, RETRIES_S, Happened, Message, NotDelivered, Reader, Receiver
from hevcq.ports.ledger import Ledger
from hevcq.sql.event_log import EventLog
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import printable, size

SENDER_BUSY_S = 120.0
"""Seconds for which a process works for a receiver alone: more than one delivery takes."""
PAGE = 1000
MAX_DELIVERIES = 20
"""Deliveries to one receiver in a row, until the others have their turn."""
MAX_REMEMBERED = 10_000


class Sender:
    """Send the event log to every receiver in turn. `zone` is that of digests."""

    def __init__(
        self,
        log: EventLog,
        receivers: Sequence[Receiver],
        clock: Clock,
        zone: tzinfo | None = None,
    ) -> None:
        self._log, self._receivers, self._clock, self._zone = log, tuple(receivers), clock, zone
        for receiver in self._receivers:
            log.reader(receiver.identity)  # it gets what comes from now on, nothing of the past

    def step(self) -> None:
        """Send what is due. Raises StorageError."""
        for receiver in self._receivers:
            self._serve(receiver)

    def _serve(self, receiver: Receiver) -> None:
        for _ in range(MAX_DELIVERIES):
            reader = self._log.reader(receiver.identity)
            if self._clock.now() < reader.next_at or not self._log.after(reader.seq, 1):
                return
            mine = self._log.begin(receiver.identity, SENDER_BUSY_S)
            if mine is None:
                return
            after = self._deliver(receiver, mine)
            self._log.end(after)
            if after.problem or after.seq == mine.seq:
                return

    def _deliver(self, receiver: Receiver, reader: Reader) -> Reader:
        """Send the next messages if they are due; return how far the receiver is now."""
        events = self._log.after(reader.seq, PAGE)
        wanted = [event for event in events if receiver.wants(event.name)][: receiver.most]
        if not wanted:
            return replace(reader, seq=events[-1].seq if events else reader.seq)
        now, due = self._clock.now(), self._due(receiver, reader, wanted[0])
        if now < due:
            return replace(reader, next_at=due)
        problem = _problem(receiver, wanted)
        if not problem:
            return Reader(reader.name, wanted[-1].seq, sent_at=now)
        if reader.tries < len(RETRIES_S):
            next_at = now + RETRIES_S[reader.tries]
            return replace(reader, tries=reader.tries + 1, next_at=next_at, problem=problem)
        get_logger().error("message_given_up", receiver=receiver.name, messages=len(wanted))
        messages = "1 message" if len(wanted) == 1 else f"{len(wanted)} messages"
        given_up = f"Gave up {messages}: {problem}"
        return replace(reader, seq=wanted[-1].seq, tries=0, next_at=0.0, problem=given_up)

    def _due(self, receiver: Receiver, reader: Reader, first: Happened) -> float:
        """Return when the next messages may be sent: in Unix seconds."""
        if receiver.daily_at is None:
            return reader.sent_at + receiver.every_s if receiver.every_s else 0.0
        since = datetime.fromtimestamp(max(reader.sent_at, first.at), self._zone)
        hour, minute = divmod(receiver.daily_at, 60)
        due = since.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return (due if due > since else due + timedelta(days=1)).timestamp()


class DirectSender:
    """Hand each event to every receiver at once, for servers that share no event log.

    A receiver that took an event gets it once from this process.
    """

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        self._receivers = tuple(receivers)
        self._taken: dict[tuple[str, str], None] = {}

    def __call__(self, happened: Happened) -> bool:
        """Return whether every receiver that wants it took it, now or before."""
        done = True
        for receiver in self._receivers:
            key = (receiver.identity, message_of(happened).message_id)
            if not receiver.wants(happened.name) or key in self._taken:
                continue
            if _problem(receiver, [happened]):
                done = False
                continue
            self._taken[key] = None
            if len(self._taken) > MAX_REMEMBERED:
                del self._taken[next(iter(self._taken))]
        return done


def _problem(receiver: Receiver, events: Sequence[Happened]) -> str:
    """Send one message; return why it was not taken, or ""."""
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
    saved = _saved(happened)
    what = printable(source)
    parts = [f"{what}: {happened.reason}" if what and happened.reason else what or happened.reason]
    if saved is not None and happened.name in {"job.done", "video.replaced", "video.placed"}:
        before, after = happened.before or 0, happened.after or 0
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


def _saved(happened: Happened) -> int | None:
    if happened.before is None or happened.after is None:
        return None
    return happened.before - happened.after


def _source(happened: Happened) -> str:
    """Return the path of a library's source, else its key."""
    path = path_of_key(happened.source)
    if path is not None:
        return path
    folder, _, rest = happened.source.removeprefix("TODO/").partition("/")
    if happened.source.startswith("/") or not happened.source.startswith("TODO/"):
        return happened.source
    return f"/{rest}" if folder == EVERY_PROFILE else rest


def _data(happened: Happened, source: str, saved: int | None) -> dict[str, object]:
    known: dict[str, object | None] = {
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
    found = {name: value for name, value in known.items() if value is not None}
    return {"at": iso(happened.at), **found}


def iso(at: float) -> str:
    """Return Unix seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


EVERY_S = 5.0
"""Seconds between looks for new events: one lookup in an index each."""
ORIGINALS_EVERY_S = 6 * 3600.0


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
    opened = log() if receivers else None
    readers = [opened.reader(each.identity) for each in receivers] if opened else []
    pairs = zip(receivers, readers, strict=True)
    if troubles := [f"{each.name}: {reader.problem}" for each, reader in pairs if reader.problem]:
        raise Unavailable(
            "; ".join(troubles), remedy="Mend it, then run `hevcq config notify test`."
        )
    names = ", ".join(each.name for each in receivers)
    return f"to {names}; `hevcq config notify test` tries them" if names else ""


READER = "batch"
BUSY_S = 60.0
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
