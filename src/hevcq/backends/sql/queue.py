"""Implement the queue and the task publisher in SQLite: a claim is one transaction, an ack is durable.

Fair share: each message is assigned to a round ("turn") when it is sent. A task without a group
and the first task of a group join the round after the one being served; each further task of a
group joins the round after that of its predecessor. Rounds are served in order, and messages within
a round in the order of sending. A new task thus waits for the served round and at most one more
task of each group, never for a whole video. The served round gets no new messages and earlier rounds are not
reopened, so no task starves. Joins are served before all rounds. A claim still reads only the head of one index.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hevcq.backends.sql import statements as sql
from hevcq.backends.sql.ledger import change_job, ensured_job, find_job, insert_job, reopen
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
SLICE_S = 0.5
"""Maximum seconds a consumer waits before it checks `stop` and messages of other processes."""

Outgoing = tuple[str, str, bool]
"""A message to send: its body, its group, and whether it is served before all rounds."""


def outgoing(tasks: Sequence[Task]) -> list[Outgoing]:
    return [(task.body(), task.group, task.kind is TaskKind.JOIN) for task in tasks]


def send(
    connection: Connection,
    queue: str,
    messages: Sequence[Outgoing],
    *,
    now: float,
    delay_s: float = 0.0,
) -> None:
    """Insert messages, each in its fair-share round, visible after `delay_s` seconds.

    The parts of a video whose task was moved have the place of that task, or a better one.
    """
    joining = _served(connection, queue) + 1
    held = connection.execute(sql.MOVED_IN_HAND, (queue,)).fetchall()
    moved = {job_of(body): turn for turn, body in held}
    last: dict[str, int] = {}
    state = sql.DELAYED if delay_s > 0 else sql.READY
    rows = []
    for body, group, first in messages:
        turn = sql.FIRST if first else joining
        if (place := moved.get(job_of(body)) if moved else None) is not None:
            turn = min(turn, place) if first else place
        elif group and not first:
            if group not in last:
                found = connection.execute(sql.LAST_OF_GROUP, (queue, group)).fetchone()[0]
                last[group] = found or 0
            turn = last[group] = max(joining, last[group] + 1)
        rows.append((queue, state, turn, now + max(0.0, delay_s), group, now, body))
    connection.executemany(sql.INSERT_MESSAGE, rows)


def _served(connection: Connection, queue: str) -> int:
    """Return the served round, which is the round of the first message that was never claimed.

    A returned message keeps its old round. New messages must not join that round, or they would
    overtake all messages sent since. Those of a lower priority wait behind all rounds.
    """
    served = 0
    for turn, attempts in connection.execute(sql.HEAD, (queue, sql.MAX_RETURNED_SCANNED)):
        served = turn
        if attempts == 0:
            break
    return served


def job_of(body: str) -> str:
    """Return the job id in a message body, or an empty string if it cannot be read."""
    task = Task.parse_or_none(body)
    return task.job_id if task is not None else ""


class _Exhausted(Exception):
    """A message is to be buried, which its claim must decide alone."""


class SqlQueue(Queue):
    """The queue of one profile. Visibility depends on wall time, since processes share the table.

    `owner` marks the messages this process has received; `reap` is called often and releases those
    of dead processes.
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
        """Give messages a round below FIRST or after every other, or the same one of another priority."""
        jobs = {task.job_id for task in tasks}

        def work(connection: Connection) -> list[Any]:
            chosen = connection.execute(sql.WITH_A_CHOICE, (self.name, '%,"asked":[%')).fetchall()
            bodies = [task.body() for task in tasks]
            bodies += [body for (body,) in chosen if job_of(body) in jobs]
            low, high = connection.execute(sql.ROUNDS, (self.name,)).fetchone()
            factor, turn = {
                "first": (0, min(sql.FIRST, low or 0) - 1),
                "higher": (1, -sql.PRIORITY),
                "lower": (1, sql.PRIORITY),
                "last": (0, (high or 0) + 1),
            }[where]
            moved = []
            for start in range(0, len(bodies), sql.MOVED_AT_ONCE):
                part = bodies[start : start + sql.MOVED_AT_ONCE]
                part += part[-1:] * (sql.MOVED_AT_ONCE - len(part))
                moved += connection.execute(sql.MOVE, (factor, turn, self.name, *part)).fetchall()
            return moved

        return {job_of(body) for (body,) in self._database.write(work)}

    def waiting(self) -> list[str]:
        rows = self._database.rows(sql.FIRST_IN_ORDER, (self.name,))
        return list(dict.fromkeys(job_of(body) for _, body in rows))

    def listen(self, wake: Callable[[], None]) -> None:
        self._listeners.append(wake)

    def send(self, tasks: Sequence[Task], *, delay_s: float = 0.0) -> None:
        """Insert the tasks in one transaction, then wake consumers of this process."""
        for task in tasks:
            if task.profile != self.name:
                raise BadMessage(f"A task of {task.profile!r} does not belong in {self.name!r}.")
        batch, now = outgoing(tasks), self._clock.now()
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
        """Claim ready messages at once, or else wait for a notification, a deadline or the next poll."""
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
        ((ready, due),) = self._database.rows(sql.PEEK, (self.name,))
        return bool(ready), due

    def _claim(self, limit: int) -> list[Delivery]:
        def work(connection: Connection, *, alone: bool = False) -> list[Delivery]:
            now = self._clock.now()
            kept: list[Delivery] = []
            while len(kept) < limit:
                taken = self._take(connection, limit - len(kept), now, deadline)
                if not taken:
                    break
                for one in taken:
                    if one.attempt > self._numbers.max_receives:
                        if not alone:
                            raise _Exhausted
                        _bury_exhausted(connection, one, now)
                    else:
                        kept.append(one)
            return kept

        deadline = self._clock.monotonic() + self._numbers.visibility_s
        # Not durable: after a power cut the message is simply received again.
        try:
            return self._database.write(work, durable=False, exclusive=False)
        except _Exhausted:  # whether its job dies with it is decided by other rows
            return self._database.write(partial(work, alone=True), durable=False)

    def _take(
        self, connection: Connection, limit: int, now: float, deadline: float
    ) -> list[Delivery]:
        """Make due messages ready, then claim some in order, hidden until the visibility timeout.

        If a message of a preferred job is ready, only the first such message is claimed.
        """
        due = (self.name, now, max(sql.MAX_DUE_PER_CLAIM, limit))
        connection.execute(sql.MAKE_READY, due)
        until = now + self._numbers.visibility_s
        first = self._first_preferred(connection)
        if first is not None:
            rows = connection.execute(sql.CLAIM_ONE, (self._owner, until, first)).fetchall()
        elif self.asked:
            rows = []
        else:
            values = (self.name, limit, self._owner, until)
            rows = connection.execute(sql.CLAIM, values).fetchall()
        return [self._delivery(row, deadline) for row in sorted(rows, key=lambda row: row[1::-1])]

    def _first_preferred(self, connection: Connection) -> int | None:
        with self._condition:
            preferred = frozenset(self._preferred)
        waiting = sql.ALL_IN_ORDER if self.asked else sql.IN_ORDER
        rows = connection.execute(waiting, (self.name,)) if preferred else ()
        return next((number for number, body in rows if job_of(body) in preferred), None)

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
        given = self._change(sql.RELEASE, (state, visible_at, *_receipt(delivery)))
        if given:
            self.notify()
        return given

    def bury(self, delivery: Delivery, why: Bury) -> bool:
        receipt, now = _receipt(delivery), self._clock.now()
        return self._database.write(lambda c: _bury(c, receipt, why, now))

    def _change(self, statement: str, values: tuple[Any, ...], *, durable: bool = True) -> bool:
        return self._database.change(statement, values, durable=durable, exclusive=False) == 1

    def depth(self) -> QueueDepth:
        """Count by index; the oldest is the head of the queue, so its age is approximate."""
        now = self._clock.now()
        (row,) = self._database.rows(sql.COUNT, (self.name, now))
        ready, due, held, delayed, dead, *heads = row
        sent = [at for at in heads if at is not None]
        oldest = max(0.0, now - min(sent)) if sent else None
        return QueueDepth(ready + due, held, delayed, dead, oldest)

    def dead_letters(self, job_id: str | None = None) -> Iterator[DeadLetter]:
        """Page through the dead letters by id, so that they can be purged during the listing."""
        values: dict[str, Any] = {"queue": self.name, "after": 0, "job": job_id, "page": PAGE}
        while rows := self._database.rows(sql.LETTERS, values):
            for row in rows:
                yield _letter(self.name, row)
            values["after"] = rows[-1][0]

    def purge(self, letter: DeadLetter) -> bool:
        return self._change(sql.PURGE, (int(letter.letter_id), self.name))


