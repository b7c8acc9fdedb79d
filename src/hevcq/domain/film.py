"""A film that is split over many workers: what all of them go by, and how far it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, ValidationError

from hevcq.domain.chunks import ChunkPlan
from hevcq.domain.job import JobRecord, JobState, Phase, Progress
from hevcq.domain.keys import WORK, check_key
from hevcq.domain.media import Measurement, MediaInfo
from hevcq.domain.model import Frozen
from hevcq.domain.plan import EncodePlan
from hevcq.domain.profile import Profile
from hevcq.errors import PartUnfit


class FilmPlan(Frozen):
    """What every part of a split job is made by, as the worker wrote it that split the job.

    The recipe is in it whole, so that a worker of another release neither mixes two recipes in
    one film nor plans for itself.
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
    def parse(cls, content: bytes) -> FilmPlan:
        """Read a plan; raise PartUnfit if it is not one that this release can read."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise PartUnfit("The plan of the split film cannot be read by this worker.") from error


class PartReport(Frozen):
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
    def parse(cls, content: bytes) -> PartReport:
        """Read a report; raise PartUnfit if it is not one."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise PartUnfit("The report of a part cannot be read.") from error


def work_folder(job_id: str) -> str:
    """Return the prefix of everything that is kept for a split job until it ends."""
    return f"{WORK}/{job_id}/"


def work_key(job_id: str, split: str, name: str) -> str:
    """Return the key of a plan, a part or a report."""
    return check_key(f"{work_folder(job_id)}{split}/{name}")


def part_name(chunk: int) -> str:
    """Return the last component of a part's key; it sorts as the chunks do."""
    return f"{chunk:05d}.part"


class Standing(Frozen):
    """How far a split job is; `running` counts the chunks that are being encoded."""

    chunks: int
    done: int
    running: int
    progress: Progress


def standing(job: JobRecord, parts: Sequence[JobRecord]) -> Standing | None:
    """Return how far a SPLIT job is, from its parts weighted by their frames; None if it is not one.

    Once all chunks are done it is as far as its join.
    """
    if job.split is None or job.state is not JobState.SPLIT:
        return None
    chunks = [(part, part.part) for part in parts if part.part and part.part.chunk is not None]
    join = next((part for part in parts if part.part and part.part.chunk is None), None)
    shares = [_share(part) * about.frames for part, about in chunks]
    running = [part for part, _ in chunks if part.state is JobState.RUNNING]
    done = sum(part.state is JobState.DONE for part, _ in chunks)
    share = min(1.0, sum(shares) / job.split.frames)
    speeds = [p.progress.speed for p in running if p.progress and p.progress.speed]
    speed = sum(speeds) or None
    eta = (1.0 - share) * job.split.seconds / speed if speed else None
    progress = Progress(phase=Phase.ENCODE, percent=100.0 * share, speed=speed, eta_s=eta)
    if chunks and done == len(chunks):
        progress = (join.progress if join is not None else None) or Progress(phase=Phase.JOIN)
    return Standing(chunks=job.split.chunks, done=done, running=len(running), progress=progress)


def _share(part: JobRecord) -> float:
    """Return how much of a chunk is encoded, 0 to 1; other phases are short, and count for none."""
    if part.state is JobState.DONE:
        return 1.0
    encoding = part.progress is not None and part.progress.phase is Phase.ENCODE
    if part.state is not JobState.RUNNING or part.progress is None or not encoding:
        return 0.0
    return part.progress.percent / 100.0
