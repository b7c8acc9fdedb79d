"""A film with Dolby Vision 8.1, made of a phone's clip: HDR10 whose frames have the phone's metadata."""

import subprocess
from pathlib import Path

import pytest

from support.clips import ffmpeg, media_clip

PHONE = "iphone-hevc-dovi-editlist-mebx.mp4"
FRAMES = 77
_DISPLAY = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
_PARAMS = (
    f"log-level=error:keyint=12:vbv-maxrate=20000:vbv-bufsize=20000:max-cll=1000,400:{_DISPLAY}"
)
_COLOURS = "setparams=color_trc=smpte2084:color_primaries=bt2020:colorspace=bt2020nc"


def need_dolby(encoder: str = "libx265") -> None:
    """Skip the test where this ffmpeg's encoder writes no Dolby Vision."""
    told = subprocess.run(["ffmpeg", "-h", f"encoder={encoder}"], check=True, capture_output=True)
    if b"-dolbyvision" not in told.stdout:
        pytest.skip(f"{encoder} of this ffmpeg writes no Dolby Vision; 7.1 and later do")


def make_film(target: Path) -> Path:
    """Make the film, in parts of 12 frames; each frame's metadata is another's or the same again."""
    need_dolby()
    words = ["-map", "0:v:0", "-map", "0:a", "-vf", f"scale=360:-2,{_COLOURS}", "-c:v", "libx265"]
    words += ["-preset", "ultrafast", "-crf", "14", "-dolbyvision", "1", "-x265-params", _PARAMS]
    words += ["-c:a", "copy", "-strict", "unofficial"]
    ffmpeg("-i", media_clip(PHONE), *words, target)
    return target


def spoil(source: Path, target: Path, how: str) -> Path:
    """Copy a video, with the metadata of one frame dropped, of two swapped, or of many shifted by one."""
    alone = ["-map", "0:v:0", "-c", "copy", "-bsf", "filter_units=pass_types=62,hevc_mp4toannexb"]
    read = ["ffmpeg", "-v", "error", "-i", source, *alone, "-f", "data", "-"]
    units = subprocess.run(read, check=True, capture_output=True).stdout.split(b"\0\0\0\1")[1:]
    data, places, at = bytearray(source.read_bytes()), list[int](), 0
    for unit in units:
        at = data.index(unit, at + 1)
        places.append(at)
    size = max(map(len, units), key=[*map(len, units)].count)
    alike = [(place, unit) for place, unit in zip(places, units, strict=True) if len(unit) == size]
    if how == "one dropped":
        data[places[5]] = 63 << 1  # a NAL type that means nothing
    else:
        other = next(n for n, (_, unit) in enumerate(alike) if unit != alike[0][1])
        chosen = [alike[0], alike[other]] if how == "two swapped" else alike
        for (place, _), (_, unit) in zip(chosen, [*chosen[1:], chosen[0]], strict=True):
            data[place : place + size] = unit
    target.write_bytes(data)
    return target
