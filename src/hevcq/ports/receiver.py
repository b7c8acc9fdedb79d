"""The receiver port: who is notified of what happened, over the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hevcq.errors import HevcqError

RETRIES_S = (60.0, 3600.0)
"""Seconds until the second and the third try to send a message; then it is given up."""


@dataclass(frozen=True, slots=True)
class Message:
    """One event in words and as data; `message_id` stays the same when it is sent again.

    `at` is Unix seconds, `path` where the video is, if the event is about one.
    """

    message_id: str
    event: str
    at: float
    title: str
    text: str
    data: Mapping[str, object] = field(default_factory=dict)
    path: Path | None = None


class NotDelivered(HevcqError):
    """A receiver did not take a message; the words say why."""


class Receiver(ABC):
    """One receiver of messages. `name` is shown to people, and names no secret.

    `identity` is the same as long as messages go to the same place. `most` messages are handed over
    at once, at least `every_s` seconds apart; `daily_at` (minutes after midnight, local time) gathers
    those of a day instead.
    """

    name: str
    identity: str
    events: frozenset[str]
    most: int = 1
    every_s: float = 0.0
    daily_at: int | None = None

    def wants(self, event: str) -> bool:
        """Return whether it wants this event."""
        return event in self.events

    @abstractmethod
    def deliver(self, messages: Sequence[Message]) -> None:
        """Hand over the messages, all or none. Raises NotDelivered."""

    def test(self, message: Message) -> None:
        """Hand over a test message, or see that the receiver answers. Raises NotDelivered."""
        self.deliver([message])
