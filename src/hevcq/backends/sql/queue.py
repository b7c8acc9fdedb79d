"""Implement the queue and the task publisher in SQL: a claim is one transaction, an ack is durable.

Fair share: each message is assigned to a round ("turn") when it is sent. A task without a group and
the first task of a group join the round after the served one; each further task of a group joins the
round after its predecessor's. Rounds are served in order, and messages within a round in the order of
sending. So a new task waits for the served round and for at most one more task of each group, never
for a whole video. The served round gets no new messages and earlier rounds are not reopened, so no
task starves. Joins are served before all rounds. A claim reads only the head of one index.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hevcq.backends.sql import statements as sql
from hevcq.backends.sql.ledger import change_job, ensure_job, find_job, insert_job, reopen
from hevcq.domain.job import (
    JobRecord,
    JobState,
    Move,
    Source,
    Task,
    TaskKind,
    decide_burial,
    new_job,
)
from hevcq.domain.profile import QueueNumbers
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import BadMessage, LeaseLost, UnknownProfile
from hevcq.ports.queue import DeadLetter, Delivery, Queue, QueueDepth, TaskPublisher
from hevcq.sql.database import Connection, Database
from hevcq.util.clock import Clock

PAGE = 200
POLL_S = 0.5
"""Maximum seconds that a consumer waits before it checks `stop` and messages of other processes."""

OutgoingMessage = tuple[str, str, bool]
"""A message to send: its body, its group, and whether it is served before all rounds."""


def to_messages(tasks: Sequence[Task]) -> list[OutgoingMessage]:
    return [(task.body(), task.group, task.kind is TaskKind.JOIN) for task in tasks]


def send(
    connection: Connection,
    queue: str,
    messages: Sequence[OutgoingMessage],
    *,
    now: float,
    delay_s: float = 0.0,
) -> None:
    """Insert messages, each in its fair-share round, visible after `delay_s` seconds.

    The parts of a video whose task was moved inherit that task's round; a join keeps an earlier one.
    """
    next_turn = _served_turn(connection, queue) + 1
    in_flight = connection.execute(sql.SELECT_MOVED_IN_FLIGHT, (queue,)).fetchall()
    moved = {job_id_of(body): turn for turn, body in in_flight}
    last: dict[str, int] = {}
    state = sql.DELAYED if delay_s > 0 else sql.READY
    rows = []
    for body, group, first in messages:
        turn = sql.FIRST_TURN if first else next_turn
        if (moved_to := moved.get(job_id_of(body)) if moved else None) is not None:
            turn = min(turn, moved_to) if first else moved_to
        elif group and not first:
            if group not in last:
                (last_turn,) = connection.execute(sql.LAST_OF_GROUP, (queue, group)).fetchone()
                last[group] = last_turn or 0
            turn = last[group] = max(next_turn, last[group] + 1)
        rows.append((queue, state, turn, now + max(0.0, delay_s), group, now, body))
    connection.executemany(sql.INSERT_MESSAGE, rows)


def _served_turn(connection: Connection, queue: str) -> int:
    """Return the served round: that of the first message that was never claimed.

    A returned message keeps its old round. New messages must not join it, or they would overtake all
    messages sent since. Messages of a lower priority do not count.
    """
    served = 0
    for turn, attempts in connection.execute(sql.SERVED_TURNS, (queue, sql.MAX_RETURNED_SCANNED)):
        served = turn
        if attempts == 0:
            break
    return served


def job_id_of(body: str) -> str:
    """Return the job id in a message body, or "" if the body cannot be parsed."""
    task = Task.parse_or_none(body)
    return task.job_id if task is not None else ""


class _ReceivesExhausted(Exception):
    """A claim meets a message that must be buried, which needs an exclusive transaction."""


class SqlQueue(Queue):
    """The queue of one profile. Visibility depends on wall time, because processes share the table.

    `owner` marks the messages that this process holds; `reap` is called often and frees the messages of
    dead processes.
    """

    ordered = True

    def __init__(
        self,
        name: str,
        database: Database,
        clock: Clock,
        numbers: QueueNumbers,
        *,
        owner: str,
        reap: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._database, self._clock, self._numbers = database, clock, numbers
        self._owner, self._reap = owner, reap
        self._condition = threading.Condition()
        self._notifications = 0
        self._listeners: list[Callable[[], None]] = []
        self._preferred: set[str] = set()

    def prefer(self, job_id: str) -> None:
        with self._condition:
            self._preferred.add(job_id)

    def move(self, tasks: Sequence[Task], where: Move) -> set[str]:
        """Move waiting messages before or behind all others, or by one step of priority."""
        jobs = {task.job_id for task in tasks}

        def work(connection: Connection) -> list[Any]:
            bodies = [task.body() for task in tasks]
            rows = connection.execute(sql.SELECT_WITH_CHOICES, (self.name, '%,"asked":[%'))
            bodies += [body for (body,) in rows if job_id_of(body) in jobs]
            low, high = connection.execute(sql.TURN_RANGE, (self.name,)).fetchone()
            factor, turn = {
                "first": (0, min(sql.FIRST_TURN, low or 0) - 1),
                "higher": (1, -sql.PRIORITY),
                "lower": (1, sql.PRIORITY),
                "last": (0, (high or 0) + 1),
            }[where]
            moved = []
            for start in range(0, len(bodies), sql.MOVE_BATCH):
                part = bodies[start : start + sql.MOVE_BATCH]
                part += part[-1:] * (sql.MOVE_BATCH - len(part))
                moved += connection.execute(sql.MOVE, (factor, turn, self.name, *part)).fetchall()
            return moved

        return {job_id_of(body) for (body,) in self._database.write(work)}

    def waiting(self) -> list[str]:
        rows = self._database.rows(sql.FIRST_IN_ORDER, (self.name,))
        return list(dict.fromkeys(job_id_of(body) for _, body in rows))

    def listen(self, wake: Callable[[], None]) -> None:
        self._listeners.append(wake)

    def send(self, tasks: Sequence[Task], *, delay_s: float = 0.0) -> None:
        """Insert the tasks in one transaction, then wake consumers of this process."""
        for task in tasks:
            if task.profile != self.name:
                raise BadMessage(f"A task of {task.profile!r} does not belong in {self.name!r}.")
        batch, now = to_messages(tasks), self._clock.now()
        self._database.write(lambda c: send(c, self.name, batch, now=now, delay_s=delay_s))
        self.notify(len(batch))

    def notify(self, count: int = 1) -> None:
        """Wake up to `count` waiting consumers of this process."""
        with self._condition:
            self._notifications += 1
            self._condition.notify(count)
        for wake in self._listeners:
            wake()

    def wake(self) -> None:
        with self._condition:
            self._notifications += 1
            self._condition.notify_all()

    def receive(self, limit: int, *, wait_s: float, stop: threading.Event) -> list[Delivery]:
        """Claim ready messages, or wait for a notification, a deadline or the next poll."""
        end, notified, waited = self._clock.monotonic() + wait_s, False, False
        self._database.listen()
        while True:
            self._reap()
            if waited and stop.is_set():
                return []
            with self._condition:
                seen = self._notifications
            ready, due = (True, None) if notified else self._peek()
            if ready or (due is not None and due <= self._clock.now()):
                deliveries = self._claim(limit)
                if deliveries:
                    return deliveries
            left = end - self._clock.monotonic()
            if stop.is_set() or left <= 0 or limit < 1:
                return []
            waited, notified = True, not notified and self._wait(seen, left, due)

    def _wait(self, seen: int, left: float, due: float | None) -> bool:
        """Wait for a notification or a deadline; return whether a notification came."""
        pause = min(left, POLL_S)
        if due is not None:
            pause = min(pause, max(0.0, due - self._clock.now()))
        with self._condition:
            if self._notifications == seen:
                self._clock.wait_on(self._condition, pause)
            return self._notifications != seen

    def _peek(self) -> tuple[bool, float | None]:
        # Two index lookups on a read connection: an idle consumer never takes the write lock.
        ((ready, due),) = self._database.rows(sql.PEEK, (self.name,))
        return bool(ready), due

    def _claim(self, limit: int) -> list[Delivery]:
        def work(connection: Connection, *, may_bury: bool = False) -> list[Delivery]:
            now = self._clock.now()
            claimed: list[Delivery] = []
            while len(claimed) < limit:
                taken = self._take(connection, limit - len(claimed), now, deadline)
                if not taken:
                    break
                for delivery in taken:
                    if delivery.attempt <= self._numbers.max_receives:
                        claimed.append(delivery)
                    elif may_bury:
                        _bury_exhausted(connection, delivery, now)
                    else:
                        raise _ReceivesExhausted
            return claimed

        deadline = self._clock.monotonic() + self._numbers.visibility_s
        # Not durable: after a power cut the message is received again.
        try:
            return self._database.write(work, durable=False, exclusive=False)
        except _ReceivesExhausted:  # other rows decide whether its job dies too
            return self._database.write(partial(work, may_bury=True), durable=False)

    def _take(
        self, connection: Connection, limit: int, now: float, deadline: float
    ) -> list[Delivery]:
        """Make due messages ready, then claim some in order and hide them for the visibility timeout.

        If messages of preferred jobs are ready, only the first of them is claimed.
        """
        due = (self.name, now, max(sql.MAX_DUE_PER_CLAIM, limit))
        connection.execute(sql.MAKE_READY, due)
        until = now + self._numbers.visibility_s
        first = self._find_preferred(connection)
        if first is not None:
            rows = connection.execute(sql.CLAIM_ONE, (self._owner, until, first)).fetchall()
        elif self.asked:
            rows = []
        else:
            values = (self.name, limit, self._owner, until)
            rows = connection.execute(sql.CLAIM, values).fetchall()
        return [self._delivery(row, deadline) for row in sorted(rows, key=lambda row: row[1::-1])]

    def _find_preferred(self, connection: Connection) -> int | None:
        with self._condition:
            preferred = frozenset(self._preferred)
        waiting = sql.ALL_IN_ORDER if self.asked else sql.IN_ORDER
        rows = connection.execute(waiting, (self.name,)) if preferred else ()
        return next((number for number, body in rows if job_id_of(body) in preferred), None)

    def _delivery(self, row: tuple[Any, ...], deadline: float) -> Delivery:
        number, _turn, attempts, sent_at, body = row
        tasks: tuple[Task, ...] = ()
        problem = ignored = ""
        try:
            task = Task.parse(body)
        except BadMessage as error:
            problem = str(error)
        else:
            tasks = (task,) if task.profile == self.name else ()
            ignored = "" if tasks else f"a task of {task.profile}"
        return Delivery(
            queue=self.name,
            receipt=f"{number}:{attempts}",
            message_id=str(number),
            body=body,
            attempt=attempts,
            deadline=deadline,
            sent_at=sent_at,
            tasks=tasks,
            problem=problem,
            ignored=ignored,
        )

    def extend(self, delivery: Delivery, seconds: float) -> float:
        deadline = self._clock.monotonic() + seconds
        values = (self._clock.now() + seconds, self._owner, *_receipt(delivery))
        if not self._change(sql.EXTEND, values, durable=False):
            raise LeaseLost(f"The receipt of message {delivery.message_id} is stale.")
        return deadline

    def ack(self, delivery: Delivery) -> bool:
        return self._change(sql.ACK, _receipt(delivery))

    def release(self, delivery: Delivery, *, delay_s: float = 0.0) -> bool:
        state = sql.DELAYED if delay_s > 0 else sql.READY
        visible_at = self._clock.now() + max(0.0, delay_s)
        released = self._change(sql.RELEASE, (state, visible_at, *_receipt(delivery)))
        if released:
            self.notify()
        return released

    def bury(self, delivery: Delivery, why: Bury) -> bool:
        receipt, now = _receipt(delivery), self._clock.now()
        return self._database.write(lambda c: _bury(c, receipt, why, now))

    def _change(self, statement: str, values: tuple[Any, ...], *, durable: bool = True) -> bool:
        return self._database.change(statement, values, durable=durable, exclusive=False) == 1

    def depth(self) -> QueueDepth:
        """Count messages by an index. The age is that of the queue's head, which may not be the oldest."""
        now = self._clock.now()
        (row,) = self._database.rows(sql.COUNT, (self.name, now))
        ready, due, held, delayed, dead, *heads = row
        sent = [at for at in heads if at is not None]
        oldest = max(0.0, now - min(sent)) if sent else None
        return QueueDepth(ready + due, held, delayed, dead, oldest)

    def dead_letters(self, job_id: str | None = None) -> Iterator[DeadLetter]:
        """Page through the dead letters by id, so that they can be purged during the listing."""
        values: dict[str, Any] = {"queue": self.name, "after": 0, "job": job_id, "page": PAGE}
        while rows := self._database.rows(sql.SELECT_LETTERS, values):
            for row in rows:
                yield _letter(self.name, row)
            values["after"] = rows[-1][0]

    def purge(self, letter: DeadLetter) -> bool:
        return self._change(sql.DELETE_LETTER, (int(letter.letter_id), self.name))


