"""Dead letters over SQS, which has no way to look without taking: listed, held, given back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.clients import Clients
from hevcq.backends.aws.errors import translate_errors
from hevcq.backends.aws.sqs import letter
from hevcq.backends.aws.sqs.queue_urls import QueueUrls
from hevcq.domain.job import Task
from hevcq.domain.profile import Profile
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.ports.queue import DeadLetter, Delivery, Selection
from hevcq.util.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

HOLD_S = 60
"""How long a listed letter is hidden from others if this process dies before giving it back."""
SCAN_WAIT_S = 1
"""On AWS a short poll asks only some of the servers and may miss letters; any wait asks them all.
An emulator is one server and answers at once."""
QUIET_BATCHES = 3
"""A listing ends after so many batches with nothing new: letters come round again after HOLD_S."""
BATCH = 10
MAX_ATTRIBUTE = 1_000


@dataclass(frozen=True, slots=True)
class Held:
    """A letter that this process holds, until `until` (monotonic seconds)."""

    letter_id: str
    url: str
    receipt: str
    until: float


class DeadLetterQueue:
    """The dead letters of one queue: those buried with a reason, those that SQS moved itself after
    too many receives, and those that SNS could not deliver."""

    def __init__(
        self,
        clients: Clients,
        addresses: QueueUrls,
        profile: Profile,
        clock: Clock,
        task_of: Callable[[str], Task | None],
    ) -> None:
        self._sqs, self._at, self._clock = clients.sqs, addresses, clock
        self._profile, self._task_of = profile, task_of
        self._wait_s = 0 if clients.emulated else SCAN_WAIT_S
        self._held: dict[str, Held] = {}
        self._looking = threading.Lock()

    def post(self, body: str, delivery: Delivery, why: Bury) -> None:
        """Send a letter to the dead-letter queue; its main facts are attributes too."""
        facts = {
            "hevcq_class": why.failure_class.value,
            "hevcq_reason": why.reason[:MAX_ATTRIBUTE],
            "hevcq_attempts": str(delivery.attempt),
            "hevcq_message_id": delivery.message_id,
            "hevcq_job": ",".join(task.job_id for task in delivery.tasks)[:MAX_ATTRIBUTE],
        }
        attributes: Any = {
            name: {"DataType": "String", "StringValue": _printable(value)}
            for name, value in facts.items()
            if value.strip()
        }
        with translate_errors(f"bury the message {delivery.message_id} of {self._at.name}"):
            self._sqs.send_message(
                QueueUrl=self._at.dead, MessageBody=body, MessageAttributes=attributes
            )

    def batches(self, selection: Selection) -> Generator[list[DeadLetter], None, None]:
        """Yield matching letters once each; what is still held at the end is given back."""
        left = selection.limit
        self.give_back()
        try:
            for batch in self._scan():
                if left is not None and left <= 0:
                    return
                matching = [dead for dead in batch if selection.matches(dead)][:left]
                left = None if left is None else left - len(matching)
                if matching:
                    yield matching
        finally:
            self.give_back()

    def _scan(self) -> Iterator[list[DeadLetter]]:
        seen: set[str] = set()
        for url in self._at.dead_letter_urls:
            quiet = 0
            while quiet < QUIET_BATCHES:
                batch = self._take(url)
                if not batch:
                    break
                fresh = [dead for dead in batch if dead.letter_id not in seen]
                quiet = 0 if fresh else quiet + 1
                seen.update(dead.letter_id for dead in fresh)
                yield sorted(fresh, key=lambda dead: dead.buried_at)

    def _take(self, url: str) -> list[DeadLetter]:
        asked = self._clock.monotonic()
        with translate_errors(f"read the dead letters of {self._at.name}"):
            answer = self._sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=BATCH,
                VisibilityTimeout=HOLD_S,
                WaitTimeSeconds=self._wait_s,
                MessageSystemAttributeNames=["SentTimestamp"],
                MessageAttributeNames=["All"],
            )
        found = answer.get("Messages", [])
        for message in found:
            name = message["MessageId"]
            self._held[name] = Held(name, url, message["ReceiptHandle"], asked + HOLD_S)
        return [self._dead(message, url) for message in found]

    def _dead(self, message: MessageTypeDef, url: str) -> DeadLetter:
        text = message["Body"]
        sent_at = int(message.get("Attributes", {}).get("SentTimestamp", "0")) / 1000
        note = letter.read(text)
        if note is None:
            reason, failure_class, attempts = self._unexplained(message, url)
            tail: tuple[str, ...] = ()
            body = text
        else:
            reason, failure_class, attempts = note.reason, note.failure_class, note.attempts
            tail, body, sent_at = note.tail, note.original(), note.buried_at
        return DeadLetter(
            letter_id=message["MessageId"],
            queue=self._profile.name,
            body=body,
            reason=reason,
            failure_class=failure_class,
            attempts=attempts,
            tail=tail,
            buried_at=sent_at,
            task=self._task_of(body),
        )

    def _unexplained(self, message: MessageTypeDef, url: str) -> tuple[str, FailureClass, int]:
        if url != self._at.dead:
            told: Any = message.get("MessageAttributes", {}).get("ErrorMessage", {})
            why = told.get("StringValue", "SNS gave no reason")
            return f"SNS could not deliver it: {why}.", FailureClass.NETWORK, 0
        receives = self._profile.queue.max_receives
        reason = f"Given up by the queue after {receives} receives."
        return reason, FailureClass.RECEIVES, receives

    @contextmanager
    def holding(self, letter_id: str) -> Iterator[Held | None]:
        """Hold one letter, looking for it where it is not held yet; None if it is gone.

        Others met on the way stay held, so that redriving a list looks through the queue once.
        """
        with self._looking:  # Letters go back in parallel: one search serves all of them.
            held = self._held.get(letter_id)
            if held is None or held.until <= self._clock.monotonic():
                self._held.pop(letter_id, None)
                found = any(letter_id in self._held for _batch in self._scan())
                held = self._held[letter_id] if found else None
        yield held

    def remove(self, held: Held) -> None:
        """Delete a held letter for good."""
        with translate_errors(f"delete a dead letter of {self._at.name}"):
            self._sqs.delete_message(QueueUrl=held.url, ReceiptHandle=held.receipt)
        self._held.pop(held.letter_id, None)

    def give_back(self) -> None:
        """Make every held letter visible again at once."""
        now = self._clock.monotonic()
        live = [held for held in list(self._held.values()) if held.until > now]
        self._held.clear()
        for url in {held.url for held in live}:
            receipts = [held.receipt for held in live if held.url == url]
            for start in range(0, len(receipts), BATCH):
                self._show(url, receipts[start : start + BATCH])

    def _show(self, url: str, receipts: Sequence[str]) -> None:
        with translate_errors(f"give dead letters of {self._at.name} back"):
            # An entry that fails is visible already, or will be after HOLD_S.
            self._sqs.change_message_visibility_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": str(n), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                    for n, receipt in enumerate(receipts)
                ],
            )


def _printable(value: str) -> str:
    """Return what SQS takes: printable, and no lone surrogates."""
    valid = value.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else " " for c in valid)
