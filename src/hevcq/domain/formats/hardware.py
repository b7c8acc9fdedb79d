"""Map a recipe to the encoders of graphics hardware: one row for each, with its source.

Nothing here was run on hardware: the rows are what ffmpeg 5.1 and the makers document, and a trial
encode decides on each machine whether a row works there (`ffmpeg.hardware`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from hevcq.domain.formats.video import VideoCodec

SOFTWARE, AUTO = "software", "auto"
BETTER_BY = 4
"""A hardware encoder's quality number for a recipe's `crf`: this much lower, because hardware needs more
bits for the same quality (Optimisarr's EncoderQualityPolicy.cs takes the same)."""


class Fallback(StrEnum):
    """Encode in software where no hardware encoder can, or wait for a worker that has one."""

    SOFTWARE = "software"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Family:
    """The encoders of one interface: the options ahead of the input, and those of the picture.

    `device` are global options, `upload` the last filter, `pixel_formats` the format by bits per
    sample ("" where the filter sets it), `nodes` the device files, `quality` the option names and
    values in which `{}` is the quality number, `session_full` fragments of what it prints when it
    has no more sessions.
    """

    device: tuple[str, ...]
    upload: Mapping[int, str]
    pixel_formats: Mapping[int, str]
    nodes: tuple[str, ...]
    quality: tuple[tuple[str, str], ...]
    session_full: tuple[str, ...] = ()


NODE = "/dev/dri/renderD128"
"""The first render node, as Linux numbers them."""

FAMILIES: Mapping[str, Family] = {
    # https://docs.nvidia.com/video-technologies/video-codec-sdk/12.1/ffmpeg-with-nvidia-gpu/
    "nvenc": Family(
        device=(),
        upload={},
        pixel_formats={8: "yuv420p", 10: "p010le"},
        nodes=("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"),
        quality=(("-rc", "vbr"), ("-cq", "{}"), ("-b", "0"), ("-preset", "p5"), ("-tune", "hq"),
                 ("-spatial-aq", "1")),
        session_full=("OpenEncodeSessionEx failed: out of memory",
                      "OpenEncodeSessionEx failed: incompatible client key"),
    ),
    # https://trac.ffmpeg.org/wiki/Hardware/QuickSync: global_quality alone is ICQ.
    "qsv": Family(
        device=("-init_hw_device", f"qsv=hw,child_device={NODE}", "-filter_hw_device", "hw"),
        upload={8: "format=nv12,hwupload=extra_hw_frames=64",
                10: "format=p010le,hwupload=extra_hw_frames=64"},
        pixel_formats={8: "", 10: ""},
        nodes=("/dev/dri",),
        quality=(("-global_quality", "{}"), ("-preset", "slower")),
    ),
    # https://trac.ffmpeg.org/wiki/Hardware/VAAPI
    "vaapi": Family(
        device=("-vaapi_device", NODE),
        upload={8: "format=nv12,hwupload", 10: "format=p010le,hwupload"},
        pixel_formats={8: "", 10: ""},
        nodes=("/dev/dri",),
        # av1_vaapi has no -qp.
        quality=(("-rc_mode", "CQP"), ("-global_quality", "{}")),
    ),
    # https://github.com/GPUOpen-LibrariesAndSDKs/AMF/wiki/FFmpeg-and-AMF-HW-Acceleration
    "amf": Family(
        device=(),
        upload={},
        pixel_formats={8: "nv12", 10: "p010le"},
        nodes=("/dev/dri",),
        quality=(("-rc", "cqp"), ("-qp_i", "{}"), ("-qp_p", "{}"), ("-quality", "quality")),
    ),
}  # fmt: skip
_CODECS = {"hevc": VideoCodec.HEVC, "h264": VideoCodec.H264, "av1": VideoCodec.AV1}
_DEEP = frozenset({VideoCodec.HEVC, VideoCodec.AV1})
"""Codecs that hardware encodes with 10 bits; H.264 nowhere does it."""
HARDWARE: Mapping[str, tuple[Family, VideoCodec]] = {
    f"{word}_{family}": (row, codec)
    for family, row in FAMILIES.items()
    for word, codec in _CODECS.items()
}
"""Every encoder by ffmpeg's name, in the order in which `auto` tries them."""

AV1_LARGEST: Mapping[str, int] = {"av1_qsv": 51, "av1_vaapi": 255, "av1_amf": 255}
"""The largest quality number of an AV1 encoder that does not count to 63 as libsvtav1 does: ICQ's, or
the index of AV1's quantizers (`ffmpeg -h encoder=`, vaapi_encode_av1.c)."""


def candidates(wanted: tuple[str, ...], codec: VideoCodec) -> tuple[str, ...]:
    if AUTO in wanted:
        return tuple(name for name, (_, made) in HARDWARE.items() if made is codec)
    return tuple(name for name in wanted if name in HARDWARE)


def encoder_problem(wanted: tuple[str, ...], codec: VideoCodec) -> str:
    for name in wanted:
        if name in {SOFTWARE, AUTO}:
            if len(wanted) > 1:
                return f"video.encoder: {name} stands alone"
        elif name not in HARDWARE:
            return f"video.encoder: {name} is none of {SOFTWARE}, {AUTO}, {', '.join(HARDWARE)}"
        elif HARDWARE[name][1] is not codec:
            return f"video.encoder: {name} makes {HARDWARE[name][1]}, not {codec}"
    return "" if wanted else f"video.encoder names none; say {SOFTWARE}"


def unsuited(codec: VideoCodec, pixel_format: str, bits: int) -> str:
    """Return why hardware does not take these samples, or "": it holds 4:2:0 of 8 bits, or of 10."""
    if pixel_format not in {"yuv420p", "yuvj420p", "yuv420p10le"}:
        return f"{pixel_format} is not 4:2:0 of 8 or 10 bits"
    if bits > 8 and codec not in _DEEP:
        return f"no hardware makes {codec} of {bits} bits"
    return ""


def quality_options(name: str, crf: float) -> list[tuple[str, str]]:
    family, _ = HARDWARE[name]
    number = max(1, round((crf - BETTER_BY) * AV1_LARGEST.get(name, 63) / 63))
    return [(key, value.format(number)) for key, value in family.quality]
