"""Implement the queue and the task publisher in SQLite: a claim is one transaction, an ack is durable."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hevcq.backends.embedded.jobs import tables
from hevcq.backends.embedded.jobs.ledger import BURY_UNCLAIMED, reopen
from hevcq.backends.embedded.jobs.tables import ClaimedMessage, Receipt
from hevcq.domain.job import JobRecord, Source, Task
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import BadMessage, LeaseLost, UnknownProfile
from hevcq.ports.queue import DeadLetter, Delivery, Queue, QueueDepth, Selection, TaskPublisher
from hevcq.sqlite.database import Database
from hevcq.util.clock import Clock

PAGE = 200
SLICE_S = 0.5
"""Maximum seconds a consumer waits before it checks `stop` and messages of other processes."""

PEEK_PARTS = """SELECT EXISTS (SELECT 1 FROM message WHERE queue = ?1 AND state = 0
AND (grp <> '' OR turn = 0)), (SELECT MIN(visible_at) FROM message WHERE queue = ?1 AND state > 0
AND (grp <> '' OR turn = 0))"""
PEEK = """SELECT EXISTS (SELECT 1 FROM message WHERE queue = ?1 AND state = 0),
(SELECT MIN(visible_at) FROM message WHERE queue = ?1 AND state > 0)"""
COUNT = """SELECT
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state = 0),
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state > 0 AND visible_at <= ?2),
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state > 0 AND state = 1 AND visible_at > ?2),
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state > 0 AND state = 2 AND visible_at > ?2),
(SELECT COUNT(*) FROM dead_letter WHERE queue = ?1),
(SELECT sent_at FROM message WHERE queue = ?1 AND state = 0 ORDER BY turn, id LIMIT 1),
(SELECT sent_at FROM message WHERE queue = ?1 AND state > 0 ORDER BY visible_at LIMIT 1)"""
LETTERS = """SELECT id, body, reason, failure_class, attempts, tail, buried_at FROM dead_letter
WHERE queue = :queue AND id > :after AND (:class IS NULL OR failure_class = :class)
AND (:job IS NULL OR job_id = :job) AND (:before IS NULL OR buried_at < :before)
ORDER BY id LIMIT :page"""
PURGE = "DELETE FROM dead_letter WHERE id = ? AND queue = ?"


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """The settings of a queue, from its profile.

    `visibility_s` is seconds.
    """

    visibility_s: float
    max_receives: int


class SqliteQueue(Queue):
    """The queue of one profile. Visibility depends on wall time, since processes share the table.

    `owner` marks the messages this process has received; `reap` is called often and releases those
    of dead processes.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        clock: Clock,
        config: QueueConfig,
        *,
        owner: str,
        reap: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._database = database
        self._clock = clock
        self._config = config
        self._owner = owner
        self._reap = reap
        self._condition = threading.Condition()
        self._notifications = 0
        self._listeners: list[Callable[[], None]] = []
        self._preferred: set[str] = set()
        self._parts_only = False

    def prefer(self, job_id: str) -> None:
        """Remember the job; see `tables.claim_messages`."""
        with self._condition:
            self._preferred.add(job_id)

    picks_parts = True

    def only_parts(self, *, wanted: bool) -> None:
        """Claim only parts of split videos from now on, or all messages."""
        self._parts_only = wanted

    def listen(self, wake: Callable[[], None]) -> None:
        """Register a `wake` callback for when messages may be ready, for slots with several queues."""
        self._listeners.append(wake)

    def send(self, tasks: Sequence[Task], *, delay_s: float = 0.0) -> None:
        """Insert the tasks in one transaction, then wake consumers of this process.

        Raises BadMessage if a task belongs to another profile.
        """
        for task in tasks:
            if task.profile != self.name:
                raise BadMessage(f"A task of {task.profile!r} does not belong in {self.name!r}.")
        batch, now = tables.outgoing(tasks), self._clock.now()

        def work(connection: sqlite3.Connection) -> None:
            tables.send(connection, self.name, batch, now=now, delay_s=delay_s)

        self._database.write(work)
        self.notify(len(batch))

    def notify(self, count: int = 1) -> None:
        """Wake up to `count` waiting consumers of this process."""
        with self._condition:
            self._notifications += 1
            self._condition.notify(count)
        for wake in self._listeners:
            wake()

    def wake(self) -> None:
        """Wake every waiting consumer of this process."""
        with self._condition:
            self._notifications += 1
            self._condition.notify_all()

    def receive(self, limit: int, *, wait_s: float, stop: threading.Event) -> list[Delivery]:
        """Claim ready messages at once, or else wait for a notification, a deadline or the next poll."""
        end, notified, waited = self._clock.monotonic() + wait_s, False, False
        while True:
            self._reap()
            if waited and stop.is_set():
                return []
            with self._condition:
                seen = self._notifications
            ready, due = (True, None) if notified else self._peek()
            if ready or (due is not None and due <= self._clock.now()):
                found = self._claim(limit)
                if found:
                    return found
            left = end - self._clock.monotonic()
            if stop.is_set() or left <= 0 or limit < 1:
                return []
            waited, notified = True, not notified and self._wait(seen, left, due)

    def _wait(self, seen: int, left: float, due: float | None) -> bool:
        """Wait for a notification or a deadline; return whether one came, to save a query."""
        pause = min(left, SLICE_S)
        if due is not None:
            pause = min(pause, max(0.0, due - self._clock.now()))
        with self._condition:
            if self._notifications == seen:
                self._clock.wait_on(self._condition, pause)
            return self._notifications != seen

    def _peek(self) -> tuple[bool, float | None]:
        # Two index lookups on a read connection: an idle consumer never takes the write lock.
        sql = PEEK_PARTS if self._parts_only else PEEK
        ((ready, due),) = self._database.rows(sql, (self.name,))
        return bool(ready), due

    def _claim(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        with self._condition:
            preferred = frozenset(self._preferred)

        def work(connection: sqlite3.Connection) -> list[ClaimedMessage]:
            now = self._clock.now()
            kept: list[ClaimedMessage] = []
            while len(kept) < limit:
                order = tables.Order(
                    self.name, limit - len(kept), self._owner, preferred, self._parts_only
                )
                until = now + self._config.visibility_s
                taken = tables.claim_messages(connection, order, now=now, until=until)
                if not taken:
                    break
                for one in taken:
                    if one.attempts > self._config.max_receives:
                        self._bury_exhausted(connection, one, now)
                    else:
                        kept.append(one)
            return kept

        deadline = self._clock.monotonic() + self._config.visibility_s
        # Not durable: after a power cut the message is simply received again.
        taken = self._database.write(work, durable=False)
        found.extend(self._delivery(one, deadline) for one in taken)
        return found

    @staticmethod
    def _bury_exhausted(connection: sqlite3.Connection, taken: ClaimedMessage, now: float) -> None:
        """Bury the message and also its job, unless another worker holds a live lease on the job.

        The message of a subjob ends the job likewise if the job still has this split. The message
        of a done job leaves no dead letter.
        """
        why, task = (
            tables.bury_exhausted(connection, taken, now=now),
            tables.task_of(taken.body),
        )
        if task is None:
            return
        values = {
            "job_id": task.job_id,
            "reason": why.reason,
            "class": why.failure_class,
            "now": now,
            "dead": None,
        }
        connection.execute(BURY_UNCLAIMED, values)
        part = {**values, "part": task.unit_id, "split": task.split}
        connection.execute(tables.BURY_SPLIT_JOB, part)
        tables.delete_obsolete_letters(connection, task.job_id)

    def _delivery(self, taken: ClaimedMessage, deadline: float) -> Delivery:
        tasks: tuple[Task, ...] = ()
        problem = ignored = ""
        try:
            task = Task.parse(taken.body)
        except BadMessage as error:
            problem = str(error)
        else:
            tasks = (task,) if task.profile == self.name else ()
            ignored = "" if tasks else f"a task of {task.profile}"
        return Delivery(
            queue=self.name,
            receipt=f"{taken.number}:{taken.attempts}",
            message_id=str(taken.number),
            body=taken.body,
            attempt=taken.attempts,
            deadline=deadline,
            sent_at=taken.sent_at,
            tasks=tasks,
            problem=problem,
            ignored=ignored,
        )

    def extend(self, delivery: Delivery, seconds: float) -> float:
        """Extend the visibility timeout to `seconds` from now.

        Raises LeaseLost if the receipt is stale.
        """
        receipt = _receipt(delivery)
        deadline = self._clock.monotonic() + seconds
        values = (self._clock.now() + seconds, self._owner, receipt.number, receipt.held)
        if not self._change(tables.EXTEND, values, durable=False):
            raise LeaseLost(f"The receipt of message {delivery.message_id} is stale.")
        return deadline

    def ack(self, delivery: Delivery) -> bool:
        """Delete the message durably."""
        receipt = _receipt(delivery)
        return self._change(tables.ACK, (receipt.number, receipt.held))

    def release(self, delivery: Delivery, *, delay_s: float = 0.0) -> bool:
        """Return the message to the queue, visible after `delay_s` seconds, and wake a consumer."""
        receipt = _receipt(delivery)
        state = tables.DELAYED if delay_s > 0 else tables.READY
        visible_at = self._clock.now() + max(0.0, delay_s)
        values = (state, visible_at, receipt.number, receipt.held)
        given = self._change(tables.RELEASE, values)
        if given:
            self.notify()
        return given

    def bury(self, delivery: Delivery, why: Bury) -> bool:
        """Move the message to the dead letters in one transaction."""
        receipt, now = _receipt(delivery), self._clock.now()
        return self._database.write(lambda c: tables.bury(c, receipt, why, now=now))

    def _change(self, sql: str, values: tuple[Any, ...], *, durable: bool = True) -> bool:
        return self._database.change(sql, values, durable=durable) == 1

    def depth(self) -> QueueDepth:
        """Count by index; the oldest is the head of the queue, so its age is approximate."""
        now = self._clock.now()
        (row,) = self._database.rows(COUNT, (self.name, now))
        ready, due, held, delayed, dead, *heads = row
        sent = [at for at in heads if at is not None]
        oldest = max(0.0, now - min(sent)) if sent else None
        return QueueDepth(ready + due, held, delayed, dead, oldest)

    def dead_letters(self, selection: Selection) -> Iterator[DeadLetter]:
        """Page through the dead letters by id, so that they can be redriven during the listing."""
        left = selection.limit
        values: dict[str, Any] = {
            "queue": self.name,
            "after": 0,
            "class": selection.failure_class,
            "job": selection.job_id,
            "before": selection.buried_before,
        }
        while left is None or left > 0:
            values["page"] = PAGE if left is None else min(PAGE, left)
            rows = self._database.rows(LETTERS, values)
            if not rows:
                return
            for row in rows:
                yield _letter(self.name, row)
            values["after"] = rows[-1][0]
            left = None if left is None else left - len(rows)

    def redrive(self, letter: DeadLetter) -> bool:
        """Delete the letter and insert a new message in one transaction."""
        number, now = int(letter.letter_id), self._clock.now()
        sent = self._database.write(lambda c: tables.redrive(c, self.name, number, now=now))
        if sent:
            self.notify()
        return sent

    def purge(self, letter: DeadLetter) -> bool:
        return self._change(PURGE, (int(letter.letter_id), self.name))


def _receipt(delivery: Delivery) -> Receipt:
    number, _, held = delivery.receipt.partition(":")
    return Receipt(int(number), int(held))


def _letter(queue: str, row: tuple[Any, ...]) -> DeadLetter:
    number, body, reason, failure_class, attempts, tail, buried_at = row
    try:
        task = Task.parse(body)
    except BadMessage:
        task = None
    return DeadLetter(
        letter_id=str(number),
        queue=queue,
        body=body,
        reason=reason,
        failure_class=FailureClass(failure_class),
        attempts=attempts,
        tail=tuple(json.loads(tail)),
        buried_at=buried_at,
        task=task,
    )


class SqliteTaskPublisher(TaskPublisher):
    """Insert jobs and messages atomically, then wake the consumers of the queues."""

    def __init__(self, database: Database, clock: Clock, queues: Mapping[str, SqliteQueue]) -> None:
        self._database = database
        self._clock = clock
        self._queues = queues

    def publish(
        self,
        source: Source,
        profiles: Sequence[str],
        *,
        announced: bool,  # noqa: ARG002 - files send no notifications, so tasks are always sent
    ) -> list[JobRecord]:
        """Insert the missing jobs, each with a task.

        Raises UnknownProfile before it writes anything.
        """
        for profile in profiles:
            self._known(profile)
        now = self._clock.now()
        new: list[str] = []

        def work(connection: sqlite3.Connection) -> list[JobRecord]:
            new.clear()
            for profile in profiles:
                if tables.insert_job(connection, source, profile, now):
                    new.append(profile)
                    task = tables.outgoing([Task(source=source, profile=profile)])
                    tables.send(connection, profile, task, now=now)
            return [tables.ensured_job(connection, source, profile, now) for profile in profiles]

        found = self._database.write(work)
        for profile in new:
            self._queues[profile].notify()
        return found

    def requeue(self, job: JobRecord, *, who: str, why: str) -> bool:
        """Reopen the job and send its task in one transaction; return False if it is not settled."""
        queue, now = self._known(job.profile), self._clock.now()
        task = tables.outgoing([Task(source=job.source, profile=job.profile)])

        def work(connection: sqlite3.Connection) -> bool:
            if not reopen(connection, job.job_id, who, why, now):
                return False
            tables.send(connection, job.profile, task, now=now)
            return True

        sent = self._database.write(work)
        if sent:
            queue.notify()
        return sent

    def _known(self, profile: str) -> SqliteQueue:
        if profile not in self._queues:
            raise UnknownProfile(
                f"There is no queue for the profile {profile!r}.",
                remedy="Restart this process if the profile is new; or choose another profile.",
            )
        return self._queues[profile]
