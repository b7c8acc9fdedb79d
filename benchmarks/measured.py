"""Run whole commands and account for them: wall and CPU seconds of a process and its children."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

OUT = Path(__file__).resolve().parent / "out"
MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"


@dataclass(frozen=True)
class Usage:
    """What one run of a command took."""

    wall_s: float
    cpu_s: float


def run(argv: list[str], environment: dict[str, str] | None = None) -> Usage:
    """Run a command to its end; its CPU counts every descendant it waited for."""
    began = time.perf_counter()
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert child.stderr is not None
    words = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    if child.returncode:
        raise SystemExit(
            f"{' '.join(argv)}: {child.returncode}: {words.decode(errors='replace')[-2000:]}"
        )
    return Usage(wall, usage.ru_utime + usage.ru_stime)


def ingest(
    command: list[str], library: Path, folder: Path, workers: int
) -> tuple[Usage, list[Path]]:
    """Ingest `library` with fresh data and output folders; return the usage and the certificates."""
    data, output = folder / "data", folder / "output"
    for path in (data, output):
        shutil.rmtree(path, ignore_errors=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "HEVCQ_DATA_DIR": str(data)}
    options = ["--profile", "hevc", "--output", str(output), "--workers", str(workers)]
    usage = run([*command, "ingest", str(library), *options], environment)
    return usage, sorted(output.glob(".hevcq/certificates/*.json"))


def ratio(numerators: list[float], denominators: list[float]) -> float:
    """Return the median of pairwise ratios, which drift of the machine's speed does not move."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def report(name: str, rows: list[dict[str, object]]) -> int:
    """Print rows of figure, value, limit; write them as JSON; return 1 if a limit is missed."""
    missed = False
    for row in rows:
        value, limit = row["value"], row.get("limit")
        ok = limit is None or (
            isinstance(value, float) and isinstance(limit, float) and value <= limit
        )
        row["ok"] = ok
        missed = missed or not ok
        bound = f"limit {limit}" if limit is not None else ""
        print(
            f"{row['figure']:<58} {value:10.4g} {row.get('unit', ''):<6} {bound}{'' if ok else '  MISSED'}"
        )
    OUT.mkdir(parents=True, exist_ok=True)
    content = {
        "benchmark": name,
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "rows": rows,
    }
    (OUT / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 1 if missed else 0


def clip(folder: Path, seconds: int, size: str) -> Path:
    """Return a real 1080p clip where it is there, else a generated one with grain."""
    real = MEDIA / "bbb-1080p24-15s.mp4"
    if real.is_file() and size == "1920x1080":
        return real
    made = folder / f"made-{size}-{seconds}.mp4"
    source = f"testsrc2=size={size}:rate=24:duration={seconds},noise=alls=4:allf=t"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", source]
    command += ["-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}"]
    command += [
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-crf",
        "16",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
    ]
    subprocess.run([*command, str(made)], check=True)
    return made


def repeat(source: Path, target: Path, times: int) -> None:
    """Write a video that shows the source several times, its packets copied."""
    if times == 1:
        shutil.copy(source, target)
        return
    command = ["ffmpeg", "-nostdin", "-v", "error", "-stream_loop", str(times - 1)]
    copied = ["-i", str(source), "-map", "0:v", "-map", "0:a?", "-c", "copy", str(target)]
    subprocess.run([*command, *copied], check=True)


def encode_only(arguments: list[str], output: Path) -> list[str]:
    """Return a certificate's command with its rendition moved, and without the thumbnails beside it."""
    place = next(n for n, word in enumerate(arguments) if Path(word).stem == "rendition")
    return [*arguments[:place], f"file:{output}"]
