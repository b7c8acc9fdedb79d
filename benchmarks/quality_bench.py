"""What the shipped profiles give: VMAF, bytes, time and the gates' word on each of some 40 clips.

Run as `python benchmarks/quality_bench.py [WORD…] [--profile hevc] [--crf 20,24] [--preset slow]
[--keep FOLDER]`; without arguments the profile hevc as shipped. docs/quality.md has the
results. Words choose clips by name or class. Each clip of four seconds goes through hevcq's own encoder
with every gate on. VMAF (v0.6.1, at the video's own size, every frame) is measured by an ffmpeg with
libvmaf: that of the package imageio-ffmpeg, or HEVCQ_METRIC_FFMPEG. It only measures and never encodes.
Results are kept in `--keep` (default: benchmarks/out/quality), so that an interrupted run goes on where
it was; `--table` only prints them.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.fidelity.trial import MAX_S, run_trial
from benchmarks.measured import OUT, report
from benchmarks.quality_clips import CLIPS, QualityClip
from hevcq.domain.profile import Profile
from hevcq.settings.profile_files import installed_folder, load_profile

Row = dict[str, Any]
WITHOUT = """No ffmpeg with libvmaf was found, so nothing is measured. Install imageio-ffmpeg into this
environment (`pip install imageio-ffmpeg`, 165 MB), or name a build in HEVCQ_METRIC_FFMPEG."""
LOW = 85.0
"""5th percentile of VMAF below which a clip is counted as poor."""
KEY = ("clip", "profile", "crf", "preset")


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for and not known yet, and print it."""
    asked = _asked(arguments)
    asked.keep.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in _lines(asked.keep / "rows.jsonl")]
    if not asked.table:
        metric = metric_program()
        if not metric:
            print(WITHOUT)
            return 0
        for row in measured(asked, known, metric):
            known.append(row)
            with (asked.keep / "rows.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(_line(row), flush=True)
    return summed(chosen(known, asked))


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what the shipped profiles give.")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--profile", default="hevc")
    parser.add_argument("--crf", default="")
    parser.add_argument("--preset", default="")
    parser.add_argument("--keep", type=Path, default=OUT / "quality")
    parser.add_argument("--table", action="store_true")
    return parser.parse_args(arguments)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def metric_program() -> str:
    """Return an ffmpeg that measures VMAF; "" if there is none."""
    named = os.environ.get("HEVCQ_METRIC_FFMPEG", "")
    if not named:
        try:
            named = importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
        except (ImportError, RuntimeError):
            return ""
    asked = [named, "-v", "error", "-filters"]
    filters = subprocess.run(asked, capture_output=True, text=True, check=False)
    return named if " libvmaf " in filters.stdout else ""


def recipes(asked: argparse.Namespace) -> Iterator[Profile]:
    """Yield the shipped profile at each quality asked for; the gates on size never end a measurement."""
    raw = load_profile(installed_folder() / f"{asked.profile}.yaml").model_dump(mode="json")
    raw["gates"] |= {"minimum_saving": None, "review_below": 0.0}
    raw["video"]["preset"] = asked.preset or raw["video"]["preset"]
    for crf in asked.crf.split(",") if asked.crf else [raw["video"]["crf"]]:
        yield Profile.model_validate({**raw, "video": {**raw["video"], "crf": float(crf)}})


def wanted(asked: argparse.Namespace) -> list[QualityClip]:
    """Return the clips that a word asks for; without words all."""
    words = asked.words
    return [c for c in CLIPS if not words or any(w in c.name or w in c.kind for w in words)]


def chosen(rows: Sequence[Row], asked: argparse.Namespace) -> list[Row]:
    """Return the rows of what is asked for."""
    keys = {
        (clip.name, p.name, p.video.crf, p.video.preset)
        for p in recipes(asked)
        for clip in wanted(asked)
    }
    return [row for row in rows if tuple(row[key] for key in KEY) in keys]


def measured(asked: argparse.Namespace, known: Sequence[Row], metric: str) -> Iterator[Row]:
    """Yield what is not known yet, one encode after another."""
    done = {tuple(row[key] for key in KEY) for row in known}
    clips = asked.keep / "clips"
    clips.mkdir(exist_ok=True)
    for profile in recipes(asked):
        for clip in wanted(asked):
            if (clip.name, profile.name, profile.video.crf, profile.video.preset) in done:
                continue
            source = clip.source(clips)
            if source is None:
                print(f"{clip.name}: left out, {clip.needs} is not there")
                continue
            with tempfile.TemporaryDirectory(prefix="hevcq-quality-") as folder:
                yield one(clip, source, profile, Path(folder), metric)


def one(clip: QualityClip, source: Path, profile: Profile, folder: Path, metric: str) -> Row:
    """Encode one clip with every gate on, and measure what came of it."""
    video = profile.video
    trial = run_trial(source, profile, folder)
    row: Row = {
        "clip": clip.name, "kind": clip.kind, "profile": profile.name, "crf": video.crf,
        "preset": video.preset, "source": source.stat().st_size, "outcome": trial.outcome,
        "detail": trial.detail, "vmaf": None,
    }  # fmt: skip
    if trial.output is None or trial.plan is None:
        return row
    row["bytes"] = trial.output.stat().st_size
    row["size"] = f"{trial.plan.video.width}x{trial.plan.video.height}"
    row["gates"] = trial.gates[-1].detail
    row["cpu_s"], row["frames"] = round(trial.cpu_s, 2), trial.frames
    # Of a picture that was made smaller VMAF says nothing of the encode alone.
    sizes = {
        (s.video.width, s.video.height)
        for s in (trial.info.streams if trial.info else ())
        if s.video
    }
    if clip.is_sdr and (trial.plan.video.width, trial.plan.video.height) in sizes:
        row["vmaf"] = vmaf(metric, source, trial.output)
    return row


