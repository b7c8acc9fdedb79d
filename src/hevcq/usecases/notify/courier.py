"""Send what happened to its receivers: at least once, in order for each, none waits for another.

How far a receiver is lives in the event log, so a kill repeats at most the message it interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo

from hevcq.ports.event_log import EventLog, GivenUp, Happened, Reader
from hevcq.ports.receiver import RETRIES_S, NotDelivered, Receiver
from hevcq.usecases.notify.words import message_of
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger

LONGEST_WAIT_S = 86_400.0
"""Most seconds that a receiver may ask to wait (Retry-After)."""
BUSY_S = 120.0
"""Seconds for which a process works for a receiver alone: more than one delivery takes."""
PAGE = 1000
GAVE_UP = "Gave up"
MOST_DELIVERIES = 20
"""Deliveries to one receiver in a row, until the others have their turn."""


class Courier:
    """Serve every receiver in turn. `random` returns numbers in [0, 1); `zone` is that of digests."""

    def __init__(
        self,
        log: EventLog,
        receivers: Sequence[Receiver],
        clock: Clock,
        random: Callable[[], float],
        zone: tzinfo | None = None,
    ) -> None:
        self._log, self._receivers, self._clock = log, tuple(receivers), clock
        self._random, self._zone = random, zone
        for receiver in self._receivers:
            log.reader(receiver.identity)  # it gets what comes from now on, nothing of the past

    def step(self) -> int:
        """Send what is due; return the number of deliveries. Raises StorageError."""
        return sum(self._serve(receiver) for receiver in self._receivers)

    def _serve(self, receiver: Receiver) -> int:
        reader = self._log.reader(receiver.identity)
        idle = reader.off or self._clock.now() < reader.next_at
        if idle or not self._log.after(reader.seq, 1):
            return 0
        mine = self._log.begin(receiver.identity, BUSY_S)
        if mine is None:
            return 0
        sent = 0
        while sent < MOST_DELIVERIES:
            before = mine
            mine, delivered, given_up = self._deliver(receiver, before)
            if given_up:
                lost = GivenUp(mine.name, before.seq, mine.seq, given_up, self._clock.now())
                self._log.give_up(mine, lost)
            else:
                self._log.end(mine)
            if not delivered:
                break
            sent += 1
        return sent

    def _deliver(self, receiver: Receiver, reader: Reader) -> tuple[Reader, bool, int]:
        """Hand over the next messages; return how far the receiver is now, whether it took them, and
        how many were given up."""
        events = self._log.after(reader.seq, PAGE)
        wanted = [event for event in events if receiver.wants(event.name)][: receiver.most]
        if not wanted:
            return replace(reader, seq=events[-1].seq if events else reader.seq), False, 0
        now, due = self._clock.now(), self._due(receiver, reader, wanted[0])
        if now < due:
            return replace(reader, next_at=due), False, 0
        try:
            receiver.deliver([message_of(event) for event in wanted])
        except NotDelivered as error:
            return self._failed(receiver, reader, wanted, error)
        except Exception as error:  # noqa: BLE001 - a library of a service may raise anything
            get_logger().exception("receiver_broke", receiver=receiver.name)
            why = NotDelivered(f"{type(error).__name__}: {error}")
            return self._failed(receiver, reader, wanted, why)
        done = replace(reader, seq=wanted[-1].seq, tries=0, next_at=0.0, sent_at=now, problem="")
        return done, True, 0

    def _failed(
        self, receiver: Receiver, reader: Reader, wanted: Sequence[Happened], error: NotDelivered
    ) -> tuple[Reader, bool, int]:
        log, reason = get_logger(receiver=receiver.name), str(error)
        if error.gone:
            log.warning("receiver_off", reason=reason)
            return replace(reader, off=reason, problem=reason), False, 0
        if reader.tries >= len(RETRIES_S):
            log.error("message_given_up", reason=reason, messages=len(wanted))
            messages = "1 message" if len(wanted) == 1 else f"{len(wanted)} messages"
            given_up = f"{GAVE_UP} {messages}: {reason}"
            past = replace(reader, seq=wanted[-1].seq, tries=0, next_at=0.0, problem=given_up)
            return past, False, len(wanted)
        seconds = RETRIES_S[reader.tries] * (0.9 + 0.2 * self._random())
        asked = min(error.after_s or 0.0, LONGEST_WAIT_S)
        log.info("message_not_delivered", reason=reason, again_s=round(max(seconds, asked)))
        next_at = self._clock.now() + max(seconds, asked)
        return replace(reader, tries=reader.tries + 1, next_at=next_at, problem=reason), False, 0

    def _due(self, receiver: Receiver, reader: Reader, first: Happened) -> float:
        """Return when the next messages may be sent: in Unix seconds, 0 for at once."""
        if receiver.daily_at is None:
            return reader.sent_at + receiver.every_s if receiver.every_s else 0.0
        since = max(reader.sent_at, first.at)
        there = datetime.fromtimestamp(since, self._zone)
        hour, minute = divmod(receiver.daily_at, 60)
        due = there.replace(hour=hour, minute=minute, second=0, microsecond=0)
        if due <= there:
            due += timedelta(days=1)
        return due.timestamp()


def redrive(log: EventLog, receiver: Receiver) -> tuple[int, str]:
    """Send again what was given up; return how many messages were taken, and what went wrong or "".

    What is refused again stays given up. Raises StorageError.
    """
    sent = 0
    for lost in log.given_up():
        if lost.reader != receiver.identity:
            continue
        events = [event for event in _span(log, lost) if receiver.wants(event.name)]
        while events:
            batch, events = events[: receiver.most], events[receiver.most :]
            mine = log.begin(receiver.identity, BUSY_S)
            if mine is None:
                return sent, "another process is sending to it now; run this again in two minutes"
            try:
                receiver.deliver([message_of(event) for event in batch])
            except NotDelivered as error:
                log.end(mine)
                return sent, str(error)
            except Exception as error:  # noqa: BLE001 - as in a delivery
                log.end(mine)
                return sent, f"{type(error).__name__}: {error}"
            log.taken(lost, batch[-1].seq, len(batch))
            log.end(replace(mine, problem="") if mine.problem.startswith(GAVE_UP) else mine)
            sent += len(batch)
        log.taken(lost, lost.last_seq, lost.messages)
    return sent, ""


def _span(log: EventLog, lost: GivenUp) -> Iterator[Happened]:
    seq = lost.after_seq
    while page := log.after(seq, PAGE):
        for event in page:
            if event.seq > lost.last_seq:
                return
            yield event
        seq = page[-1].seq
