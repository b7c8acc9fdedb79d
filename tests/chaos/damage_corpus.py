"""Clips, and the ways in which their bytes are spoilt: all of it from one seed."""

import random
import re
import struct
from collections.abc import Callable
from pathlib import Path

from support.clips import MEDIA, ffmpeg

WORDS = "1\n00:00:00,100 --> 00:00:00,700\none\n\n2\n00:00:00,900 --> 00:00:01,500\ntwo\n"
CHAPTERS = (
    ";FFMETADATA1\ntitle=A video\n"
    "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=800\ntitle=One\n"
    "[CHAPTER]\nTIMEBASE=1/1000\nSTART=800\nEND=1600\ntitle=Two\n"
)
SECONDS = "1.6"
H264 = ("-c:v", "libx264", "-preset", "superfast", "-crf", "16", "-pix_fmt", "yuv420p", "-g", "20")
GENERATED: dict[str, tuple[str, ...]] = {
    "video.mp4": (*H264, "-bf", "2", "-c:a", "aac", "-c:s", "mov_text"),
    "front.mp4": (*H264, "-sn", "-c:a", "ac3", "-movflags", "+faststart"),
    "video.mkv": (*H264, "-bf", "2", "-c:a", "aac", "-c:s", "srt"),
    "old.mkv": ("-c:v", "mpeg2video", "-q:v", "3", "-sn", "-c:a", "mp2"),
    "video.ts": (*H264, "-bf", "2", "-sn", "-c:a", "mp2"),
    "old.ts": ("-c:v", "mpeg2video", "-q:v", "3", "-sn", "-c:a", "ac3"),
}
REAL = ("h264-high10-200x200.mp4", "iphone-320p-rot90-mebx.mov", "sub-srt.mkv")
"""Real clips small enough to be damaged by the hundred; used when they are beside the checkout."""


def clips(folder: Path, *, real: bool = True) -> list[Path]:
    """Make the generated clips in `folder`; with `real`, add the real ones that are there."""
    (folder / "words.srt").write_text(WORDS)
    (folder / "chapters.txt").write_text(CHAPTERS)
    for name, options in GENERATED.items():
        ffmpeg(
            "-f", "lavfi", "-i", f"testsrc2=size=160x120:rate=25:duration={SECONDS},noise=alls=3",
            "-f", "lavfi", "-i", f"sine=frequency=440:duration={SECONDS}",
            "-f", "lavfi", "-i", f"anoisesrc=duration={SECONDS}:amplitude=0.2:seed=7",
            "-i", folder / "words.srt", "-f", "ffmetadata", "-i", folder / "chapters.txt",
            "-map", "0:v", "-map", "1:a", "-map", "2:a", "-map", "3:s?", "-map_metadata", "4",
            "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra",
            *options, folder / name,
        )  # fmt: skip
    there = [MEDIA / name for name in REAL if real and (MEDIA / name).is_file()]
    return [*(folder / name for name in GENERATED), *there]


Damage = Callable[[bytes, bytes, random.Random], bytes]


def _run(size: int, rng: random.Random, most: float = 0.1) -> tuple[int, int]:
    """Return begin and end of a run somewhere in a file; short ones are as likely as long ones."""
    longest = max(17, int(size * most))
    length = int(16 * (longest / 16) ** rng.random())
    begin = rng.randrange(max(1, size - length))
    return begin, begin + length


