"""The catalog port: probe cache, digests and placements of a user's library folders.

A placement records which rendition belongs at which path. The catalog is local to this machine with
every backend. Beside it is the health of files: which bytes each had when it was read whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hevcq.domain.media.facts import MediaInfo


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identify the content of a path at the time of a scan (gate G0).

    `size` is in bytes, `mtime_ns` in nanoseconds since the Unix epoch.
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

    `keep_days` is in days, `updated_at` in Unix seconds.
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
    """What one finished encode was and took, for the forecast of the next ones.

    `megapixels` is the sum over all frames of the target picture; sizes are in bytes.
    """

    profile: str
    encoder: str
    preset: str
    megapixels: float
    source_size: int
    output_size: int
    cpu_s: float


class Catalog(ABC):
    """Store local facts about library folders; paths may hold any bytes valid in a file name."""

    @abstractmethod
    def cached(self, paths: Sequence[Path]) -> Mapping[Path, tuple[Fingerprint, MediaInfo | str]]:
        """Return the cached scan results of `paths`: the media facts, or why the file is no video."""

    @abstractmethod
    def cache(self, found: Iterable[tuple[Path, Fingerprint, MediaInfo | str]]) -> None:
        """Store the results of a scan in one durable transaction."""

    @abstractmethod
    def hashed(self, path: Path) -> HashedFile | None:
        """Return the last recorded digest of a file, or None."""

    @abstractmethod
    def record_hash(self, path: Path, found: HashedFile) -> None:
        """Store the digest of a file, over an earlier one."""

    @abstractmethod
    def lived(self) -> LivedTime | None:
        """Return the last record of the time lived through, or None."""

    @abstractmethod
    def record_lived(self, seen: LivedTime) -> None:
        """Store the time lived through, over the last record."""

    @abstractmethod
    def kept_since(self, job_id: str) -> float | None:
        """Return since which second of the time lived through a job's original is kept, or None."""

    @abstractmethod
    def record_kept(self, job_id: str, since_s: float) -> None:
        """Store since when a job's original is kept, over an earlier record."""

    @abstractmethod
    def record_placements(self, placements: Iterable[Placement]) -> None:
        """Insert or overwrite placements by job id, durably."""

    @abstractmethod
    def placement(self, job_id: str) -> Placement | None:
        """Return the placement of a job, or None if there is none."""

    @abstractmethod
    def alike(self, fingerprint: Fingerprint) -> list[Placement]:
        """Return the placements of sources with this size and modification time, wherever they are,
        most recently updated first."""

    @abstractmethod
    def record_encode_cost(self, job_id: str, cost: EncodeCost) -> None:
        """Insert or overwrite what a job's encode cost. May be lost in a power cut."""

    @abstractmethod
    def encode_costs(self, profile: str, limit: int) -> Mapping[str, EncodeCost]:
        """Return the latest recorded costs of a profile by job id, newest first."""

    @abstractmethod
    def placements(
        self,
        *,
        states: frozenset[PlacementState] = frozenset(),
        under: Path | None = None,
        since: float | None = None,
    ) -> Iterator[Placement]:
        """Yield placements page by page, most recently updated first.

        `under` selects placements whose source or target is that path or below it; `since` is in
        Unix seconds.
        """


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


class HealthRecords(ABC):
    """Store the last check of each file, and when a round over some folders began. Durable."""

    @abstractmethod
    def checked(self, paths: Sequence[Path]) -> Mapping[Path, Checked]:
        """Return the last checks of `paths`."""

    @abstractmethod
    def unsound(self) -> Sequence[Checked]:
        """Return the last checks that found a file other than sound, latest first."""

    @abstractmethod
    def record(self, checked: Checked) -> None:
        """Store a check, over an earlier one of its path."""

    @abstractmethod
    def round_began(self, key: str) -> float | None:
        """Return when the round of this key began, if it did not end; Unix seconds."""

    @abstractmethod
    def begin_round(self, key: str, at: float) -> None:
        """Note that a round of this key began, over an earlier one."""

    @abstractmethod
    def end_round(self, key: str) -> None:
        """Note that the round ended."""
