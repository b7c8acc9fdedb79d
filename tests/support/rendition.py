"""Requests of encodes; a clip encoded whole, with every gate; and boxes that are put into clips."""

import re
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ports.encoder import EncodeRequest
from hevcq.util.clock import SystemClock
from support.media_facts import profile

ENCODER = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
TOOLS = FfmpegTools("ffmpeg", "ffprobe", SystemClock())
RECIPE = {"preset": "ultrafast", "crf": 30}
GATES = {"minimum_saving": None}


def build() -> tuple[int, int]:
    """Return the number of the ffmpeg that tests run on; without one it counts as the latest."""
    found = re.match(r"ffmpeg version n?(\d+)\.(\d+)", ENCODER.version())
    return (int(found[1]), int(found[2])) if found else (99, 0)


def probed(clip: Path) -> MediaInfo:
    return ENCODER.probe(str(clip), stop=threading.Event())


def request_for(recipe: Profile, info: MediaInfo, **facts: Any) -> EncodeRequest:
    """Return the request to encode a file, imagined but for what `facts` say of it."""
    plan = facts.pop("plan", None) or make_plan(recipe, info)
    assert isinstance(plan, EncodePlan), plan
    usual: dict[str, Any] = {"location": "/in/video.mp4", "output": Path("/out/video.part")}
    usual |= {"duration_s": info.duration_s, "source_size": 1000, "max_seconds": 300.0}
    return EncodeRequest(recipe, plan, info, **usual | facts)


def request_of(clip: Path, output: Path, recipe: Profile, **facts: Any) -> EncodeRequest:
    """Return the request to encode a clip that is there."""
    own = {"location": str(clip), "output": output, "source_size": clip.stat().st_size}
    info = facts.pop("info", None) or probed(clip)
    return request_for(recipe, info, **own, **facts)


def planned(clip: Path, **more) -> tuple[MediaInfo, EncodePlan]:
    info = probed(clip)
    plan = make_plan(profile(**_parts(more)), info)
    assert isinstance(plan, EncodePlan), plan
    return info, plan


def rendition(clip: Path, **more) -> tuple[Path, MediaInfo]:
    """Encode a clip; every gate must pass."""
    from ffmpeg.verify.conftest import complaints, encoded

    made = encoded(clip, clip.parent, profile(**_parts(more)))
    assert all(len(word) < 1000 for word in made.request.report.arguments)
    assert complaints(made.judge()) == []
    return made.good, probed(made.good)


def _parts(more: dict) -> dict:
    return {"gates": GATES, **more, "video": {**RECIPE, **more.get("video", {})}}


IDENTITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
"""The matrix of a track that is not turned."""


def turned(clip: Path, a: int, b: int, c: int, d: int) -> Path:
    """Turn the first track of an MP4 by a matrix: `0, 1, -1, 0` is a quarter clockwise."""
    movie, track, others = clip.read_bytes().split(IDENTITY, 2)
    values = (value << 16 for value in (a, b, 0, c, d, 0, 0, 0))
    clip.write_bytes(movie + IDENTITY + track + struct.pack(">9i", *values, 1 << 30) + others)
    return clip


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def put(data: bytes, path: Sequence[bytes | tuple[bytes, int]], new: bytes) -> bytes:
    """Return boxes with `new` at the end of one, given by the kinds on the way (and which of a kind)."""
    if not path:
        return data + new
    head = path[0] if isinstance(path[0], tuple) else (path[0], 0)
    at = seen = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == head[0]:
            if seen == head[1]:
                before = {b"meta": 4, b"stsd": 8, b"avc1": 78, b"mp4v": 78, b"hvc1": 78}.get(
                    kind, 0
                ) + 8
                inner = put(data[at + before : at + size], path[1:], new)
                whole = box(kind, data[at + 8 : at + before] + inner)
                return data[:at] + whole + data[at + size :]
            seen += 1
        at += size
    return data + box(head[0], put(b"", path[1:], new))


def add_boxes(clip: Path, *added: tuple[Sequence[bytes | tuple[bytes, int]], bytes]) -> Path:
    """Add boxes to an MP4 or MOV whose index is its last box."""
    data = clip.read_bytes()
    for path, new in added:
        data = put(data, path, new)
    clip.write_bytes(data)
    return clip


def clap(width: int, height: int, across: int = 0, down: int = 0) -> bytes:
    """Return a clean aperture; `across` and `down` are of its centre, in half pixels."""
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, across, 2, down, 2))


def elng(language: str) -> bytes:
    return box(b"elng", bytes(4) + language.encode() + b"\0")
