"""Implement the queue port over SQS: `<prefix><profile>`, and dead letters in `<prefix><profile>-dlq`.

SQS may accept an old receipt handle after the message was delivered to another consumer: it can extend
or release the new owner's message. So SQS does not show that a lease is lost, and this process keeps a
deadline for each of its receipts.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.clients import MAX_WAIT_S, MESSAGE_RETENTION_S, Clients, translate_errors
from hevcq.backends.aws.sqs import dead_letters, message_parser
from hevcq.backends.aws.sqs.dead_letters import BATCH, HIDE_S, DeadLetterQueue, QueueUrls
from hevcq.domain.job import Task, TaskKind
from hevcq.domain.profile import MAX_VISIBILITY_S, Profile
from hevcq.domain.verdict import Bury
from hevcq.errors import HevcqError, LeaseLost, Unavailable
from hevcq.ports.queue import DeadLetter, Delivery, Queue, QueueDepth
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

CAP_MARGIN_S = 30
"""Safety margin below the 12 hours that SQS counts from the receive on its own clock, in seconds. SQS
refuses a request beyond them and does not shorten it."""


@dataclass(slots=True)
class LiveReceipt:
    """The times of one receipt in monotonic seconds: its receive and its current deadline."""

    received_at: float
    deadline: float

    @property
    def latest_end(self) -> float:
        """The latest time, in monotonic seconds, up to which SQS extends a receipt."""
        return self.received_at + MAX_VISIBILITY_S - CAP_MARGIN_S


MAX_DELAY_S = 900
"""SQS's longest delay of a new message."""
STALE: Mapping[str, tuple[type[HevcqError], str]] = {
    "InvalidParameterValue": (LeaseLost, "the receipt is stale or at the 12 hour limit")
}
"""SQS's other answer to a visibility call that comes too late."""

_log = get_logger()


RENEW_AFTER_SHARE = 0.5
"""Share of MESSAGE_RETENTION_S after which a waiting message is replaced by a copy."""
MAX_BATCHES = 50
"""Maximum batches of ten that one check replaces, so that it takes seconds."""
CHECK_EVERY_S = 3600.0
"""Seconds until the next check after one without old messages: a check costs a message one receive."""


class Renewal:
    """Replaces messages that have waited long by copies, before SQS deletes them.

    SQS deletes a message MESSAGE_RETENTION_S after it was sent, however long the queue is, and no call
    extends that. So a worker that receives a message of half that age replaces the messages behind it:
    three requests for ten messages, once in half a retention time. Jobs are identified by their content,
    so if an original survives, its copy is only a duplicate.
    """

    def __init__(self, sqs: SQSClient, urls: QueueUrls, clock: Clock) -> None:
        self._sqs, self._urls, self._clock = sqs, urls, clock
        self._next_check = float("-inf")

    def check(self, received: Sequence[MessageTypeDef]) -> None:
        """Renew waiting messages if one of the `received` is old. Errors are logged, not raised."""
        if self._clock.monotonic() < self._next_check or not any(map(self._is_old, received)):
            return
        renewed = 0
        try:
            # First a single message: behind a retried message usually none is old.
            for limit in (1, *[BATCH] * MAX_BATCHES):
                count, all_old = self._renew(limit)
                renewed += count
                if not all_old:
                    self._next_check = self._clock.monotonic() + CHECK_EVERY_S
                    break
        except HevcqError as error:
            _log.warning("messages_not_renewed", queue=self._urls.name, reason=str(error))
        if renewed:
            _log.info("messages_renewed", queue=self._urls.name, count=renewed)

    def _is_old(self, message: MessageTypeDef) -> bool:
        sent_at = int(message.get("Attributes", {}).get("SentTimestamp", "0")) / 1000
        return 0 < sent_at < self._clock.now() - MESSAGE_RETENTION_S * RENEW_AFTER_SHARE

    def _renew(self, limit: int) -> tuple[int, bool]:
        """Replace the old among the next messages; return how many, and whether all were old."""
        url = self._urls.main
        with translate_errors(f"renew the messages of {self._urls.name}"):
            answer = self._sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=limit,
                WaitTimeSeconds=0,
                VisibilityTimeout=HIDE_S,
                MessageSystemAttributeNames=["SentTimestamp", "MessageGroupId"],
                MessageAttributeNames=["All"],
            )
            messages = answer.get("Messages", [])
            old = [message for message in messages if self._is_old(message)]
            renewed = self._replace(url, old)
            for message in messages:
                if message not in old:
                    self._sqs.change_message_visibility(
                        QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
                    )
            return renewed, 0 < len(messages) == len(old)

    def _replace(self, url: str, old: Sequence[MessageTypeDef]) -> int:
        if not old:
            return 0
        sent = self._sqs.send_message_batch(
            QueueUrl=url, Entries=[_copy(n, message) for n, message in enumerate(old)]
        )
        # Delete only originals whose copy was sent; the others become visible again by themselves.
        entries: Any = [
            {"Id": copy["Id"], "ReceiptHandle": old[int(copy["Id"])]["ReceiptHandle"]}
            for copy in sent.get("Successful", [])
        ]
        if entries:
            self._sqs.delete_message_batch(QueueUrl=url, Entries=entries)
        return len(entries)


