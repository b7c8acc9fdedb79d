"""Model five sections of a profile: `subtitles`, `hls`, `chunking`, and the numbers of `queue` and `fleet`."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from hevcq.domain.formats import language_code
from hevcq.domain.model import Frozen
from hevcq.domain.verdict import Limits

Rate = tuple[Annotated[float, Field(ge=0, le=51)], Annotated[int, Field(ge=50, le=200_000)]]
"""The constant rate factor of a rung, and the largest rate in kbit/s of up to 30 frames a second."""
Rungs = dict[Annotated[int, Field(ge=64, le=4320, multiple_of=2)], Rate]

H264_RUNGS: Rungs = {
    1080: (22, 7800), 720: (22, 4500), 480: (23, 2000), 360: (23, 1100), 240: (24, 400),
    144: (30, 80),
}  # fmt: skip
"""Caps in the range of Apple's table for H.264
(https://developer.apple.com/documentation/http-live-streaming/hls-authoring-specification-for-apple-devices)."""
MAX_VISIBILITY_S = 43_200
"""SQS's longest visibility timeout in seconds, 12 h from the receive
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html)."""
"""SQS's longest retention in seconds, 14 days; dead letters are kept for so long."""
FARGATE_MEMORY_MIB: Mapping[int, Sequence[int]] = {
    256: (512, 1024, 2048),
    512: range(1024, 4096 + 1, 1024),
    1024: range(2048, 8192 + 1, 1024),
    2048: range(4096, 16384 + 1, 1024),
    4096: range(8192, 30720 + 1, 1024),
    8192: range(16384, 61440 + 1, 4096),
    16384: range(32768, 122880 + 1, 8192),
}
"""The MiB of memory that Fargate offers, by CPU units
(https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html)."""
HEVC_RUNGS: Rungs = {
    2160: (24, 16800), 1440: (24, 8100), 1080: (24, 5800), 720: (24, 3400), 480: (25, 1600),
    360: (25, 600), 240: (26, 300),
}  # fmt: skip


Languages = tuple[Annotated[str, BeforeValidator(language_code)], ...]


class Subtitles(Frozen):
    """Which subtitles are carried; what becomes of each is in `policies`."""

    languages: Languages = Field(
        default=(),
        description="keep subtitles in these languages, in that of the original sound, and what has no "
        "mark; name the others and leave them out. Empty: keep all",
    )
    beside: bool = Field(
        default=False,
        description="write those that are text also beside the video, as NAME.en.srt, NAME.en.forced.srt or "
        "NAME.en.sdh.srt, as Jellyfin and Plex read them; for media folders only",
    )


class Surround(StrEnum):
    """The second group of sounds, of 5.1 channels: none, or the codec of its sounds."""

    OFF = "off"
    AAC = "aac"
    AC3 = "ac3"
    EAC3 = "eac3"


class Hls(Frozen):
    """The ladder of `container: hls`. Times in seconds; a rung is named by its shorter side in pixels."""

    hevc: bool = Field(
        default=False, description="also write an HEVC ladder beside the H.264 one; HDR needs it"
    )
    segment_s: float = Field(
        default=4.0, ge=1, le=12, description="length of a segment, with two key frames"
    )
    surround: Surround = Field(
        default=Surround.OFF,
        description="5.1 as a second group of sounds, in this codec; AC-3 and E-AC-3 that are in it "
        "already are copied",
    )
    h264_rungs: Rungs = Field(
        default=H264_RUNGS,
        description="H.264 rungs, shorter side: crf, largest rate in kbit/s (half as much again above "
        "30 frames a second); one of at most 100 has a sound of 48 kbit/s",
    )
    hevc_rungs: Rungs = Field(default=HEVC_RUNGS, description="HEVC rungs, likewise")

    @property
    def keyframe_s(self) -> float:
        """Seconds between key frames, the same in all rungs: two in each segment."""
        return self.segment_s / 2

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.h264_rungs or (self.hevc and not self.hevc_rungs):
            raise ValueError("hls needs at least one rung")
        return self


class ChunkMode(StrEnum):
    """Split long videos (`auto`), every video that can be split exactly (`always`), or none (`off`)."""

    AUTO = "auto"
    OFF = "off"
    ALWAYS = "always"


class Chunking(Frozen):
    """How one video is shared out over many workers. Times in seconds of video.

    The number of chunks that one worker encodes at a time is not part of the recipe: the setting
    `workers` is the number of its slots, and a slot receives a chunk like any other task.
    """

    mode: ChunkMode = Field(
        default=ChunkMode.AUTO,
        description="auto: long videos (see target_s); always: all that can be split; or off",
    )
    target_s: float = Field(
        default=60.0,
        gt=0,
        description="chunk of a video of even difficulty; others have a third of it to three times it. "
        "auto: videos of at least ten times it",
    )

    @property
    def min_s(self) -> float:
        """Seconds of the shortest chunk."""
        return self.target_s / 3

    @property
    def max_s(self) -> float:
        """Seconds of the longest chunk; only a longer gap between key frames is longer."""
        return self.target_s * 3

    @property
    def least_video_s(self) -> float:
        """Seconds of the shortest video that `auto` splits."""
        return self.target_s * 10


class QueueNumbers(Frozen):
    """The numbers of the profile's queue and its leases."""

    visibility_s: int = Field(
        default=300, ge=3, le=MAX_VISIBILITY_S, description="how long a receive hides a task"
    )
    max_receives: int = Field(
        default=10, ge=2, le=1000, description="deliveries before the queue gives up"
    )
    max_failures: int = Field(
        default=3,
        ge=1,
        le=100,
        description="counted failures before a dead letter; the encoder's first is not counted: "
        "it may be the worker's fault",
    )
    max_crashes: int = Field(
        default=3, ge=1, le=100, description="vanished attempts before a dead letter"
    )
    max_job_s: int = Field(
        default=39_600, ge=60, lt=MAX_VISIBILITY_S, description="longest time for one delivery"
    )
    backoff_base_s: float = Field(
        default=30,
        gt=0,
        description="first delay after a failure; it doubles with each, up to 120 times as long",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_failures >= self.max_receives:
            raise ValueError("max_failures must be below max_receives, the net beneath it")
        return self

    @property
    def heartbeat_s(self) -> int:
        """Seconds between two extensions of the lease: several may fail before it ends."""
        return max(1, self.visibility_s // 5)

    @property
    def limits(self) -> Limits:
        """The limits that the verdict depends on."""
        return Limits(max_failures=self.max_failures, backoff_base_s=self.backoff_base_s)


class Fleet(Frozen):
    """What a worker of this profile is on AWS; the embedded way ignores it."""

    deployed: bool = Field(
        default=True,
        description="whether Terraform makes the profile a queue and workers where its variable "
        "`profiles` names none",
    )
    cpu: int = Field(default=4096, description="Fargate CPU units; 1024 is one vCPU")
    memory_mib: int = Field(default=8192, description="Fargate memory, a size that goes with `cpu`")
    scratch_gib: int = Field(default=100, ge=21, le=200, description="Fargate ephemeral storage")
    architecture: str = Field(
        default="x86_64", pattern=r"^(x86_64|arm64)$", description="x86_64 or arm64"
    )
    min_tasks: int = Field(default=0, ge=0, description="fewest workers")
    max_tasks: int = Field(default=20, ge=0, description="most workers; 0: tasks wait")
    tasks_per_worker: int = Field(
        default=2,
        ge=1,
        description="tasks waiting and in work for each worker; for more, more start",
    )
    spot_share: int = Field(
        default=80,
        ge=0,
        le=100,
        description="percent of tasks on Fargate Spot, after a first one on demand; 100: every task",
    )

    @model_validator(mode="after")
    def _offered(self) -> Self:
        offered = FARGATE_MEMORY_MIB.get(self.cpu)
        if offered is None:
            units = ", ".join(map(str, FARGATE_MEMORY_MIB))
            raise ValueError(f"Fargate has no task of cpu {self.cpu}; it offers {units}")
        if self.memory_mib not in offered:
            sizes = ", ".join(map(str, offered))
            raise ValueError(
                f"Fargate has no task of cpu {self.cpu} with memory_mib {self.memory_mib}; "
                f"with that CPU it offers {sizes}"
            )
        if self.min_tasks > self.max_tasks:
            raise ValueError(
                f"min_tasks ({self.min_tasks}) must not exceed max_tasks ({self.max_tasks})"
            )
        return self
