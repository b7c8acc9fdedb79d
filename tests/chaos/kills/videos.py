"""What is submitted in the kill campaign, and the end that each video deserves."""

from dataclasses import dataclass

from hevcq.domain.job import JobState
from hevcq.domain.profile import Container, Profile, QueueNumbers, VideoCodec
from hevcq.domain.profile_sections import Chunking, ChunkMode, VideoRecipe

VISIBILITY_S = 4
NUMBERS = QueueNumbers(
    visibility_s=VISIBILITY_S,
    max_receives=1000,
    max_failures=10,
    max_crashes=100,
    backoff_base_s=0.4,
)
WHOLE = Profile(
    name="hevc",
    description="for kills",
    video=VideoRecipe(codec=VideoCodec.HEVC, crf=28.0),
    queue=NUMBERS,
)
CUT = WHOLE.model_copy(
    update={
        "name": "cut",
        "queue": NUMBERS.model_copy(update={"max_failures": 4}),
        "chunking": Chunking(mode=ChunkMode.ALWAYS, target_s=20.0),
    }
)
SETS = WHOLE.model_copy(
    update={
        "name": "sets",
        "container": Container.HLS,
        "video": VideoRecipe(codec=VideoCodec.H264, crf=22.0),
    }
)
PROFILES = {profile.name: profile for profile in (WHOLE, CUT, SETS)}
CHUNKS = 3


@dataclass(frozen=True)
class Kind:
    """A kind of video: which profile it goes to, and how its job must end, whatever is killed."""

    profile: str
    end: JobState


KINDS = {
    "video": Kind("hevc", JobState.DONE),
    "cutvideo": Kind("cut", JobState.DONE),
    "set": Kind("sets", JobState.DONE),
    "flaky": Kind("hevc", JobState.DONE),
    "cutpoison": Kind("cut", JobState.DEAD),
    "poison": Kind("hevc", JobState.DEAD),
    "cutlost": Kind("cut", JobState.DONE),
    "small": Kind("hevc", JobState.SKIPPED),
    "cutunfit": Kind("cut", JobState.DONE),
    "large": Kind("hevc", JobState.DONE),
    "cutsmall": Kind("cut", JobState.SKIPPED),
    "slow": Kind("hevc", JobState.DONE),
}
"""Good; a set of files; failing once; damaged; not worth it; more than a part of an upload; longer in work than a
heartbeat waits. Of those that are cut:
one chunk gets lost before the join, or the join never fits, so that the video is encoded whole."""
FORGED = "forged"
"""A message that names no job: it must end as a dead letter and nothing else."""
SLOW_S = 1.5
"""How long the child of a slow video runs; more than a heartbeat."""
LARGE_BYTES = 6 << 20
"""What a rendition of a large video has; more than the smallest part that S3 takes (5 MiB)."""


def kind_of(name: str) -> str:
    """Return the kind of the video of that name."""
    return name.partition("-")[0]
