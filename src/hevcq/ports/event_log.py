"""The ports of events. The log: what happened on this machine's data folder, its readers, and daily sums.

Jobs and placements write their events in the transaction that changes them. The log is local to this
machine with every backend; on AWS it holds what happened to the machine's libraries. A receiver is
who is notified, over the network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hevcq.errors import HevcqError

EVENTS: Mapping[str, str] = {
    "batch.finished": "an ingest ended: how many files, and what was saved",
    "job.done": "a video was encoded and verified",
    "job.skipped": "a video stays as it is",
    "job.retry": "an attempt failed, and another follows",
    "job.failed": "a video was given up, and has a dead letter",
    "job.cancelled": "a person cancelled a job",
    "video.placed": "a rendition was put beside its source, or in another folder",
    "video.replaced": "a rendition replaced its original",
    "video.undone": "an original was put back",
    "video.expired": "a kept original was deleted at the end of its time",
    "video.unusable": "a file cannot be read, or its profile refuses it",
    "video.damaged": "`hevcq check` found a video newly damaged, rotten or unreadable",
    "video.ready": "every format of an uploaded video ended, and none failed",
    "video.failed": "an upload ended without a video, or a format of the video was given up",
    "worker.unfit": "this machine's worker takes no more work",
    "disk.low": "there is too little disk space for new work",
    "originals.expiring": "kept originals will be deleted within days",
    "test": "`hevcq config notify test`",
}
"""Every event, and what it says."""
INGEST_ENDED = "batch.finished"
"""The event whose single ones are the history of ingests: kept for good, as the daily sums are."""
USUAL_EVENTS = (
    "batch.finished", "job.failed", "video.damaged", "worker.unfit", "disk.low",
    "originals.expiring",
)  # fmt: skip
"""The events of which a person is notified unless the settings say otherwise."""


@dataclass(frozen=True, slots=True)
class Happened:
    """One event: `name` is one of EVENTS, `at` in Unix seconds, sizes in bytes.

    `source` is the key or path of the source, or whom an event of the machine is about. `path` is
    where the rendition is, in the library `root`. `video_id` is of an uploaded video, whose title is the
    source. `target` and `verified` are the quality of a rendition that was asked for and measured.
    `seq` is 0 until it is in the log.
    """

    name: str
    at: float
    job_id: str = ""
    profile: str = ""
    source: str = ""
    path: Path | None = None
    root: Path | None = None
    reason: str = ""
    failure_class: str = ""
    before: int | None = None
    after: int | None = None
    cpu_s: float | None = None
    video_id: str = ""
    target: float | None = None
    verified: float | None = None
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Reader:
    """How far one reader is. `tries` failed since the last success, and `next_at` is the next try.

    `problem` is what went wrong last, or "". Times in Unix seconds.
    """

    name: str
    seq: int
    tries: int = 0
    next_at: float = 0.0
    sent_at: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DayKey:
    """What one daily sum is about; `day` counts days since 1970 in UTC, `codec` is the source's."""

    day: int
    name: str
    root: Path
    profile: str
    codec: str
    failure_class: str


@dataclass(frozen=True, slots=True)
class DaySum:
    """The number of events, their bytes before and after, and CPU seconds.

    `scored` of them have a quality asked for and measured; `target` and `verified` are their sums.
    """

    count: int = 0
    before: int = 0
    after: int = 0
    cpu_s: float = 0.0
    scored: int = 0
    target: float = 0.0
    verified: float = 0.0

    def __add__(self, other: DaySum) -> DaySum:
        """Return both together."""
        return DaySum(
            self.count + other.count,
            self.before + other.before,
            self.after + other.after,
            self.cpu_s + other.cpu_s,
            self.scored + other.scored,
            self.target + other.target,
            self.verified + other.verified,
        )


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
