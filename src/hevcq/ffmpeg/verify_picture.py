"""Gates G4 and G8: does all of it decode, and does the picture still show the source?

G8 looks at samples spread over the film. Source and output are read from the same moment; the
source goes through the filters of the encode; libavfilter's ssim compares frame with frame. A
thumbnail of each pair is kept as well, because a mean can hide a small thing standing still: what
moves in the source must move in the output.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hevcq.domain.media import StreamKind, TrackMeasure
from hevcq.domain.plan import Action, EncodePlan, StreamPlan, VideoTarget
from hevcq.ffmpeg.harmless import Pass, suspicious
from hevcq.ffmpeg.picture import coded_pixel_format, picture_filter
from hevcq.ffmpeg.process import ChildLimits, Finished, run_child
from hevcq.ffmpeg.tools import Tools, input_options
from hevcq.ports.encoder import VerifyRequest

THUMB_WIDTH, THUMB_HEIGHT = 64, 36
_LUMA = THUMB_WIDTH * THUMB_HEIGHT
_CHROMA = (THUMB_WIDTH // 2) * (THUMB_HEIGHT // 2)
_PAIR_BYTES = _LUMA + 2 * _CHROMA + _LUMA
"""A thumbnail pair travels as one yuva420p picture: the source as Y, the output as A."""
NUDGE_S = 0.0015
"""Source frames are moved this much later, so that rounding to milliseconds keeps pairs together."""
MOVES = 1.0
"""Mean difference of two source thumbnails (in levels of 255) from which they differ for sure."""
FOLLOWS = 0.25
"""Share of that difference which the output must show too; encoders lose noise, not motion."""
UNINDEXED_PREROLL_S = 10.0
"""Containers without an index are entered this much earlier, to find a key frame on the way."""
UNINDEXED = frozenset({"mpegts", "mpeg", "h264", "hevc", "mpegvideo", "m4v", "vc1"})
LAST_STAYS = "tpad=stop=2:stop_mode=clone"
"""The output's last picture stays, so that a nudged last source frame still finds its partner."""
_SSIM = re.compile(r"SSIM .*\bAll:(-?[0-9.]+|nan|inf)")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one sample showed: mean SSIM, and the source's and the output's thumbnails."""

    at_s: float
    ssim: float | None
    pairs: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Film:
    """An encoded video track: its plan, and its measure in the output."""

    kept: StreamPlan
    made: TrackMeasure


def decode_problems(
    tools: Tools,
    request: VerifyRequest,
    stop: threading.Event,
    *,
    deadline_s: float,
    on_line: Callable[[str], None],
) -> list[str]:
    """G4: decode every picture and sound of the output; any complaint is a problem.

    With x265's `hash=1` (encoder_params) each picture carries its MD5, and the decoder is told to
    compare it: then a single flipped bit in any picture is found. Without it most flips in HEVC
    decode to a wrong picture without a word.
    """
    argv = [
        tools.ffmpeg, "-v", "error", "-nostdin", "-nostats", "-xerror",
        "-progress", "pipe:1", "-stats_period", "1",
        "-err_detect:v", "crccheck", *input_options(str(request.output)),
        "-map", "0:v?", "-map", "0:a?", "-fps_mode", "passthrough", "-enc_time_base", "-1",
        "-f", "null", "-",
    ]  # fmt: skip
    done = run_child(
        argv, stop=stop, limits=_limits(request), on_line=on_line, deadline_s=deadline_s
    )
    return complaints(done)


def complaints(done: Finished) -> list[str]:
    """Return what a decoding child complained of; an exit code alone is a complaint too."""
    lines = list(suspicious(done.stderr, Pass.DECODE))
    if done.returncode != 0 and not lines:
        lines = [f"decoding ended with exit code {done.returncode}"]
    return lines


def sample_times(length_s: float, count: int, sample_s: float) -> list[float]:
    """Return when the samples begin: spread evenly, fewer if the film is too short for all."""
    fitting = max(1, min(count, int(length_s / max(sample_s, 0.001))))
    return [max(0.0, (place + 0.5) * length_s / fitting - sample_s / 2) for place in range(fitting)]


def encoded_films(plan: EncodePlan) -> tuple[StreamPlan, ...]:
    """Return the kept video tracks whose pictures were encoded anew."""
    return tuple(
        kept
        for kept in plan.kept
        if kept.kind is StreamKind.VIDEO and kept.action is not Action.COPY
    )


def take_samples(
    tools: Tools,
    request: VerifyRequest,
    film: Film,
    stop: threading.Event,
    *,
    deadline_s: float,
) -> Iterator[Sample]:
    """G8: yield each sample of one film as it is measured; none if its times are unknown."""
    source = request.measured.track(film.kept.source_index)
    first, made = film.made.first_pts_s, film.made
    if source is None or source.first_pts_s is None or first is None:
        return
    length = max(0.0, (source.last_pts_s or 0.0) - source.first_pts_s)
    gates = request.profile.gates
    rate = max(1, made.packets - 1) / length if length else 1.0
    frames = min(made.packets, max(2, math.ceil(gates.picture_sample_s * min(rate, 1000.0))))
    for at in sample_times(length, gates.picture_samples, gates.picture_sample_s):
        argv = _sample_command(tools, request, film, (source.first_pts_s + at, first + at), frames)
        done = run_child(argv, stop=stop, limits=_limits(request), deadline_s=deadline_s)
        yield _sample(at, done)


def _limits(request: VerifyRequest) -> ChildLimits:
    bounds = request.profile.bounds
    return ChildLimits(nice=bounds.nice, memory_mib=bounds.memory_mib, output_bytes=0)


def _sample_command(
    tools: Tools, request: VerifyRequest, film: Film, moments: tuple[float, float], frames: int
) -> list[str]:
    target = film.kept.video or request.plan.video
    return [
        tools.ffmpeg, "-v", "level+info", "-nostdin", "-nostats", "-hide_banner", "-copyts",
        *seek_options(moments[0] - preroll_of(request)), *input_options(request.location),
        *seek_options(moments[1]), *input_options(str(request.output)),
        "-filter_complex", graph(target, (film.kept.source_index, film.made.index), moments, frames),
        "-map", "[thumbs]", "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1",
    ]  # fmt: skip


def preroll_of(request: VerifyRequest) -> float:
    """Return how many seconds earlier the source must be entered to find a key frame."""
    demuxer = request.info.format_name.partition(",")[0]
    return UNINDEXED_PREROLL_S if demuxer in UNINDEXED else 0.0


def seek_options(moment: float) -> list[str]:
    """Return the options that enter a file at the key frame before a moment, in seconds."""
    if moment <= 0:
        return []
    return ["-noaccurate_seek", "-seek_timestamp", "1", "-ss", f"{moment:.6f}"]


def graph(
    target: VideoTarget, streams: tuple[int, int], moments: tuple[float, float], frames: int
) -> str:
    """Return the filter graph of one sample; `streams` are the film's in source and output.

    Trimming by time in the graph is exact where seeking is not. The output side begins a little
    early: of two frames ssim takes the one that is shown at the source frame's time.
    """
    thumb = f"scale={THUMB_WIDTH}:{THUMB_HEIGHT}:flags=area,format=yuv420p"
    alike = f"setsar=1,format={coded_pixel_format(target)}"
    there = [f"trim=start={max(0.0, moments[0]) - 0.0005:.6f}", picture_filter(target), alike]
    there += [f"trim=end_frame={frames}", _from(moments[0] - NUDGE_S), "split"]
    here = [f"trim=start={moments[1] - 0.5:.6f}", alike, _from(moments[1]), LAST_STAYS, "split"]
    return ";".join(
        [
            f"[0:{streams[0]}]{','.join(f for f in there if f)}[s1][s2]",
            f"[1:{streams[1]}]{','.join(here)}[o1][o2]",
            "[s1][o1]ssim=shortest=1,nullsink",
            f"[s2]{thumb}[st]",
            f"[o2]{thumb},extractplanes=y[ot]",
            "[st][ot]alphamerge=shortest=1,format=yuva420p[thumbs]",
        ]
    )


def _from(moment: float) -> str:
    return f"setpts=PTS-({moment:.6f})/TB"


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


def frozen(samples: Sequence[Sample]) -> str:
    """Return where the output stands still while the source moves, as half a sentence; else "".

    Compared are the first thumbnails of neighbouring samples, and first and last of each sample.
    """
    for sample in samples:
        if len(sample.pairs) > 1 and _stands_still(sample.pairs[0], sample.pairs[-1]):
            return f"the picture stands still at {sample.at_s:.1f} s, where the source moves"
    filled = [sample for sample in samples if sample.pairs]
    for one, other in pairwise(filled):
        if _stands_still(one.pairs[0], other.pairs[0]):
            return f"the picture stands still from {one.at_s:.1f} s to {other.at_s:.1f} s"
    return ""


def _stands_still(one: tuple[bytes, bytes], other: tuple[bytes, bytes]) -> bool:
    moved = _distance(one[0], other[0])
    return moved > MOVES and _distance(one[1], other[1]) < FOLLOWS * moved


def _distance(one: bytes, other: bytes) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)
