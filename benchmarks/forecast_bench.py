"""How often the forecast holds: the share of clips whose CPU time and size lie inside their range.

Run as `python benchmarks/forecast_bench.py`: the forecast over clips that were encoded before with
the shipped profile hevc, each foretold from the table alone and from all other clips as the own jobs
of this machine; no encode. The model was fitted to forecast_costs.tsv; to forecast_fresh.tsv, cuts of
camera files and these by other encoders, nothing was. `python benchmarks/forecast_bench.py FOLDER`
encodes the clips of a folder, prints their lines for a table, and the same shares of them alone.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import report
from hevcq.domain.job import JobState
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.ports.catalog import EncodeCost
from hevcq.ports.ledger import JobFilter
from hevcq.settings.model import Settings
from hevcq.usecases.ingest.forecast import Rates, megapixels
from hevcq.wiring.app import open_app

TABLE = Path(__file__).resolve().parent / "forecast_costs.tsv"
FRESH = TABLE.with_name("forecast_fresh.tsv")
PROFILE, ENCODER, PRESET = "hevc", "libx265", "medium"
LEAST = 0.8
"""Share of clips that must lie inside their range."""
BATCHES, BATCH = 200, 15


def recorded(table: Path = TABLE) -> dict[str, EncodeCost]:
    """Return the clips of a table by name; the output of one that would not shrink is its source."""
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    return {
        name: EncodeCost(
            PROFILE,
            ENCODER,
            PRESET,
            float(work),
            int(source),
            int(output or source),
            float(cpu or 0),
        )
        for name, work, source, output, cpu in rows
    }


def coverage(clips: dict[str, EncodeCost], *, calibrated: bool) -> tuple[float, float, float]:
    """Return the shares of clips inside the ranges of CPU time and size, and the median high / low."""
    cpu, sizes, widths = [], [], []
    for name, clip in clips.items():
        others = [other for each, other in clips.items() if each != name and _was_encoded(other)]
        rates = Rates.learned(others if calibrated else [])
        size = rates.size_of(clip)
        sizes.append(size.low <= clip.output_size <= size.high)
        if _was_encoded(clip):
            seconds = rates.cpu_of(clip)
            cpu.append(seconds.low <= clip.cpu_s <= seconds.high)
            widths.append(seconds.high / seconds.low)
    return statistics.mean(cpu), statistics.mean(sizes), statistics.median(widths)


def of_totals(clips: dict[str, EncodeCost]) -> float:
    """Return how often the total bytes of a random batch lie inside the range that others foretell."""
    names, draw, inside = sorted(clips), random.Random(7), []
    for _ in range(BATCHES):
        batch = set(draw.sample(names, BATCH))
        own = [clips[name] for name in names if name not in batch and _was_encoded(clips[name])]
        rates = Rates.learned(own)
        total = rates.total_size([clips[name] for name in batch])
        inside.append(total.low <= sum(clips[name].output_size for name in batch) <= total.high)
    return statistics.mean(inside)


def _was_encoded(clip: EncodeCost) -> bool:
    return clip.cpu_s > 0


def measured(folder: Path) -> Iterator[tuple[str, EncodeCost]]:
    """Encode the clips of a folder and yield what each cost; one that would not shrink cost nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        command = [sys.executable, "-m", "hevcq", "--data-dir", str(data), "ingest", str(folder)]
        options = ["--profile", PROFILE, "--output", f"{scratch}/out", "--workers", "1", "--quiet"]
        subprocess.run([*command, *options], check=False)
        app = open_app(Settings(data_dir=data))
        profile = app.profiles[PROFILE]
        wanted = JobFilter(states=frozenset({JobState.DONE, JobState.SKIPPED}))
        for job in app.backend.ledger.jobs(wanted):
            placement = app.catalog.placement(job.job_id)
            _, info = app.catalog.cached([placement.source])[placement.source]
            plan = make_plan(profile, info)
            assert isinstance(plan, EncodePlan)
            size, work = job.source.size, megapixels(plan, info)
            made = job.rendition.size if job.rendition else size
            cost = EncodeCost(PROFILE, ENCODER, PRESET, work, size, made, job.cpu_s or 0)
            yield placement.source.name, replace(cost, cpu_s=cost.cpu_s if job.rendition else 0)
        app.close()


def main() -> int:
    """Print the shares; 1 if one is below LEAST."""
    for folder in sys.argv[1:]:
        clips = dict(sorted(measured(Path(folder))))
        for name, cost in clips.items():
            output = cost.output_size if _was_encoded(cost) else ""
            cpu_s = f"{cost.cpu_s:.2f}" if _was_encoded(cost) else ""
            print(name, f"{cost.megapixels:.2f}", cost.source_size, output, cpu_s, sep="\t")
        return report("forecast", _shares(f"{len(clips)} clips", clips))
    rows = _shares("fitted clips", recorded()) + _shares("fresh clips", recorded(FRESH))
    return report("forecast", rows)


def _shares(which: str, clips: dict[str, EncodeCost]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for calibrated, words in ((False, "the table"), (True, "own jobs")):
        cpu, size, width = coverage(clips, calibrated=calibrated)
        rows.append(_row(f"{which} by {words}: outside the range of CPU time", 1 - cpu))
        rows.append(_row(f"{which} by {words}: outside the range of size", 1 - size))
        rows.append(
            {"figure": f"{which} by {words}: high / low of CPU time, median", "value": width}
        )
    rows.append(_row(f"{which}: totals of {BATCH} outside the range", 1 - of_totals(clips)))
    return rows


def _row(figure: str, value: float) -> dict[str, object]:
    return {"figure": figure, "value": value, "limit": 1 - LEAST}


if __name__ == "__main__":
    sys.exit(main())
