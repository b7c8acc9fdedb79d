"""Model the work on one source, whole or split, and the record of an encoded chunk. Pure."""

from __future__ import annotations

from pydantic import Field, ValidationError

from hevcq.domain.chunking.planner import ChunkPlan
from hevcq.domain.media.facts import Measurement, MediaInfo
from hevcq.domain.model import Frozen
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.profile import Profile
from hevcq.errors import PartUnfit


class Work(Frozen):
    """The facts of one source and what is made of it, for encode, gates and publication alike.

    It is made when the source was probed; `measured` follows, with a more exact `duration_s` (seconds).
    """

    recipe: Profile
    source_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    info: MediaInfo
    plan: EncodePlan
    measured: Measurement = Measurement(tracks=())
    duration_s: float | None
    chunks: ChunkPlan | None = None


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
    """Report of a part's encode: an object beside the part, stored before the part."""

    part_id: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    arguments: tuple[str, ...]
    seconds: float
    cpu_s: float
    frames: int
    first_pts: int
    last_pts: int
    size: int
    headers: str
    ffmpeg: str

    @classmethod
    def parse(cls, content: bytes) -> ChunkRecord:
        """Parse a report. Raises PartUnfit if it is not valid."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise PartUnfit("The report of a part cannot be read.") from error
