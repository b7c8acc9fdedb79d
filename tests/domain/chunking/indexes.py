"""Imagined videos and their key frames."""

from collections.abc import Iterable
from typing import Any

from hevcq.domain.chunking import KeyFrame, KeyIndex, times_sum
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Chunking, ChunkMode
from support.media_facts import audio, media, profile, video

RATE = 25


def chunky(mode: ChunkMode = ChunkMode.ALWAYS, **parts: Any) -> Profile:
    """Return the hevc profile with these chunking settings."""
    chunking = Chunking(mode=mode, **parts.pop("chunking", {}))
    return profile(chunking=chunking.model_dump(mode="json"), **parts)


def clip(**facts: Any) -> MediaInfo:
    """Return an MP4 with one picture and one sound; `facts` are the picture's."""
    return media(video(**facts), audio())


def planned(recipe: Profile, info: MediaInfo) -> EncodePlan:
    plan = make_plan(recipe, info)
    assert isinstance(plan, EncodePlan), plan
    return plan


def index(
    keys_at: Iterable[float], length_s: float, *, weights: Any = None, **facts: Any
) -> KeyIndex:
    """Return an index in 1/1000 s with key frames at these seconds; `weights(at)` are bytes a frame."""
    begins = [round(at * RATE) for at in keys_at]
    ends = [*begins[1:], round(length_s * RATE)]
    step = 1000 // RATE
    keys = []
    for begin, end in zip(begins, ends, strict=True):
        shown = [frame * step for frame in range(begin, end)]
        size = 1000 if weights is None else weights(begin / RATE)
        keys.append(
            KeyFrame(
                pts=shown[0],
                seek_s=begin / RATE,
                bytes_until_next=size * len(shown),
                frames_until_next=len(shown),
                last_pts=shown[-1],
                times=times_sum(shown),
            )
        )
    known: dict[str, Any] = {
        "stream_index": 0,
        "time_base": "1/1000",
        "keys": tuple(keys),
        "end_pts": round(length_s * 1000),
        "frames": sum(key.frames_until_next for key in keys),
    }
    return KeyIndex(**known | facts)


def every(gap_s: float, length_s: float) -> list[float]:
    """Return key frames at a steady distance."""
    return [n * gap_s for n in range(int(length_s / gap_s - 1e-9) + 1)]
