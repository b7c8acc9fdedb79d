"""Values of the catalog (`sql/catalog.py`): probe cache, digests and placements of library folders;
ports of events and of a sync.

A placement records which rendition belongs at which path. The catalog is local to this machine with
every backend. Beside it is the health of files: which bytes each had when it was read whole.

A path on the server of a sync is relative to the account's root, decoded, with `/` between its parts.
Bytes of names that are not UTF-8 are lone surrogates, as in the paths of `os`.

Jobs and placements write their events in the transaction that changes them. On AWS the log holds what
happened to the machine's libraries. A receiver is who is notified, over the network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hevcq.errors import HevcqError


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identify the content of a path at the time of a scan (gate G0).

    `size` is in bytes, `mtime_ns` in nanoseconds since the Unix epoch. An `inode` of 0 is of a file on
    a share, where other machines may see another number, and another time by up to ROUNDED_NS.
    """

    size: int
    mtime_ns: int
    inode: int
    device: int


@dataclass(frozen=True, slots=True)
class HashedFile:
    """The digest of a file with this fingerprint and change time (nanoseconds since the Unix epoch).

    `certificate` is the SHA-256 of the content of a certificate that the gates proved again, or "".
    """

    fingerprint: Fingerprint
    ctime_ns: int
    sha256: str
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class LivedTime:
    """The seconds that this machine has lived through as far as it was seen, and the last look.

    `highest_wall` is in seconds since the Unix epoch, `uptime_s` in seconds since the start of the
    machine that `boot` identifies.
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
    kept, or of a waiting placement where an earlier command put the rendition.
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
    """What one encode is and took, for the forecast; not yet finished, it took nothing.

    `megapixels` is the sum over all frames of the target picture; sizes are in bytes, `cpu_s` without
    what a search for a quality and the gates took. Not stored:
    `most`, the largest size that the rendition can have (its source's, as a larger one is not kept;
    of a ladder, its rungs'), and `usual`, what a ladder usually takes (0: what the table says), and
    `search`, the CPU of a search for a quality as a share of the encode's.
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
    """How a video is read: its packets and sound, or every picture too; stable words."""

    DEMUX = "demux"
    DECODE = "decode"


class Health(StrEnum):
    """What a whole read found; stable words."""

    SOUND = "sound"
    DAMAGED = "damaged"
    ROTTEN = "rotten"
    """Other bytes than at the last check, though neither time nor size changed."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Spot:
    """Where damage is: seconds from the start, byte in the file, and what ffmpeg says there."""

    time_s: float | None
    byte: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Checked:
    """The last whole read of one file; `at` is in Unix seconds.

    `sha256` is that of the bytes first read with this fingerprint, "" where they could not be read;
    a file that rots keeps it, so that a copy that is put back is recognised.
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

    `etag` is opaque and without quotes, "" where the server has none. `checksums` are those that the
    server states, by their names in lower case (`sha1`).
    """

    path: str
    size: int
    etag: str = ""
    modified: float | None = None
    checksums: tuple[tuple[str, str], ...] = ()

    @property
    def version(self) -> str:
        """What changes with the file's bytes: the ETag, else the time of the last change."""
        return self.etag or f"modified-{self.modified}"


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """What is in one folder. `refused` are names that no honest server sends, as it sent them."""

    folders: tuple[str, ...] = ()
    files: tuple[RemoteFile, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of a file from `start` on, in blocks of any length."""

    start: int
    blocks: Iterator[bytes]


class Removal(StrEnum):
    """What became of a conditional delete."""

    REMOVED = "removed"
    CHANGED = "changed"
    GONE = "gone"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class SyncEntry:
    """One version of a file on the server, first seen at `since` (Unix seconds).

    `sha256` is "" and `target` None until it has landed: is there, durable, with the bytes that came.
    """

    path: str
    version: str
    size: int
    since: float
    sha256: str = ""
    target: Path | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes that came to `target`, or were about to (not `landed`) when the process ended."""

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
