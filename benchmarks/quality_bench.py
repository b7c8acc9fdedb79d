"""What asking for a quality gives, beside one fixed CRF: bytes, misses, the search's CPU, its forecast.

`python -m benchmarks.quality_bench [WORD…] [--target 93] [--profile hevc] [--preset superfast] [--crf 12,16,24]`.
Words choose clips by name or class. Each clip is encoded at each CRF, and as a job does it that is asked
for the quality: search, encode, check in other frames, and once more where it missed. VMAF (v0.6.1, every
frame) is measured by an ffmpeg with libvmaf: that of the package imageio-ffmpeg, or HEVCQ_METRIC_FFMPEG.
Rows are kept in `--keep` (benchmarks/out/quality), so that an interrupted run goes on where it was;
`--table` only prints them. docs/quality.md has the results.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import OUT, report
from benchmarks.quality_clips import CLIPS
from hevcq.domain.planning.encode_plan import EncodePlan, revise_plan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.domain.quality import MISSED_BY, SCALES, Aim, better_crf, worst_twentieth
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.verify.quality import measure_vmaf, metric_program
from hevcq.ports.encoder import EncodeReport, EncodeRequest
from hevcq.settings.profile_files import installed_folder, load_profile
from hevcq.util.clock import SystemClock
from support.rendition import ENCODER, request_of

Row = dict[str, Any]
KEY = ("clip", "profile", "preset", "asked")
STOP = threading.Event()
TOOLS = FfmpegTools(
    "ffmpeg", "ffprobe", SystemClock(), metric=os.environ.get("HEVCQ_METRIC_FFMPEG", "")
)


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for and not known yet, and print it."""
    parser = argparse.ArgumentParser(description="Compare asking for a quality with a fixed CRF.")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--target", type=float, default=93.0)
    parser.add_argument("--profile", default="hevc")
    parser.add_argument("--preset", default="superfast")
    parser.add_argument("--crf", default="12,16,24")
    parser.add_argument("--keep", type=Path, default=OUT / "quality")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args(arguments)
    asked.keep.mkdir(parents=True, exist_ok=True)
    file = asked.keep / "rows.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    known = {tuple(row[key] for key in KEY): row for row in map(json.loads, lines)}
    clips = [c for c in CLIPS if not asked.words or any(w in c.name + c.kind for w in asked.words)]
    kinds = [f"CRF {float(crf):g}" for crf in asked.crf.split(",")] + [f"VMAF {asked.target:g}"]
    keys = [(clip.name, asked.profile, asked.preset, kind) for clip in clips for kind in kinds]
    if not asked.table:
        metric = metric_program(TOOLS, lambda program: output([program, "-filters"]))
        for row in measured(asked, [key for key in keys if key not in known], metric):
            known[tuple(row[key] for key in KEY)] = row
            with file.open("a", encoding="utf-8") as rows:
                rows.write(json.dumps(row) + "\n")
            print(_line(row), flush=True)
    return summed([known[key] for key in keys if key in known], asked.target)


