"""The queue port: deliveries with a deadline, settled exactly once, buried with a reason."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hevcq.domain.job import Task
from hevcq.domain.verdict import Bury, FailureClass


@dataclass(frozen=True, slots=True)
class Delivery:
    """One receipt of a message.

    `tasks` is what it asks of this queue's profile (usually one; an S3 event may carry several).
    `problem` says why the body could not be read: such a delivery must be buried. No tasks and no
    problem means "nothing for this profile" (`ignored` says what it was): acknowledge and count.
    `attempt` counts receives of this message, never failures. `deadline` is monotonic seconds of
    the adapter's clock when the lease ends unless extended. `from_dlq` says that a dead letter came
    back as it was, moved by the service and not by `redrive`: its job may be dead in the ledger.
    """

    queue: str
    receipt: str
    message_id: str
    body: str
    attempt: int
    deadline: float
    sent_at: float
    tasks: tuple[Task, ...] = ()
    problem: str = ""
    ignored: str = ""
    from_dlq: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A buried delivery. `letter_id` is stable until it is redriven or purged."""

    letter_id: str
    queue: str
    body: str
    reason: str
    failure_class: FailureClass
    attempts: int
    tail: tuple[str, ...]
    buried_at: float
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters: every given condition must hold; none given means all."""

    failure_class: FailureClass | None = None
    job_id: str | None = None
    buried_before: float | None = None
    limit: int | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Return whether every given condition but the limit holds."""
        job = letter.task.job_id if letter.task else None
        return (
            self.failure_class in (None, letter.failure_class)
            and self.job_id in (None, job)
            and (self.buried_before is None or letter.buried_at < self.buried_before)
        )


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages are where; approximate on services that only estimate."""

    ready: int
    in_flight: int
    delayed: int
    dead: int
    oldest_s: float | None = None


class Queue(ABC):
    """One profile's queue and its dead letters.

    Specification, held by tests/contracts for every backend:

    - A received message is hidden until its deadline and comes back after it, with `attempt` one
      higher. Two consumers never hold one delivery at the same time.
    - After `max_receives` receives without being settled it becomes a dead letter of class
      RECEIVES instead of being delivered again.
    - A receipt is stale once its deadline passed and the message was received again, or once it
      was settled. A stale receipt neither extends nor settles.
    - Settling (ack, release, bury) twice is harmless: the second call returns False.
    - Nothing acknowledged is lost by kill -9: the record is durable before the call returns.
    - Empty is not an error; an error is not empty (it raises Unavailable or StorageError).
    """

    name: str
    long_poll_s: float = 0.0
    """How long one receive should wait where every receive costs money; 0 where looking is free."""

    @abstractmethod
    def send(self, tasks: Sequence[Task], *, delay_s: float = 0.0) -> None:
        """Put tasks in the queue, durable when it returns; wakes a waiting consumer at once."""

    @abstractmethod
    def receive(self, limit: int, *, wait_s: float, stop: threading.Event) -> list[Delivery]:
        """Take at most `limit` deliveries, waiting up to `wait_s` for the first; [] when none.

        Returns early, with what it has, once `stop` is set.
        """

    def listen(self, wake: Callable[[], None]) -> None:  # noqa: B027 - a hint, not a duty
        """Have `wake` called whenever something may have become ready in this process.

        A worker that serves several queues waits for all of them at once by it. A backend that
        cannot tell ignores it; consumers poll as well.
        """

    def wake(self) -> None:  # noqa: B027 - a hint, not a duty
        """End the waits of this process's consumers early, e.g. for them to see their `stop`."""

    @abstractmethod
    def extend(self, delivery: Delivery, seconds: float) -> float:
        """Hide the delivery for `seconds` from now; return the new monotonic deadline.

        Raises LeaseLost if the receipt is stale or the service's own limit is reached.
        """

    @abstractmethod
    def ack(self, delivery: Delivery) -> bool:
        """Remove the message for good; False if the receipt is stale or already settled."""

    @abstractmethod
    def release(self, delivery: Delivery, *, delay_s: float = 0.0) -> bool:
        """Give the message back, visible after `delay_s`; False if stale or already settled."""

    @abstractmethod
    def bury(self, delivery: Delivery, why: Bury) -> bool:
        """Make it a dead letter with reason, class, attempts and tail; False if stale."""

    @abstractmethod
    def depth(self) -> Depth:
        """Count messages."""

    @abstractmethod
    def dead_letters(self, selection: Selection) -> Iterator[DeadLetter]:
        """Yield dead letters, oldest first, without loading them all."""

    def dead_letter_batches(self, selection: Selection) -> Iterator[list[DeadLetter]]:
        """Yield dead letters as they arrive together, to be redriven at the same time.

        Work on a whole batch before asking for the next: a service that hides what it shows shows
        it again when the iteration ends.
        """
        return ([letter] for letter in self.dead_letters(selection))

    @abstractmethod
    def redrive(self, letter: DeadLetter) -> bool:
        """Send one dead letter back as a new message, at least once and never lost.

        False if it is no longer there. The message's attempt count starts again at one.
        """

    @abstractmethod
    def purge(self, letter: DeadLetter) -> bool:
        """Delete one dead letter for good; False if it is no longer there."""
