"""The dead-letter queues of a profile: send, list and delete dead letters on SQS.

SQS can list messages only by receiving them, so listed letters are hidden and then released.

A message that hevcq buried contains the original body and the reason as JSON (`DeadLetterBody`). A
message that SQS's redrive policy or SNS put into a dead-letter queue is the original body itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hevcq.backends.aws.clients import DENIED, Clients, code_of, translate_errors
from hevcq.domain.job import MAX_BODY_BYTES, Task
from hevcq.domain.model import Frozen
from hevcq.domain.profile import Profile
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import ConfigError, Unavailable
from hevcq.ports.queue import DeadLetter, Delivery
from hevcq.util.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

DEAD_LETTERS = "-dlq"
UNDELIVERED = "-subscription-dlq"
"""Suffix of the dead-letter queue of the SNS subscription, if the fleet created one."""
HIDE_S = 60
"""Seconds that a listed letter stays hidden if this process dies before it releases it."""
SCAN_WAIT_S = 1
"""On AWS a poll without a wait asks only some of the servers and may miss letters; a poll with any wait
asks all of them. An emulator is one server and answers at once."""
QUIET_BATCHES = 3
"""Consecutive batches without a new letter after which a listing ends: letters reappear after HIDE_S."""
BATCH = 10
"""SQS's largest batch, for receives and sends."""
MARKER = "hevcq_dead_letter"
MAX_ATTEMPTS = 2**31 - 1
MAX_REASON, MAX_TAIL = 2_000, 16_000
"""Characters, of at most six bytes each in JSON."""
ROOM_BYTES = MAX_BODY_BYTES - 6 * (MAX_REASON + MAX_TAIL) - 4_096
"""Room for the original body in a message."""


class QueueUrls:
    """The URLs of the queue `name`, its dead-letter queue and that of its SNS subscription."""

    def __init__(self, sqs: SQSClient, name: str) -> None:
        self.name = name
        self._sqs = sqs
        self._urls: dict[str, str] = {}

    @property
    def main(self) -> str:
        """The URL of the queue. Raises ConfigError if there is none, Unavailable."""
        return self._url(self.name)

    @property
    def dead(self) -> str:
        """The URL of the dead-letter queue. Raises ConfigError if there is none, Unavailable."""
        return self._url(self.name + DEAD_LETTERS)

    @property
    def dead_letter_urls(self) -> list[str]:
        """The URLs of all queues that hold dead letters of this one. Raises as `dead` does."""
        return [self.dead, *filter(None, [self.undelivered])]

    @property
    def undelivered(self) -> str:
        """The URL of the subscription's dead-letter queue, or "" if there is none or access is denied.

        A worker, which has no access, counts only its own dead letters. Raises Unavailable.
        """
        try:
            return self._url(self.name + UNDELIVERED)
        except (ConfigError, Unavailable) as error:
            if isinstance(error, Unavailable) and code_of(error.__cause__) not in DENIED:
                raise
        return self._urls.setdefault(self.name + UNDELIVERED, "")

    def _url(self, name: str) -> str:
        if name not in self._urls:
            with translate_errors(f"find the queue {name}"):
                self._urls[name] = self._sqs.get_queue_url(QueueName=name)["QueueUrl"]
        return self._urls[name]

    def counts(self, url: str) -> list[int]:
        """Return the approximate numbers of visible, hidden and delayed messages.

        Raises ConfigError if the queue is gone, Unavailable.
        """
        names: Any = [f"ApproximateNumberOfMessages{end}" for end in ("", "NotVisible", "Delayed")]
        with translate_errors(f"count the messages of {url.rpartition('/')[2]}"):
            answer = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
        return [int(answer["Attributes"][name]) for name in names]


@dataclass(frozen=True, slots=True)
class ReceivedLetter:
    """A letter that this process has received and hides until `hidden_until` (monotonic seconds)."""

    url: str
    receipt: str
    hidden_until: float


