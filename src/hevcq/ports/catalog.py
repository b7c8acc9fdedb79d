"""Values of the catalog (`sql/catalog.py`), of a sync and of events; the port of a receiver.

The catalog is local to this machine with every backend: probe results, digests, placements (which
rendition belongs at which path) and the health of files (their bytes when they were last read whole).

A path on a sync's server is relative to the account's root, decoded, with `/` between its parts.
Bytes of names that are not UTF-8 are lone surrogates, as in the paths of `os`.

Jobs and placements write their events in the transaction that changes them. On AWS the log holds only
events of the machine's libraries. A receiver gets messages about events over the network.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from pathlib import Path

from hevcq.errors import HevcqError


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identify the content of a path at the time of a scan (gate G0).

    `size` is in bytes, `mtime_ns` in nanoseconds since the Unix epoch. An `inode` of 0 means a share,
    where other machines may see another inode, and a time that differs by up to ROUNDED_NS.
    """

    size: int
    mtime_ns: int
    inode: int
    device: int


@dataclass(frozen=True, slots=True)
class HashedFile:
    """The digest of a file with this fingerprint and change time (nanoseconds since the Unix epoch).

    `certificate` is the SHA-256 of a certificate that the gates proved again, or "".
    """

    fingerprint: Fingerprint
    ctime_ns: int
    sha256: str
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class LivedTime:
    """The seconds that this machine was seen running, and the readings of the last look.

    `highest_wall` is in seconds since the Unix epoch, `uptime_s` in seconds since the start that
    `boot` identifies.
    """

    total_s: float
    highest_wall: float
    uptime_s: float
    boot: str


class Mode(StrEnum):
    """The place of a rendition relative to its source."""

    BESIDE = "beside"
    MIRROR = "mirror"
    REPLACE = "replace"


class PlacementState(StrEnum):
    """The state of a placement."""

    WAITING = "waiting"
    PLACED = "placed"
    REPLACED = "replaced"
    REFUSED = "refused"
    UNDONE = "undone"
    EXPIRED = "expired"


UNPLACED = frozenset({PlacementState.WAITING, PlacementState.REFUSED})
"""States in which the rendition is not at its target path yet."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one job's rendition goes in the library, and whether it is there.

    `keep_days` is in days, `updated_at` in Unix seconds. `retained` is where a replaced original is
    kept; for a waiting placement, where an earlier command put the rendition.
    """

    job_id: str
    root: Path
    source: Path
    fingerprint: Fingerprint
    profile: str
    mode: Mode
    target: Path
    keep_days: float
    state: PlacementState = PlacementState.WAITING
    detail: str = ""
    retained: Path | None = None
    sha256: str = ""
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class EncodeCost:
    """The work and the cost of one encode, for the forecast; the cost is 0 until it finishes.

    `megapixels` is the sum over all frames of the target picture; sizes are in bytes; `cpu_s` excludes
    a quality search and the gates. Not stored: `most`, the largest possible size of the rendition (its
    source's, as a larger one is not kept; for a ladder, its rungs'); `usual`, a ladder's usual size (0:
    use the table); and `search`, the CPU of a quality search as a share of the encode's.
    """

    profile: str
    encoder: str
    preset: str
    megapixels: float
    source_size: int
    output_size: int
    cpu_s: float
    most: int = 0
    usual: int = 0
    search: float = 0.0


class Depth(StrEnum):
    """How a video is checked: by its packets and sound, or by every picture too; stable words."""

    DEMUX = "demux"
    DECODE = "decode"


