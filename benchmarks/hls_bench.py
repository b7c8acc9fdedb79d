"""CPU of an HLS ladder: one decode against an encode for each rung, and what hevcq adds to it.

Run as `python benchmarks/hls_bench.py [VIDEO [PRESET]]`; without a video, 30 s are made. CPU seconds of
child processes and of this one; wall times would say nothing on a shared machine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import clip
from hevcq.domain.certificate import Outcome
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import PictureMetric, Profile
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.hls.command import ladder_in, set_command, set_paths, written
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.run.runner import FfmpegRun, run_with_progress
from hevcq.ports.encoder import EncodeRequest, SetRequest, VerifyRequest
from hevcq.settings.profile_files import installed_folder, load_profile
from hevcq.util.clock import SystemClock

TOOLS = FfmpegTools("ffmpeg", "ffprobe", SystemClock())
ENCODER = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
VERSION = "00000000-1"
T = TypeVar("T")


def main(video: Path, preset: str) -> None:
    """Measure, and print one JSON object."""
    profile = load_profile(installed_folder() / "hls.yaml")
    recipe = profile.video.model_copy(update={"preset": preset})
    profile = profile.model_copy(update={"video": recipe})
    stop = threading.Event()
    info = ENCODER.probe(str(video), stop=stop)
    plan = make_plan(profile, info)
    assert isinstance(plan, EncodePlan), plan
    with tempfile.TemporaryDirectory() as folder:
        found = measured(profile, plan, _request(profile, plan, info, video, Path(folder)), stop)
    print(json.dumps({"video": video.name, "preset": preset, **found}, indent=1))


def _request(
    profile: Profile, plan: EncodePlan, info: MediaInfo, video: Path, folder: Path
) -> EncodeRequest:
    return EncodeRequest(
        profile=profile,
        plan=plan,
        info=info,
        location=str(video),
        output=folder / "set",
        duration_s=info.duration_s,
        source_size=video.stat().st_size,
        max_seconds=7200,
    )


def measured(
    profile: Profile, plan: EncodePlan, request: EncodeRequest, stop: threading.Event
) -> dict[str, object]:
    """Return the figures of one video."""
    bare = _bare(request)
    ladder = ladder_in(plan)
    together, _ = cpu_of(lambda: _encode(bare, "together", stop))
    apart = 0.0
    for number, rung in enumerate(ladder.rungs):
        alone = plan.model_copy(update={"ladder": ladder.model_copy(update={"rungs": (rung,)})})
        kept = alone if number == 0 else _without_sound(alone)
        only = replace(bare, plan=kept)
        apart += cpu_of(lambda only=only, name=rung.name: _encode(only, name, stop))[0]
    scan, source = cpu_of(
        lambda: ENCODER.preflight(request.location, request.info, profile, stop=stop)
    )
    wanted = SetRequest(request, source, VERSION)
    whole, report = cpu_of(
        lambda: ENCODER.encode_set(wanted, on_progress=lambda _: None, stop=stop)
    )
    verify = VerifyRequest(
        profile=profile, plan=plan, location=request.location, info=request.info, measured=source,
        source_size=request.source_size, output=request.output, report=report.report,
        max_seconds=7200,
    )  # fmt: skip
    gates, results = cpu_of(
        lambda: ENCODER.verify_set(verify, report.files, on_progress=lambda _: None, stop=stop)
    )
    failed = [r.detail for r in results if r.outcome not in {Outcome.PASSED, Outcome.OFF}]
    return {
        "seconds": request.duration_s,
        "rungs": [rung.name for rung in ladder.rungs],
        "cpu_s": {
            "apart": round(apart, 2), "together": round(together, 2), "preflight": round(scan, 2),
            "with_thumbnails_playlists_images": round(whole, 2), "gates": round(gates, 2),
        },
        "together/apart": round(together / apart, 3),
        "packaging/encode": round(whole / together - 1, 3),
        "gates/encode": round(gates / together, 3),
        "objects": len(report.files),
        "failed": failed,
    }  # fmt: skip


def _without_sound(plan: EncodePlan) -> EncodePlan:
    video = plan.main_video.source_index
    kept = tuple(
        s if s.source_index == video else s.model_copy(update={"position": None})
        for s in plan.streams
    )
    return plan.model_copy(update={"streams": kept})


def _bare(request: EncodeRequest) -> EncodeRequest:
    """Return the request without thumbnails: the encodes alone."""
    gates = request.profile.gates.model_copy(update={"picture_metric": PictureMetric.OFF})
    return replace(request, profile=request.profile.model_copy(update={"gates": gates}))


def _encode(request: EncodeRequest, name: str, stop: threading.Event) -> None:
    request = replace(request, output=request.output.with_name(name))
    paths = set_paths(request, VERSION)
    paths.folder.mkdir(parents=True)
    files = written(request, paths)
    for path in files:
        path.touch()
    command = set_command(TOOLS, request, paths)
    job = FfmpegRun(TOOLS, request, stop)
    run_with_progress(job, command, request.duration_s, lambda _: None, writes=files)


def cpu_of(work: Callable[[], T]) -> tuple[float, T]:
    """Return the CPU seconds that a call took, in this process and its children, and its result."""
    before = os.times()
    result = work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4]), result


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        given = Path(sys.argv[1]) if len(sys.argv) > 1 else clip(Path(place), 30, "1280x720")
        main(given, sys.argv[2] if len(sys.argv) > 2 else "medium")