class DeadLetterQueue:
    """The dead letters of one profile's queue.

    hevcq buried them with a reason, SQS moved them after too many receives, or SNS could not deliver them.
    """

    def __init__(
        self,
        clients: Clients,
        urls: QueueUrls,
        profile: Profile,
        clock: Clock,
        task_of: Callable[[str], Task | None],
    ) -> None:
        self._sqs, self._urls, self._clock = clients.sqs, urls, clock
        self._profile, self._task_of = profile, task_of
        self._wait_s = 0 if clients.emulated else SCAN_WAIT_S
        self._received: dict[str, ReceivedLetter] = {}

    def send(self, delivery: Delivery, why: Bury) -> None:
        """Send a dead letter. Raises ConfigError if there is no dead-letter queue, Unavailable."""
        body = encode(delivery, why, self._clock.now())
        with translate_errors(f"bury the message {delivery.message_id} of {self._urls.name}"):
            self._sqs.send_message(QueueUrl=self._urls.dead, MessageBody=body)

    def letters(self, job_id: str | None) -> Iterator[DeadLetter]:
        """Yield each letter (of the job, if one is given) once; release the hidden letters at the end.

        Raises ConfigError if there is no dead-letter queue, Unavailable.
        """
        self.release_all()
        try:
            for letter in chain.from_iterable(self._scan()):
                if job_id is None or (letter.task is not None and letter.task.job_id == job_id):
                    yield letter
        finally:
            self.release_all()

    def _scan(self) -> Iterator[list[DeadLetter]]:
        seen: set[str] = set()
        for url in self._urls.dead_letter_urls:
            quiet = 0
            while quiet < QUIET_BATCHES:
                batch = self._receive(url)
                if not batch:
                    break
                fresh = [letter for letter in batch if letter.letter_id not in seen]
                quiet = 0 if fresh else quiet + 1
                seen.update(letter.letter_id for letter in fresh)
                yield sorted(fresh, key=lambda letter: letter.buried_at)

    def _receive(self, url: str) -> list[DeadLetter]:
        asked_at = self._clock.monotonic()
        with translate_errors(f"read the dead letters of {self._urls.name}"):
            answer = self._sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=BATCH,
                VisibilityTimeout=HIDE_S,
                WaitTimeSeconds=self._wait_s,
                MessageSystemAttributeNames=["SentTimestamp"],
                MessageAttributeNames=["All"],
            )
        messages = answer.get("Messages", [])
        for message in messages:
            self._received[message["MessageId"]] = ReceivedLetter(
                url, message["ReceiptHandle"], asked_at + HIDE_S
            )
        return [self._parse(message, url) for message in messages]

    def _parse(self, message: MessageTypeDef, url: str) -> DeadLetter:
        letter = decode(message["Body"]) or self._explain(message, url)
        return DeadLetter(
            letter_id=message["MessageId"],
            queue=self._profile.name,
            body=letter.body,
            reason=letter.reason,
            failure_class=letter.failure_class,
            attempts=letter.attempts,
            tail=letter.tail,
            buried_at=letter.buried_at,
            task=self._task_of(letter.body),
        )

    def _explain(self, message: MessageTypeDef, url: str) -> DeadLetterBody:
        """Return the letter for a message that SQS or SNS put into a dead-letter queue."""
        receives, failure_class = self._profile.queue.max_receives, FailureClass.RECEIVES
        reason = f"Given up by the queue after {receives} receives."
        if url != self._urls.dead:
            error: Any = message.get("MessageAttributes", {}).get("ErrorMessage", {})
            why = error.get("StringValue", "SNS gave no reason")
            reason = f"SNS could not deliver it: {why}."
            receives, failure_class = 0, FailureClass.NETWORK
        return DeadLetterBody(
            reason=reason,
            failure_class=failure_class,
            attempts=receives,
            buried_at=int(message.get("Attributes", {}).get("SentTimestamp", "0")) / 1000,
            body=message["Body"],
        )

    def purge(self, letter_id: str) -> bool:
        """Delete one letter; return False if it is gone. Raises ConfigError, Unavailable.

        Letters received while searching stay hidden, so that purging a list scans the queue once.
        """
        letter = self._received.get(letter_id)
        if letter is None or letter.hidden_until <= self._clock.monotonic():
            self._received.pop(letter_id, None)
            if not any(letter_id in self._received for _batch in self._scan()):
                return False
            letter = self._received[letter_id]
        with translate_errors(f"delete a dead letter of {self._urls.name}"):
            self._sqs.delete_message(QueueUrl=letter.url, ReceiptHandle=letter.receipt)
        self._received.pop(letter_id, None)
        return True

    def release_all(self) -> None:
        """Make every received letter visible again at once. Raises Unavailable."""
        now = self._clock.monotonic()
        hidden = [letter for letter in list(self._received.values()) if letter.hidden_until > now]
        self._received.clear()
        for url in {letter.url for letter in hidden}:
            entries: list[Any] = [
                {"Id": str(n), "ReceiptHandle": letter.receipt, "VisibilityTimeout": 0}
                for n, letter in enumerate(hidden)
                if letter.url == url
            ]
            for start in range(0, len(entries), BATCH):
                with translate_errors(f"release dead letters of {self._urls.name}"):
                    # A failed entry is visible already, or will be after HIDE_S.
                    self._sqs.change_message_visibility_batch(
                        QueueUrl=url, Entries=entries[start : start + BATCH]
                    )


class DeadLetterBody(Frozen):
    """The JSON body of a dead letter: the original message and the reason for its burial.

    `body` is cut if the original leaves no room for the rest; no message of hevcq is so long.
    """

    hevcq_dead_letter: Literal[1] = 1
    reason: str
    failure_class: FailureClass
    attempts: int = Field(ge=0, le=MAX_ATTEMPTS)
    tail: tuple[str, ...] = ()
    buried_at: float = Field(ge=0, allow_inf_nan=False)
    body: str


def encode(delivery: Delivery, why: Bury, now: float) -> str:
    """Return the dead letter of a delivery as a message body of at most 256 KiB.

    `now` is Unix seconds.
    """
    earlier = decode(delivery.body)
    body = _clean(delivery.body if earlier is None else earlier.body)
    if len(json.dumps(body, ensure_ascii=False).encode("utf-8")) > ROOM_BYTES:
        body = body[: ROOM_BYTES // 6]
    letter = DeadLetterBody(
        reason=_clean(why.reason)[:MAX_REASON],
        failure_class=why.failure_class,
        attempts=delivery.attempt,
        tail=tuple(_clean("\n".join(why.tail))[-MAX_TAIL:].split("\n")) if why.tail else (),
        buried_at=now,
        body=body,
    )
    return letter.model_dump_json()


def decode(text: str) -> DeadLetterBody | None:
    """Parse a message body; return None if it is not a complete dead letter."""
    if not is_marked(text):
        return None
    try:
        return DeadLetterBody.model_validate_json(text)
    except ValueError:
        return None


def is_marked(text: str) -> bool:
    """Return whether a message body is marked as a dead letter, complete or not."""
    return text.startswith('{"' + MARKER)


def _clean(text: str) -> str:
    """Replace the characters that SQS refuses: lone surrogates, U+FFFE and U+FFFF.

    SQS accepts only the characters of XML 1.0
    (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html).
    """
    valid = text.encode("utf-8", "replace").decode("utf-8")
    return valid.replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd")
