"""A video that is split over many workers: what all of them go by, and how far it is. Pure."""

from __future__ import annotations

from pydantic import Field, ValidationError

from hevcq.domain.chunking.planner import ChunkPlan
from hevcq.domain.media.facts import Measurement, MediaInfo
from hevcq.domain.model import Frozen
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.profile import Profile
from hevcq.errors import PartUnfit


class SplitPlan(Frozen):
    """What every part of a split job is made by, as the worker wrote it that split the job.

    The recipe is in it whole, so that a worker of another release neither mixes two recipes in
    one video nor plans for itself.
    """

    job_id: str
    split: str
    recipe: Profile
    source_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    info: MediaInfo
    plan: EncodePlan
    measured: Measurement
    duration_s: float | None
    chunks: ChunkPlan

    @classmethod
    def parse(cls, content: bytes) -> SplitPlan:
        """Read a plan; raise PartUnfit if it is not one that this release can read."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise PartUnfit("The plan of the split video cannot be read by this worker.") from error


class ChunkRecord(Frozen):
    """What the encode of a part did: an object beside the part itself, put before it."""

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
        """Read a report; raise PartUnfit if it is not one."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise PartUnfit("The report of a part cannot be read.") from error
