"""Show frames of a rendition beside its source's: each place is decoded once, scored, and drawn from."""

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
    NUMBERED,
    model,
    pair,
    places,
    vmaf,
)
from hevcq.ffmpeg.verify.samples import number_at
from hevcq.ports.encoder import TRIMMED, FramePairs, OnPlace, VerifyRequest

MAX_PICTURES = 24
"""Pictures taken of one place: those of 4K have 2 MB each."""
_Pick = Callable[[Sequence[float]], Sequence[int]]


@dataclass(frozen=True)
class MeasuredPairs(FramePairs):
    """The frames of two files whose times were read; `metric` measures VMAF, or is "" for SSIM."""

    tools: FfmpegTools
    request: VerifyRequest
    metric: str
    source: TrackMeasure
    made: TrackMeasure

    @property
    def name(self) -> str:
        return model(self._target) if self._measures else "SSIM x 100"

    @property
    def lasting(self) -> bool:
        return self.request.info.format_name not in TRIMMED

    @property
    def _target(self) -> VideoTarget:
        return self.request.plan.main_video.video or self.request.plan.video

    @property
    def _measures(self) -> bool:
        return bool(self.metric) and self._target.colour.transfer not in HDR_TRANSFERS

    def compare(
        self, folder: Path, *, on_place: OnPlace, stop: threading.Event
    ) -> Comparison | None:
        frames, stills = list[tuple[float, float]](), list[Sequence[Still]]()
        begins, where = places(self.source, 1), list[float]()
        for number, at in enumerate(begins):
            on_place(number, len(begins))
            scored, shown = self._look(at, _telling, folder, stop)
            frames += scored
            where += [at] * len(scored)
            stills += [shown] if shown else []
        if not frames:
            return None
        middle = sorted(range(len(frames)), key=lambda n: frames[n][1])[len(frames) // 2]
        at = where[middle]
        median = self._look(at, lambda _: [middle - where.index(at)], folder, stop)[1]
        return Comparison(self.name, tuple(frames), _named(stills, median))

    def around(
        self, at_s: float, count: int, folder: Path, *, stop: threading.Event
    ) -> Sequence[Still]:
        many = min(count, MAX_PICTURES)
        return self._look(at_s, lambda scores: range(min(many, len(scores))), folder, stop, many)[1]

    def _look(
        self,
        at: float,
        pick: _Pick,
        folder: Path,
        stop: threading.Event,
        most: int | None = None,
    ) -> tuple[list[tuple[float, float]], list[Still]]:
        """Return (seconds, score) of the frames from a place on, and the pictures that `pick` chooses."""
        where = (self.source, self.made, at)
        with pair(self.tools, self.request, where, folder, stop, most) as files:
            if not files:
                return [], []
            scores: Sequence[float] = ()
            if self._measures:
                by = (self.metric, stop)
                scores = vmaf(self.tools, self.request, self._target, files, by)[0]
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
        """Return SSIM of each frame, of 100."""
        sides = [f"[{n}:v:0]{NUMBERED},format=yuv420p[p{n}]" for n in range(2)]
        graph = ";".join([*sides, "[p0][p1]ssim=stats_file=-:shortest=1"])
        out = self._read(files, ["-filter_complex", graph, "-f", "null", "-"], stop)
        found = (word for word in out.decode().split() if word.startswith("All:"))
        return [100 * float(word.removeprefix("All:")) for word in found]

    def _jpegs(self, path: Path, numbers: Sequence[int], stop: threading.Event) -> list[bytes]:
        if not numbers:
            return []
        chosen = "+".join(f"eq(n\\,{number})" for number in numbers)
        words = ["-vf", f"select={chosen},{NUMBERED},format=yuvj420p"]
        words += ["-fps_mode", "passthrough", "-enc_time_base", "1:1000"]
        words += ["-frames:v", str(len(numbers)), "-c:v", "mjpeg", "-q:v", "3"]
        out = self._read([path], [*words, "-f", "image2pipe", "-"], stop)
        return list(split_jpegs(out))

    def _read(self, files: Sequence[Path], words: Sequence[str], stop: threading.Event) -> bytes:
        """Return what ordinary ffmpeg writes of some scratch files."""
        argv = [self.tools.ffmpeg, "-v", "error", "-nostdin"]
        argv += [word for path in files for word in ("-i", f"file:{path}")]
        access = access_to(self.tools, *map(str, files))
        limits = replace(limits_of(self.request.profile.bounds), access=access)
        longest = self.request.max_seconds
        done = run_child([*argv, *words], stop=stop, limits=limits, deadline_s=longest)
        return done.stdout if done.returncode == 0 else b""


def _telling(scores: Sequence[float]) -> Sequence[int]:
    """Return the numbers of the worst and the best frame, in order; one if they are the same."""
    ranked = sorted(range(len(scores)), key=scores.__getitem__)
    return sorted({ranked[0], ranked[-1]}) if ranked else ()


def _named(stills: Sequence[Sequence[Still]], median: Sequence[Still]) -> tuple[Still, ...]:
    """Return the frames of all places that are shown: see `Comparison`; `median` is that of all of them."""
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