def output(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def measured(
    asked: argparse.Namespace, keys: Sequence[tuple[str, ...]], metric: str
) -> Iterator[Row]:
    """Yield a row for each clip and what is asked of it, one encode after another."""
    folder = asked.keep / "clips"
    folder.mkdir(exist_ok=True)
    by_name = {clip.name: clip for clip in CLIPS}
    for key in keys:
        clip = by_name[key[0]]
        source = clip.source(folder)
        if source is None:
            print(f"{clip.name}: left out, {clip.needs} is not there")
            continue
        with tempfile.TemporaryDirectory(prefix="hevcq-quality-") as scratch:
            row = one(source, recipe(asked, key[3]), Path(scratch), metric)
        yield dict(zip(KEY, key, strict=True)) | {"kind": clip.kind} | row


def recipe(asked: argparse.Namespace, kind: str) -> Profile:
    """Return the profile at a CRF or for a quality; the gates on size never end a measurement."""
    raw = load_profile(installed_folder() / f"{asked.profile}.yaml").model_dump(mode="json")
    raw["gates"] |= {"minimum_saving": None}
    what, _, number = kind.partition(" ")
    raw["video"] |= {"preset": asked.preset, "quality" if what == "VMAF" else "crf": float(number)}
    return Profile.model_validate(raw)


def one(source: Path, profile: Profile, folder: Path, metric: str) -> Row:
    """Encode one clip as a job does, and measure every frame of what came of it."""
    request = prepared(source, profile, folder)
    row: Row = {"source": source.stat().st_size, "seconds": request.duration_s}
    if profile.video.quality is None:
        report = encoded(request)
    else:
        aim = ENCODER.find_quality(request, stop=STOP, exact=True)
        if isinstance(aim, str):
            raise SystemExit(f"{source}: {aim}")
        row |= {"search_s": aim.cpu_s, "probes": len(aim.probes), "sampled": aim.sampled}
        row |= {"forecast": aim.size, "tries": 1}
        request, report = aimed(request, aim)
        verified = ENCODER.check_quality(request.to_verify(report), stop=STOP)
        aim, scale = aim.model_copy(update={"verified": verified}), SCALES[profile.video.codec]
        if aim.missed and aim.crf > scale.best:
            row |= {"tries": 2, "first": _facts(request, report)}
            again = aim.model_copy(update={"crf": better_crf(aim, scale)})
            request, report = aimed(request, again)
        row["verified"] = verified
    row |= _facts(request, report)
    files, target = (request.output, source), request.plan.video
    frames, _ = measure_vmaf(TOOLS, request, target, files, (metric, STOP))
    return row | {"p5": round(worst_twentieth(frames), 2)}


def prepared(source: Path, profile: Profile, folder: Path) -> EncodeRequest:
    """Return the request to encode a clip."""
    info = ENCODER.probe(str(source), stop=STOP)
    plan = make_plan(profile, info)
    if not isinstance(plan, EncodePlan):
        raise SystemExit(f"{source}: {plan.detail}")
    found = ENCODER.preflight(str(source), info, profile, stop=STOP)
    info, plan = revise_plan(make_plan, profile, (info, plan), found)
    output = folder / "made.mkv"
    return request_of(source, output, profile, info=info, plan=plan, measured=found)


def encoded(request: EncodeRequest) -> EncodeReport:
    """Encode a clip over whatever an earlier try left."""
    for left in request.output.parent.glob(f"{request.output.name}*"):
        left.unlink()
    return ENCODER.encode(request, on_progress=lambda _: None, stop=STOP)


def aimed(request: EncodeRequest, aim: Aim) -> tuple[EncodeRequest, EncodeReport]:
    """Encode a clip at the CRF that was found."""
    request = replace(request, plan=request.plan.with_aim(aim))
    return request, encoded(request)


def _facts(request: EncodeRequest, report: EncodeReport) -> Row:
    aim = request.plan.aim
    crf = aim.crf if aim else request.profile.video.crf
    return {"crf": crf, "bytes": request.output.stat().st_size, "cpu_s": round(report.cpu_s, 2)}


def _line(row: Row) -> str:
    searched = (
        f" search {row['search_s']:5.1f} s, {row['probes']} probes" if "probes" in row else ""
    )
    return (
        f"{row['clip']:<26}{row['asked']:<8} {row['crf']:5.4g} {row['bytes'] >> 10:>6} KiB "
        f"{row['bytes'] / row['source']:6.1%} P5 {row['p5']:5.1f} {row['cpu_s']:6.1f} s{searched}"
    )


def summed(rows: Sequence[Row], target: float) -> int:
    """Print each clip that has all its rows, and what they come to."""
    found = {row["clip"]: row for row in rows if row["asked"] == f"VMAF {target:g}"}
    curves: dict[str, list[Row]] = {clip: [] for clip in found}
    for row in rows:
        if row["clip"] in found:
            curves[row["clip"]].append(row)
    if not found or min(len({row["crf"] for row in curve}) for curve in curves.values()) < 2:
        print("Nothing to compare yet.")
        return 0
    print("\n| clip | of | s | CRF | KiB | P5 | probes | search/encode | forecast |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, row in found.items():
        row["error"] = row["forecast"] / row.get("first", row)["bytes"] - 1  # that of the first try
        print(
            f"| {name} | {row['kind']} | {row['seconds']:.0f} | {row['crf']:g} | {row['bytes'] >> 10} |"
            f" {row['p5']:.1f} | {row['probes']} | {row['search_s'] / row['cpu_s']:.1f} |"
            f" {row['error']:+.0%} |"
        )
    print()
    return report("quality", list(_figures(found, curves, target)))


def _figures(
    found: dict[str, Row], curves: dict[str, list[Row]], target: float
) -> Iterator[dict[str, object]]:
    least, count = target - MISSED_BY, len(found)
    lows = [row["p5"] for row in found.values()]
    missed = sum(low < least for low in lows)

    def misses(crf: float) -> int:
        return sum(at(curve, crf, "p5") < least for curve in curves.values())

    def middle(crf: float) -> float:
        return statistics.median(at(curve, crf, "p5") for curve in curves.values())

    yield {"figure": "clips", "value": count}
    yield {"figure": f"P5 below {least:g}", "value": float(missed), "limit": 0.02 * count}
    yield {"figure": "encoded twice", "value": sum(row["tries"] == 2 for row in found.values())}
    yield {"figure": "P5, median", "value": statistics.median(lows)}
    same = largest(lambda crf: misses(crf) <= missed)
    half = largest(lambda crf: middle(crf) >= statistics.median(lows))
    for name, crf in (("with as few misses", same), ("of the same median P5", half)):
        fixed = {clip: at(curve, crf, "bytes") for clip, curve in curves.items()}
        saved = statistics.fmean(1 - found[clip]["bytes"] / fixed[clip] for clip in found)
        total = 1 - sum(row["bytes"] for row in found.values()) / sum(fixed.values())
        yield {"figure": f"fixed CRF {name}", "value": crf}
        yield {"figure": "  its misses", "value": misses(crf)}
        yield {"figure": "  saved to it, mean of the clips", "value": saved, "unit": "x"}
        yield {"figure": "  saved to it, of all bytes", "value": total, "unit": "x"}
    cpu = sum(row["search_s"] for row in found.values()) / sum(r["cpu_s"] for r in found.values())
    yield {"figure": "CPU of search to that of encode", "value": cpu, "unit": "x"}
    errors = [abs(row["error"]) for row in found.values()]
    yield {"figure": "forecast within 10 %", "value": sum(e <= 0.1 for e in errors) / len(errors)}
    yield {"figure": "forecast off, median", "value": statistics.median(errors), "unit": "x"}


def largest(holds: Callable[[float], bool]) -> float:
    """Return the largest CRF up to which something holds."""
    crf = 10.0
    while crf < 36 and holds(crf + 0.25):
        crf += 0.25
    return crf


def at(curve: Sequence[Row], crf: float, what: str) -> float:
    """Return a clip's figure at a CRF, between its neighbours; bytes grow by a factor a step."""
    points = sorted({row["crf"]: row[what] for row in curve}.items())
    place = next((n for n, (x, _) in enumerate(points) if x >= crf), len(points) - 1)
    (x, a), (y, b) = points[max(0, place - 1) :][:2]
    share = (crf - x) / (y - x)
    return a * (b / a) ** share if what == "bytes" else a + share * (b - a)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
