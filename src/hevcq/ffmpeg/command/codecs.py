"""Describe the differences between the video encoders in one table, each row with its manual."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from hevcq.domain.formats import HARDWARE, VIDEO_FORMATS, VideoCodec, quality_options
from hevcq.domain.media.facts import MasteringDisplay
from hevcq.domain.planning.encode_plan import VideoTarget

Params = dict[str, str]


def _by_name(preset: str, crf: str) -> list[tuple[str, str]]:
    return [("-preset", preset), ("-crf", crf)]


def _own_threads(count: int) -> tuple[Params, list[tuple[str, str]]]:
    return {}, [("-threads", str(count))]


def _no_threads(_count: int) -> tuple[Params, list[tuple[str, str]]]:
    return {}, []


@dataclass(frozen=True, slots=True)
class Codec:
    """One video encoder: the ffmpeg option of its parameters, and the names of its settings.

    `quality` returns the ffmpeg options for a preset and a `crf`, `threads` its parameters and
    ffmpeg options for a number of threads. `mastering` and `light` are "" where static HDR metadata
    cannot be set.
    """

    quality: Callable[[str, str], list[tuple[str, str]]]
    threads: Callable[[int], tuple[Params, list[tuple[str, str]]]] = _own_threads
    option: str = ""
    base: Params = field(default_factory=dict)
    mastering: str = ""
    light: str = ""


FULL_HD = 1920 * 1088
GROUP = "240"
"""Most frames from one key frame to the next, where the encoder's own default is far from it."""
CODECS: dict[str, Codec] = {
    # https://x265.readthedocs.io/en/stable/cli.html
    "libx265": Codec(
        option="-x265-params",
        # x265 writes to stderr by itself, ignoring ffmpeg's -loglevel.
        base={"log-level": "error"},
        threads=lambda count: ({"pools": str(count)}, []),
        mastering="master-display",
        light="max-cll",
        quality=_by_name,
    ),
    # https://www.videolan.org/developers/x264.html and `x264 --fullhelp`
    "libx264": Codec(
        option="-x264-params",
        quality=_by_name,
    ),
    # https://trac.ffmpeg.org/wiki/Encode/VP9: without `-b:v 0` the quality is capped at 200 kb/s.
    "libvpx-vp9": Codec(
        quality=lambda preset, crf: [
            *(("-deadline", "good"), ("-cpu-used", preset), ("-row-mt", "1")),
            *(("-crf", crf), ("-b", "0"), ("-g", GROUP)),
        ],
    ),
    # https://gitlab.com/AOMediaCodec/SVT-AV1/-/blob/master/Docs/Parameters.md
    "libsvtav1": Codec(
        option="-svtav1-params",
        # More than 240 is refused, which headers of phones' clocks say; frames keep their own times.
        base={"fps-num": "60", "fps-denom": "1"},
        threads=lambda count: ({"lp": str(count)}, []),
        mastering="mastering-display",
        light="content-light",
        quality=lambda preset, crf: [*_by_name(preset, crf), ("-g", GROUP)],
    ),
    # https://trac.ffmpeg.org/wiki/TheoraVorbisEncodingGuide
    "libtheora": Codec(
        threads=_no_threads,
        quality=lambda _preset, crf: [("-q", crf), ("-g", GROUP)],
    ),
    # https://trac.ffmpeg.org/wiki/Encode/MPEG-4; B-frames would shift AVI's decoding times.
    "mpeg4": Codec(
        quality=lambda _preset, crf: [("-q", crf), ("-bf", "0"), ("-g", GROUP)],
    ),
}


def of_encoder(name: str) -> Codec:
    """Return the row of an encoder; one of hardware has no parameters besides its quality."""
    if name not in HARDWARE:
        return CODECS[name]
    return Codec(
        threads=_no_threads,
        quality=lambda _preset, crf: quality_options(name, float(crf)),
    )


def encoder_params(target: VideoTarget, own: dict[str, str | int | float], threads: int) -> Params:
    """Return the encoder's parameters; those of the profile (`own`) take precedence.

    `threads` is a number of threads; 0 leaves it to the encoder.
    """
    codec = of_encoder(target.encoder)
    if target.encoder in HARDWARE:
        return {}
    params = dict(codec.base)
    if threads:
        params |= codec.threads(threads)[0]
    if target.mastering_display is not None:
        written = _in_decimals if target.encoder == "libsvtav1" else _in_steps
        params[codec.mastering] = _mastering(target.mastering_display, written)
    if target.light_level is not None:
        light = target.light_level
        params[codec.light] = f"{light.max_content},{light.max_average}"
    if target.dolby_vision and target.encoder == "libx265":
        # Demanded by Dolby Vision: the most that its levels allow up to 1080p, and from there to 4K.
        most = "20000" if target.width * target.height <= FULL_HD else "40000"
        params |= {"vbv-maxrate": most, "vbv-bufsize": most}
    return params | {name: str(value) for name, value in own.items()}


def _mastering(display: MasteringDisplay, written: Callable[[str, int], str]) -> str:
    """Return ST 2086 metadata as encoders take it; `written` says a value, given its steps in a unit."""

    def pair(one: str, other: str, steps: int = 50_000) -> str:
        return f"({written(one, steps)},{written(other, steps)})"

    return (
        f"G{pair(display.green_x, display.green_y)}B{pair(display.blue_x, display.blue_y)}"
        f"R{pair(display.red_x, display.red_y)}WP{pair(display.white_x, display.white_y)}"
        f"L{pair(display.max_luminance, display.min_luminance, 10_000)}"
    )


def _in_steps(value: str, steps: int) -> str:
    """Write a value as x265 and x264 take it: in units of 1/50000, and of 1/10000 cd/m²."""
    return str(round(Fraction(value) * steps))


def _in_decimals(value: str, _steps: int) -> str:
    """Write a value as SVT-AV1 takes it, without a comma."""
    return f"{float(Fraction(value)):.5f}"


def marks_range(target: VideoTarget) -> bool:
    """Return whether full range must be marked: the encoder takes no pixel format that says so."""
    return target.colour.range == "pc" and not VIDEO_FORMATS[VideoCodec(target.codec)].legacy_range


def hardware_format(target: VideoTarget) -> list[tuple[str, str]]:
    """Return the pixel format to hand to the encoder; hardware surfaces get theirs by the upload."""
    if target.encoder not in HARDWARE:
        return [("-pix_fmt", coded_pixel_format(target))]
    name = HARDWARE[target.encoder][0].pixel_formats[target.bit_depth]
    return [("-pix_fmt", name)] if name else []


def coded_pixel_format(target: VideoTarget) -> str:
    """Return the `-pix_fmt` value: full range needs its legacy name, or swscale compresses the range."""
    named = re.fullmatch(r"yuv4(20|22|44)p", target.pixel_format)
    if target.colour.range == "pc" and named and not marks_range(target):
        return target.pixel_format.replace("yuv", "yuvj")
    return target.pixel_format
