"""A profile's three queues by name: their URLs and counts, looked up at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hevcq.backends.aws.errors import DENIED, code_of, translate_errors
from hevcq.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

DEAD = "-dlq"
UNDELIVERED = "-subscription-dlq"
"""Where SNS puts what it could not bring to the queue; it is there only if the fleet made it."""


class QueueUrls:
    """The queue `name`, its dead letters and what SNS could not deliver to it."""

    def __init__(self, sqs: SQSClient, name: str) -> None:
        self.name = name
        self._sqs = sqs
        self._urls: dict[str, str] = {}

    @property
    def main(self) -> str:
        """URL of the queue; ConfigError if there is none."""
        return self._url(self.name)

    @property
    def dead(self) -> str:
        """URL of the dead-letter queue; ConfigError if there is none."""
        return self._url(self.name + DEAD)

    @property
    def dead_letter_urls(self) -> list[str]:
        """URLs of every queue that holds dead letters of this one."""
        return [self.dead, *filter(None, [self.undelivered])]

    @property
    def undelivered(self) -> str:
        """URL of the subscription's dead-letter queue, or "" if there is none.

        Or if it may not be seen: a worker counts its own dead letters only, an operator all.
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
        """Return the approximate numbers of visible, hidden and delayed messages."""
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