def _receipt(delivery: Delivery) -> tuple[int, int]:
    """Return the message's number and the attempt that this receive is."""
    number, _, held = delivery.receipt.partition(":")
    return int(number), int(held)


def _bury(connection: Connection, receipt: tuple[int, int], why: Bury, now: float) -> bool:
    """Move a received message to the dead letters; return False if the receipt is stale."""
    row = connection.execute(sql.REMOVE, receipt).fetchone()
    if row is None:
        return False
    queue, body, attempts, group = row
    tail = json.dumps(list(why.tail))
    letter = (queue, body, job_of(body), why.reason, why.failure_class, attempts, tail, group, now)
    connection.execute(sql.INSERT_DEAD_LETTER, letter)
    return True


def _bury_exhausted(connection: Connection, taken: Delivery, now: float) -> None:
    """Bury a message that reached the receive limit; this receive is not counted.

    Its job dies with it. While a worker holds a lease on the job, the message waits for its end: nobody
    else would end a job whose worker died in between. The message of a subjob ends the job likewise if
    the job still has this split. That of a done job leaves no dead letter.
    """
    number, received, task = (
        int(taken.message_id),
        taken.attempt - 1,
        Task.parse_or_none(taken.body),
    )
    connection.execute(sql.UNCOUNT, (received, received, number))
    held = find_job(connection, task.unit_id) if task else None
    if held is not None and held.state is JobState.RUNNING and held.lease_until > now:
        connection.execute(sql.RELEASE, (sql.DELAYED, held.lease_until, number, received))
        return
    reason = f"Received {received} times without being settled."
    why = Bury(reason=reason, failure_class=FailureClass.RECEIVES)
    _bury(connection, (number, received), why, now)
    if task is None:
        return
    found = find_job(connection, task.job_id)
    change = decide_burial(found, reason, why.failure_class, now) if found else None
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
    """Insert jobs and messages atomically, then wake the consumers of the queues."""

    def __init__(self, database: Database, clock: Clock, queues: Mapping[str, SqlQueue]) -> None:
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
        """Insert the missing jobs, each with a task."""
        for profile in profiles:
            self._known(profile)
        now = self._clock.now()
        new: list[str] = []

        def work(connection: Connection) -> list[JobRecord]:
            new.clear()
            for profile in profiles:
                if insert_job(connection, new_job(source, profile, now)):
                    new.append(profile)
                    asked = self._queues[profile].asked
                    task = outgoing([Task(source=source, profile=profile, asked=asked)])
                    send(connection, profile, task, now=now)
            return [ensured_job(connection, source, profile, now) for profile in profiles]

        found = self._database.write(work)
        for profile in new:
            self._queues[profile].notify()
        return found

    def requeue(self, job: JobRecord, *, who: str, why: str) -> bool:
        """Reopen the job and send its task in one transaction; return False if it is not settled."""
        queue, now = self._known(job.profile), self._clock.now()
        task = outgoing([Task(source=job.source, profile=job.profile, asked=queue.asked)])

        def work(connection: Connection) -> bool:
            if not reopen(connection, job.job_id, who, why, now):
                return False
            send(connection, job.profile, task, now=now)
            return True

        sent = self._database.write(work)
        if sent:
            queue.notify()
        return sent

    def _known(self, profile: str) -> SqlQueue:
        if profile not in self._queues:
            raise UnknownProfile(
                f"There is no queue for the profile {profile!r}.",
                remedy="Restart this process if the profile is new; or choose another profile.",
            )
        return self._queues[profile]
