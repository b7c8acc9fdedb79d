"""The URLs and message counts of a profile's three queues, looked up at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hevcq.backends.aws.errors import DENIED, code_of, translate_errors
from hevcq.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

DEAD_LETTERS = "-dlq"
UNDELIVERED = "-subscription-dlq"
"""Suffix of the dead-letter queue of the SNS subscription, if the fleet created one."""


class QueueUrls:
    """The queue `name`, its dead-letter queue and the dead-letter queue of its SNS subscription."""

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
        """The URL of the subscription's dead-letter queue, or "" if there is none.

        It is "" as well where access is denied: a worker counts only its own dead letters, an
        operator counts all. Raises Unavailable.
        """
        try:
            return self._url(self.name + UNDELIVERED)
        except ConfigError:
            self._urls[self.name + UNDELIVERED] = ""
        except Unavailable as error:
            if code_of(error.__cause__) not in DENIED:
                raise
            self._urls[self.name + UNDELIVERED] = ""
        return ""

    def _url(self, name: str) -> str:
        if name not in self._urls:
            with translate_errors(f"find the queue {name}"):
                self._urls[name] = self._sqs.get_queue_url(QueueName=name)["QueueUrl"]
        return self._urls[name]

    def counts(self, url: str) -> tuple[int, int, int]:
        """Return the approximate numbers of visible, hidden and delayed messages.

        Raises ConfigError if the queue is gone, Unavailable.
        """
        with translate_errors(f"count the messages of {url.rpartition('/')[2]}"):
            answer = self._sqs.get_queue_attributes(
                QueueUrl=url,
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                    "ApproximateNumberOfMessagesDelayed",
                ],
            )["Attributes"]
        return (
            int(answer["ApproximateNumberOfMessages"]),
            int(answer["ApproximateNumberOfMessagesNotVisible"]),
            int(answer["ApproximateNumberOfMessagesDelayed"]),
        )
