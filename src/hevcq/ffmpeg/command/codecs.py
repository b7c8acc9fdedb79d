"""Describe the differences between the video encoders in one table, each row with its manual."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from fractions import Fraction

from hevcq.domain.formats import HARDWARE, VIDEO_FORMATS, VideoCodec, quality_options
from hevcq.domain.media.facts import DISCONTINUOUS, MasteringDisplay, MediaInfo
from hevcq.domain.planning.encode_plan import FILM_TICK, VideoTarget
from hevcq.ffmpeg.inputs import UNCROPPED, looking_far

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
    ffmpeg options for a number of threads; `interlaced` are the values of `-flags` for interlaced
    coding. `mastering` and `light` are "" where static HDR metadata cannot be set.
    """

    quality: Callable[[str, str], list[tuple[str, str]]]
    threads: Callable[[int], tuple[Params, list[tuple[str, str]]]] = _own_threads
    option: str = ""
    base: Params = field(default_factory=dict)
    mastering: str = ""
    light: str = ""
    interlaced: tuple[str, ...] = ()


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
        interlaced=("+ildct+ilme",),
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
        display = _fractions if target.encoder == "libsvtav1" else _display
        params[codec.mastering] = display(target.mastering_display)
    if target.light_level is not None:
        light = target.light_level
        params[codec.light] = f"{light.max_content},{light.max_average}"
    if target.dolby_vision and target.encoder == "libx265":
        # Demanded by Dolby Vision: the most that its levels allow up to 1080p, and from there to 4K.
        most = "20000" if target.width * target.height <= FULL_HD else "40000"
        params |= {"vbv-maxrate": most, "vbv-bufsize": most}
    return params | {name: str(value) for name, value in own.items()}


def _display(display: MasteringDisplay) -> str:
    """Return ST 2086 metadata in the syntax of x265 and x264: units of 1/50000, and 1/10000 cd/m²."""

    def units(steps: int, *values: str) -> str:
        return ",".join(str(round(Fraction(value) * steps)) for value in values)

    return (
        f"G({units(50_000, display.green_x, display.green_y)})"
        f"B({units(50_000, display.blue_x, display.blue_y)})"
        f"R({units(50_000, display.red_x, display.red_y)})"
        f"WP({units(50_000, display.white_x, display.white_y)})"
        f"L({units(10_000, display.max_luminance, display.min_luminance)})"
    )


def _fractions(display: MasteringDisplay) -> str:
    """Return ST 2086 metadata in the syntax of SVT-AV1: plain numbers, without a comma in any."""

    def numbers(*values: str) -> str:
        return ",".join(f"{float(Fraction(value)):.5f}" for value in values)

    return (
        f"G({numbers(display.green_x, display.green_y)})"
        f"B({numbers(display.blue_x, display.blue_y)})"
        f"R({numbers(display.red_x, display.red_y)})"
        f"WP({numbers(display.white_x, display.white_y)})"
        f"L({numbers(display.max_luminance, display.min_luminance)})"
    )


def deinterlace_filter(target: VideoTarget) -> str:
    """Return the filter that makes a frame of each field, or of each pair: times stay the source's."""
    mode = "send_field" if target.field_rate else "send_frame"
    order = {None: "auto", True: "tff", False: "bff"}[target.top_field_first]
    return f"bwdif=mode={mode}:parity={order}:deint=all"


_ALIKE = 1.005
"""Factor by which aspects may differ without bars: sizes are rounded to whole pixels."""


def fit_filter(target: VideoTarget) -> str:
    """Return the filters that fit pictures of any size and aspect into one, undistorted.

    Offsets are even, and fields are scaled apart, so that no line changes its field.
    """
    shapes = [re.split("[x ]", shape.replace(":", "/")) for shape in target.fit.split(", ")]
    width, height, sample = shapes[0]
    shown, dar = f"{width}*{sample}/{height}", "dar"
    for w, h, aspect in shapes if shapes[1:] else ():
        dar = f"if(eq(iw,{w})*eq(ih,{h}),iw*{aspect}/ih,{dar})"
    wide = f"if(gte({dar}*{_ALIKE},{shown}),{width},round({height}*{dar}/({sample})/4)*4)"
    high = f"if(gte({shown}*{_ALIKE},{dar}),{height},round({width}*{sample}/({dar})/4)*4)"
    fields = ":interl=1" if target.deinterlace or target.field_order != "progressive" else ""
    scaled = f"scale=w='{wide}':h='{high}':eval=frame:flags=bicubic{fields}"
    bars = f"pad={width}:{height}:floor((ow-iw)/4)*2:floor((oh-ih)/4)*2:eval=frame"
    return f"{scaled},{bars},setsar={sample}"


def inverse_telecine_filter(target: VideoTarget) -> str:
    """Return the filters that put the fields of each original frame together, and leave one of five out.

    Times are even, from the first frame on.
    """
    order = {None: "", True: "=order=tff", False: "=order=bff"}[target.top_field_first]
    step = 1 / (Fraction(target.telecine) * FILM_TICK)
    return f"fieldmatch{order},decimate,setfield=prog,settb={FILM_TICK},setpts=STARTPTS+{step}*N"


UNMARKED = (
    "sidedata=delete:type=MASTERING_DISPLAY_METADATA,sidedata=delete:type=CONTENT_LIGHT_LEVEL"
)
"""From ffmpeg 7 on encoders write what describes an HDR picture, which this is not, or not any more."""


