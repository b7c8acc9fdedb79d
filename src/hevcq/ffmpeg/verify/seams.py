"""Verify what only a joined rendition can get wrong: the time of every frame, and the seams.

G5 compares the time of each frame with the source's and requires a key frame at the start of each
chunk. G8 compares the pictures around each seam with the source's, frame by frame: a frame that is
lost, duplicated or misplaced has a far lower SSIM than its neighbours.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from hevcq.domain.chunking.planner import ChunkPlan
from hevcq.domain.planning.encode_plan import VideoTarget
from hevcq.ffmpeg.command.codecs import (
    coded_pixel_format,
    picture_filter,
    steady_filters,
    uncropped,
)
from hevcq.ffmpeg.inputs import (
    PREROLL_S,
    UNINDEXED,
    FfmpegTools,
    input_options,
    reading,
    seek_options,
)
from hevcq.ffmpeg.inspect.measure import FrameTimes, frame_times
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import limits_of
from hevcq.ports.encoder import VerifyRequest
from hevcq.util.text import lateness, timecode

FRAMES_PER_SIDE = 16
"""Frames compared on each side of a seam."""
SEAM_FRAMES = 3
"""Frames on each side that belong to the seam; the others are the interior it is compared with."""
MAX_SSIM_DROP = 0.02
"""Largest allowed SSIM drop (0 to 1) from the worst interior frame to the worst frame at the seam.

Measured over 157 seams of real clips, at CRF 20 to 32 and with presets medium and ultrafast: intact
seams drop by up to 0.005, the same frames of an encode in one piece by up to 0.024. A misplaced
frame drops by more than 0.02 at 88 % of the seams; at the others the picture hardly moves
(docs/performance.md)."""
NUDGE_S = 0.0015
"""Seconds added to source times, so that rounding to milliseconds does not separate pairs."""
HOLD_LAST_FRAME = "tpad=stop=2:stop_mode=clone"
"""Repeats the output's last picture, so that a nudged last source frame still has a counterpart.

Stands before `setpts`, which in ffmpeg 7 takes the rate by which pictures are repeated."""
_FRAME = re.compile(r"^n:\d+ .*\bAll:(-?[0-9.]+|nan|inf)")


@dataclass(frozen=True, slots=True)
class PresentationTimes:
    """Sorted presentation times of source and output in ticks, with each tick in seconds."""

    source: list[int]
    output: list[int]
    source_tick: Fraction
    output_tick: Fraction

    def moments(self, frame: int) -> tuple[float, float]:
        """Return the time of a frame in source and output, in seconds."""
        return (
            float(self.source[frame] * self.source_tick),
            float(self.output[frame] * self.output_tick),
        )


def compare_frame_times(
    tools: FfmpegTools, request: VerifyRequest, place: tuple[int, Fraction], stop: threading.Event
) -> tuple[PresentationTimes, list[str]]:
    """G5: compare the times of all frames; `place` is the video's stream index and tick in the output."""
    plan = request.chunks
    if plan is None:
        raise AssertionError("the rendition was not joined of chunks")
    source, _ = frame_times(tools, request.location, plan.stream_index, stop)
    output, _ = frame_times(tools, str(request.output), place[0], stop)
    before = sorted(source.pts)[:: request.plan.video.every]
    shown = PresentationTimes(before, sorted(output.pts), plan.tick, place[1])
    return shown, [*_time_problems(shown, plan), *_chunk_start_problems(output, shown, plan)]


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


def seam_problems(
    tools: FfmpegTools,
    request: VerifyRequest,
    shown: PresentationTimes,
    video: tuple[VideoTarget, int],
    stop: threading.Event,
) -> Iterator[str]:
    """G8: yield one problem per seam, or "" if it is intact; runs one ffmpeg per seam.

    `video` is the video target and its stream index in the output.
    """
    plan = request.chunks
    if plan is None:
        return
    for chunk in plan.chunks[1:]:
        first = max(0, chunk.first_frame - FRAMES_PER_SIDE)
        count = min(len(shown.source), chunk.first_frame + FRAMES_PER_SIDE) - first
        argv = _seam_command(
            tools, request, video, (*shown.moments(first), plan.stream_index, count)
        )
        limits = reading(
            limits_of(request.profile.bounds), tools, request.location, str(request.output)
        )
        found: list[float] = []

        def on_line(line: str, found: list[float] = found) -> None:
            match = _FRAME.match(line)
            if match:
                found.append(float(match.group(1)))

        done = run_child(
            argv, stop=stop, limits=limits, on_line=on_line, deadline_s=request.max_seconds
        )
        name = f"the seam of two chunks at {timecode(float(chunk.start_pts * plan.tick))}"
        if done.returncode != 0 or len(found) != count:
            yield f"{name} cannot be compared"
        else:
            far = ssim_drop(found, chunk.first_frame - first)
            lost = (
                f"{name} is less like the source than the pictures around it (SSIM {far:.3f} lower)"
            )
            yield lost if far > MAX_SSIM_DROP else ""


def ssim_drop(found: list[float], seam: int) -> float:
    """Return the SSIM drop from the worst frame around the seam to the worst at it.

    `found` is the SSIM of each frame (NaN counts as 0), `seam` the index of the first frame after
    the seam.
    """
    clean = [value if value == value else 0.0 for value in found]  # noqa: PLR0124 - NaN
    near = clean[max(0, seam - SEAM_FRAMES) : seam + SEAM_FRAMES]
    around = clean[: max(0, seam - SEAM_FRAMES)] + clean[seam + SEAM_FRAMES :]
    return min(around, default=min(near)) - min(near)


def _seam_command(
    tools: FfmpegTools,
    request: VerifyRequest,
    video: tuple[VideoTarget, int],
    sample: tuple[float, float, int, int],
) -> list[str]:
    """Return the command that prints the SSIM of each frame of a sample."""
    there, here, _, frames = sample
    early = PREROLL_S if request.info.format_name.partition(",")[0] in UNINDEXED else 0.0
    return [
        tools.ffmpeg, "-v", "error", "-nostdin", "-nostats", "-hide_banner", "-copyts",
        *seek_options(there - early), *steady_filters(request.info),
        *input_options(request.location),
        *seek_options(here), *uncropped(request.info), *input_options(str(request.output)),
        "-filter_complex", seam_graph(video, sample), "-map", "[out]",
        "-frames:v", str(frames), "-fps_mode", "passthrough", "-f", "null", "-",
    ]  # fmt: skip


def seam_graph(video: tuple[VideoTarget, int], sample: tuple[float, float, int, int]) -> str:
    """Return the filter graph that compares frame by frame.

    Trimming in the graph is exact where seeking is not. The output side begins a little early:
    ssim pairs each source frame with the output frame displayed at its time.
    `video` is the target and the index of its output stream; `sample` its start in source and output
    in seconds, the index of the source stream, and the frame count.
    """
    target, made = video
    there, here, stream, frames = sample
    alike = f"setsar=1,format={coded_pixel_format(target)}"
    source = [f"trim=start={max(0.0, there) - 0.0005:.6f}", picture_filter(target), alike]
    source += [f"trim=end_frame={frames}", f"setpts=PTS-({there - NUDGE_S:.6f})/TB"]
    output = [f"trim=start={here - 0.5:.6f}", alike, HOLD_LAST_FRAME, f"setpts=PTS-({here:.6f})/TB"]
    return ";".join(
        [
            f"[0:{stream}]{','.join(word for word in source if word)}[s]",
            f"[1:{made}]{','.join(output)}[o]",
            "[s][o]ssim=shortest=1:stats_file=-[out]",
        ]
    )
