"""The catalog port: what this machine knows of a person's library folders.

It is local in both ways of running: the probe cache, and which rendition belongs at which path.
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
    """Which bytes a path held when it was looked at (gate G0)."""

    size: int
    mtime_ns: int
    inode: int
    device: int


class Mode(StrEnum):
    """Where a rendition goes."""

    BESIDE = "beside"
    MIRROR = "mirror"
    REPLACE = "replace"


class PlacementState(StrEnum):
    """Where a placement is."""

    WAITING = "waiting"
    PLACED = "placed"
    REPLACED = "replaced"
    REFUSED = "refused"
    UNDONE = "undone"
    EXPIRED = "expired"


UNPLACED = frozenset({PlacementState.WAITING, PlacementState.REFUSED})
"""The rendition is not in its place yet."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What becomes of one job's rendition in the library. Times are wall seconds."""

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


class Catalog(ABC):
    """Local knowledge of library folders; paths may hold any bytes a file name can."""

    @abstractmethod
    def cached(self, paths: Sequence[Path]) -> Mapping[Path, tuple[Fingerprint, MediaInfo | str]]:
        """Return what earlier scans learned: the facts, or the sentence why it is no video."""

    @abstractmethod
    def cache(self, found: Iterable[tuple[Path, Fingerprint, MediaInfo | str]]) -> None:
        """Remember what a scan learned, in one durable step."""

    @abstractmethod
    def record_placements(self, placements: Iterable[Placement]) -> None:
        """Record or overwrite placements by job id, durable when it returns."""

    @abstractmethod
    def placement(self, job_id: str) -> Placement | None:
        """Return one placement, or None."""

    @abstractmethod
    def placements(
        self,
        *,
        states: frozenset[PlacementState] = frozenset(),
        under: Path | None = None,
        since: float | None = None,
    ) -> Iterator[Placement]:
        """Yield placements, most recently updated first, a page at a time.

        `under` matches the source or target path itself, or any below it.
        """