def tone_map_filter(target: VideoTarget) -> str:
    """Return the filters that map BT.2020 PQ or HLG to BT.709 in linear light."""
    return ",".join(
        [
            f"zscale=tin={target.tone_map}:min=bt2020nc:pin=bt2020:rin=tv:t=linear:npl=100",
            "format=gbrpf32le",
            "zscale=p=bt709",
            "tonemap=tonemap=hable:desat=0",
            "zscale=t=bt709:m=bt709:r=tv",
            f"format={coded_pixel_format(target)}",
            UNMARKED,
        ]
    )


def rgb_filter(target: VideoTarget) -> str:
    """Return the filters that make luma and chroma of RGB, ahead of all that would by a matrix of its own."""
    samples = "yuv444p10le" if target.bit_depth > 8 else "yuv444p"
    made = f"scale=out_color_matrix={target.matrix}:out_range=limited,format={samples}"
    space, known = target.colour.space, "colorspace={0}:color_primaries={0}:color_trc={0}"
    return f"{made},setparams={known.format(space)}" if space else made


def picture_filter(target: VideoTarget) -> str:
    """Return the filters that convert a decoded picture to the target's format; "" for none.

    ffmpeg applies the rotation by itself, before these filters.
    """
    filters = [rgb_filter(target)] if target.matrix else []
    filters += _chosen_pictures(target)
    if target.rate:
        # Neither Ogg's nor AVI's picture can begin late: its first frame is shown from the start.
        filters.append(f"fps={target.rate}:start_time=0")
    if target.crop:
        filters.append(f"crop={target.crop}:exact=1")
    if target.scale:
        filters.append(f"scale={target.width}:{target.height}:flags=bicubic")
        aspect = target.sample_aspect.replace(":", "/")
        # The filter's own limit is 100.
        most = ":max=65535" if max(map(int, aspect.split("/"))) > 100 else ""
        filters.append(f"setsar={aspect}{most}")
    if target.tone_map:
        filters.append(tone_map_filter(target))
    if target.unmark_hdr:
        filters.append(UNMARKED)
    if target.pad_right or target.pad_bottom:
        # Repeat the edge, so that no black line appears and nothing of the picture is lost.
        filters.append(f"pad={target.width}:{target.height}:0:0")
        borders = f"right={target.pad_right}:bottom={target.pad_bottom}"
        filters.append(f"fillborders={borders}:mode=smear")
    if target.limit_range or marks_range(target):
        made = "limited" if target.limit_range else "full"
        filters.append(f"scale=in_range=full:out_range={made},format={target.pixel_format}")
    return ",".join(filters)


def _chosen_pictures(target: VideoTarget) -> list[str]:
    """Return the filters that decide which pictures there are, and when."""
    filters = [retiming_filter(target)] if target.retimed else []
    filters += [fit_filter(target)] if target.fit else []
    if target.telecine:
        filters.append(inverse_telecine_filter(target))
    elif target.deinterlace:
        filters.append(deinterlace_filter(target))
    elif target.unmark_fields:
        filters.append("setfield=prog")
    if target.every > 1:
        filters.append(f"framestep={target.every}")
    return filters


def retiming_filter(target: VideoTarget) -> str:
    """Return the filter that gives pictures the times that the decoder got wrong."""
    time = "PTS"
    for number, ticks in target.retimed:
        time = rf"if(eq(N\,{number})\,STARTPTS+{ticks}\,{time})"
    return f"setpts={time}"


def marks_range(target: VideoTarget) -> bool:
    """Return whether full range must be marked: the encoder takes no pixel format that says so."""
    return target.colour.range == "pc" and not VIDEO_FORMATS[VideoCodec(target.codec)].legacy_range


def encoder_filters(target: VideoTarget) -> str:
    """Return the filters before the encoder, "" for none: those of the picture, and a device's upload."""
    upload = HARDWARE[target.encoder][0].upload if target.encoder in HARDWARE else {}
    return ",".join(filter(None, [picture_filter(target), upload.get(target.bit_depth)]))


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


def uncropped(info: MediaInfo) -> list[str]:
    """Return the option of an input whose crop is a mark for players, and cuts nothing off."""
    applied = any(s.video is not None and s.video.crop_is_applied for s in info.streams)
    return list(UNCROPPED) if applied else []


def steady_filters(info: MediaInfo) -> list[str]:
    """Return the options of an input whose pictures are decoded: whole, as they are coded.

    Where they change their size filters adapt, and keep state.
    """
    changes = any(stream.video is not None and stream.video.becomes for stream in info.streams)
    return [*uncropped(info), *(["-reinit_filter", "0"] if changes else [])]


def steady_options(info: MediaInfo, kept: Collection[int]) -> list[str]:
    """Return the options of an input: steady filters and start, and how far to look for its sounds."""
    return [*steady_filters(info), *steady_start(info, kept), *looking_far(info.late_s)]


def steady_start(info: MediaInfo, kept: Collection[int]) -> list[str]:
    """Return the option of an input of which a command does not map every kept stream, to begin as if it did.

    ffmpeg would move the first of those that are mapped to 0, unless the input has an offset of its own.
    """
    if not kept or info.format_name not in DISCONTINUOUS:
        return []
    return ["-itsoffset", f"{(info.start_s or 0.0) - info.origin_s(kept) or 0.000_001:.6f}"]
