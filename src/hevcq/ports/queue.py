"""The queue ports: deliveries that are settled once, dead letters, and the task publisher."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hevcq.domain.job import JobRecord, Move, Source, Task
from hevcq.domain.quality import Asked
from hevcq.domain.verdict import Bury, FailureClass


@dataclass(frozen=True, slots=True)
class Delivery:
    """One receipt of a message.

    `tasks` are the tasks for this queue's profile (usually one; an S3 event may carry several).
    `problem` says why the body could not be parsed: bury such a delivery. With neither tasks nor a
    problem there is nothing to do for this profile (`ignored` says what it was): acknowledge and
    count it. `attempt` counts receives of the message, not failures. `deadline` is when the lease
    ends unless extended, in monotonic seconds of the adapter's clock; `sent_at` is Unix seconds.
    `from_dlq` says that the service moved a dead letter back unchanged: its job may be DEAD in the
    ledger.
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
    """A message in the dead-letter queue.

    `letter_id` is stable until it is purged. `tail` holds the last lines of ffmpeg's
    output. `buried_at` is Unix seconds.
    """

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
class QueueDepth:
    """The number of messages by state, approximate if the service only estimates.

    `oldest_s` is the age of the oldest ready message in seconds, if known.
    """

    ready: int
    in_flight: int
    delayed: int
    dead: int
    oldest_s: float | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is left but dead letters."""
        return self.ready + self.delayed + self.in_flight == 0


class Queue(ABC):
    """The queue of one profile and its dead letters.

    Specification, held by tests/contracts for every backend:

    - A received message is hidden until its deadline and redelivered after it, with `attempt` one
      higher. Two consumers never hold the same message at the same time.
    - After `max_receives` receives without settlement a message becomes a dead letter of
      class RECEIVES and is not delivered again.
    - A receipt is stale once its deadline has passed and the message was received again, or once
      it was settled. A stale receipt neither extends nor settles.
    - Settling (ack, release, bury) twice is harmless: the second call returns False.
    - A settlement survives kill -9: it is durable before the call returns.
    - An empty queue is no error, and an error never looks like an empty queue: every method may
      raise Unavailable or StorageError.
    """

    name: str
    long_poll_s: float = 0.0
    """Seconds that one receive should wait if each receive costs money; 0 if it is free."""

    @abstractmethod
    def send(self, tasks: Sequence[Task], *, delay_s: float = 0.0) -> None:
        """Send tasks, visible after `delay_s` seconds; wake a waiting consumer at once.

        They are durable when the call returns.
        """

    @abstractmethod
    def receive(self, limit: int, *, wait_s: float, stop: threading.Event) -> list[Delivery]:
        """Receive at most `limit` deliveries; wait up to `wait_s` seconds for the first one.

        Returns early once `stop` is set, with the deliveries received so far.
        """

    def prefer(self, job_id: str) -> None:
        """Make this process receive the job's tasks first; ignored by a backend that cannot choose."""

    asked: Asked | None = None
    """The CRF and quality for the jobs that this process queues. If set, the process receives only its
    preferred jobs, because other jobs have another recipe."""

    ordered: bool = False
    """Whether `move` has an effect on this backend."""

    def move(self, tasks: Sequence[Task], where: Move) -> set[str]:
        """Move waiting tasks, keeping their order; return the ids of the jobs that moved.

        They are received before all others (first), after all that wait now (last), or, until they are
        moved again, before or after all tasks of their former priority (higher, lower).
        """
        return set()

    def waiting(self) -> Sequence[str]:
        """Return the ids of the waiting jobs in order; of a long queue only the first, for a page."""
        return ()

    def listen(self, wake: Callable[[], None]) -> None:
        """Register `wake`, to be called whenever a message may have become ready; consumers also poll."""

    def wake(self) -> None:
        """Wake the waiting consumers of this process, for example to let them see their `stop`."""

    @abstractmethod
    def extend(self, delivery: Delivery, seconds: float) -> float:
        """Hide the message for `seconds` from now; return the new deadline in monotonic seconds.

        Raises LeaseLost if the receipt is stale or the service's own limit is reached.
        """

    @abstractmethod
    def ack(self, delivery: Delivery) -> bool:
        """Delete the message; return False if the receipt is stale or already settled."""

    @abstractmethod
    def release(self, delivery: Delivery, *, delay_s: float = 0.0) -> bool:
        """Make the message visible again after `delay_s` seconds; return False as `ack`."""

    @abstractmethod
    def bury(self, delivery: Delivery, why: Bury) -> bool:
        """Move the message to the dead letters with its reason, class, attempts and tail, as `ack`."""

    @abstractmethod
    def depth(self) -> QueueDepth:
        """Count the messages by state."""

    @abstractmethod
    def dead_letters(self, job_id: str | None = None) -> Iterator[DeadLetter]:
        """Yield the dead letters, or those of one job, oldest first, without loading all of them."""

    @abstractmethod
    def purge(self, letter: DeadLetter) -> bool:
        """Delete one dead letter for good; return False if it is gone."""


class TaskPublisher(ABC):
    """Queues the tasks of sources: every named profile gets the task once, or nothing was queued."""

    @abstractmethod
    def publish(
        self, source: Source, profiles: Sequence[str], *, announced: bool
    ) -> list[JobRecord]:
        """Queue the source for each profile; return the jobs as the ledger has them.

        A job that is already settled, queued or running is not queued again. `announced` says
        that the store's own events (S3 notifications) queue the task, so that a backend with such
        events sends nothing. Raises UnknownProfile before anything is queued, Unavailable.
        """

    @abstractmethod
    def requeue(self, job: JobRecord, *, who: str, why: str) -> bool:
        """Reopen a settled job and queue its task, or queue the task of an expired message again.

        Returns False if the job is neither. `who` and `why` go into the ledger. Raises
        UnknownProfile, Unavailable.
        """

    def message_expired(self, job: JobRecord) -> bool:
        """Return whether the job's message is gone because the queue's retention period ended."""
        return False
