"""An HLS ladder in chunks against the whole: CPU of each step, frames, times and bytes of each rung.

Run as `python benchmarks/hls_split_bench.py [VIDEO [PRESET [WORKERS]]]`; without a video, 30 s are made.
CPU seconds of child processes and of this one; wall times would say nothing on a shared machine. The
chunks are those that so many workers get, but at most 8 s long, so that a short clip has several.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.hls_bench import ENCODER, VERSION, cpu_of
from benchmarks.measured import clip
from hevcq.domain.certificate import Outcome
from hevcq.domain.chunk_settings import Chunking, ChunkMode
from hevcq.domain.chunking.planner import ChunkPlan, plan_chunks
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.ffmpeg.containers.fragments import FragmentedFile, read_fragments
from hevcq.ports.encoder import EncodeRequest, SetReport, SetRequest, VerifyRequest
from hevcq.settings.profile_files import installed_folder, load_profile

STOP = threading.Event()
CHUNKING = Chunking(mode=ChunkMode.ALWAYS, min_s=4, target_s=8, max_s=8)


def main(video: Path, preset: str, workers: int) -> None:
    """Measure, and print one JSON object."""
    profile = load_profile(installed_folder() / "hls.yaml")
    recipe = profile.video.model_copy(update={"preset": preset})
    profile = profile.model_copy(update={"video": recipe, "chunking": CHUNKING})
    info = ENCODER.probe(str(video), stop=STOP)
    plan = make_plan(profile, info)
    assert isinstance(plan, EncodePlan), plan
    with tempfile.TemporaryDirectory() as folder:
        request = EncodeRequest(
            profile=profile, plan=plan, info=info, location=str(video),
            output=Path(folder) / "whole", duration_s=info.duration_s,
            source_size=video.stat().st_size, max_seconds=7200,
        )  # fmt: skip
        found = measured(request, workers)
    print(json.dumps({"video": video.name, "preset": preset, **found}, indent=1))


def measured(request: EncodeRequest, workers: int) -> dict[str, object]:
    """Return the figures of one video."""
    profile, plan = request.profile, request.plan
    source = ENCODER.preflight(request.location, request.info, profile, stop=STOP)

    def cut() -> ChunkPlan:
        index = ENCODER.keyframes(request.location, request.info, stop=STOP, ladder=plan.ladder)
        found = plan_chunks(profile, request.info, plan, index, workers_hint=workers)
        assert isinstance(found, ChunkPlan), found
        return found

    wanted = SetRequest(request, source, VERSION)
    whole, first = cpu_of(lambda: ENCODER.encode_set(wanted, on_progress=_ignore, stop=STOP))
    gates, bad = cpu_of(lambda: _failed(wanted, first, None))
    planning, chunks = cpu_of(cut)
    split = replace(wanted, encode=replace(request, output=request.output.with_name("split")))
    encode, files = cpu_of(lambda: _chunk_files(split.encode, chunks))
    join, second = cpu_of(
        lambda: ENCODER.join_set(split, chunks, files, on_progress=_ignore, stop=STOP)
    )
    split_gates, worse = cpu_of(lambda: _failed(split, second, chunks))
    return {
        "seconds": request.duration_s, "chunks": len(chunks.chunks),
        "cpu_s": {
            "whole": round(whole, 2), "its_gates": round(gates, 2), "planning": round(planning, 2),
            "all_chunks": round(encode, 2), "join": round(join, 2),
            "gates_of_joined": round(split_gates, 2),
        },
        "split/whole": round((planning + encode + join) / whole, 3),
        "with_gates": round((planning + encode + join + split_gates) / (whole + gates), 3),
        "rungs": {name: _compared(one, two) for name, one, two in _rungs(wanted, split, first)},
        "failed": [*bad, *worse],
    }  # fmt: skip


def _chunk_files(request: EncodeRequest, chunks: ChunkPlan) -> list[Path]:
    files = []
    for chunk in chunks.chunks:
        output = request.output.with_name(f"{chunk.index}.part")
        asked = replace(request, output=output)
        ENCODER.encode_chunk(asked, chunks, chunk, on_progress=_ignore, stop=STOP)
        files.append(output)
    return files


def _failed(made: SetRequest, report: SetReport, chunks: ChunkPlan | None) -> Sequence[str]:
    encode = made.encode
    request = VerifyRequest(
        profile=encode.profile, plan=encode.plan, location=encode.location, info=encode.info,
        measured=made.measured, source_size=encode.source_size, output=encode.output,
        report=report.report, max_seconds=7200, chunks=chunks,
    )  # fmt: skip
    results = ENCODER.verify_set(request, report.files, on_progress=_ignore, stop=STOP)
    return [r.detail for r in results if r.outcome not in {Outcome.PASSED, Outcome.OFF}]


def _rungs(
    whole: SetRequest, split: SetRequest, report: SetReport
) -> list[tuple[str, FragmentedFile, FragmentedFile]]:
    names = [file.name for file in report.files if file.content_type == "video/mp4"]
    return [
        (
            Path(name).stem,
            read_fragments(whole.encode.output / name),
            read_fragments(split.encode.output / name),
        )
        for name in names
    ]


def _compared(whole: FragmentedFile, split: FragmentedFile) -> dict[str, object]:
    one, two = ({f.shown for f in file.fragments} for file in (whole, split))
    return {
        "frames": [whole.samples, split.samples],
        "key_frames_at_the_same_times": len(one & two) / len(one),
        "bytes": round(split.size / whole.size, 4),
    }


def _ignore(_state: object) -> None:
    """Ignore progress."""


if __name__ == "__main__":
    words = [*sys.argv[2:], *("medium", "2")[max(0, len(sys.argv) - 2) :]]
    with tempfile.TemporaryDirectory() as place:
        given = Path(sys.argv[1]) if len(sys.argv) > 1 else clip(Path(place), 30, "852x480")
        main(given, words[0], int(words[1]))
