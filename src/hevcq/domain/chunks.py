"""Where a film is cut so that many workers can encode it, or why it is encoded whole. Pure.

Borders are key frames of the source, so that no worker decodes much that it throws away; of those
near the ideal place, one at a scene cut is preferred, where the encoder would begin anew anyway.
"""

from __future__ import annotations

from hevcq.domain.chunks_borders import choose_borders
from hevcq.domain.chunks_refusals import whole_file_reason
from hevcq.domain.chunks_values import (
    Chunk,
    ChunkPlan,
    KeyFrame,
    KeyIndex,
    WholeFile,
    plan_digest,
    times_sum,
)
from hevcq.domain.media import MediaInfo
from hevcq.domain.plan import EncodePlan
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
    """Decide where to cut; the same arguments give the same plan on every machine.

    `workers_hint` is how many workers will share the film; 0 is unknown: the last chunks then
    become shorter, so that no worker waits long for the last one.
    """
    refused = whole_file_reason(profile, info, plan, index)
    if refused is not None:
        return refused
    places = choose_borders(profile.chunking, index, workers_hint=workers_hint)
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
    """Return the plan whose chunks begin at these entries of `index.keys`; the first must be 0."""
    if not places or places[0] != 0 or list(places) != sorted(set(places)):
        raise ValueError(f"chunks begin at 0 and rise, not at {places}")
    keys, tick = index.keys, index.tick
    total = sum(key.bytes_until_next for key in keys)
    chunks: list[Chunk] = []
    first_frame = 0
    for number, begin in enumerate(places):
        end = places[number + 1] if number + 1 < len(places) else len(keys)
        held = keys[begin:end]
        end_pts = keys[end].pts if end < len(keys) else None
        frames = sum(key.frames_until_next for key in held)
        size = sum(key.bytes_until_next for key in held)
        stop = end_pts if end_pts is not None else max(index.end_pts, held[-1].last_pts + 1)
        chunks.append(
            Chunk(
                index=number,
                start_pts=held[0].pts,
                end_pts=end_pts,
                last_pts=held[-1].last_pts,
                start_s=float(held[0].pts * tick),
                duration_ticks=stop - held[0].pts,
                first_frame=first_frame,
                frames=frames,
                bytes=size,
                times=sum(key.times for key in held) & ((1 << 64) - 1),
                next_key_pts=keys[begin + 1].pts if begin + 1 < len(keys) else None,
                cost=_cost(frames, index.frames, size, total),
            )
        )
        first_frame += frames
    threads = profile.chunking.threads or profile.bounds.threads
    borders = [chunk.start_pts for chunk in chunks]
    return ChunkPlan(
        stream_index=index.stream_index,
        time_base=index.time_base,
        chunks=tuple(chunks),
        frames=index.frames,
        end_pts=index.end_pts,
        digest=plan_digest(plan.revision, threads, index, borders),
    )


def _cost(frames: int, all_frames: int, size: int, all_bytes: int) -> float:
    """Return the share of the work: see domain.chunks_borders for the model."""
    from hevcq.domain.chunks_borders import share_of_work

    return share_of_work(frames / all_frames, size / all_bytes if all_bytes else 0.0)
