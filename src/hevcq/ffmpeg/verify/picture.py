"""Gate G8, where the profile asks for SSIM: compare sampled pictures with the source.

Samples are spread over the video. Source and output are read from the same time; the source
passes the filters of the encode; libavfilter's ssim compares frame by frame. A thumbnail of each
pair is kept as well, because a mean SSIM can hide a small frozen area: what moves in the source
must move in the output.
"""

import math
import re
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from hevcq.domain.media.facts import TrackMeasure
from hevcq.domain.planning.encode_plan import StreamPlan, VideoTarget
from hevcq.ffmpeg.command.codecs import (
    compared_pixel_format,
    picture_filter,
    steady_filters,
    uncropped,
)
from hevcq.ffmpeg.command.thumbnails import MEANS
from hevcq.ffmpeg.inputs import FfmpegTools, input_options, reading
from hevcq.ffmpeg.process.child import Finished, run_child
from hevcq.ffmpeg.process.limits import limits_of
from hevcq.ports.encoder import VerifyRequest
from hevcq.util.text import timecode

THUMB_WIDTH, THUMB_HEIGHT = 64, 36
_LUMA = THUMB_WIDTH * THUMB_HEIGHT
_CHROMA = (THUMB_WIDTH // 2) * (THUMB_HEIGHT // 2)
_PAIR_BYTES = _LUMA + 2 * _CHROMA + _LUMA
"""A thumbnail pair is piped as one yuva420p picture: the source as Y, the output as A."""
SAMPLES, SAMPLE_S = 4, 1.0
"""G8 with ssim: samples spread over the video, and their length in seconds."""
NUDGE_S = 0.0015
"""Seconds added to source times, so that rounding to milliseconds does not separate pairs."""
MIN_MOTION = 1.0
"""Mean difference of two source thumbnails (0 to 255) from which they count as different."""
MIN_MOTION_SHARE = 0.25
"""Share of that difference which the output must keep; encoders lose noise, not motion."""
PREROLL_S = 10.0
"""Seconds by which to seek earlier in containers without an index, to pass a key frame on the way."""
FROM_START_S = 0.5
"""Seconds from the first picture below which a source is read from its start: FLV finds no key frame
there, because ffmpeg enters 0.13 s earlier where pictures are reordered."""
LONG_VIDEO_S = 600.0
"""Above this length samples lie in the middle of their shares; the extra decoding is negligible."""
UNINDEXED = frozenset({"mpegts", "mpeg", "h264", "hevc", "mpegvideo", "m4v", "vc1"})
UNTIMED = frozenset({"avi", "h264", "hevc", "mpegvideo", "m4v", "vc1"})
"""Containers without presentation times: the times that ffmpeg derives depend on the decoder's delay."""
FRAME_SHIFTS = (1, 2, 3, -1)
"""Constant shifts, in frames, that the times of such a source may have; likeliest first."""
HOLD_LAST_FRAME = "tpad=stop=2:stop_mode=clone"
"""Repeats the output's last picture, so that a nudged last source frame still has a counterpart.

Stands before `setpts`, which in ffmpeg 7 takes the rate by which pictures are repeated."""
_SSIM = re.compile(r"SSIM .*\bAll:(-?[0-9.]+|nan|inf)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample at `at_s` seconds: its mean SSIM (at most 1), and thumbnail pairs of source and output."""

    at_s: float
    ssim: float | None
    pairs: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Alignment:
    """How source frames are aligned with output frames.

    `shift` is the number of frames by which the source shows each later than its packets say, `preroll_s` how much
    earlier it is entered than it must: a key frame may be one from which only later pictures are
    whole (intra refresh).
    """

    shift: int = 0
    preroll_s: float = 0.0


UNSHIFTED = Alignment()


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """An encoded video track: its plan, its measurement in the output, and how to align it."""

    kept: StreamPlan
    made: TrackMeasure
    alignment: Alignment = UNSHIFTED


def alignments(request: VerifyRequest) -> tuple[Alignment, ...]:
    """Return the alignments to try; a video passes if all its samples match in one of them.

    G5 counts the frames, so a constant shift cannot hide a lost one.
    """
    demuxer = request.info.format_name.partition(",")[0]
    shifts = FRAME_SHIFTS if demuxer in UNTIMED else ()
    return UNSHIFTED, *(Alignment(shift=shift) for shift in shifts), Alignment(preroll_s=PREROLL_S)


def sample_times(
    length_s: float, count: int, sample_s: float, keys: Sequence[Sequence[float]] = ()
) -> list[float]:
    """Return the start of each sample in seconds: one in each of `count` equal shares, fewer if short.

    A sample lies in the middle of its share; in a short video it lies where the least must be
    decoded to reach it. `keys` are the key-frame times of each file in seconds, where known.
    """
    fitting = max(1, min(count, int(length_s / max(sample_s, 0.001))))
    share = length_s / fitting
    middles = [max(0.0, (place + 0.5) * share - sample_s / 2) for place in range(fitting)]
    if length_s > LONG_VIDEO_S:
        return middles
    ends = [max(place * share, (place + 1) * share - sample_s) for place in range(fitting)]
    return [_cheapest(place * share, middles[place], ends[place], keys) for place in range(fitting)]


def _cheapest(begin: float, middle: float, end: float, keys: Sequence[Sequence[float]]) -> float:
    """Return the time in a share that is nearest after its key frames; of equals the middlemost."""
    times = [begin, middle, *(time for known in keys for time in known if begin <= time <= end)]

    def behind(known: Sequence[float], time: float) -> float:
        passed = bisect_right(known, time)
        return time - known[passed - 1] if passed else time

    def cost(time: float) -> tuple[float, float]:
        return round(sum(behind(known, time) for known in keys if known), 3), abs(time - middle)

    return min(times, key=cost)


def take_samples(
    tools: FfmpegTools,
    request: VerifyRequest,
    encoded: EncodedVideo,
    stop: threading.Event,
    *,
    deadline_s: float,
) -> Iterator[Sample]:
    """G8: yield the samples of one video as they are measured; none if its times are unknown."""
    source = request.measured.track(encoded.kept.source_index)
    first, made = encoded.made.first_pts_s, encoded.made
    if source is None or source.first_pts_s is None or first is None:
        return
    length = max(0.0, (source.last_pts_s or 0.0) - source.first_pts_s)
    rate = max(1, made.packets - 1) / length if length else 1.0
    frames = min(made.packets, max(2, math.ceil(SAMPLE_S * min(rate, 1000.0))))
    keys = [
        sorted(key - track.first_pts_s for key in track.keys_s)
        for track in (source, made)
        if track.first_pts_s is not None
    ]
    for at in sample_times(length, SAMPLES, SAMPLE_S, keys):
        within = replace(request, max_seconds=deadline_s)
        yield sample_at(tools, within, encoded, (source.first_pts_s + at, first + at, frames), stop)


def sample_at(
    tools: FfmpegTools,
    request: VerifyRequest,
    encoded: EncodedVideo,
    place: tuple[float, float, int],
    stop: threading.Event,
) -> Sample:
    """Compare some frames; `place` is the time in the source, that in the output, and their number.

    `request.max_seconds` limits the wall time.
    """
    argv = _sample_command(tools, request, encoded, place[:2], place[2])
    limits = reading(
        limits_of(request.profile.bounds), tools, request.location, str(request.output)
    )
    done = run_child(argv, stop=stop, limits=limits, deadline_s=request.max_seconds)
    source = request.measured.track(encoded.kept.source_index)
    first = source.first_pts_s if source is not None else None
    return _sample(place[0] - (first or 0.0), done)


def _sample_command(
    tools: FfmpegTools,
    request: VerifyRequest,
    encoded: EncodedVideo,
    moments: tuple[float, float],
    frames: int,
) -> list[str]:
    target = encoded.kept.video or request.plan.video
    streams = encoded.kept.source_index, encoded.made.index
    # Few pictures are needed: more threads would decode some for nothing.
    alone = ("-threads", "1")
    # Shift display times only: a demuxer seeks by the times of its packets.
    shown = moments[0] + encoded.alignment.shift * _frame_s(request, encoded.kept), moments[1]
    entry = moments[0] - max(encoded.alignment.preroll_s, preroll_of(request))
    track = request.measured.track(encoded.kept.source_index)
    if track is not None and entry < (track.first_pts_s or 0.0) + FROM_START_S:
        entry = 0.0
    if target.telecine:
        entry = 0.0  # its frames are counted from the first one of the file
    return [
        tools.ffmpeg, "-v", "level+info", "-nostdin", "-nostats", "-hide_banner", "-copyts",
        *seek_options(entry), *alone, *steady_filters(request.info), *input_options(request.location),
        *seek_options(moments[1]), *alone, *uncropped(request.info), *input_options(str(request.output)),
        "-filter_complex", sample_graph(target, streams, shown, frames),
        "-map", "[thumbs]", "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1",
    ]  # fmt: skip


def _frame_s(request: VerifyRequest, kept: StreamPlan) -> float:
    """Return the source's frame duration in seconds; 0 if its frame rate is unknown."""
    video = next(s.video for s in request.info.streams if s.index == kept.source_index)
    frames, _, seconds = (video.average_rate if video is not None else "").partition("/")
    return int(seconds) / int(frames) if frames.isdigit() and int(frames) else 0.0


def preroll_of(request: VerifyRequest) -> float:
    """Return by how many seconds to seek earlier in the source to find a key frame."""
    demuxer = request.info.format_name.partition(",")[0]
    return PREROLL_S if demuxer in UNINDEXED else 0.0


def seek_options(moment: float) -> list[str]:
    """Return the options that seek to the key frame at or before `moment`, in seconds.

    Adds half a millisecond, so that rounding a key frame's time does not lead to the one before.
    """
    if moment <= 0:
        return []
    return ["-noaccurate_seek", "-seek_timestamp", "1", "-ss", f"{moment + 0.0005:.6f}"]


def sample_graph(
    target: VideoTarget, streams: tuple[int, int], moments: tuple[float, float], frames: int
) -> str:
    """Return the filter graph of one sample; `streams` and `moments` are those of source and output.

    Trimming in the graph is exact where seeking is not. The output side begins a little early:
    ssim pairs each source frame with the output frame displayed at its time.
    """
    thumb = f"scale={THUMB_WIDTH}:{THUMB_HEIGHT}:flags={MEANS},format=yuv420p"
    alike = f"setsar=1,format={compared_pixel_format(target)}"
    # Pictures are counted from the sample on here, and only their order matters.
    target = target.model_copy(update={"retimed": ()})
    there = [f"trim=start={max(0.0, moments[0]) - 0.0005:.6f}", picture_filter(target), alike]
    if target.telecine:
        there[:2] = reversed(there[:2])
    there += [f"trim=end_frame={frames}", _from(moments[0] - NUDGE_S)]
    here = [
        f"trim=start={moments[1] - 0.5:.6f}",
        alike,
        HOLD_LAST_FRAME,
        _from(moments[1]),
        "split",
    ]
    return ";".join(
        [
            f"[0:{streams[0]}]{','.join(f for f in there if f)}[s]",
            f"[1:{streams[1]}]{','.join(here)}[o1][o2]",
            # It passes on the source's; with a sink of its own ffmpeg 7 aborts where both files end.
            f"[s][o1]ssim=shortest=1,{thumb}[st]",
            f"[o2]{thumb},extractplanes=y[ot]",
            "[st][ot]alphamerge=shortest=1,format=yuva420p[thumbs]",
        ]
    )


def _from(moment: float) -> str:
    # An AVI counts in whole pictures: half of one would be rounded to the neighbour.
    return f"settb=AVTB,setpts=PTS-({moment:.6f})/TB"


def _sample(at: float, done: Finished) -> Sample:
    found = [match.group(1) for line in done.stderr if (match := _SSIM.search(line))]
    ssim = float(found[-1]) if found and done.returncode == 0 else None
    if ssim is not None and not math.isfinite(ssim):
        ssim = None
    whole = range(0, len(done.stdout) - _PAIR_BYTES + 1, _PAIR_BYTES)
    pairs = tuple(
        (done.stdout[i : i + _LUMA], done.stdout[i + _PAIR_BYTES - _LUMA : i + _PAIR_BYTES])
        for i in whole
    )
    return Sample(at_s=at, ssim=ssim, pairs=pairs)


def freeze_problem(samples: Sequence[Sample]) -> str:
    """Return where the output is frozen while the source moves, as a clause, or "".

    Compares the first thumbnails of neighbouring samples, and the first and last of each sample.
    """
    for sample in samples:
        if len(sample.pairs) > 1 and _stands_still(sample.pairs[0], sample.pairs[-1]):
            return f"the picture stands still at {timecode(sample.at_s)}, where the source moves"
    filled = [sample for sample in samples if sample.pairs]
    for one, other in pairwise(filled):
        if _stands_still(one.pairs[0], other.pairs[0]):
            return f"the picture stands still from {timecode(one.at_s)} to {timecode(other.at_s)}"
    return ""


def _stands_still(one: tuple[bytes, bytes], other: tuple[bytes, bytes]) -> bool:
    moved = _distance(one[0], other[0])
    return moved > MIN_MOTION and _distance(one[1], other[1]) < MIN_MOTION_SHARE * moved


def _distance(one: bytes, other: bytes) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)
