"""Model a profile: a recipe plus its queue numbers, in one file `workers/<name>.yaml`.

Python validates the file with this model; Terraform reads the same file (`yamldecode`), so a
queue's visibility and its worker's heartbeat cannot disagree.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field, model_validator

from hevcq.domain.formats import (
    SOFTWARE,
    VIDEO_HELD,
    depth_problem,
    encoder_problem,
    preset_problem,
    quality_problem,
)
from hevcq.domain.formats import Container as Container  # noqa: PLC0414 - asked of the profile by many
from hevcq.domain.formats import VideoCodec as VideoCodec  # noqa: PLC0414
from hevcq.domain.model import Frozen
from hevcq.domain.profile_sections import (
    Audio,
    Bounds,
    Chunking,
    Gates,
    Hls,
    Policies,
    Subtitles,
    VideoRecipe,
)
from hevcq.domain.quality import SCALES, Asked
from hevcq.domain.verdict import Limits

MAX_VISIBILITY_S = 43_200
"""SQS's longest visibility timeout in seconds, 12 h from the receive
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html)."""
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
_TAKES_PARAMS = frozenset({VideoCodec.HEVC, VideoCodec.H264, VideoCodec.AV1})
"""Codecs whose encoder takes its parameters in one option; for others they would be ffmpeg's own options."""


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
        """Seconds between two extensions of the lease; several may fail before it ends."""
        return max(1, self.visibility_s // 5)

    @property
    def limits(self) -> Limits:
        """The limits that the verdict depends on."""
        return Limits(max_failures=self.max_failures, backoff_base_s=self.backoff_base_s)


class Fleet(Frozen):
    """What a worker of this profile is on AWS; the embedded way ignores it."""

    deployed: bool = Field(
        default=True,
        description="whether Terraform creates a queue and workers for the profile if its variable "
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
        description="waiting and running tasks for each worker; more tasks start more workers",
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


class Profile(Frozen):
    """A recipe plus its queue numbers."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="the file's stem")
    description: str = Field(description="one line for people")
    subscribe: bool = Field(default=True, description="whether every upload wants this profile")
    container: Container = Field(
        default=Container.SOURCE, description="source, mp4, mkv, webm, ogg, avi or hls"
    )
    video: VideoRecipe
    hls: Hls = Hls()
    audio: Audio = Audio()
    subtitles: Subtitles = Subtitles()
    policies: Policies = Policies()
    gates: Gates = Gates()
    bounds: Bounds = Bounds()
    chunking: Chunking = Chunking()
    queue: QueueNumbers = QueueNumbers()
    fleet: Fleet = Fleet()

    @property
    def revision(self) -> str:
        """The recipe's digest of 12 digits; it excludes how the work is divided among workers."""
        excluded = {"chunking", "queue", "fleet", "description", "subscribe"}
        excluded |= set() if self.container is Container.HLS else {"hls"}
        recipe = self.model_dump(mode="json", exclude=excluded)
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]

    def with_asked(self, asked: Asked) -> Self:
        """Return the profile with the CRF and the quality that a command chose for its videos."""
        raw, (crf, quality) = self.model_dump(mode="json"), asked
        video = raw["video"] | {"crf": crf, "quality": quality}
        return self.model_validate({**raw, "video": video})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        video = self.video
        if (video.max_width is None) != (video.max_height is None):
            raise ValueError("video.max_width and video.max_height come together")
        if video.codec not in VIDEO_HELD[self.container]:
            held = ", ".join(sorted(VIDEO_HELD[self.container]))
            raise ValueError(f"the container {self.container} holds {held}, not {video.codec}")
        problem = preset_problem(video.codec, video.preset) or quality_problem(
            video.codec, video.crf
        )
        problem = problem or encoder_problem(video.encoder, video.codec)
        problem = problem or depth_problem(video.codec, video.pixel_format)
        if two_passes := {"pass", "stats"} & set(video.encoder_params):
            problem = f"video.encoder_params: {min(two_passes)} is for two passes; hevcq makes one"
        if video.encoder_params and video.codec not in _TAKES_PARAMS:
            problem = f"video.encoder_params: {video.codec} takes none, only hevc, h264 and av1 do"
        if video.quality is not None and (
            video.codec not in SCALES
            or self.container is Container.HLS
            or video.encoder != (SOFTWARE,)
        ):
            problem = "video.quality is for files that software encodes in hevc, h264, vp9 or av1"
        if problem:
            raise ValueError(problem)
        if self.container is Container.HLS:
            self._require_ladder()
        return self

    def _require_ladder(self) -> None:
        """Raise ValueError if a value contradicts the ladder, which has its own sizes and key frames."""
        video = self.video
        if video.scales or video.keyframe_s is not None:
            raise ValueError(
                "container: hls takes sizes and key frames from the hls section, not from video"
            )
        if video.crop != "none":
            raise ValueError(
                "video.crop is for files: the sizes of a ladder are those of the whole picture"
            )
        if self.audio.loudness is not None:
            raise ValueError(
                "audio.loudness is for files: each group of sounds of a ladder is mixed anew"
            )
        if self.subtitles.beside:
            raise ValueError("subtitles.beside is for files: a ladder has its text in playlists")

    @property
    def contradiction(self) -> str:
        """Why this valid profile cannot encode anything, or ""."""
        crf = self.hls.h264_rungs[max(self.hls.h264_rungs)][0]
        if self.container is not Container.HLS or self.video.crf == crf:
            return ""
        return (
            f"container: hls takes the crf of each rung from hls.h264_rungs; video.crf must be that "
            f"of the highest, {crf:g}, not {self.video.crf:g}"
        )
