"""State what each video codec, pixel format and container can carry, for plan, command and gates.

A pixel format is chosen without loss of bit depth or chroma. The rows of codecs are what the encoders
of ffmpeg 5.1 accept (`ffmpeg -h encoder=NAME`) and what was read back from their output by ffprobe; a
test encodes each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class VideoCodec(StrEnum):
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
    an HDR10 mastering display is recorded so that ffmpeg reads it.
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
        # It is written, but ffmpeg 5.1 does not read it.
        static_hdr=False,
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
    return VIDEO_FORMATS[codec].encoder


def encoder_preset(codec: VideoCodec, preset: str) -> str:
    """Return the preset as the encoder calls it; `medium` is its usual number."""
    row = VIDEO_FORMATS[codec]
    return str(row.usual_preset) if row.presets and preset == "medium" else preset


PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower",
           "veryslow", "placebo")  # fmt: skip
"""Of libx264 and libx265 (https://x265.readthedocs.io/en/master/presets.html)."""


def preset_problem(codec: VideoCodec, preset: str) -> str:
    ends = VIDEO_FORMATS[codec].presets
    if preset == "medium":
        return ""
    if ends is None:
        names = PRESETS if codec in {VideoCodec.HEVC, VideoCodec.H264} else ("medium",)
        return (
            "" if preset in names else f"{codec} has the presets {', '.join(names)}, not {preset}"
        )
    if preset.isdigit() and ends[0] <= int(preset) <= ends[1]:
        return ""
    return f"{codec} has the presets {ends[0]} to {ends[1]}, not {preset}"


def depth_problem(codec: VideoCodec, pixel_format: str) -> str:
    """Return why this codec is not made in these samples, or ""."""
    # H.264 of 10 bits plays almost nowhere, and no hardware decodes it.
    deep = codec is not VideoCodec.H264 and VIDEO_FORMATS[codec].depths.get("420", 0) >= 10
    return "" if deep or pixel_format != "yuv420p10" else f"{codec} is not made in {pixel_format}"


def quality_problem(codec: VideoCodec, crf: float) -> str:
    better, worse = VIDEO_FORMATS[codec].quality
    if min(better, worse) <= crf <= max(better, worse):
        return ""
    return f"{codec} has qualities from {better:g} (best) to {worse:g}, not {crf:g}"


def keeps_detail(codec: VideoCodec, crf: float) -> bool:
    """Return whether an encode of this quality is expected to keep sharp detail (gate G8)."""
    row = VIDEO_FORMATS[codec]
    better, worse = row.quality
    return crf <= row.judged if better < worse else crf >= row.judged


_SUBSAMPLING = {"420": (True, True), "422": (True, False), "444": (False, False)}


@dataclass(frozen=True, slots=True)
class Pixels:
    """An encoder's pixel format: family (420, 422, 444, gray, gbr) and bits per sample."""

    family: str
    bits: int

    @property
    def name(self) -> str:
        base = {"gray": "gray", "gbr": "gbrp"}.get(self.family, f"yuv{self.family}p")
        if self.bits == 8:
            return base
        return f"{base}{self.bits}le"

    @property
    def even(self) -> tuple[bool, bool]:
        return _SUBSAMPLING.get(self.family, (False, False))


def _formats() -> dict[str, Pixels]:
    same = {
        "420": ["yuv420p", "yuvj420p", "nv12", "nv21", "yuv410p"],
        "422": ["yuv422p", "yuvj422p", "yuyv422", "uyvy422", "yvyu422", "nv16", "yuv411p"],
        "444": ["yuv444p", "yuvj444p", "yuv440p", "yuvj440p", "nv24", "nv42"],
        "gbr": ["gbrp", "rgb24", "bgr24", "0rgb", "rgb0", "0bgr", "bgr0"],
        "gray": ["gray"],
    }
    found = {name: Pixels(family, 8) for family, names in same.items() for name in names}
    for end in ("le", "be"):
        for family, base in (("420", "yuv420p"), ("422", "yuv422p"), ("444", "yuv444p"),
                             ("gbr", "gbrp"), ("gray", "gray")):  # fmt: skip
            found |= {f"{base}{bits}{end}": Pixels(family, bits) for bits in (10, 12)}
            found[f"{base}9{end}"] = Pixels(family, 10)
        found[f"p010{end}"] = Pixels("420", 10)
        found[f"p210{end}"] = Pixels("422", 10)
        found[f"p410{end}"] = Pixels("444", 10)
        found |= {f"yuv440p{bits}{end}": Pixels("444", bits) for bits in (10, 12)}
    return found


PIXEL_FORMATS = _formats()
"""The encoder's pixel format for each of a decoder's, by the name that ffprobe reports.

Formats that are not listed are refused: alpha, 14 and 16 bits, and any future format."""


def kept(source: str, codec: VideoCodec) -> Pixels | None:
    """Return the encoder's pixel format that holds `source` without loss, or None."""
    found = PIXEL_FORMATS.get(source)
    if found is None or found.bits > VIDEO_FORMATS[codec].depths.get(found.family, 0):
        return None
    return found


def plain(source: str, bits: int = 8) -> Pixels | None:
    """Return 4:2:0 of so many bits if `source` is YUV that can be converted to it, else None."""
    found = PIXEL_FORMATS.get(source)
    return Pixels("420", bits) if found is not None and found.family.isdigit() else None


def same_samples(source: str, target: str) -> bool:
    """Return whether the target holds the samples of the source: no fewer bits, and no less chroma."""
    before, after = PIXEL_FORMATS.get(source), PIXEL_FORMATS.get(target)
    if before is None or after is None:
        return before is after
    return (before.family, True) == (after.family, before.bits <= after.bits)


def full_range(source: str, colour_range: str) -> bool:
    return source.startswith("yuvj") or colour_range in {"pc", "jpeg", "full"}


def reported(chosen: Pixels, codec: VideoCodec, *, full: bool) -> str:
    """Return ffprobe's name for an encode in this pixel format; full range may have a `yuvj` name.

    libavcodec's H.264 decoder reports yuvj for 4:2:0, 4:2:2 and 4:4:4, its HEVC decoder for 4:2:0.
    """
    if full and chosen.bits == 8 and chosen.family in VIDEO_FORMATS[codec].legacy_range:
        return chosen.name.replace("yuv", "yuvj")
    return chosen.name
