"""Build the input options and video filters that turn a source's frames into the encoder's."""

import re
from collections.abc import Collection
from fractions import Fraction

from hevcq.domain.formats import HARDWARE
from hevcq.domain.media.facts import DISCONTINUOUS, MediaInfo
from hevcq.domain.planning.encode_plan import FILM_TICK, VideoTarget
from hevcq.ffmpeg.command.codecs import coded_pixel_format, needs_range_mark
from hevcq.ffmpeg.inputs import DECODE_UNCROPPED, late_stream_options

_SAME_ASPECT = 1.005
"""Factor by which aspects may differ without bars, because sizes are rounded to whole pixels."""


def fit_filter(target: VideoTarget) -> str:
    """Return the filters that fit frames of changing size and aspect into one size, undistorted.

    Offsets are even and fields are scaled separately, so that no line changes its field.
    """
    shapes = [re.split("[x ]", shape.replace(":", "/")) for shape in target.fit.split(", ")]
    width, height, sample = shapes[0]
    shown, dar = f"{width}*{sample}/{height}", "dar"
    for w, h, aspect in shapes if shapes[1:] else ():
        dar = f"if(eq(iw,{w})*eq(ih,{h}),iw*{aspect}/ih,{dar})"
    wide = f"if(gte({dar}*{_SAME_ASPECT},{shown}),{width},round({height}*{dar}/({sample})/4)*4)"
    high = f"if(gte({shown}*{_SAME_ASPECT},{dar}),{height},round({width}*{sample}/({dar})/4)*4)"
    fields = ":interl=1" if target.deinterlace else ""
    scaled = f"scale=w='{wide}':h='{high}':eval=frame:flags=bicubic{fields}"
    bars = f"pad={width}:{height}:floor((ow-iw)/4)*2:floor((oh-ih)/4)*2:eval=frame"
    return f"{scaled},{bars},setsar={sample}"


def inverse_telecine_filter(target: VideoTarget) -> str:
    """Return the filters that restore a film's frames from their fields: four of five frames.

    Their times are evenly spaced from the first frame on.
    """
    order = {None: "", True: "=order=tff", False: "=order=bff"}[target.top_field_first]
    step = 1 / (Fraction(target.telecine) * FILM_TICK)
    return f"fieldmatch{order},decimate,setfield=prog,settb={FILM_TICK},setpts=STARTPTS+{step}*N"


DROP_HDR_SIDE_DATA = (
    "sidedata=delete:type=MASTERING_DISPLAY_METADATA,sidedata=delete:type=CONTENT_LIGHT_LEVEL"
)
"""Remove HDR metadata from SDR frames: from ffmpeg 7 on encoders would write it."""


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
            DROP_HDR_SIDE_DATA,
        ]
    )


def rgb_filter(target: VideoTarget) -> str:
    """Return the filters that convert RGB to YUV.

    They come first: a later filter would convert by a matrix of its own choice.
    """
    samples = "yuv444p10le" if target.bit_depth > 8 else "yuv444p"
    converted = f"scale=out_color_matrix={target.matrix}:out_range=limited,format={samples}"
    space, mark = target.colour.space, "colorspace={0}:color_primaries={0}:color_trc={0}"
    return f"{converted},setparams={mark.format(space)}" if space else converted


def picture_filter(target: VideoTarget) -> str:
    """Return the filters that convert decoded frames to the target's format; "" if none is needed.

    ffmpeg itself applies the rotation before them.
    """
    filters = [rgb_filter(target)] if target.matrix else []
    filters += _frame_filters(target)
    if target.rate:
        # Video in Ogg and AVI cannot begin late, so its first frame is shown from time 0.
        filters.append(f"fps={target.rate}:start_time=0")
    if target.crop:
        filters.append(f"crop={target.crop}:exact=1")
    if target.scale:
        filters.append(f"scale={target.width}:{target.height}:flags=bicubic")
        aspect = target.sample_aspect.replace(":", "/")
        # Without `max` the filter limits the terms of the ratio to 100.
        most = ":max=65535" if max(map(int, aspect.split("/"))) > 100 else ""
        filters.append(f"setsar={aspect}{most}")
    if target.tone_map:
        filters.append(tone_map_filter(target))
    if target.unmark_hdr:
        filters.append(DROP_HDR_SIDE_DATA)
    if target.pad_right or target.pad_bottom:
        # Repeat the edge: black lines would show, and a crop would lose part of the picture.
        filters.append(f"pad={target.width}:{target.height}:0:0")
        borders = f"right={target.pad_right}:bottom={target.pad_bottom}"
        filters.append(f"fillborders={borders}:mode=smear")
    if target.limit_range or needs_range_mark(target):
        made = "limited" if target.limit_range else "full"
        filters.append(f"scale=in_range=full:out_range={made},format={target.pixel_format}")
    return ",".join(filters)


def _frame_filters(target: VideoTarget) -> list[str]:
    """Return the filters that change the number, the size or the times of frames."""
    filters = []
    if target.retimed:
        # Correct the times that the decoder gets wrong.
        time = "PTS"
        for number, ticks in target.retimed:
            time = rf"if(eq(N\,{number})\,STARTPTS+{ticks}\,{time})"
        filters.append(f"setpts={time}")
    if target.fit:
        filters.append(fit_filter(target))
    if target.telecine:
        filters.append(inverse_telecine_filter(target))
    elif target.deinterlace:
        # A frame of each field, or of each pair of fields, at the source's times.
        mode = "send_field" if target.field_rate else "send_frame"
        order = {None: "auto", True: "tff", False: "bff"}[target.top_field_first]
        filters.append(f"bwdif=mode={mode}:parity={order}:deint=all")
    elif target.unmark_fields:
        filters.append("setfield=prog")
    if target.every > 1:
        filters.append(f"framestep={target.every}")
    return filters


def encoder_filters(target: VideoTarget) -> str:
    """Return the filters of the picture and of the upload to a device; "" if none is needed."""
    upload = HARDWARE[target.encoder][0].upload if target.encoder in HARDWARE else {}
    return ",".join(filter(None, [picture_filter(target), upload.get(target.bit_depth)]))


def uncropped_options(info: MediaInfo) -> list[str]:
    """Return the input option that ignores the container's crop, if the source has one.

    The crop is an instruction to players, and the encode keeps it as one.
    """
    applied = any(s.video is not None and s.video.crop_is_applied for s in info.streams)
    return list(DECODE_UNCROPPED) if applied else []


def decoding_options(info: MediaInfo) -> list[str]:
    """Return the input options for decoding frames whole, as they are coded.

    Where frames change their size the filters are not built anew, so that they keep their state.
    """
    changes = any(stream.video is not None and stream.video.becomes for stream in info.streams)
    return [*uncropped_options(info), *(["-reinit_filter", "0"] if changes else [])]


def source_options(info: MediaInfo, kept: Collection[int]) -> list[str]:
    """Return all input options of a source: decoding, start offset, and how far ffmpeg looks for streams."""
    return [
        *decoding_options(info),
        *start_offset_option(info, kept),
        *late_stream_options(info.late_s),
    ]


def start_offset_option(info: MediaInfo, kept: Collection[int]) -> list[str]:
    """Return the input option that starts the clock at the earliest of the `kept` streams, mapped or not.

    ffmpeg would move the earliest mapped stream to 0, unless the input has an offset of its own.
    """
    if not kept or info.format_name not in DISCONTINUOUS:
        return []
    return ["-itsoffset", f"{(info.start_s or 0.0) - info.origin_s(kept) or 0.000_001:.6f}"]
