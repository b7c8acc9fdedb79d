"""Send what happened to its receivers: at least once, in order for each, none waits for another.

How far a receiver is lives in the event log, so a kill repeats at most the message it interrupted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo

from hevcq.domain.keys import EVERY_PROFILE, path_of_key
from hevcq.ports.event_log import RETRIES_S, Happened, Message, NotDelivered, Reader, Receiver
from hevcq.sql.event_log import EventLog
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import printable, size

BUSY_S = 120.0
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
            mine = self._log.begin(receiver.identity, BUSY_S)
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


TITLES: Mapping[str, str] = {
    "batch.finished": "Ingest finished",
    "job.done": "Encoded",
    "job.skipped": "Stays as it is",
    "job.retry": "Attempt failed",
    "job.failed": "Given up",
    "job.cancelled": "Cancelled",
    "video.placed": "New rendition",
    "video.replaced": "Replaced",
    "video.undone": "Original is back",
    "video.expired": "Kept original deleted",
    "video.unusable": "Video that cannot be encoded",
    "video.damaged": "Damaged video",
    "video.ready": "Video ready",
    "video.failed": "Video failed",
    "worker.unfit": "Worker takes no more work",
    "disk.low": "Too little disk space",
    "originals.expiring": "Kept originals will be deleted",
    "test": "Test message",
}


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
        title=TITLES.get(happened.name, happened.name),
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
