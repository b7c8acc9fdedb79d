"""Model a video in chunks: the key frame index of a packet pass, and the plan made from it.

Times are integer ticks of the video's time base where exactness matters. A chunk holds the frames
presented from its `start_pts` (inclusive) to its `end_pts` (exclusive); the chunks of a plan hold
every frame exactly once. `planner.plan_chunks` makes a plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from fractions import Fraction

from pydantic import Field, ValidationError

from hevcq.domain.model import Frozen
from hevcq.domain.planning.encode_plan import Work
from hevcq.errors import PartUnfit

_MASK = (1 << 64) - 1


def times_sum(ticks: Iterable[int]) -> int:
    """Return a 64-bit checksum of frame times, in ticks: equal for equal sets, additive over parts.

    Each time is mixed before it is added (the finaliser of SplitMix64), so that two errors do not
    cancel out. The sum detects mistakes, not forgery.
    """
    total = 0
    for tick in ticks:
        mixed = (tick + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        total += mixed ^ (mixed >> 31)
    return total & _MASK


class KeyFrame(Frozen):
    """A key frame, with the frames presented from it up to the next key frame."""

    pts: int
    bytes_until_next: int
    frames_until_next: int
    dts: int | None = None
    last_pts: int = Field(default=0, description="of the last frame shown before the next key")
    times: int = Field(default=0, description="`times_sum` of those frames")
    seek_s: float | None = Field(
        default=None, description="of a place on a grid: how to land on the key frame before it"
    )
    forced: tuple[int, ...] = Field(
        default=(), description="of a place on a grid: the output's key frames until the next"
    )


class KeyIndex(Frozen):
    """Key frame index of a video, from one pass over its packets. Discarded frames are not counted.

    The first entry of `keys` stands for the first frame presented, which after an edit list need
    not be a key frame. `end_pts` is the end of the last frame, in ticks. The index of a ladder has the
    places of its grid for `keys` (`grid.on_grid`).
    """

    stream_index: int
    time_base: str
    keys: tuple[KeyFrame, ...]
    end_pts: int
    frames: int
    monotonic: bool = Field(description="decoding times rise, and no two frames share a time")
    missing_pts: int = Field(default=0, description="packets without a presentation time")
    starts_with_key: bool = True
    seek_early_s: float = Field(
        default=0.0, description="how much earlier than asked the demuxer is sent when it seeks"
    )
    seek_by_dts: bool = Field(
        default=False, description="the demuxer finds packets by decoding time"
    )
    notes: tuple[str, ...] = ()

    @property
    def tick(self) -> Fraction:
        """The time base as an exact fraction of a second."""
        return Fraction(self.time_base)


class Chunk(Frozen):
    """One chunk of a video; times in ticks, `end_pts` is None for the last chunk."""

    index: int = Field(ge=0)
    start_pts: int
    end_pts: int | None
    last_pts: int = Field(description="of the last frame in it")
    start_s: float = Field(description="start_pts in seconds")
    seek_s: float | None = Field(
        default=None, description="what to ask for to land on its key frame; None: no seek"
    )
    duration_ticks: int = Field(gt=0, description="to the next chunk's start, or the video's end")
    first_frame: int = Field(ge=0, description="frames of the video before it")
    frames: int = Field(gt=0)
    bytes: int = Field(default=0, description="of the source")
    times: int = Field(default=0, description="`times_sum` of its frames")
    cost: float = Field(default=0.0, description="share of the video's expected encoding time")
    forced: tuple[int, ...] = Field(
        default=(), description="of a ladder: times of the key frames that every rung has, in ticks"
    )


class ChunkPlan(Frozen):
    """Plan of a video in chunks. The identity of a part depends on `digest`."""

    stream_index: int
    time_base: str
    chunks: tuple[Chunk, ...]
    frames: int
    end_pts: int
    digest: str

    @property
    def tick(self) -> Fraction:
        """The time base as an exact fraction of a second."""
        return Fraction(self.time_base)

    def seconds(self, chunk: Chunk) -> float:
        """Return the duration of a chunk in seconds of video."""
        return float(chunk.duration_ticks * self.tick)


class WholeFile(Frozen):
    """Encode the video in one piece, for a named reason."""

    reason: str = Field(description="a stable word, e.g. `too_short`")
    detail: str = Field(description="one sentence for people")


def seek_s(index: KeyIndex, place: int) -> float:
    """Return the seek time in seconds at which the demuxer lands on that key frame.

    A time slightly after a key frame still lands on it, because seeking goes back to a key frame.
    """
    key = index.keys[place]
    late = index.seek_early_s
    if index.seek_by_dts and key.dts is not None:
        return float(key.dts * index.tick) + late
    at = float(key.pts * index.tick)
    if place + 1 < len(index.keys):
        late = min(late, float((index.keys[place + 1].pts - key.pts) * index.tick) / 2)
    return at + late


def plan_digest(revision: str, threads: int, index: KeyIndex, boundaries: Iterable[int]) -> str:
    """Return a plan's digest of 16 hexadecimal digits; parts of equal digests are interchangeable."""
    words = [revision, threads, index.stream_index, index.time_base, index.frames, index.end_pts]
    text = "\0".join(str(word) for word in [*words, *boundaries])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class SplitPlan(Work):
    """The work on a split job, written by the worker that split it and read by every part.

    It contains the whole recipe, so that a worker of another release neither mixes two recipes in
    one video nor makes a plan of its own.
    """

    chunks: ChunkPlan

    @classmethod
    def parse(cls, content: bytes) -> SplitPlan:
        """Parse a plan. Raises PartUnfit if this release cannot read it."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise PartUnfit("The plan of the split video cannot be read by this worker.") from error


class ChunkRecord(Frozen):
    """Report of a part's encode for the certificate: an object beside the part, stored before it."""

    arguments: tuple[str, ...]
    seconds: float
    cpu_s: float

    @classmethod
    def parse(cls, content: bytes) -> ChunkRecord:
        """Parse a report. Raises PartUnfit if it is not valid."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise PartUnfit("The report of a part cannot be read.") from error
