"""The CPU of everything that is not the encode, as a share of a bare encode by the same command."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

from benchmarks.fidelity.damages import ffmpeg
from benchmarks.fidelity.trial import ENCODER, MAX_S, Figure, recipe
from benchmarks.measured import own_cpu_s
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.ffmpeg.command.build import encode_command
from hevcq.ffmpeg.command.thumbnails import source_graph, thumbnail_output
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ports.encoder import EncodeRequest
from hevcq.util.clock import SystemClock

CASES = (
    ("1080p medium, 60 s by extrapolation", "1920x1080", "medium", 0.08),
    ("6 s of 360p veryfast", "640x360", "veryfast", 0.25),
)
"""What is encoded, how large, by which preset, and the largest share of CPU for the gates."""
PICTURE = "testsrc2=size={size}:rate=25:duration={seconds},noise=alls=6:allf=t"
LONG_S, SHORT_S, SAID_S = 4, 1, 60
"""Seconds of the large clips: two lengths tell the cost of a second from that of a start."""
FIXED_GOAL_S = 0.15


def run(command: list[str]) -> float:
    """Run a program, and return its CPU seconds."""
    before = own_cpu_s()
    subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=MAX_S
    )
    return own_cpu_s() - before


def spent(folder: Path, size: str, seconds: int, preset: str) -> tuple[float, float]:
    """Return the CPU seconds of a bare encode, and those of a whole job without its encode.

    What the thumbnails add to the encode is measured by a decode with and without them: the CPU of
    two encodes differs by more than that.
    """
    folder /= f"{size}-{seconds}-{preset}"
    folder.mkdir()
    source = folder / "source.mp4"
    graph = PICTURE.format(size=size, seconds=seconds)
    sound = ("-f", "lavfi", "-i", f"sine=duration={seconds}")
    ffmpeg(
        "-f", "lavfi", "-i", graph, *sound, "-c:v", "libx264", "-preset", "superfast", "-crf", 16,
        "-pix_fmt", "yuv420p", "-c:a", "aac", source,
    )  # fmt: skip
    stop, profile = threading.Event(), recipe("hevc", video={"preset": preset})
    before = own_cpu_s()
    info = ENCODER.probe(str(source), stop=stop)
    plan = make_plan(profile, info)
    if not isinstance(plan, EncodePlan):
        raise TypeError(f"{source.name} is not encoded: {plan.detail}")
    measured = ENCODER.preflight(str(source), info, profile, stop=stop)
    gates_cpu = own_cpu_s() - before
    request = EncodeRequest(
        profile=profile, plan=plan, info=info, location=str(source),
        output=folder / "made.mp4", duration_s=info.duration_s,
        source_size=source.stat().st_size, max_seconds=MAX_S,
        measured=measured,
    )  # fmt: skip
    report = ENCODER.encode(request, on_progress=lambda _: None, stop=stop)
    before = own_cpu_s()
    gates = ENCODER.verify(
        request.to_verify(report),
        on_progress=lambda _: None,
        stop=stop,
    )  # fmt: skip
    gates_cpu += own_cpu_s() - before
    if len(gates) < 8:
        raise RuntimeError(f"{source.name}: {gates[-1].detail}")
    decode = ["ffmpeg", "-v", "error", "-i", str(source), "-map", "0:v", "-f", "null", "-"]
    graph = source_graph(plan.video)
    index = plan.main_video.source_index
    gates_cpu += run([*decode, *thumbnail_output(index, graph, "pipe:1")]) - run(decode)
    request.output.unlink()
    return run(encode_command(FfmpegTools("ffmpeg", "ffprobe", SystemClock()), request)), gates_cpu


def extrapolated(folder: Path, size: str, preset: str) -> tuple[float, float, float]:
    """Return the CPU seconds of a bare encode of a minute, of its gates, and of the gates' fixed part.

    The gates cost the same whatever the preset, so only one short clip is encoded slowly.
    """
    quick, _ = spent(folder, size, SHORT_S, preset)
    (_, short), (_, long) = (
        spent(folder, size, seconds, "ultrafast") for seconds in (SHORT_S, LONG_S)
    )
    rate = (long - short) / (LONG_S - SHORT_S)
    fixed = short - rate * SHORT_S
    return quick / SHORT_S * SAID_S, fixed + rate * SAID_S, fixed


def figure(folder: Path, words: tuple[str, ...] = ()) -> Figure:
    """Print the shares of both cases and the fixed cost of a job; words choose clips of other figures."""
    if words:
        return Figure("CPU of the gates", "not measured for chosen clips", "", met=True)
    shares, fixed = [], 0.0
    for name, size, preset, goal in CASES:
        if "extrapolation" in name:
            bare, gates, fixed = extrapolated(folder, size, preset)
        else:
            bare, gates = spent(folder, size, 6, preset)
        shares.append(gates / bare <= goal)
        print(f"{name}: {gates / bare:.1%} of {bare:.1f} CPU-s (goal: {goal:.0%})", flush=True)
    load = os.getloadavg()[0]
    value = f"{fixed:.2f} CPU-s fixed cost of a job, at a load of {load:.0f}"
    return Figure("CPU of the gates", value, f"{FIXED_GOAL_S} CPU-s", all(shares))