def vmaf(ffmpeg: str, source: Path, made: Path) -> Row:
    """Return mean, 5th percentile and minimum of the frames' VMAF."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "vmaf.json"
        # Frames are paired by number: a rounded time would pair some with their neighbours.
        pair = "[0:v:0]settb=1/1000,setpts=N[a];[1:v:0]settb=1/1000,setpts=N[b]"
        measure = f"{pair};[a][b]libvmaf=log_fmt=json:log_path={log}:n_threads=1"
        argv = [ffmpeg, "-nostdin", "-v", "error"]
        argv += ["-threads", "2", "-i", str(made), "-threads", "2"]
        argv += ["-i", str(source), "-filter_complex", measure, "-fps_mode", "passthrough"]
        argv += ["-enc_time_base", "1:1000"]
        subprocess.run([*argv, "-f", "null", "-"], check=True, timeout=MAX_S)
        frames = json.loads(log.read_text(encoding="utf-8"))["frames"]
    scores = sorted(frame["metrics"]["vmaf"] for frame in frames)
    return {
        "frames": len(scores),
        "mean": round(statistics.fmean(scores), 2),
        "p5": round(percentile(scores, 0.05), 2),
        "least": round(scores[0], 2),
    }


def percentile(scores: Sequence[float], share: float) -> float:
    """Return the score that `share` of the sorted scores do not reach, between its neighbours."""
    place = share * (len(scores) - 1)
    low = int(place)
    high = min(low + 1, len(scores) - 1)
    return scores[low] + (scores[high] - scores[low]) * (place - low)


def _line(row: Row) -> str:
    score = row["vmaf"] or {}
    size = f"{row['bytes'] / row['source']:7.1%}" if "bytes" in row else "      -"
    means = " ".join(f"{score.get(key, float('nan')):6.1f}" for key in ("mean", "p5", "least"))
    words = row["outcome"] if row["outcome"] != "encoded" else ""
    return (
        f"{row['clip']:<26}{row['kind']:<14}{row['crf']:5.3g} {row['preset']:<7}"
        f"{row['source'] >> 10:>7} KiB {size} {means} {row.get('cpu_s', 0):6.1f} s {words} "
        f"{row['detail'] if words else ''}"
    )


def summed(rows: Sequence[Row]) -> int:
    """Print a table in Markdown of the rows of each quality, and what they come to."""
    figures: list[Row] = []
    order = [clip.name for clip in CLIPS]
    for crf, preset in sorted({(row["crf"], row["preset"]) for row in rows}):
        same = [row for row in rows if (row["crf"], row["preset"]) == (crf, preset)]
        same.sort(key=lambda row: order.index(row["clip"]))
        print(f"\nCRF {crf:g}, preset {preset}\n\n| clip | of | KiB | size | mean | P5 | least |")
        print("|---|---|---|---|---|---|---|")
        for row in same:
            print(_cells(row))
        figures += _figures(f"CRF {crf:g} {preset}", same)
    print()
    return report("quality", figures)


def _cells(row: Row) -> str:
    score = row["vmaf"] or {}
    words = [f"{score[key]:.1f}" if key in score else "-" for key in ("mean", "p5", "least")]
    size = f"{row['bytes'] / row['source']:.0%}" if "bytes" in row else row["outcome"]
    stem = row["clip"].partition(".")[0]
    return f"| {' | '.join([stem, row['kind'], str(row['source'] >> 10), size, *words])} |"


def _figures(name: str, rows: Sequence[Row]) -> list[Row]:
    scores = [row["vmaf"] for row in rows if row["vmaf"]]
    made = [row for row in rows if "bytes" in row]
    refused = sum(not row["outcome"].startswith(("encoded", "skip:")) for row in rows)
    figures: list[Row] = [
        {"figure": f"{name}: clips", "value": len(rows)},
        {"figure": f"{name}: refused", "value": float(refused), "limit": 0.0},
    ]
    if made:
        size = statistics.median(row["bytes"] / row["source"] for row in made)
        cpu = sum(row["cpu_s"] for row in made)
        figures.append({"figure": f"{name}: size, median", "value": size, "unit": "x"})
        figures.append({"figure": f"{name}: CPU of the encodes", "value": cpu, "unit": "s"})
    if scores:
        lows = [score["p5"] for score in scores]
        mean = statistics.median(score["mean"] for score in scores)
        figures.append({"figure": f"{name}: VMAF, median of means", "value": mean})
        median = statistics.median(lows)
        figures.append({"figure": f"{name}: VMAF, median 5th percentile", "value": median})
        figures.append({"figure": f"{name}: VMAF, lowest 5th percentile", "value": min(lows)})
        below = sum(low < LOW for low in lows)
        figures.append({"figure": f"{name}: 5th percentile below {LOW:g}", "value": below})
    return figures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
