"""Describe how the video encoders differ, in one table; each row links the encoder's manual."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from hevcq.domain.formats import HARDWARE, VIDEO_FORMATS, VideoCodec, quality_options
from hevcq.domain.media.facts import MasteringDisplay
from hevcq.domain.planning.encode_plan import VideoTarget

Params = dict[str, str]


def _preset_and_crf(preset: str, crf: str) -> list[tuple[str, str]]:
    return [("-preset", preset), ("-crf", crf)]


def _threads_option(count: int) -> tuple[Params, list[tuple[str, str]]]:
    return {}, [("-threads", str(count))]


def _ignore_threads(_count: int) -> tuple[Params, list[tuple[str, str]]]:
    return {}, []


@dataclass(frozen=True, slots=True)
class EncoderTraits:
    """How one video encoder is told its settings.

    `quality(preset, crf)` returns ffmpeg options. `threads(count)` returns parameters of the encoder
    and ffmpeg options. `option` is the ffmpeg option that takes a list of the encoder's own parameters,
    "" if there is none; `base` are parameters that are always set. `mastering` and `light` name the
    parameters of static HDR metadata; "" if it cannot be set.
    """

    quality: Callable[[str, str], list[tuple[str, str]]]
    threads: Callable[[int], tuple[Params, list[tuple[str, str]]]] = _threads_option
    option: str = ""
    base: Params = field(default_factory=dict)
    mastering: str = ""
    light: str = ""


FULL_HD = 1920 * 1088
MAX_GROUP_FRAMES = "240"
"""Largest distance of key frames in frames, for encoders whose own default is far from it."""
ENCODERS: dict[str, EncoderTraits] = {
    # https://x265.readthedocs.io/en/stable/cli.html
    "libx265": EncoderTraits(
        option="-x265-params",
        # x265 writes to stderr by itself, ignoring ffmpeg's -loglevel.
        base={"log-level": "error"},
        threads=lambda count: ({"pools": str(count)}, []),
        mastering="master-display",
        light="max-cll",
        quality=_preset_and_crf,
    ),
    # https://www.videolan.org/developers/x264.html and `x264 --fullhelp`
    "libx264": EncoderTraits(option="-x264-params", quality=_preset_and_crf),
    # https://trac.ffmpeg.org/wiki/Encode/VP9: without `-b:v 0` the quality is capped at 200 kb/s.
    "libvpx-vp9": EncoderTraits(
        quality=lambda preset, crf: [
            *(("-deadline", "good"), ("-cpu-used", preset), ("-row-mt", "1")),
            *(("-crf", crf), ("-b", "0"), ("-g", MAX_GROUP_FRAMES)),
        ]
    ),
    # https://gitlab.com/AOMediaCodec/SVT-AV1/-/blob/master/Docs/Parameters.md
    "libsvtav1": EncoderTraits(
        option="-svtav1-params",
        # SVT-AV1 refuses more than 240, which the headers of some phones claim. Timestamps do not change.
        base={"fps-num": "60", "fps-denom": "1"},
        threads=lambda count: ({"lp": str(count)}, []),
        mastering="mastering-display",
        light="content-light",
        quality=lambda preset, crf: [*_preset_and_crf(preset, crf), ("-g", MAX_GROUP_FRAMES)],
    ),
    # https://trac.ffmpeg.org/wiki/TheoraVorbisEncodingGuide
    "libtheora": EncoderTraits(
        threads=_ignore_threads,
        quality=lambda _preset, crf: [("-q", crf), ("-g", MAX_GROUP_FRAMES)],
    ),
    # https://trac.ffmpeg.org/wiki/Encode/MPEG-4; B-frames would shift AVI's decoding times.
    "mpeg4": EncoderTraits(
        quality=lambda _preset, crf: [("-q", crf), ("-bf", "0"), ("-g", MAX_GROUP_FRAMES)]
    ),
}


def encoder_traits(name: str) -> EncoderTraits:
    """Return the traits of an encoder by name. Hardware encoders have no parameters but their quality."""
    if name not in HARDWARE:
        return ENCODERS[name]
    return EncoderTraits(
        threads=_ignore_threads, quality=lambda _preset, crf: quality_options(name, float(crf))
    )


def encoder_params(target: VideoTarget, own: dict[str, str | int | float], threads: int) -> Params:
    """Return the encoder's parameters. Those of the profile (`own`) take precedence.

    `threads` is the number of threads; with 0 the encoder decides.
    """
    codec = encoder_traits(target.encoder)
    if target.encoder in HARDWARE:
        return {}
    params = dict(codec.base)
    if threads:
        params |= codec.threads(threads)[0]
    if target.mastering_display is not None:
        is_decimal = target.encoder == "libsvtav1"
        params[codec.mastering] = _mastering(target.mastering_display, is_decimal=is_decimal)
    if target.light_level is not None:
        light = target.light_level
        params[codec.light] = f"{light.max_content},{light.max_average}"
    if target.dolby_vision and target.encoder == "libx265":
        # Dolby Vision demands a limit: the largest of its levels for up to 1080p, and for up to 4K.
        most = "20000" if target.width * target.height <= FULL_HD else "40000"
        params |= {"vbv-maxrate": most, "vbv-bufsize": most}
    return params | {name: str(value) for name, value in own.items()}


def _mastering(display: MasteringDisplay, *, is_decimal: bool) -> str:
    """Format ST 2086 metadata: as decimals, or in units of 1/50000 and, for luminance, of 1/10000 cd/m²."""

    def pair(one: str, other: str, steps: int = 50_000) -> str:
        values = Fraction(one), Fraction(other)
        if is_decimal:
            return "({:.5f},{:.5f})".format(*map(float, values))
        return "({},{})".format(*(round(value * steps) for value in values))

    return (
        f"G{pair(display.green_x, display.green_y)}B{pair(display.blue_x, display.blue_y)}"
        f"R{pair(display.red_x, display.red_y)}WP{pair(display.white_x, display.white_y)}"
        f"L{pair(display.max_luminance, display.min_luminance, 10_000)}"
    )


def needs_range_mark(target: VideoTarget) -> bool:
    """Whether full range needs a mark of its own, because the encoder takes no full-range pixel format."""
    return target.colour.range == "pc" and not VIDEO_FORMATS[VideoCodec(target.codec)].legacy_range


def pixel_format_option(target: VideoTarget) -> list[tuple[str, str]]:
    """Return the option of the encoder's pixel format; the upload filter sets that of hardware surfaces."""
    if target.encoder not in HARDWARE:
        return [("-pix_fmt", coded_pixel_format(target))]
    name = HARDWARE[target.encoder][0].pixel_formats[target.bit_depth]
    return [("-pix_fmt", name)] if name else []


def coded_pixel_format(target: VideoTarget) -> str:
    """Return the `-pix_fmt` value; full range needs its legacy name, or swscale compresses the range."""
    named = re.fullmatch(r"yuv4(20|22|44)p", target.pixel_format)
    if target.colour.range == "pc" and named and not needs_range_mark(target):
        return target.pixel_format.replace("yuv", "yuvj")
    return target.pixel_format
