"""Requeue a straggler: a chunk that takes this worker several times as long as others took.

Only if every worker is a machine of its own (`WorkerContext.requeue_stragglers`): slots of one
machine are slow together. A chunk is requeued only once: under its second fence it stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from hevcq.domain.chunking.planner import Chunk
from hevcq.domain.chunking.split_plan import SplitPlan
from hevcq.domain.job import JobState
from hevcq.errors import HevcqError, StragglerRequeued
from hevcq.ports.encoder import EncodeProgress, OnProgress
from hevcq.util.log import get_logger
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.lease import Fence, Lease

SLOWER = 3.0
"""A straggler takes this many times longer than expected; the model is off by a fifth, not two thirds."""
LEAST_DONE = 3
"""Chunks that must be done before another chunk is compared with them."""
WORTH = 1.5
"""The rest of a straggler takes this many times longer here than the whole chunk elsewhere."""
LOOK_S = 10.0
"""Seconds between checks of a chunk being encoded; each check reads the records of the parts."""


class StragglerWatch:
    """Watch how long a chunk's encode takes, every `LOOK_S` seconds."""

    def __init__(
        self, context: WorkerContext, video: SplitPlan, chunk: Chunk, lease: Lease, fence: Fence
    ) -> None:
        self._video, self._chunk, self._lease = video, chunk, lease
        self._fence, self._clock, self._requeued = fence, context.clock, context.requeued_chunks
        self._subjobs = context.backend.subjobs
        self._began = self._clock.monotonic()
        self._next_s = LOOK_S

    def watched(self, on_progress: OnProgress) -> OnProgress:
        """Return a callback that calls `on_progress`, then checks the chunk."""

        def watching(now: EncodeProgress) -> None:
            on_progress(now)
            elapsed = self._clock.monotonic() - self._began
            if elapsed >= self._next_s and self._fence.number == 1:
                self._next_s = elapsed + LOOK_S
                self._check(now.fraction, elapsed)

        return watching

    def _check(self, share: float, elapsed_s: float) -> None:
        log = get_logger(job=self._video.job_id, chunk=self._chunk.index)
        try:
            done = self._done()
        except HevcqError as error:
            log.debug("subjobs_not_read", reason=str(error))
            return
        if is_straggler(self._chunk.cost, share, elapsed_s, done):
            log.warning("straggler_requeued", share=round(share, 3), elapsed_s=round(elapsed_s, 1))
            self._requeued.note(self._fence.job_id, self._clock.monotonic())
            self._lease.end(StragglerRequeued())

    def _done(self) -> list[tuple[float, float]]:
        """Return the cost and the time in seconds of each chunk that is done."""
        chunks, found = self._video.chunks.chunks, []
        for part in self._subjobs.subjobs(self._video.job_id):
            number = part.subjob.chunk if part.subjob is not None else None
            if number is None or part.state is not JobState.DONE:
                continue
            if part.started_at is not None and part.finished_at is not None:
                found.append((chunks[number].cost, part.finished_at - part.started_at))
        return found


def is_straggler(
    cost: float, share: float, elapsed_s: float, done: Sequence[tuple[float, float]]
) -> bool:
    """Return whether a chunk is a straggler, from its modelled cost and its encoded share (0 to 1).

    `done` holds the cost and the duration in seconds of each finished chunk of the video.
    """
    known = [seconds / each for each, seconds in done if each > 0 and seconds > 0]
    if len(known) < LEAST_DONE or cost <= 0:
        return False
    expected = median(known) * cost
    if share <= 0:
        # Lookahead delays the first frame, so its absence says nothing about the speed.
        return elapsed_s > expected
    whole = elapsed_s / share
    return whole > SLOWER * expected and whole - elapsed_s > WORTH * expected
