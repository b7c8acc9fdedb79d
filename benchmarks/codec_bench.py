"""AV1 against HEVC at equal quality: bits and CPU of SVT-AV1 preset 8 against x265 medium.

Run as `python benchmarks/codec_bench.py [FFMPEG_WITH_LIBVMAF]`. Five real clips of at most 5 s are
encoded at three rate factors by each encoder, with the arguments of the profiles hevc and av1. At
each of some scores that both reach the rates are interpolated (logarithm of the rate over the score,
as Bjøntegaard's delta rate does), and the mean is their ratio. Scores are SSIM in dB, and VMAF if an
ffmpeg with libvmaf is named (imageio-ffmpeg from PyPI has one; Debian's has not).
"""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import MEDIA, report, run

CLIPS = (
    "bbb-480p24-30s.mp4", "bbb-720p25-5s.mp4", "gopro-480p30-tmcd-gpmd.mp4", "phone-720p30.mp4",
    "traffic-432p12.mp4",
)  # fmt: skip
SECONDS = "5"
ENCODERS = {
    "hevc": (("-c:v", "libx265", "-preset", "medium", "-x265-params", "log-level=error:hash=1"),
             (20, 25, 30)),
    "av1": (("-c:v", "libsvtav1", "-preset", "8"), (26, 36, 46)),
}  # fmt: skip
STEPS = 100
"""Scores at which two curves are compared."""


@dataclass(frozen=True)
class Encode:
    """One encode: bytes, CPU seconds, and scores by their metric."""

    size: int
    cpu_s: float
    scores: dict[str, float]


def main(vmaf: str) -> int:
    """Measure every clip, print the figures and write them."""
    rows: list[dict[str, object]] = []
    found: dict[str, list[float]] = {}
    if not all((MEDIA / name).is_file() for name in CLIPS):
        raise SystemExit(f"the sample clips are not all in {MEDIA}")
    for name in CLIPS:
        with tempfile.TemporaryDirectory() as folder:
            made = {codec: encodes(MEDIA / name, codec, Path(folder), vmaf) for codec in ENCODERS}
        for metric in made["hevc"][0].scores:
            ratio = rate_ratio(made["hevc"], made["av1"], metric)
            found.setdefault(f"bits at equal {metric}", []).append(ratio)
            rows.append(row(f"{Path(name).stem}: bits at equal {metric}", ratio))
        spent = {codec: sum(encode.cpu_s for encode in each) for codec, each in made.items()}
        found.setdefault("CPU", []).append(spent["av1"] / spent["hevc"])
        rows.append(row(f"{Path(name).stem}: CPU of three encodes", spent["av1"] / spent["hevc"]))
    means = [
        row(f"median of five clips: {what}", statistics.median(v)) for what, v in found.items()
    ]
    return report("codec", [*means, *rows])


def row(figure: str, value: float) -> dict[str, object]:
    """Return a figure of AV1 as a ratio to HEVC."""
    return {"figure": f"AV1 / HEVC, {figure}", "value": value, "unit": "x"}


def encodes(source: Path, codec: str, folder: Path, vmaf: str) -> list[Encode]:
    """Encode the beginning of a clip at each rate factor, the best first."""
    options, factors = ENCODERS[codec]
    cut = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-t", SECONDS, "-i", str(source)]
    found = []
    for factor in factors:
        target = folder / f"{codec}-{factor}.mkv"
        argv = [*cut, "-map", "0:v:0", "-fps_mode", "passthrough", *options, "-crf", str(factor)]
        usage = run([*argv, str(target)], {"SVT_LOG": "1", "PATH": "/usr/bin:/bin"})
        scores = {"SSIM": ssim_db(source, target)}
        if vmaf:
            scores["VMAF"] = vmaf_score(vmaf, source, target)
        found.append(Encode(target.stat().st_size, usage.cpu_s, scores))
        print(
            json.dumps([source.name, codec, factor, found[-1].size, usage.cpu_s, scores]),
            flush=True,
        )
    return found


def ssim_db(source: Path, made: Path) -> float:
    """Return the structural similarity of all planes in dB."""
    words = compared("ffmpeg", source, made, "ssim")
    (share,) = re.findall(r"All:([0-9.]+)", words)[-1:]
    return -10 * math.log10(max(1e-6, 1 - float(share)))


def vmaf_score(ffmpeg: str, source: Path, made: Path) -> float:
    """Return the mean VMAF of every third frame."""
    words = compared(ffmpeg, source, made, "libvmaf=n_subsample=3")
    (score,) = re.findall(r"VMAF score: ([0-9.]+)", words)[-1:]
    return float(score)


def compared(ffmpeg: str, source: Path, made: Path, metric: str) -> str:
    """Return what an ffmpeg says of an encode against its source, picture by picture."""
    graph = f"[0:v]settb=1/1000,setpts=N[a];[1:v]settb=1/1000,setpts=N[b];[a][b]{metric}"
    argv = [ffmpeg, "-nostdin", "-v", "info", "-i", str(made), "-t", SECONDS, "-i", str(source)]
    done = subprocess.run(
        [*argv, "-filter_complex", graph, "-f", "null", "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


def rate_ratio(base: Sequence[Encode], other: Sequence[Encode], metric: str) -> float:
    """Return the bits of `other` for each of `base` at equal scores, over the scores that both reach."""
    curves = [sorted((e.scores[metric], math.log(e.size)) for e in each) for each in (base, other)]
    low, high = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    if low >= high:
        raise SystemExit(f"the encoders reach no equal {metric}: {curves}")
    scores = [low + (high - low) * step / STEPS for step in range(STEPS + 1)]
    return math.exp(statistics.fmean(at(curves[1], s) - at(curves[0], s) for s in scores))


def at(curve: Sequence[tuple[float, float]], score: float) -> float:
    """Return the logarithm of the rate at a score, between the two encodes around it."""
    for (low, first), (high, second) in itertools.pairwise(curve):
        if score <= high:
            return first + (second - first) * (score - low) / max(1e-9, high - low)
    return curve[-1][1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
