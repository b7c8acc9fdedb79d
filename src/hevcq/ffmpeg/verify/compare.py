"""Compare a rendition's frames with its source's: decode each place once, score it, and show frames of it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.domain.media.facts import TrackMeasure
from hevcq.domain.planning.encode_plan import VideoTarget
from hevcq.domain.planning.video import HDR_TRANSFERS
from hevcq.domain.quality import Comparison, Still
from hevcq.ffmpeg.inputs import FfmpegTools, access_to
from hevcq.ffmpeg.inspect.texts import split_jpegs
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import limits_of
from hevcq.ffmpeg.verify.quality import (
    BY_FRAME_NUMBER,
    frame_pair,
    measure_vmaf,
    sample_begins,
    vmaf_model,
)
from hevcq.ffmpeg.verify.samples import number_at
from hevcq.ports.encoder import TRIMMED, FramePairs, OnPlace, VerifyRequest

MAX_PICTURES = 24
"""Frames shown of one place; JPEGs of 4K have 2 MB each."""
_Pick = Callable[[Sequence[float]], Sequence[int]]


@dataclass(frozen=True)
class MeasuredPairs(FramePairs):
    """The frames of two files whose times were read. The program `metric` measures VMAF; with "" SSIM is used."""

    tools: FfmpegTools
    request: VerifyRequest
    metric: str
    source: TrackMeasure
    made: TrackMeasure

    @property
    def name(self) -> str:
        return vmaf_model(self._target) if self._has_vmaf else "SSIM x 100"

    @property
    def lasting(self) -> bool:
        return self.request.info.format_name not in TRIMMED

    @property
    def _target(self) -> VideoTarget:
        return self.request.plan.main_video.video or self.request.plan.video

    @property
    def _has_vmaf(self) -> bool:
        return bool(self.metric) and self._target.colour.transfer not in HDR_TRANSFERS

    def compare(
        self, folder: Path, *, on_place: OnPlace, stop: threading.Event
    ) -> Comparison | None:
        frames, stills = list[tuple[float, float]](), list[Sequence[Still]]()
        begins, place_of = sample_begins(self.source, 1), list[float]()
        for number, at in enumerate(begins):
            on_place(number, len(begins))
            scored, shown = self._score_frames(at, _worst_and_best, folder, stop)
            frames += scored
            place_of += [at] * len(scored)
            stills += [shown] if shown else []
        if not frames:
            return None
        middle = sorted(range(len(frames)), key=lambda n: frames[n][1])[len(frames) // 2]
        at = place_of[middle]
        median = self._score_frames(at, lambda _: [middle - place_of.index(at)], folder, stop)[1]
        return Comparison(self.name, tuple(frames), _label_stills(stills, median))

    def around(
        self, at_s: float, count: int, folder: Path, *, stop: threading.Event
    ) -> Sequence[Still]:
        many = min(count, MAX_PICTURES)
        return self._score_frames(
            at_s, lambda scores: range(min(many, len(scores))), folder, stop, many
        )[1]

    def _score_frames(
        self, at: float, pick: _Pick, folder: Path, stop: threading.Event, most: int | None = None
    ) -> tuple[list[tuple[float, float]], list[Still]]:
        """Score the frames from `at` seconds on; return (seconds, score) of each, and those that `pick` chooses.

        `most` see `frame_pair`.
        """
        where = (self.source, self.made, at)
        with frame_pair(self.tools, self.request, where, folder, stop, most) as files:
            if not files:
                return [], []
            scores: Sequence[float] = ()
            if self._has_vmaf:
                by = (self.metric, stop)
                scores = measure_vmaf(self.tools, self.request, self._target, files, by)[0]
            scores = scores or self._ssim(files, stop)
            first = number_at(self.source, at)
            times = self.source.times[first:]
            rate = 2 if self._target.field_rate else 1
            shown = [
                (times[min(n // rate, len(times) - 1)] - self.source.times[0]) * self.source.tick_s
                for n in range(len(scores))
            ]
            numbers = pick(scores)
            made, source = (self._jpegs(path, numbers, stop) for path in files)
        stills = [
            Still(shown[n], scores[n], *both)
            for n, both in zip(numbers, zip(source, made, strict=False), strict=False)
        ]
        return list(zip(shown, scores, strict=True)), stills

    def _ssim(self, files: Sequence[Path], stop: threading.Event) -> list[float]:
        """Return the SSIM of each frame, times 100."""
        sides = [f"[{n}:v:0]{BY_FRAME_NUMBER},format=yuv420p[p{n}]" for n in range(2)]
        graph = ";".join([*sides, "[p0][p1]ssim=stats_file=-:shortest=1"])
        out = self._run_ffmpeg(files, ["-filter_complex", graph, "-f", "null", "-"], stop)
        words = (word for word in out.decode().split() if word.startswith("All:"))
        return [100 * float(word.removeprefix("All:")) for word in words]

    def _jpegs(self, path: Path, numbers: Sequence[int], stop: threading.Event) -> list[bytes]:
        if not numbers:
            return []
        chosen = "+".join(f"eq(n\\,{number})" for number in numbers)
        words = ["-vf", f"select={chosen},{BY_FRAME_NUMBER},format=yuvj420p"]
        words += ["-fps_mode", "passthrough", "-enc_time_base", "1:1000"]
        words += ["-frames:v", str(len(numbers)), "-c:v", "mjpeg", "-q:v", "3"]
        out = self._run_ffmpeg([path], [*words, "-f", "image2pipe", "-"], stop)
        return list(split_jpegs(out))

    def _run_ffmpeg(
        self, files: Sequence[Path], words: Sequence[str], stop: threading.Event
    ) -> bytes:
        """Return the output of the ordinary ffmpeg (not `metric`) for scratch files; b"" if it fails."""
        argv = [self.tools.ffmpeg, "-v", "error", "-nostdin"]
        argv += [word for path in files for word in ("-i", f"file:{path}")]
        access = access_to(self.tools, *map(str, files))
        limits = replace(limits_of(self.request.profile.bounds), access=access)
        deadline_s = self.request.max_seconds
        done = run_child([*argv, *words], stop=stop, limits=limits, deadline_s=deadline_s)
        return done.stdout if done.returncode == 0 else b""


def _worst_and_best(scores: Sequence[float]) -> Sequence[int]:
    """Return the numbers of the worst and the best frame, ascending; one number if they are the same."""
    ranked = sorted(range(len(scores)), key=scores.__getitem__)
    return sorted({ranked[0], ranked[-1]}) if ranked else ()


def _label_stills(stills: Sequence[Sequence[Still]], median: Sequence[Still]) -> tuple[Still, ...]:
    """Name the stills of all places and of the median frame, in the order of `Comparison`."""
    if not stills:
        return ()
    best = max((still for place in stills for still in place), key=lambda still: still.score)
    worst = [min(place, key=lambda still: still.score) for place in stills]
    worst.sort(key=lambda still: still.score)
    shown = [("Worst frame", worst[0]), *(("Median frame", each) for each in median)]
    shown += [("Best frame", best)]
    shown += [(f"Worst frame of place {n}", still) for n, still in enumerate(worst[1:], 2)]
    first = {still.at_s: replace(still, name=name) for name, still in reversed(shown)}
    return tuple(first[at] for at in dict.fromkeys(still.at_s for _, still in shown))
