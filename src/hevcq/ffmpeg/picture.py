"""How a decoded picture becomes the target's: filters and pixel format, shared with gate G8."""

from __future__ import annotations

import re

from hevcq.domain.plan import VideoTarget


def picture_filter(target: VideoTarget) -> str:
    """Return the filters that turn a decoded, upright picture into the target's; "" for none.

    ffmpeg turns pictures upright by itself, before these filters.
    """
    filters = []
    if target.deinterlace:
        # One frame for each pair of fields: count and times stay those of the source.
        filters.append("bwdif=mode=send_frame:parity=auto:deint=all")
    if target.scale:
        filters.append(f"scale={target.width}:{target.height}:flags=bicubic")
        filters.append(f"setsar={target.sample_aspect.replace(':', '/')}")
    if target.pad_right or target.pad_bottom:
        # The edge is repeated, so that no black line appears; nothing of the picture is lost.
        filters.append(f"pad={target.width}:{target.height}:0:0")
        borders = f"right={target.pad_right}:bottom={target.pad_bottom}"
        filters.append(f"fillborders={borders}:mode=smear")
    return ",".join(filters)


def coded_pixel_format(target: VideoTarget) -> str:
    """Return what `-pix_fmt` needs: full range by its old name, or swscale squeezes the samples."""
    if target.colour.range == "pc" and re.fullmatch(r"yuv4(20|22|44)p", target.pixel_format):
        return target.pixel_format.replace("yuv", "yuvj")
    return target.pixel_format


def compared_pixel_format(target: VideoTarget) -> str:
    """Return the pixel format in which gate G8 compares: RGB as brightness and colour.

    Encoders spend their bits on green as on brightness; red and blue alone look far worse than
    the picture does.
    """
    return coded_pixel_format(target).replace("gbrp", "yuv444p")
