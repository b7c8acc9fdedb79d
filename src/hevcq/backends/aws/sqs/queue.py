"""The queue port over SQS: `<prefix><profile>` and its dead letters in `<prefix><profile>-dlq`."""

from __future__ import annotations

import hashlib
import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.clients import MAX_WAIT_S, Clients
from hevcq.backends.aws.errors import translate_errors
from hevcq.backends.aws.sqs import letter, message_parser
from hevcq.backends.aws.sqs.dead_letters import DeadLetterQueue
from hevcq.backends.aws.sqs.queue_urls import QueueUrls
from hevcq.backends.aws.sqs.receipts import Receipt, ReceiptBook
from hevcq.domain.job import Task
from hevcq.domain.profile import Profile
from hevcq.domain.verdict import Bury
from hevcq.errors import HevcqError, LeaseLost, Unavailable
from hevcq.ports.queue import DeadLetter, Delivery, Depth, Queue, Selection
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.retry import Waiting, retry_control_call

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

BATCH = 10
"""SQS's largest batch, for receives and sends."""
MAX_DELAY_S = 900
"""SQS's longest delay of a new message."""
GONE: Mapping[str, tuple[type[HevcqError], str]] = {
    "InvalidParameterValue": (LeaseLost, "the receipt is stale or at the 12 hour limit"),
}
"""What SQS also answers to a visibility call that comes too late."""

_log = get_logger()


