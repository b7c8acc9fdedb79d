"""Model the `chunking` section of a profile: whether and how finely a video is split, and the threads."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from hevcq.domain.model import Frozen


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
        description="auto: videos of at least least_video_s; always: all that can be split; or off",
    )
    min_s: float = Field(default=20.0, gt=0, description="shortest chunk, in seconds of video")
    target_s: float = Field(default=60.0, gt=0, description="chunk of a video of even difficulty")
    max_s: float = Field(
        default=180.0, gt=0, description="longest chunk; only a longer gap between key frames is"
    )
    least_video_s: float = Field(
        default=600.0, ge=0, description="auto: shorter videos are encoded whole"
    )
    threads: int = Field(
        default=0, ge=0, le=64, description="encoder threads of one chunk; 0: as bounds.threads"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.min_s <= self.target_s <= self.max_s:
            raise ValueError("chunking needs min_s <= target_s <= max_s")
        return self