def _receipt(delivery: Delivery) -> tuple[int, int]:
    """Return the message number and the attempt of a delivery."""
    number, _, attempt = delivery.receipt.partition(":")
    return int(number), int(attempt)


def _bury(connection: Connection, receipt: tuple[int, int], why: Bury, now: float) -> bool:
    """Move a received message to the dead letters; return False if the receipt is stale."""
    row = connection.execute(sql.DELETE_HELD, receipt).fetchone()
    if row is None:
        return False
    queue, body, attempts, group = row
    cause = (why.reason, why.failure_class, attempts, json.dumps(list(why.tail)))
    connection.execute(sql.INSERT_DEAD_LETTER, (queue, body, job_id_of(body), *cause, group, now))
    return True


def _bury_exhausted(connection: Connection, delivery: Delivery, now: float) -> None:
    """Bury a message that reached the receive limit, and its job with it; do not count this receive.

    While a worker holds a lease on the job, the message waits for the lease's end: if the worker dies
    meanwhile, nothing else would end the job. The message of a subjob also ends the job, if the job still
    has this split. A message of a done job leaves no dead letter.
    """
    number, received = int(delivery.message_id), delivery.attempt - 1
    task = Task.parse_or_none(delivery.body)
    connection.execute(sql.SET_ATTEMPTS, (received, received, number))
    unit = find_job(connection, task.unit_id) if task else None
    if unit is not None and unit.state is JobState.RUNNING and unit.lease_until > now:
        connection.execute(sql.RELEASE, (sql.DELAYED, unit.lease_until, number, received))
        return
    reason = f"Received {received} times without being settled."
    why = Bury(reason=reason, failure_class=FailureClass.RECEIVES)
    _bury(connection, (number, received), why, now)
    if task is None:
        return
    job = find_job(connection, task.job_id)
    change = decide_burial(job, reason, why.failure_class, now) if job else None
    if change is not None:
        change_job(connection, task.job_id, change)
    values = {"job_id": task.job_id, "reason": reason, "class": why.failure_class, "now": now}
    connection.execute(sql.BURY_SPLIT_JOB, {**values, "part": task.unit_id, "split": task.split})
    connection.execute(sql.DELETE_OBSOLETE_LETTERS, values)


