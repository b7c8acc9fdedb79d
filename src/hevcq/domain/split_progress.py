"""Sum up the progress of a split job from its chunks. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hevcq.domain.job import JobRecord, JobState, Phase, Progress
from hevcq.domain.model import Frozen


class SplitProgress(Frozen):
    """Progress of a split job: total chunks, finished chunks, and chunks being encoded."""

    chunks: int
    done: int
    running: int
    progress: Progress


def split_progress(job: JobRecord, parts: Sequence[JobRecord]) -> SplitProgress | None:
    """Return the progress of a SPLIT job, or None if the job is not SPLIT.

    Chunks are weighted by their frames. Once all chunks are done, it is the join's progress.
    """
    if job.split is None or job.state is not JobState.SPLIT:
        return None
    chunks = [
        (part, part.subjob) for part in parts if part.subjob and part.subjob.chunk is not None
    ]
    join = next((part for part in parts if part.subjob and part.subjob.chunk is None), None)
    shares = [_share(part) * about.frames for part, about in chunks]
    running = [part for part, _ in chunks if part.state is JobState.RUNNING]
    done = sum(part.state is JobState.DONE for part, _ in chunks)
    share = min(1.0, sum(shares) / job.split.frames)
    speeds = [p.progress.speed for p in running if p.progress and p.progress.speed]
    speed = sum(speeds) or None
    eta = (1.0 - share) * job.split.seconds / speed if speed else None
    progress = Progress(phase=Phase.ENCODE, percent=100.0 * share, speed=speed, eta_s=eta)
    if chunks and done == len(chunks):
        progress = (join.progress if join is not None else None) or Progress(phase=Phase.JOIN)
    return SplitProgress(
        chunks=job.split.chunks, done=done, running=len(running), progress=progress
    )


def _share(part: JobRecord) -> float:
    """Return the encoded share of a chunk, 0 to 1. Other phases than ENCODE are short and count as 0."""
    if part.state is JobState.DONE:
        return 1.0
    encoding = part.progress is not None and part.progress.phase is Phase.ENCODE
    if part.state is not JobState.RUNNING or part.progress is None or not encoding:
        return 0.0
    return part.progress.percent / 100.0
