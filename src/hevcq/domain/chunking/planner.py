"""Plan the chunks that many workers encode, or encode the video whole for a reason. Pure.

Chunk boundaries are key frames of the source, so that no worker decodes many frames that it
discards; near the ideal place a scene cut is preferred, where the encoder would insert a key frame
anyway.
"""

from __future__ import annotations

from itertools import pairwise

from hevcq.domain.chunking.boundaries import choose_boundaries, share_of_work
from hevcq.domain.chunking.eligibility import whole_file_reason
from hevcq.domain.chunking.model import (
    Chunk,
    ChunkPlan,
    KeyFrame,
    KeyIndex,
    WholeFile,
    plan_digest,
    seek_s,
    times_sum,
)
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.profile import Profile

__all__ = [
    "Chunk",
    "ChunkPlan",
    "KeyFrame",
    "KeyIndex",
    "WholeFile",
    "chunks_at",
    "plan_chunks",
    "times_sum",
]


def plan_chunks(
    profile: Profile,
    info: MediaInfo,
    plan: EncodePlan,
    index: KeyIndex,
    *,
    workers_hint: int = 0,
) -> ChunkPlan | WholeFile:
    """Decide the chunk plan; the same arguments give the same plan on every machine.

    `workers_hint` is the number of workers that will share the video, or 0 if unknown. If unknown,
    the last chunks are shorter, so that no worker waits long for the last one.
    """
    refused = whole_file_reason(profile, info, plan, index)
    if refused is not None:
        return refused
    places = choose_boundaries(profile.chunking, index, workers_hint=workers_hint)
    if len(places) < 2:
        return WholeFile(
            reason="too_few_key_frames",
            detail=f"Its {len(index.keys)} key frames leave no place to cut between "
            f"{profile.chunking.min_s:g} and {profile.chunking.max_s:g} s.",
        )
    return chunks_at(profile, plan, index, places)


def chunks_at(
    profile: Profile, plan: EncodePlan, index: KeyIndex, places: tuple[int, ...]
) -> ChunkPlan:
    """Return the plan whose chunks begin at these positions in `index.keys`.

    Raises ValueError unless the positions start at 0 and increase.
    """
    if not places or places[0] != 0 or list(places) != sorted(set(places)):
        raise ValueError(f"chunks begin at 0 and rise, not at {places}")
    chunks: list[Chunk] = []
    for begin, end in pairwise([*places, len(index.keys)]):
        first_frame = chunks[-1].first_frame + chunks[-1].frames if chunks else 0
        chunks.append(_chunk(index, (begin, end), len(chunks), first_frame))
    threads = profile.chunking.threads or profile.bounds.threads
    boundaries = [chunk.start_pts for chunk in chunks]
    return ChunkPlan(
        stream_index=index.stream_index,
        time_base=index.time_base,
        chunks=tuple(chunks),
        frames=index.frames,
        end_pts=index.end_pts,
        digest=plan_digest(plan.revision, threads, index, boundaries),
    )


def _chunk(index: KeyIndex, span: tuple[int, int], number: int, first_frame: int) -> Chunk:
    """Return the chunk of the key frames from `span[0]` to `span[1]` (exclusive)."""
    begin, end = span
    held = index.keys[begin:end]
    end_pts = index.keys[end].pts if end < len(index.keys) else None
    frames = sum(key.frames_until_next for key in held)
    size = sum(key.bytes_until_next for key in held)
    all_bytes = sum(key.bytes_until_next for key in index.keys)
    # A last frame of unknown duration still takes one tick.
    stop = end_pts if end_pts is not None else max(index.end_pts, held[-1].last_pts + 1)
    return Chunk(
        index=number,
        start_pts=held[0].pts,
        end_pts=end_pts,
        last_pts=held[-1].last_pts,
        start_s=float(held[0].pts * index.tick),
        seek_s=None if number == 0 else _seek(index, begin),
        open_group=number > 0 and held[0].leading > 0,
        duration_ticks=stop - held[0].pts,
        first_frame=first_frame,
        frames=frames,
        bytes=size,
        times=sum(key.times for key in held) & ((1 << 64) - 1),
        cost=share_of_work(frames / index.frames, size / all_bytes if all_bytes else 0.0),
        forced=tuple(pts for key in held for pts in key.forced),
    )


def _seek(index: KeyIndex, place: int) -> float | None:
    """Return where the chunk that begins at that place is decoded from; None for the start."""
    key = index.keys[place]
    return key.seek_s if key.forced else seek_s(index, place)
