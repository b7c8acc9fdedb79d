"""Model two sections of a profile: `hls`, the ladder, and `chunking`, how a long video is split."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from hevcq.domain.model import Frozen

Rate = tuple[Annotated[float, Field(ge=0, le=51)], Annotated[int, Field(ge=50, le=200_000)]]
"""The constant rate factor of a rung, and the largest rate in kbit/s of up to 30 frames a second."""
Rungs = dict[Annotated[int, Field(ge=64, le=4320, multiple_of=2)], Rate]

H264_RUNGS: Rungs = {
    1080: (22, 7800), 720: (22, 4500), 480: (23, 2000), 360: (23, 1100), 240: (24, 400),
}  # fmt: skip
"""Caps in the range of Apple's table for H.264
(https://developer.apple.com/documentation/http-live-streaming/hls-authoring-specification-for-apple-devices)."""
HEVC_RUNGS: Rungs = {
    2160: (24, 16800), 1440: (24, 8100), 1080: (24, 5800), 720: (24, 3400), 480: (25, 1600),
    360: (25, 600), 240: (26, 300),
}  # fmt: skip


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
        "30 frames a second)",
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