def _letter(queue: str, row: tuple[Any, ...]) -> DeadLetter:
    number, body, reason, failure_class, attempts, tail, buried_at = row
    return DeadLetter(
        letter_id=str(number),
        queue=queue,
        body=body,
        reason=reason,
        failure_class=FailureClass(failure_class),
        attempts=attempts,
        tail=tuple(json.loads(tail)),
        buried_at=buried_at,
        task=Task.parse_or_none(body),
    )


class SqlTaskPublisher(TaskPublisher):
    """Insert jobs and messages in one transaction, then wake the consumers of the queues."""

    def __init__(self, database: Database, clock: Clock, queues: Mapping[str, SqlQueue]) -> None:
        self._database, self._clock, self._queues = database, clock, queues

    def publish(
        self,
        source: Source,
        profiles: Sequence[str],
        *,
        announced: bool,  # noqa: ARG002 - files send no notifications, so tasks are always sent
    ) -> list[JobRecord]:
        """Insert each missing job together with its task."""
        for profile in profiles:
            self._queue_of(profile)
        now = self._clock.now()
        new: list[str] = []

        def work(connection: Connection) -> list[JobRecord]:
            new.clear()
            for profile in profiles:
                if insert_job(connection, new_job(source, profile, now)):
                    new.append(profile)
                    asked = self._queues[profile].asked
                    task = to_messages([Task(source=source, profile=profile, asked=asked)])
                    send(connection, profile, task, now=now)
            return [ensure_job(connection, source, profile, now) for profile in profiles]

        jobs = self._database.write(work)
        for profile in new:
            self._queues[profile].notify()
        return jobs

    def requeue(self, job: JobRecord, *, who: str, why: str) -> bool:
        """Reopen the job and send its task in one transaction; return False if it is not settled."""
        queue, now = self._queue_of(job.profile), self._clock.now()
        task = to_messages([Task(source=job.source, profile=job.profile, asked=queue.asked)])

        def work(connection: Connection) -> bool:
            if not reopen(connection, job.job_id, who, why, now):
                return False
            send(connection, job.profile, task, now=now)
            return True

        sent = self._database.write(work)
        if sent:
            queue.notify()
        return sent

    def _queue_of(self, profile: str) -> SqlQueue:
        if profile not in self._queues:
            raise UnknownProfile(
                f"There is no queue for the profile {profile!r}.",
                remedy="Restart this process if the profile is new; or choose another profile.",
            )
        return self._queues[profile]
