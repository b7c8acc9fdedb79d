"""One video in chunks, two at a time, against the same video in one piece: wall, CPU, size, SSIM.

Run as `python benchmarks/chunk_bench.py [ROUNDS]`. Ways are interleaved; ratios are medians. On a
machine with other work the wall ratios say little, CPU seconds most. `chunk_long.py` beside it
has bits at equal quality, and the seams.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import clip, ratio, report
from benchmarks.mixed_video import mixed_video
from hevcq.util.clock import SystemClock
from hevcq.domain.chunking.planner import ChunkPlan, KeyIndex, chunks_at
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ports.encoder import EncodeRequest
from hevcq.settings.profile_files import installed_folder, load_profile

PARALLEL = 2
THREADS = (0, 1, 2)
"""Encoder threads of a chunk that are tried; 0 is the encoder's own choice."""
ENCODER = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
PROFILE = load_profile(installed_folder() / "hevc.yaml")
STOP = threading.Event()
Places = Callable[[KeyIndex], tuple[int, ...]]
_SSIM = re.compile(r"SSIM .*\bAll:([0-9.]+)")


@dataclass(frozen=True)
class Run:
    """What one way took, and what came of it."""

    wall_s: float
    cpu_s: float
    split_and_join_s: float
    size: int
    output: Path
    seams: tuple[int, ...] = ()


def halves(index: KeyIndex) -> tuple[int, ...]:
    """Return the places that cut the video into two pieces as even as its key frames allow."""
    middle = index.keys[0].pts + (index.end_pts - index.keys[0].pts) / 2
    nearest = min(range(1, len(index.keys)), key=lambda n: abs(index.keys[n].pts - middle))
    return 0, nearest


def nothing(_state: object) -> None:
    """Take progress and forget it."""


def cpu() -> float:
    """Return CPU seconds of this process and of every child it has waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


class Video:
    """A source and the two ways to encode it."""

    def __init__(self, source: Path, folder: Path, profile: Profile = PROFILE) -> None:
        self.source, self.folder, self.profile = source, folder, profile
        self.info: MediaInfo = ENCODER.probe(str(source), stop=STOP)
        plan = make_plan(profile, self.info)
        if not isinstance(plan, EncodePlan):
            raise SystemExit(f"{source.name} is not encoded: {plan}")
        self.plan = plan

    def request(self, name: str, threads: int) -> EncodeRequest:
        return EncodeRequest(
            profile=self.profile,
            plan=self.plan,
            info=self.info,
            location=str(self.source),
            output=self.folder / name,
            duration_s=self.info.duration_s,
            source_size=self.info.size,
            max_seconds=3600,
            threads=threads,
        )

    def whole(self, name: str) -> Run:
        asked, began, spent = self.request(name, 0), time.perf_counter(), cpu()
        ENCODER.encode(asked, on_progress=nothing, stop=STOP)
        took = time.perf_counter() - began, cpu() - spent
        return Run(*took, 0.0, asked.output.stat().st_size, asked.output)

    def chunked(self, name: str, threads: int, places: Places = halves) -> Run:
        began, spent = time.perf_counter(), cpu()
        index = ENCODER.keyframes(str(self.source), self.info, stop=STOP)
        plan = chunks_at(self.profile, self.plan, index, places(index))
        split = cpu() - spent
        with ThreadPoolExecutor(PARALLEL) as pool:
            parts = list(
                pool.map(lambda n: self._part(plan, n, name, threads), range(len(plan.chunks)))
            )
        before, asked = cpu(), self.request(name, threads)
        ENCODER.join(asked, plan, parts, on_progress=nothing, stop=STOP)
        took = time.perf_counter() - began, cpu() - spent
        seams = tuple(chunk.first_frame for chunk in plan.chunks[1:])
        size = asked.output.stat().st_size
        return Run(*took, split + cpu() - before, size, asked.output, seams)

    def _part(self, plan: ChunkPlan, number: int, name: str, threads: int) -> Path:
        asked = self.request(f"{name}.{number}.part", threads)
        chunk = plan.chunks[number]
        ENCODER.encode_chunk(asked, plan, chunk, on_progress=nothing, stop=STOP)
        return asked.output

    def ssim(self, output: Path) -> float:
        graph = "[0:v]setpts=PTS-STARTPTS[a];[1:v]setpts=PTS-STARTPTS[b];[a][b]ssim"
        argv = ["ffmpeg", "-nostdin", "-hide_banner", "-i", self.source, "-i", output, "-lavfi",
                graph, "-f", "null", "-"]  # fmt: skip
        said = subprocess.run(argv, check=True, capture_output=True, text=True).stderr
        return float(_SSIM.findall(said)[-1])


def main() -> int:
    """Measure, print, write, judge."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = Video(mixed_video(folder) or clip(folder, 120, "640x360"), folder)
        seen: dict[str, list[Run]] = {}
        alike: dict[str, float] = {}
        for number in range(rounds):
            ways = {"whole": lambda n=number: video.whole(f"whole{n}.mp4")}
            for threads in THREADS:
                ways[f"threads {threads}"] = lambda n=number, t=threads: video.chunked(
                    f"chunked{t}-{n}.mp4", t
                )
            for way, go in ways.items():
                seen.setdefault(way, []).append(go())
        for way, runs in seen.items():
            alike[way] = video.ssim(runs[0].output)
    return report("chunk", rows(seen, alike))


def rows(seen: dict[str, list[Run]], alike: dict[str, float]) -> list[dict[str, object]]:
    """Return the figures; limits hold for the profile's own number of threads."""
    whole = seen["whole"]
    found: list[dict[str, object]] = [
        {"figure": "whole video", "value": whole[0].cpu_s, "unit": "CPU s"}
    ]
    for threads in THREADS:
        runs = seen[f"threads {threads}"]
        own = threads == PROFILE.chunking.threads
        label = f"chunks, {threads or 'default'} threads"

        def against(what: str, runs: list[Run] = runs) -> float:
            return ratio([getattr(r, what) for r in runs], [getattr(r, what) for r in whole])

        lost = (1 - alike[f"threads {threads}"]) / (1 - alike["whole"])
        found += [
            {"figure": f"{label}: CPU / whole", "value": against("cpu_s")}
            | ({"limit": 1.03} if own else {}),
            {"figure": f"{label}: wall / whole (aim 0.97 on an idle machine)",
             "value": against("wall_s")},
            {"figure": f"{label}: size / whole", "value": against("size")}
            | ({"limit": 1.01} if own else {}),
            {"figure": f"{label}: lost SSIM / whole", "value": lost},
        ]  # fmt: skip
        if own:
            split = [run.split_and_join_s for run in runs]
            found.append({"figure": "split and join, CPU / whole (two minutes)",
                          "value": ratio(split, [run.cpu_s for run in whole]), "limit": 0.01})  # fmt: skip
            found.append({"figure": "split and join", "value": sorted(split)[len(split) // 2],
                          "unit": "CPU s"})  # fmt: skip
    return found


if __name__ == "__main__":
    sys.exit(main())
