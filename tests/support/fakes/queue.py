"""A queue in memory."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hevcq.domain.job import Task
from hevcq.domain.profile import QueueNumbers
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import BadMessage, LeaseLost
from hevcq.ports.queue import DeadLetter, Delivery, Queue, QueueDepth
from hevcq.util.clock import Clock


@dataclass
class _Message:
    message_id: str
    body: str
    sent_at: float
    visible_at: float
    attempts: int = 0
    receipt: str = ""


class MemoryQueue(Queue):
    """One profile's queue. Feed it with `send`, or `send_body` for a body nobody checked."""

    def __init__(self, name: str, clock: Clock, numbers: QueueNumbers) -> None:
        self.name = name
        self.settled: list[tuple[str, str]] = []
        """Every settling that took effect, as (verb, message id), for tests."""
        self._clock, self._limits = clock, numbers
        self._changed = threading.Condition()
        self._messages: dict[str, _Message] = {}
        self._dead: dict[str, DeadLetter] = {}
        self._listeners: list[Callable[[], None]] = []
        self._numbers = itertools.count(1)

    def send(self, tasks: Sequence[Task], *, delay_s: float = 0.0) -> None:
        with self._changed:
            for task in tasks:
                self.send_body(task.body(), delay_s=delay_s)

    def send_body(self, body: str, *, delay_s: float = 0.0) -> str:
        """Queue any text; return its message id."""
        with self._changed:
            name, now = f"m{next(self._numbers)}", self._clock.now()
            visible = self._clock.monotonic() + delay_s
            self._messages[name] = _Message(name, body, now, visible)
            self._changed.notify_all()
        for wake in self._listeners:
            wake()
        return name

    def listen(self, wake: Callable[[], None]) -> None:
        self._listeners.append(wake)

    def retract(self, message_id: str) -> None:
        """Take a message away as if it had never been sent."""
        with self._changed:
            self._messages.pop(message_id, None)

    def receive(self, limit: int, *, wait_s: float, stop: threading.Event) -> list[Delivery]:
        end = self._clock.monotonic() + wait_s
        with self._changed:
            while True:
                found = self._take(limit)
                left = end - self._clock.monotonic()
                if found or stop.is_set() or left <= 0:
                    return found
                self._clock.wait_on(self._changed, min(left, 0.05))

    def _take(self, limit: int) -> list[Delivery]:
        now, found = self._clock.monotonic(), []
        for message in list(self._messages.values()):
            if len(found) == limit:
                break
            if message.visible_at > now:
                continue
            if message.attempts >= self._limits.max_receives:
                reason = f"Received {message.attempts} times without being settled."
                self._kill(message, Bury(reason=reason, failure_class=FailureClass.RECEIVES))
                continue
            message.attempts += 1
            message.receipt = f"{message.message_id}-{message.attempts}-{next(self._numbers)}"
            message.visible_at = now + self._limits.visibility_s
            found.append(self._delivery(message))
        return found

    def _delivery(self, message: _Message) -> Delivery:
        tasks, problem, ignored = (), "", ""
        try:
            task = Task.parse(message.body)
        except BadMessage as error:
            problem = str(error)
        else:
            if task.profile == self.name:
                tasks = (task,)
            else:
                ignored = f"a task of {task.profile}"
        return Delivery(
            queue=self.name,
            receipt=message.receipt,
            message_id=message.message_id,
            body=message.body,
            attempt=message.attempts,
            deadline=message.visible_at,
            sent_at=message.sent_at,
            tasks=tasks,
            problem=problem,
            ignored=ignored,
        )

    def _held(self, delivery: Delivery) -> _Message | None:
        message = self._messages.get(delivery.message_id)
        live = message is not None and message.receipt == delivery.receipt
        return message if live else None

    def extend(self, delivery: Delivery, seconds: float) -> float:
        with self._changed:
            message = self._held(delivery)
            if message is None:
                raise LeaseLost(f"The receipt of {delivery.message_id} is stale.")
            message.visible_at = self._clock.monotonic() + seconds
            return message.visible_at

    def ack(self, delivery: Delivery) -> bool:
        with self._changed:
            if self._held(delivery) is None:
                return False
            del self._messages[delivery.message_id]
            self.settled.append(("ack", delivery.message_id))
            return True

    def release(self, delivery: Delivery, *, delay_s: float = 0.0) -> bool:
        with self._changed:
            message = self._held(delivery)
            if message is None:
                return False
            message.receipt, message.visible_at = "", self._clock.monotonic() + delay_s
            self.settled.append(("release", delivery.message_id))
            self._changed.notify_all()
        for wake in self._listeners:
            wake()
        return True

    def bury(self, delivery: Delivery, why: Bury) -> bool:
        with self._changed:
            message = self._held(delivery)
            if message is None:
                return False
            self._kill(message, why)
            self.settled.append(("bury", delivery.message_id))
            return True

    def _kill(self, message: _Message, why: Bury) -> None:
        del self._messages[message.message_id]
        letter = DeadLetter(
            letter_id=f"d{next(self._numbers):08d}",
            queue=self.name,
            body=message.body,
            reason=why.reason,
            failure_class=why.failure_class,
            attempts=message.attempts,
            tail=why.tail,
            buried_at=self._clock.now(),
            task=Task.parse_or_none(message.body),
        )
        self._dead[letter.letter_id] = letter

    def depth(self) -> QueueDepth:
        with self._changed:
            now = self._clock.monotonic()
            messages = list(self._messages.values())
            ready = [m for m in messages if m.visible_at <= now]
            held = [m for m in messages if m.visible_at > now and m.receipt]
            oldest = min((m.sent_at for m in messages), default=None)
            return QueueDepth(
                ready=len(ready),
                in_flight=len(held),
                delayed=len(messages) - len(ready) - len(held),
                dead=len(self._dead),
                oldest_s=None if oldest is None else self._clock.now() - oldest,
            )

    def dead_letters(self, job_id: str | None = None) -> Iterator[DeadLetter]:
        with self._changed:
            letters = sorted(self._dead.values(), key=lambda d: (d.buried_at, d.letter_id))
        return (d for d in letters if not job_id or (d.task and d.task.job_id == job_id))

    def purge(self, letter: DeadLetter) -> bool:
        with self._changed:
            return self._dead.pop(letter.letter_id, None) is not None
