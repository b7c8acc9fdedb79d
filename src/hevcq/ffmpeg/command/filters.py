"""Build the filters and the options of an input that make the pictures for an encoder from a source's."""

import re
from collections.abc import Collection
from fractions import Fraction

from hevcq.domain.formats import HARDWARE
from hevcq.domain.media.facts import DISCONTINUOUS, MediaInfo
from hevcq.domain.planning.encode_plan import FILM_TICK, VideoTarget
from hevcq.ffmpeg.command.codecs import coded_pixel_format, marks_range
from hevcq.ffmpeg.inputs import DECODE_UNCROPPED, late_stream_options


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
    fields = ":interl=1" if target.deinterlace else ""
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


def encoder_filters(target: VideoTarget) -> str:
    """Return the filters before the encoder, "" for none: those of the picture, and a device's upload."""
    upload = HARDWARE[target.encoder][0].upload if target.encoder in HARDWARE else {}
    return ",".join(filter(None, [picture_filter(target), upload.get(target.bit_depth)]))


def uncropped(info: MediaInfo) -> list[str]:
    """Return the option of an input whose crop is a mark for players, and cuts nothing off."""
    applied = any(s.video is not None and s.video.crop_is_applied for s in info.streams)
    return list(DECODE_UNCROPPED) if applied else []


def steady_filters(info: MediaInfo) -> list[str]:
    """Return the options of an input whose pictures are decoded: whole, as they are coded.

    Where they change their size filters adapt, and keep state.
    """
    changes = any(stream.video is not None and stream.video.becomes for stream in info.streams)
    return [*uncropped(info), *(["-reinit_filter", "0"] if changes else [])]


def steady_options(info: MediaInfo, kept: Collection[int]) -> list[str]:
    """Return the options of an input: steady filters and start, and how far to look for its sounds."""
    return [*steady_filters(info), *steady_start(info, kept), *late_stream_options(info.late_s)]


def steady_start(info: MediaInfo, kept: Collection[int]) -> list[str]:
    """Return the option of an input of which a command does not map every kept stream, to begin as if it did.

    ffmpeg would move the first of those that are mapped to 0, unless the input has an offset of its own.
    """
    if not kept or info.format_name not in DISCONTINUOUS:
        return []
    return ["-itsoffset", f"{(info.start_s or 0.0) - info.origin_s(kept) or 0.000_001:.6f}"]
