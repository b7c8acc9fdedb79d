"""State what each video codec and each container can carry: the table behind plan, command and gates.

The rows of codecs are what the encoders of ffmpeg 5.1 accept (`ffmpeg -h encoder=NAME`) and what was
read back from their output by ffprobe; a test encodes each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class VideoCodec(StrEnum):
    """The video codecs that a recipe can request."""

    HEVC = "hevc"
    H264 = "h264"
    VP9 = "vp9"
    AV1 = "av1"
    THEORA = "theora"
    MPEG4 = "mpeg4"


class Container(StrEnum):
    """The rendition's container; `source` keeps MP4, MOV and Matroska and makes the rest Matroska.

    `hls` is a set of files: a ladder of fragmented MP4 with its playlists.
    """

    SOURCE = "source"
    MP4 = "mp4"
    MKV = "mkv"
    WEBM = "webm"
    OGG = "ogg"
    AVI = "avi"
    HLS = "hls"


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """What an encoder takes and its codec records.

    `depths` are the most bits per sample by family of pixel formats; `quality` are the ends of the
    scale of `video.crf`, the better one first, and `judged` the worst value at which sharp detail is
    still expected. `described` says whether colour tags and range are recorded, `static_hdr` whether
    the encoder records an HDR10 mastering display.
    `presets` are the ends of a preset that is a number; None for one by name, or for no preset.
    """

    encoder: str
    tag: str
    depths: Mapping[str, int]
    quality: tuple[float, float]
    judged: float
    smallest: int = 16
    described: bool = True
    static_hdr: bool = True
    presets: tuple[int, int] | None = None
    usual_preset: int = 0
    legacy_range: frozenset[str] = field(default=frozenset())
    """Families whose decoder reports 8-bit full range by a `yuvj` name."""


_EVERY = {"420": 12, "422": 12, "444": 12, "gray": 12, "gbr": 12}

VIDEO_FORMATS: Mapping[VideoCodec, VideoFormat] = {
    # Apple's players accept HEVC only as hvc1
    # (https://developer.apple.com/documentation/http-live-streaming/hls-authoring-specification-for-apple-devices).
    VideoCodec.HEVC: VideoFormat(
        "libx265", "hvc1", _EVERY, (0, 51), 32, legacy_range=frozenset({"420"})
    ),
    VideoCodec.H264: VideoFormat(
        "libx264",
        "avc1",
        {"420": 10, "422": 10, "444": 10, "gray": 10},
        (0, 51),
        32,
        legacy_range=frozenset({"420", "422", "444"}),
    ),
    VideoCodec.VP9: VideoFormat(
        "libvpx-vp9",
        "vp09",
        {"420": 12, "422": 12, "444": 12},
        (0, 63),
        40,
        static_hdr=False,
        presets=(0, 8),
        usual_preset=4,
    ),
    # SVT-AV1 refuses a picture smaller than 64x64.
    VideoCodec.AV1: VideoFormat(
        "libsvtav1", "av01", {"420": 10}, (0, 63), 42, 64, presets=(0, 13), usual_preset=8
    ),
    VideoCodec.THEORA: VideoFormat(
        "libtheora",
        "",
        {"420": 8, "422": 8, "444": 8},
        (10, 0),
        5,
        described=False,
        static_hdr=False,
    ),
    VideoCodec.MPEG4: VideoFormat(
        "mpeg4", "mp4v", {"420": 8}, (1, 31), 8, described=False, static_hdr=False
    ),
}

VIDEO_HELD: Mapping[Container, frozenset[VideoCodec]] = {
    Container.SOURCE: frozenset({VideoCodec.HEVC, VideoCodec.H264, VideoCodec.AV1, VideoCodec.VP9}),
    Container.MP4: frozenset({VideoCodec.HEVC, VideoCodec.H264, VideoCodec.AV1, VideoCodec.VP9}),
    Container.MKV: frozenset(VideoCodec) - {VideoCodec.THEORA},
    Container.WEBM: frozenset({VideoCodec.VP9, VideoCodec.AV1}),
    Container.OGG: frozenset({VideoCodec.THEORA}),
    Container.AVI: frozenset({VideoCodec.MPEG4}),
    Container.HLS: frozenset({VideoCodec.H264}),
}
"""The codecs that a recipe may ask for in a container."""

CONSTANT_RATE = frozenset({Container.OGG, Container.AVI})
"""Containers that count frames instead of recording times: theirs is one rate for the whole video."""


def encoder_of(codec: VideoCodec) -> str:
    """Return ffmpeg's encoder in software."""
    return VIDEO_FORMATS[codec].encoder


def encoder_preset(codec: VideoCodec, preset: str) -> str:
    """Return the preset as the encoder calls it; `medium` is its usual number."""
    row = VIDEO_FORMATS[codec]
    return str(row.usual_preset) if row.presets and preset == "medium" else preset


def preset_problem(codec: VideoCodec, preset: str) -> str:
    """Return why the encoder of this codec has no such preset, or ""; `medium` suits each."""
    ends = VIDEO_FORMATS[codec].presets
    if ends is None or preset == "medium":
        return "" if not preset.isdigit() else f"{codec} has presets by name, not by number"
    if preset.isdigit() and ends[0] <= int(preset) <= ends[1]:
        return ""
    return f"{codec} has the presets {ends[0]} to {ends[1]}, not {preset}"


def quality_problem(codec: VideoCodec, crf: float) -> str:
    """Return why the encoder of this codec cannot aim at this quality, or ""."""
    better, worse = VIDEO_FORMATS[codec].quality
    if min(better, worse) <= crf <= max(better, worse):
        return ""
    return f"{codec} has qualities from {better:g} (best) to {worse:g}, not {crf:g}"


def keeps_detail(codec: VideoCodec, crf: float) -> bool:
    """Return whether an encode of this quality is expected to keep sharp detail (gate G8)."""
    row = VIDEO_FORMATS[codec]
    better, worse = row.quality
    return crf <= row.judged if better < worse else crf >= row.judged
