"""Plan how one file would be encoded by some profiles, without doing it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from hevcq.domain.chunking.planner import ChunkPlan, KeyIndex, WholeFile, plan_chunks
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, Plan
from hevcq.domain.planning.ladder import expected_bytes
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import ChunkMode
from hevcq.ports.encoder import Encoder

ONE_SLOT = WholeFile(
    reason="one_slot", detail="One encode runs at a time, so nothing is gained by a split."
)


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """One chunk: start and duration in seconds of the video, and its content.

    `bytes` are of the source; `cost` is the share of the video's expected encoding time, 0 to 1.
    """

    index: int
    start_s: float
    duration_s: float
    frames: int
    bytes: int
    cost: float


@dataclass(frozen=True, slots=True)
class PlannedRung:
    """One rung of a ladder: its picture, and about how many bytes it takes, and at most."""

    name: str
    codec: str
    width: int
    height: int
    crf: float
    max_kbps: int
    bytes: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class FilePlan:
    """What one profile would do with the file.

    If it is encoded, either `chunks` says how the video is split, or `whole` why it is not; `rungs`
    are those of a ladder.
    """

    profile: Profile
    plan: Plan
    chunks: tuple[PlannedChunk, ...] = ()
    whole: WholeFile | None = None
    rungs: tuple[PlannedRung, ...] = ()


def plan_one_file(
    encoder: Encoder,
    location: str,
    info: MediaInfo,
    profiles: Sequence[Profile],
    stop: threading.Event,
    slots_per_job: Callable[[Profile], int] = lambda _profile: 0,
) -> list[FilePlan]:
    """Return the plan of each profile for the file at `location`, which was probed as `info`.

    `slots_per_job` says how many slots may share a video, as it is set for the workers; the chunks are
    then those that the workers will cut.

    Reads the packets of the file once if any profile would encode it, and once more if another makes a
    ladder. Raises SourceUnreadable,
    WorkerUnfit (no ffmpeg) or Stopped.
    """
    plans = [(profile, make_plan(profile, info)) for profile in profiles]
    indexes: dict[tuple[float, ...], KeyIndex] = {}
    found = []
    for profile, plan in plans:
        index = None
        if isinstance(plan, EncodePlan):
            ladder = plan.ladder
            grid = () if ladder is None else (ladder.segment_s, ladder.keyframe_s)
            if grid not in indexes:
                indexes[grid] = encoder.keyframes(location, info, stop=stop, ladder=ladder)
            index = indexes[grid]
        found.append(_split(profile, info, plan, index, slots_per_job(profile)))
    return [replace(each, rungs=tuple(_rungs(each.plan, info))) for each in found]


def _rungs(plan: Plan, info: MediaInfo) -> Iterator[PlannedRung]:
    if not isinstance(plan, EncodePlan) or plan.ladder is None:
        return
    for rung in plan.ladder.rungs:
        usual, most = expected_bytes(rung, info)
        target = rung.target
        yield PlannedRung(
            name=rung.name,
            codec=target.codec,
            width=target.width,
            height=target.height,
            crf=rung.crf,
            max_kbps=rung.max_kbps,
            bytes=usual,
            most_bytes=most,
        )


def _split(
    profile: Profile, info: MediaInfo, plan: Plan, index: KeyIndex | None, slots: int
) -> FilePlan:
    if index is None or not isinstance(plan, EncodePlan):
        return FilePlan(profile, plan)
    if profile.chunking.mode is ChunkMode.AUTO and slots == 1:
        return FilePlan(profile, plan, whole=ONE_SLOT)
    split = plan_chunks(profile, info, plan, index, workers_hint=slots)
    if isinstance(split, WholeFile):
        return FilePlan(profile, plan, whole=split)
    return FilePlan(profile, plan, chunks=tuple(_planned(split)))


def _planned(split: ChunkPlan) -> Iterator[PlannedChunk]:
    for chunk in split.chunks:
        yield PlannedChunk(
            index=chunk.index,
            start_s=round(chunk.start_s, 6),
            duration_s=round(split.seconds(chunk), 6),
            frames=chunk.frames,
            bytes=chunk.bytes,
            cost=round(chunk.cost, 6),
        )
