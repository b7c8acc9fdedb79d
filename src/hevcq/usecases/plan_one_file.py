"""Plan how one file would be encoded by some profiles, without doing it."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hevcq.domain.chunking.planner import ChunkPlan, KeyIndex, WholeFile, plan_chunks
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, Refuse, Rung, Skip, plan_measured
from hevcq.domain.planning.ladder import expected_bytes
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import ChunkMode
from hevcq.domain.quality import Aim
from hevcq.ports.encoder import Encoder, EncodeRequest

SEARCH_S = 3600.0
"""Seconds that one sample of a search may take."""
ONE_SLOT = WholeFile(
    reason="one_slot", detail="One encode runs at a time, so nothing is gained by a split."
)


def plan_one_file(
    encoder: Encoder,
    location: str,
    info: MediaInfo,
    profiles: Sequence[Profile],
    stop: threading.Event,
    slots_per_job: Callable[[Profile], int] = lambda _profile: 0,
) -> list[dict[str, Any]]:
    """Return each profile's plan for the file at `location`, probed as `info`, in its JSON form.

    `slots_per_job` says how many slots may share a video, as it is set for the workers; the chunks are
    then those that the workers will cut.

    Reads the packets of the file once if any profile would encode it, and once more if another makes a
    ladder. Raises SourceUnreadable, WorkerUnfit (no ffmpeg) or Stopped.
    """
    indexes: dict[tuple[float, ...], KeyIndex] = {}
    found = []
    for profile in profiles:
        named = {"profile": profile.name, "revision": profile.revision}
        plan = make_plan(profile, info)
        if isinstance(plan, Skip | Refuse):
            found.append({**named, **_passed_over(plan)})
            continue
        ladder = plan.ladder
        grid = () if ladder is None else (ladder.segment_s, ladder.keyframe_s)
        if grid not in indexes:
            indexes[grid] = encoder.keyframes(location, info, stop=stop, ladder=ladder)
        split = _split(profile, info, plan, indexes[grid], slots_per_job(profile))
        found.append({**named, **_encoded(plan, info, split)})
    return found


def search_quality(
    encoder: Encoder,
    location: str,
    info: MediaInfo,
    profile: Profile,
    folder: Path,
    stop: threading.Event,
) -> Aim | str:
    """Search the CRF of the quality that the profile asks for, as a worker does; or return why not.

    Samples are written to `folder`. Raises what `find_quality` and a pre-flight raise.
    """
    plan = make_plan(profile, info)
    if not isinstance(plan, EncodePlan):
        return plan.detail
    measured = encoder.preflight(location, info, profile, stop=stop)
    info, plan = plan_measured(make_plan, profile, (info, plan), measured)
    request = EncodeRequest(
        profile=profile,
        plan=plan,
        info=info,
        location=location,
        output=folder / "sample.mkv",
        duration_s=info.duration_s,
        source_size=info.size,
        max_seconds=SEARCH_S,
        measured=measured,
    )
    return encoder.find_quality(request, measured, stop=stop)


def _split(
    profile: Profile, info: MediaInfo, plan: EncodePlan, index: KeyIndex, slots: int
) -> ChunkPlan | WholeFile:
    if profile.chunking.mode is ChunkMode.AUTO and slots == 1:
        return ONE_SLOT
    return plan_chunks(profile, info, plan, index, workers_hint=slots)


def _passed_over(plan: Skip | Refuse) -> dict[str, Any]:
    if isinstance(plan, Skip):
        return {"action": "skip", "reason": plan.reason.value, "detail": plan.detail}
    return {"action": "refuse", "reason": plan.policy, "detail": plan.detail}


def _encoded(made: EncodePlan, info: MediaInfo, split: ChunkPlan | WholeFile) -> dict[str, Any]:
    dumped = made.model_dump(mode="json", include={"extension", "streams", "chapters", "notices"})
    if made.ladder is not None:
        dumped["rungs"] = [_rung(rung, info) for rung in made.ladder.rungs]
    dumped["chunks"] = _chunks(split) if isinstance(split, ChunkPlan) else []
    whole = split.model_dump(mode="json") if isinstance(split, WholeFile) else None
    return {"action": "encode", **dumped, "whole": whole}


def _chunks(split: ChunkPlan) -> list[dict[str, Any]]:
    return [
        {
            "index": chunk.index,
            "start_s": round(chunk.start_s, 6),
            "duration_s": round(split.seconds(chunk), 6),
            "frames": chunk.frames,
            "bytes": chunk.bytes,
            "cost": round(chunk.cost, 6),
        }
        for chunk in split.chunks
    ]


def _rung(rung: Rung, info: MediaInfo) -> dict[str, Any]:
    usual, most = expected_bytes(rung, info)
    return {
        "name": rung.name,
        **rung.target.model_dump(include={"codec", "width", "height"}),
        **rung.model_dump(include={"crf", "max_kbps"}),
        "bytes": usual,
        "most_bytes": most,
    }