class Health(StrEnum):
    """The result of reading a file whole; stable words."""

    SOUND = "sound"
    DAMAGED = "damaged"
    ROTTEN = "rotten"
    """The bytes differ from those of the last check, though time and size do not."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Spot:
    """A place of damage: seconds from the start, byte offset in the file, and ffmpeg's message."""

    time_s: float | None
    byte: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Checked:
    """The last whole read of one file; `at` is in Unix seconds.

    `sha256` is that of the bytes first read with this fingerprint, "" if they could not be read. A
    rotten file keeps it, so that a restored copy is recognised.
    """

    path: Path
    fingerprint: Fingerprint
    sha256: str
    depth: Depth
    health: Health
    detail: str
    at: float
    spots: tuple[Spot, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One version of a file on a server; `size` is in bytes, `modified` in Unix seconds.

    `etag` is opaque and without quotes, "" if the server sends none. `checksums` are the server's, by
    their lower-case names (`sha1`).
    """

    path: str
    size: int
    etag: str = ""
    modified: float | None = None
    checksums: tuple[tuple[str, str], ...] = ()

    @property
    def version(self) -> str:
        """A word that changes with the file's bytes: the ETag, else the modification time."""
        return self.etag or f"modified-{self.modified}"


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """The content of one folder. `refused` are unsafe names, as the server sent them."""

    folders: tuple[str, ...] = ()
    files: tuple[RemoteFile, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of a file from `start` on, in blocks of any length."""

    start: int
    blocks: Iterator[bytes]


class Removal(StrEnum):
    """The result of a conditional delete."""

    REMOVED = "removed"
    CHANGED = "changed"
    GONE = "gone"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class SyncEntry:
    """One version of a file on the server, first seen at `since` (Unix seconds).

    `sha256` is "" and `target` None until it has landed: the received bytes are durable at `target`.
    """

    path: str
    version: str
    size: int
    since: float
    sha256: str = ""
    target: Path | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes received at `target`, or about to be (not `landed`) when the process ended."""

    sha256: str
    size: int
    target: Path
    landed: bool = False


EVENTS: Mapping[str, str] = {
    "batch.finished": "Ingest finished",
    "job.done": "Encoded",
    "job.skipped": "Stays as it is",
    "job.retry": "Attempt failed",
    "job.failed": "Given up",
    "job.cancelled": "Cancelled",
    "video.placed": "New rendition",
    "video.replaced": "Replaced",
    "video.undone": "Original is back",
    "video.expired": "Kept original deleted",
    "video.unusable": "Video that cannot be encoded",
    "video.damaged": "Damaged video",
    "video.ready": "Video ready",
    "video.failed": "Video failed",
    "worker.unfit": "Worker takes no more work",
    "disk.low": "Too little disk space",
    "originals.expiring": "Kept originals will be deleted",
    "test": "Test message",
}
"""Every event, and the title of its messages."""
INGEST_ENDED = "batch.finished"
"""The event that makes the history of ingests; each one is kept for good, like the daily sums."""
USUAL_EVENTS = (
    "batch.finished", "job.failed", "video.damaged", "worker.unfit", "disk.low",
    "originals.expiring",
)  # fmt: skip
"""The events that a receiver gets unless the settings say otherwise."""


@dataclass(frozen=True, slots=True)
class Happened:
    """One event: `name` is one of EVENTS, `at` in Unix seconds, sizes in bytes.

    `source` is the source's key or path, an uploaded video's title, or the subject of a machine's event.
    `path` is the rendition's, in the library `root`. `target` and `verified` are the requested and the
    measured quality of the rendition. `seq` is 0 until the event is in the log.
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
    """The position of one reader of the event log.

    `tries` failed since the last success, `next_at` is the next try, and `problem` is the last error or
    "". Times in Unix seconds.
    """

    name: str
    seq: int
    tries: int = 0
    next_at: float = 0.0
    sent_at: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DayKey:
    """The key of one daily sum; `day` counts days since 1970 in UTC, `codec` is the source's."""

    day: int
    name: str
    root: Path
    profile: str
    codec: str
    failure_class: str


@dataclass(frozen=True, slots=True)
class DaySum:
    """The number of events, their bytes before and after, and CPU seconds.

    `scored` of them have a requested and a measured quality, whose sums are `target` and `verified`.
    """

    count: int = 0
    before: int = 0
    after: int = 0
    cpu_s: float = 0.0
    scored: int = 0
    target: float = 0.0
    verified: float = 0.0

    def __add__(self, other: DaySum) -> DaySum:
        return DaySum(*map(operator.add, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Message:
    """One event in words and as data; a repeated message keeps its `message_id`.

    `at` is Unix seconds; `path` is the video's, if the event is about one.
    """

    message_id: str
    event: str
    at: float
    title: str
    text: str
    data: Mapping[str, object] = field(default_factory=dict)
    path: Path | None = None


class NotDelivered(HevcqError):
    """A receiver did not accept a message; the text says why."""


class Receiver(ABC):
    """One receiver of messages. `name` is shown to people and contains no secret.

    `identity` stays the same while messages go to the same place. At most `most` messages are delivered
    at once, at least `every_s` seconds apart; `daily_at` (minutes after midnight, local time) collects
    those of a day instead.
    """

    name: str
    identity: str
    events: frozenset[str]
    most: int = 1
    every_s: float = 0.0
    daily_at: int | None = None

    def wants(self, event: str) -> bool:
        return event in self.events

    @abstractmethod
    def deliver(self, messages: Sequence[Message]) -> None:
        """Deliver the messages, all or none. Raises NotDelivered."""

    def test(self, message: Message) -> None:
        """Deliver a test message, or check that the receiver answers. Raises NotDelivered."""
        self.deliver([message])