class SqsQueue(Queue):
    """One profile's queue on SQS.

    A receipt is stale past its deadline, whatever SQS says (see `held`). A receive never takes
    more than `limit`, because what waits in a local buffer runs out of its visibility there.
    Acknowledgements go out one by one: jobs take minutes, and `ack` promises that the delete has
    happened. Each queue's URL is looked up at first use, so that a worker needs rights on its own
    queue only.
    """

    long_poll_s = float(MAX_WAIT_S)

    def __init__(
        self,
        clients: Clients,
        prefix: str,
        profile: Profile,
        recipient: message_parser.Recipient,
        clock: Clock,
    ) -> None:
        self.name = profile.name
        self._sqs, self._polls = clients.sqs, clients.polls
        self._visibility_s = profile.queue.visibility_s
        self._recipient, self._clock = recipient, clock
        self._at = QueueUrls(clients.sqs, prefix + profile.name)
        self._leases = ReceiptBook()
        self._desk = DeadLetterQueue(clients, self._at, profile, clock, self._task_of)

    def check(self) -> None:
        """Raise ConfigError unless the queue and its dead-letter queue exist."""
        _ = self._at.main, self._at.dead

    def close(self) -> None:
        """Give back the dead letters that a listing still holds."""
        try:
            self._desk.give_back()
        except Unavailable as error:
            _log.info("dead_letters_come_back_later", queue=self.name, why=str(error))

    def send(self, tasks: Sequence[Task], *, delay_s: float = 0.0) -> None:
        """Put tasks in the queue; a delay above SQS's 15 minutes becomes 15 minutes."""
        delay = min(MAX_DELAY_S, math.ceil(delay_s))
        for start in range(0, len(tasks), BATCH):
            entries = [
                {"Id": str(n), "MessageBody": task.body(), "DelaySeconds": delay, **_group(task)}
                for n, task in enumerate(tasks[start : start + BATCH])
            ]
            self._send_batch(entries)

    def _send_batch(self, entries: Sequence[Mapping[str, Any]]) -> None:
        with translate_errors(f"send to the queue {self._at.name}"):
            url = self._at.main
            answer = self._sqs.send_message_batch(QueueUrl=url, Entries=list(entries))  # type: ignore[arg-type]
        failed = answer.get("Failed", [])
        if failed:
            raise Unavailable(
                f"SQS took {len(entries) - len(failed)} of {len(entries)} messages for "
                f"{self._at.name}: {failed[0].get('Message', failed[0]['Code'])}."
            )

    def receive(self, limit: int, *, wait_s: float, stop: threading.Event) -> list[Delivery]:
        """Take at most `limit` (and 10) deliveries, waiting up to `wait_s` (and 20 s).

        A poll that is under way is never cut off, because SQS would still hand out its messages:
        a stop waits for it. It is not repeated by itself either (see Clients.polls).
        """
        if limit < 1 or stop.is_set():
            return []
        wait = min(MAX_WAIT_S, max(0, math.ceil(wait_s)))
        asked = self._clock.monotonic()
        with translate_errors(f"receive from the queue {self._at.name}"):
            answer = self._polls.receive_message(
                QueueUrl=self._at.main,
                MaxNumberOfMessages=min(limit, BATCH),
                WaitTimeSeconds=wait,
                VisibilityTimeout=self._visibility_s,
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            )
        now = self._clock.monotonic()
        # Handed out after the question and at the end of the poll at latest; what took longer than
        # that was spent on the way back, while the visibility timeout was running already.
        handed_out = min(now, asked + wait)
        return [self._delivery(message, handed_out, now) for message in answer.get("Messages", [])]

    def _delivery(self, message: MessageTypeDef, handed_out: float, now: float) -> Delivery:
        receipt, body = message["ReceiptHandle"], message["Body"]
        lease = Receipt(received_at=handed_out, deadline=handed_out + self._visibility_s)
        self._leases.add(receipt, lease, now)
        reading = message_parser.read(body, self._recipient)
        facts = message.get("Attributes", {})
        return Delivery(
            queue=self.name,
            receipt=receipt,
            message_id=message["MessageId"],
            body=body,
            attempt=int(facts.get("ApproximateReceiveCount", "1")),
            deadline=lease.deadline,
            sent_at=int(facts.get("SentTimestamp", "0")) / 1000,
            tasks=reading.tasks,
            problem=reading.problem,
            ignored=reading.ignored,
            from_dlq=letter.is_marked(body),
        )

    def extend(self, delivery: Delivery, seconds: float) -> float:
        """Hide the delivery for `seconds` more, or to the end of its 12 hours; then LeaseLost."""
        now = self._clock.monotonic()
        lease = self._leases.live(delivery.receipt, now)
        if lease is None:
            raise LeaseLost(f"The receipt of the message {delivery.message_id} is stale.")
        # What is left, not nothing: a worker whose heartbeats reach far keeps its job to the end.
        whole = min(math.ceil(seconds), math.floor(lease.ends_at_latest - now))
        if whole < 1:
            raise LeaseLost(
                f"The message {delivery.message_id} has reached SQS's limit of 12 hours a receive."
            )
        try:
            self._hide(delivery, whole)
        except LeaseLost:
            self._leases.drop(delivery.receipt)
            raise
        lease.deadline = now + whole
        return lease.deadline

    def _hide(self, delivery: Delivery, seconds: int) -> None:
        with translate_errors(f"extend the message {delivery.message_id}", GONE):
            self._sqs.change_message_visibility(
                QueueUrl=self._at.main,
                ReceiptHandle=delivery.receipt,
                VisibilityTimeout=seconds,
            )

    def ack(self, delivery: Delivery) -> bool:
        """Delete the message; False if the receipt is stale or already settled."""
        return self._settle(delivery, lambda _lease: self._delete(delivery))

    def release(self, delivery: Delivery, *, delay_s: float = 0.0) -> bool:
        """Give the message back after `delay_s`, at most at the end of its 12 hours."""

        def carry_out(lease: Receipt) -> None:
            room = math.floor(lease.ends_at_latest - self._clock.monotonic())
            self._hide(delivery, max(0, min(math.ceil(delay_s), room)))

        return self._settle(delivery, carry_out)

    def bury(self, delivery: Delivery, why: Bury) -> bool:
        """Send the letter to the dead-letter queue, then delete the message.

        Killed between the two, there is a letter and a message: the letter carries message id and
        job, so that the second one is known for what it is. Nothing is lost.
        """
        body = letter.write(delivery, why, self._clock.now())
        if not self._settle(delivery, lambda _lease: self._desk.post(body, delivery, why)):
            return False
        try:
            waiting = Waiting(self._clock, random.random, threading.Event())
            retry_control_call(lambda: self._delete(delivery), waiting, retryable=_is_unavailable)
        except (Unavailable, LeaseLost) as error:
            # It is a dead letter already; its message comes back and is seen to be settled.
            _log.warning("buried_but_not_deleted", message=delivery.message_id, why=str(error))
        return True

    def _settle(self, delivery: Delivery, carry_out: Callable[[Receipt], None]) -> bool:
        """Carry out one settling; on an error the receipt stays live, to be settled again."""
        lease = self._leases.take(delivery.receipt, self._clock.monotonic())
        if lease is None:
            return False
        try:
            carry_out(lease)
        except LeaseLost:
            return False
        except HevcqError:
            self._leases.put_back(delivery.receipt, lease)
            raise
        return True

    def _delete(self, delivery: Delivery) -> None:
        with translate_errors(f"delete the message {delivery.message_id}", GONE):
            self._sqs.delete_message(QueueUrl=self._at.main, ReceiptHandle=delivery.receipt)

    def depth(self) -> Depth:
        """Count messages; SQS only estimates, and knows no age here."""
        ready, in_flight, delayed = self._at.counts(self._at.main)
        return Depth(
            ready=ready,
            in_flight=in_flight,
            delayed=delayed,
            dead=sum(sum(self._at.counts(url)) for url in self._at.dead_letter_urls),
        )

    def dead_letters(self, selection: Selection) -> Iterator[DeadLetter]:
        """Yield each dead letter once, roughly oldest first (SQS keeps no order).

        Letters are hidden from others while they are listed and given back when the iteration
        ends. Redrive or purge inside the iteration: a letter listed earlier must be looked for.
        """
        with closing(self._desk.batches(selection)) as batches:
            for batch in batches:
                yield from batch

    def dead_letter_batches(self, selection: Selection) -> Iterator[list[DeadLetter]]:
        """Yield what each receive of SQS brought."""
        return self._desk.batches(selection)

    def redrive(self, dead: DeadLetter) -> bool:
        """Send the original body as a new message, then delete the letter."""
        with self._desk.holding(dead.letter_id) as held:
            if held is None:
                return False
            group = _group(dead.task) if dead.task else {}
            self._send_batch([{"Id": "0", "MessageBody": dead.body, **group}])
            self._desk.remove(held)
            return True

    def purge(self, dead: DeadLetter) -> bool:
        """Delete one dead letter for good."""
        with self._desk.holding(dead.letter_id) as held:
            if held is None:
                return False
            self._desk.remove(held)
            return True

    def _task_of(self, body: str) -> Task | None:
        tasks = message_parser.read(body, self._recipient).tasks
        return tasks[0] if len(tasks) == 1 else None


def _is_unavailable(error: BaseException) -> bool:
    return isinstance(error, Unavailable)


def _group(task: Task) -> dict[str, str]:
    """Return the fair-share group: SQS takes 128 ASCII characters without spaces
    (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html)."""
    if not task.group:
        return {}
    plain = task.group.isascii() and task.group.isprintable() and " " not in task.group
    group = task.group if plain else hashlib.sha256(task.group.encode()).hexdigest()
    return {"MessageGroupId": group}