def truncated(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Cut off the end at any byte."""
    return content[: rng.randrange(1, len(content))]


def zeroed(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Zero a run, as a block that was never written."""
    begin, end = _run(len(content), rng)
    return content[:begin] + bytes(end - begin) + content[end:]


def flipped(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Flip 1 to 16 bits anywhere."""
    spoilt = bytearray(content)
    for _ in range(rng.randint(1, 16)):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def spliced(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Overwrite a run with bytes of another video."""
    begin, end = _run(min(len(content), len(other)), rng)
    return content[:begin] + other[begin:end] + content[end:]


def dropped(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Leave a run out, as a lost block of a download or packets of a recording."""
    begin, end = _run(len(content), rng)
    return content[:begin] + content[end:]


_CODES = (
    (b"avc1", b"mp4v"), (b"avc1", b"hvc1"), (b"mp4a", b"ac-3"), (b"ac-3", b"mp4a"),
    (b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/ASP"), (b"V_MPEG2", b"V_MPEG1"), (b"A_AAC", b"A_AC3"),
    (b"A_MPEG/L2", b"A_MPEG/L3"), (b"vide", b"soun"), (b"soun", b"vide"),
)  # fmt: skip


def wrong_stream(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Name another codec or kind than the stream's; without a name to change, change an address."""
    known = [(old, new) for old, new in _CODES if old in content]
    if known:
        old, new = rng.choice(known)
        return content.replace(old, new, 1)
    spoilt = bytearray(content)
    for place in range(188 * rng.randrange(4, 40), len(spoilt), 188):
        spoilt[place + 2] ^= 1  # the low bit of a packet's PID: sound and picture change places
    return bytes(spoilt)


_CLAIMS = {b"mvhd": 20, b"mdhd": 20, b"tkhd": 24, b"stts": 12, b"stsz": 12, b"elst": 12}


def lying_header(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Change a claimed duration or number of frames, alone."""
    spoilt = bytearray(content)
    factor = rng.choice((0.0, 0.3, 0.5, 0.9, 1.1, 2.0, 10.0))
    places = [(m.start() + _CLAIMS[m.group()]) for m in re.finditer(b"|".join(_CLAIMS), content)]
    if places:
        place = rng.choice(places)
        if place + 4 <= len(spoilt):
            claim = struct.unpack_from(">I", spoilt, place)[0]
            struct.pack_into(">I", spoilt, place, min(2**32 - 1, int(claim * factor)))
        return bytes(spoilt)
    found = content.find(b"\x44\x89\x88")
    if found >= 0:
        claim = struct.unpack_from(">d", spoilt, found + 3)[0]
        struct.pack_into(">d", spoilt, found + 3, claim * factor)
        return bytes(spoilt)
    return dropped(content, other, rng)  # a transport stream claims nothing


KINDS: tuple[Damage, ...] = (
    truncated, zeroed, flipped, spliced, dropped, wrong_stream, lying_header,
)  # fmt: skip

X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:hash=1")
TIMES = ("-fps_mode", "passthrough", "-enc_time_base", "1:120000")
COPY = ("-map", "0", "-dn", "-c", "copy")
PICTURES = {
    "green picture": "drawbox=color=green:t=fill",
    "frozen picture": "select=eq(n\\,0),loop=loop=-1:size=1:start=0,trim=end_frame=40,"
    "setpts=N/25/TB",
    "mirrored picture": "hflip",
    "lost frame": "select=not(eq(n\\,{n}))",
}


def rewritten(good: Path, target: Path, rng: random.Random) -> str:
    """Write `good` anew with one thing wrong, as a faulty encoder would; return what is wrong."""
    what = rng.choice((*PICTURES, "swapped sounds", "shifted sound", "dropped tail",
                       "lost chapters", "lost sound"))  # fmt: skip
    tag = ("-tag:v", "hvc1") if good.suffix in {".mp4", ".mov"} else ()
    sounds = ["-map", "0:v", "-map", "0:a:1", "-map", "0:a:0", "-map", "0:s?"]
    sounds += ["-c", "copy", "-map_chapters", "0"]
    labels = ["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra"]
    default = ["-disposition:a:0", "default", "-disposition:a:1", "0"]
    if what in PICTURES:
        picture = PICTURES[what].replace("{n}", str(rng.randrange(1, 39)))
        ffmpeg("-i", good, *COPY, *X265, "-vf", picture, *TIMES, *tag, target)
    elif what == "swapped sounds":
        ffmpeg("-i", good, *sounds, *labels, *default, *tag, target)
    elif what == "shifted sound":
        late = f"{rng.choice((-1, 1)) * rng.uniform(0.25, 0.8):.2f}"
        ffmpeg("-i", good, "-itsoffset", late, "-i", good, "-map", "0:v", "-map", "1:a",
               "-map", "0:s?", "-c", "copy", "-map_chapters", "0", *tag, target)  # fmt: skip
    elif what == "dropped tail":
        ffmpeg("-i", good, *COPY, "-t", f"{rng.uniform(0.3, 1.3):.2f}", *tag, target)
    elif what == "lost chapters":
        ffmpeg("-i", good, *COPY, "-map_chapters", "-1", *tag, target)
    else:
        ffmpeg("-i", good, *COPY, "-map", "-0:a:1", *tag, target)
    return what