def _copy(number: int, message: MessageTypeDef) -> Any:
    optional = {
        "MessageGroupId": message.get("Attributes", {}).get("MessageGroupId"),
        "MessageAttributes": message.get("MessageAttributes"),
    }
    present = {name: value for name, value in optional.items() if value}
    return {"Id": str(number), "MessageBody": message["Body"], **present}


class SqsQueue(Queue):
    """One profile's queue on SQS.

    A receipt is stale past its deadline, whatever SQS answers. A receive takes at most `limit` messages,
    because the visibility timeout of buffered messages would run out. Acknowledgements are not batched:
    jobs take minutes, and `ack` promises that the message is deleted. URLs are looked up at first use, so
    that a worker needs rights on its own queue only.
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
        self._urls = QueueUrls(clients.sqs, prefix + profile.name)
        self._receipts: dict[str, LiveReceipt] = {}
        self._renewal = Renewal(clients.sqs, self._urls, clock)
        self._dlq = DeadLetterQueue(clients, self._urls, profile, clock, self._task_of)

    def check(self) -> None:
        """Raise ConfigError unless the queue and its dead-letter queue exist; Unavailable."""
        _ = self._urls.main, self._urls.dead

    def close(self) -> None:
        """Release the dead letters that an unfinished listing hides."""
        try:
            self._dlq.release_all()
        except Unavailable as error:
            _log.info("dead_letters_come_back_later", queue=self.name, why=str(error))

    def send(self, tasks: Sequence[Task], *, delay_s: float = 0.0) -> None:
        """Send tasks to the queue; `delay_s` is cut to SQS's limit of 15 minutes."""
        delay = min(MAX_DELAY_S, math.ceil(delay_s))
        for start in range(0, len(tasks), BATCH):
            entries = [
                {
                    "Id": str(n),
                    "MessageBody": task.body(),
                    "DelaySeconds": delay,
                    **_group_attribute(task),
                }
                for n, task in enumerate(tasks[start : start + BATCH])
            ]
            self._send_batch(entries)

    def _send_batch(self, entries: Sequence[Mapping[str, Any]]) -> None:
        with translate_errors(f"send to the queue {self._urls.name}"):
            url = self._urls.main
            answer = self._sqs.send_message_batch(QueueUrl=url, Entries=list(entries))  # type: ignore[arg-type]
        failed = answer.get("Failed", [])
        if failed:
            raise Unavailable(
                f"SQS took {len(entries) - len(failed)} of {len(entries)} messages for "
                f"{self._urls.name}: {failed[0].get('Message', failed[0]['Code'])}."
            )

    def receive(self, limit: int, *, wait_s: float, stop: threading.Event) -> list[Delivery]:
        """Receive at most `limit` (and 10) deliveries, waiting up to `wait_s` (and 20) seconds.

        A running poll is never cancelled, because SQS would still deliver its messages: a stop waits for
        it. It is never retried automatically either (see `Clients.polls`). Raises Unavailable.
        """
        if limit < 1 or stop.is_set():
            return []
        wait = min(MAX_WAIT_S, max(0, math.ceil(wait_s)))
        asked_at = self._clock.monotonic()
        with translate_errors(f"receive from the queue {self._urls.name}"):
            answer = self._polls.receive_message(
                QueueUrl=self._urls.main,
                MaxNumberOfMessages=min(limit, BATCH),
                WaitTimeSeconds=wait,
                VisibilityTimeout=self._visibility_s,
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            )
        now = self._clock.monotonic()
        # SQS delivered the messages at the latest at the end of the poll. Any time beyond it was spent
        # on the way back, while the visibility timeout was already running.
        received_at = min(now, asked_at + wait)
        messages = answer.get("Messages", [])
        deliveries = [self._delivery(message, received_at, now) for message in messages]
        self._renewal.check(messages)
        return deliveries

    def _delivery(self, message: MessageTypeDef, received_at: float, now: float) -> Delivery:
        handle, body = message["ReceiptHandle"], message["Body"]
        receipt = LiveReceipt(received_at=received_at, deadline=received_at + self._visibility_s)
        for old_handle, old in list(self._receipts.items()):
            if old.deadline <= now:
                self._receipts.pop(old_handle, None)
        self._receipts[handle] = receipt
        parsed = message_parser.parse(body, self._recipient)
        facts = message.get("Attributes", {})
        return Delivery(
            queue=self.name,
            receipt=handle,
            message_id=message["MessageId"],
            body=body,
            attempt=int(facts.get("ApproximateReceiveCount", "1")),
            deadline=receipt.deadline,
            sent_at=int(facts.get("SentTimestamp", "0")) / 1000,
            tasks=parsed.tasks,
            problem=parsed.problem,
            ignored=parsed.ignored,
            from_dlq=dead_letters.is_marked(body),
        )

    def extend(self, delivery: Delivery, seconds: float) -> float:
        """Hide the message for `seconds` from now, at most until the end of its 12 hours."""
        now = self._clock.monotonic()
        receipt = self._receipts.get(delivery.receipt)
        if receipt is None or receipt.deadline <= now:
            raise LeaseLost(f"The receipt of the message {delivery.message_id} is stale.")
        # Grants the rest of the 12 hours, so that a worker with long heartbeats keeps its job.
        whole = min(math.ceil(seconds), math.floor(receipt.latest_end - now))
        if whole < 1:
            raise LeaseLost(
                f"The message {delivery.message_id} has reached SQS's limit of 12 hours a receive."
            )
        try:
            self._hide(delivery, whole)
        except LeaseLost:
            self._receipts.pop(delivery.receipt, None)
            raise
        receipt.deadline = now + whole
        return receipt.deadline

    def _hide(self, delivery: Delivery, seconds: int) -> None:
        with translate_errors(f"extend the message {delivery.message_id}", STALE):
            self._sqs.change_message_visibility(
                QueueUrl=self._urls.main, ReceiptHandle=delivery.receipt, VisibilityTimeout=seconds
            )

    def ack(self, delivery: Delivery) -> bool:
        return self._settle(delivery, lambda _receipt: self._delete(delivery))

    def release(self, delivery: Delivery, *, delay_s: float = 0.0) -> bool:
        """Make the message visible after `delay_s`, at the latest at the end of its 12 hours."""

        def act(receipt: LiveReceipt) -> None:
            room = math.floor(receipt.latest_end - self._clock.monotonic())
            self._hide(delivery, max(0, min(math.ceil(delay_s), room)))

        return self._settle(delivery, act)

    def bury(self, delivery: Delivery, why: Bury) -> bool:
        """Send a dead letter, then delete the message; return False if the receipt is stale.

        A kill in between leaves both, and nothing is lost. Raises Unavailable if the dead letter could not
        be sent.
        """
        if not self._settle(delivery, lambda _receipt: self._dlq.send(delivery, why)):
            return False
        try:
            self._delete(delivery)
        except (Unavailable, LeaseLost) as error:
            # The dead letter exists; the message is delivered again and found to be settled.
            _log.warning("buried_but_not_deleted", message=delivery.message_id, why=str(error))
        return True

    def _settle(self, delivery: Delivery, act: Callable[[LiveReceipt], None]) -> bool:
        """Settle a delivery once; after an error the receipt stays live for another attempt."""
        # If two threads settle the delivery, only one gets the receipt.
        receipt = self._receipts.pop(delivery.receipt, None)
        if receipt is None or receipt.deadline <= self._clock.monotonic():
            return False
        try:
            act(receipt)
        except LeaseLost:
            return False
        except HevcqError:
            self._receipts[delivery.receipt] = receipt
            raise
        return True

    def _delete(self, delivery: Delivery) -> None:
        with translate_errors(f"delete the message {delivery.message_id}", STALE):
            self._sqs.delete_message(QueueUrl=self._urls.main, ReceiptHandle=delivery.receipt)

    def depth(self) -> QueueDepth:
        """Count messages; SQS only estimates their number and gives no age."""
        ready, in_flight, delayed = self._urls.counts(self._urls.main)
        return QueueDepth(
            ready=ready,
            in_flight=in_flight,
            delayed=delayed,
            dead=sum(sum(self._urls.counts(url)) for url in self._urls.dead_letter_urls),
        )

    def dead_letters(self, job_id: str | None = None) -> Iterator[DeadLetter]:
        """Yield each dead letter once, roughly oldest first (SQS keeps no order).

        Listed letters are hidden from others and released when the iteration ends. Purge within the
        iteration: a letter listed earlier must be searched again. Raises ConfigError, Unavailable.
        """
        return self._dlq.letters(job_id)

    def purge(self, dead: DeadLetter) -> bool:
        return self._dlq.purge(dead.letter_id)

    def _task_of(self, body: str) -> Task | None:
        tasks = message_parser.parse(body, self._recipient).tasks
        return tasks[0] if len(tasks) == 1 else None


def _group_attribute(task: Task) -> dict[str, str]:
    """Return the fair-share group: SQS accepts 128 ASCII characters without spaces
    (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html)."""
    if not task.group:
        return {}
    plain = task.group.isascii() and task.group.isprintable() and " " not in task.group
    group = task.group if plain else hashlib.sha256(task.group.encode()).hexdigest()
    # A join has its own group, which SQS delivers before the chunks of busy groups.
    return {"MessageGroupId": f"{group[:120]}-join" if task.kind is TaskKind.JOIN else group}
