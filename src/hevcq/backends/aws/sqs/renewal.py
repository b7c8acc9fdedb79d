"""Send messages anew that have waited for long, before SQS deletes them.

SQS deletes a message `queue.retention_s` after it was sent, whatever waits before it, and no call
extends that. A worker that receives a message of half that age therefore replaces the ones behind
it by copies: three requests for ten messages, once in half a retention time. Jobs are known by their
content, so a copy whose original survived is only a duplicate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hevcq.backends.aws.errors import translate_errors
from hevcq.backends.aws.sqs.dead_letters import QueueUrls
from hevcq.errors import HevcqError
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

SHARE = 0.5
"""Share of the retention time after which a waiting message is sent anew."""
BATCHES = 50
"""Batches of ten that one look replaces at most, so that it takes seconds."""
BATCH = 10
HIDE_S = 60
LOOK_EVERY_S = 3600.0
"""Seconds after a look that found nothing old: each look costs the first message one receive."""


class Renewal:
    """Renews the waiting messages of one queue."""

    def __init__(self, sqs: SQSClient, urls: QueueUrls, retention_s: float, clock: Clock) -> None:
        self._sqs, self._urls, self._clock = sqs, urls, clock
        self._after_s = retention_s * SHARE
        self._next_look = float("-inf")

    def check(self, received: Sequence[MessageTypeDef]) -> None:
        """Renew what waits if one of the `received` messages is old; log errors, raise none."""
        if self._clock.monotonic() < self._next_look or not any(map(self._is_old, received)):
            return
        renewed = 0
        try:
            # One message first: usually nothing behind a retried one is old.
            for limit in (1, *[BATCH] * BATCHES):
                count, more = self._renew(limit)
                renewed += count
                if not more:
                    self._next_look = self._clock.monotonic() + LOOK_EVERY_S
                    break
        except HevcqError as error:
            get_logger().warning("messages_not_renewed", queue=self._urls.name, reason=str(error))
        if renewed:
            get_logger().info("messages_renewed", queue=self._urls.name, count=renewed)

    def _is_old(self, message: MessageTypeDef) -> bool:
        sent_at = int(message.get("Attributes", {}).get("SentTimestamp", "0")) / 1000
        return 0 < sent_at < self._clock.now() - self._after_s

    def _renew(self, limit: int) -> tuple[int, bool]:
        """Replace the old ones of the next messages; return how many, and whether all were old."""
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
            found = answer.get("Messages", [])
            old = [message for message in found if self._is_old(message)]
            for message in found:
                if message not in old:
                    self._sqs.change_message_visibility(
                        QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
                    )
            return self._replace(url, old), 0 < len(found) == len(old)

    def _replace(self, url: str, old: Sequence[MessageTypeDef]) -> int:
        if not old:
            return 0
        sent = self._sqs.send_message_batch(
            QueueUrl=url, Entries=[_copy(n, message) for n, message in enumerate(old)]
        )
        # Only what is certainly there anew; the rest comes back by itself.
        entries: Any = [
            {"Id": each["Id"], "ReceiptHandle": old[int(each["Id"])]["ReceiptHandle"]}
            for each in sent.get("Successful", [])
        ]
        if entries:
            self._sqs.delete_message_batch(QueueUrl=url, Entries=entries)
        return len(entries)


def _copy(number: int, message: MessageTypeDef) -> Any:
    group = message.get("Attributes", {}).get("MessageGroupId")
    copy = {"Id": str(number), "MessageBody": message["Body"]}
    attributes = message.get("MessageAttributes")
    return (
        copy
        | ({"MessageGroupId": group} if group else {})
        | ({"MessageAttributes": attributes} if attributes else {})
    )
