"""Gate G5 of a joined rendition: the time of every frame is the source's, and each chunk begins with a key frame.

Its pictures are compared as those of any rendition, by G8: the join decodes the source from its start, so
that a frame which is lost, doubled or misplaced at a seam is seen there.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from hevcq.domain.chunking.model import ChunkPlan
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.inspect.measure import FrameTimes, frame_times
from hevcq.ports.encoder import VerifyRequest
from hevcq.util.text import lateness, timecode


@dataclass(frozen=True, slots=True)
class PresentationTimes:
    """Sorted presentation times of source and output in ticks, with each tick in seconds."""

    source: list[int]
    output: list[int]
    source_tick: Fraction
    output_tick: Fraction


def compare_frame_times(
    tools: FfmpegTools, request: VerifyRequest, place: tuple[int, Fraction], stop: threading.Event
) -> list[str]:
    """G5: compare the times of all frames; `place` is the video's stream index and tick in the output."""
    plan = request.chunks
    if plan is None:
        raise AssertionError("the rendition was not joined of chunks")
    source, _ = frame_times(tools, request.location, plan.stream_index, stop)
    output, _ = frame_times(tools, str(request.output), place[0], stop)
    before = sorted(source.pts)[:: request.plan.video.every]
    shown = PresentationTimes(before, sorted(output.pts), plan.tick, place[1])
    return [*_time_problems(shown, plan), *_chunk_start_problems(output, shown, plan)]


def _time_problems(shown: PresentationTimes, plan: ChunkPlan) -> Iterator[str]:
    if len(shown.source) != plan.frames:
        yield f"the source has {len(shown.source)} frames, but {plan.frames} were planned"
        return
    if len(shown.output) != plan.frames:
        yield f"it has {len(shown.output)} frames, the source {plan.frames}"
        return
    ratio = shown.source_tick / shown.output_tick
    # A container with a coarser time base rounds each time once: two of them differ by one tick at most.
    allowed = 0 if ratio.denominator == 1 else 1
    first_in, first_out = shown.source[0], shown.output[0]
    for frame, (before, after) in enumerate(zip(shown.source, shown.output, strict=True)):
        late = (after - first_out) - (before - first_in) * ratio
        if abs(late) > allowed:
            at, off = timecode(float(before * shown.source_tick)), float(late * shown.output_tick)
            yield f"frame {frame} (at {at}) is shown {lateness(off, 6)}"
            return


def _chunk_start_problems(
    output: FrameTimes, shown: PresentationTimes, plan: ChunkPlan
) -> Iterator[str]:
    keys = {pts for _, pts, _ in output.keys}
    for chunk in plan.chunks:
        if chunk.first_frame >= len(shown.output):
            return
        if shown.output[chunk.first_frame] not in keys:
            at = timecode(float(chunk.start_pts * plan.tick))
            yield f"chunk {chunk.index + 1} does not begin with a key frame (frame {chunk.first_frame}, at {at})"
            return
