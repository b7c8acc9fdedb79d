"""How far the forecast of a size and of CPU is from the encode, for films of many shots that differ.

`python -m benchmarks.forecast_bench [FIRST [LAST]] [--quality 93]`: films 100 to 110 unless others are
named; each number is another film. Their sources differ in codec, bit rate and key frames. Forecast is as
`ingest --dry-run --sample` does it for a plain CRF, or with `--quality` as `plan --search` does.
docs/quality.md has the results.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.fidelity.spliced import ffmpeg
from benchmarks.fidelity.trial import ENCODER
from benchmarks.measured import MEDIA
from benchmarks.quality_bench import STOP, aimed, encoded, prepared, recipe
from benchmarks.quality_clips import MPEG2, SHOTS
from hevcq.domain.media.facts import Measurement

LOOKS = ("null",) * 8 + (
    "noise=alls=8:allf=t",
    "eq=brightness=-0.2:contrast=0.7",
    "gblur=sigma=1.5",
    "hflip",
    "hflip",
)
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
SAMPLES, MAX_S = 24, 900.0


def film(number: int, to: Path) -> None:
    """Make a film of shots of the real clips."""
    drawing = random.Random(1000 + number)
    rate, seconds = drawing.choice([24, 25, 25, 30]), drawing.choice([24, 35, 45, 60, 80, 100])
    pace = drawing.choice([1.5, 3, 5, 8, 12])
    weights = [drawing.gammavariate(0.4, 1) + 1e-3 for _ in SHOTS]
    grain = drawing.choice(["null", "null", "noise=alls=6:allf=t"])
    filled = (
        "scale=384:216:force_original_aspect_ratio=increase,crop=384:216,setsar=1,"
        f"fps={rate},format=yuv420p"
    )
    inputs, graphs, length = list[object](), list[str](), 0.0
    while length < seconds:
        ((clip, most),) = drawing.choices(list(SHOTS.items()), weights)
        shot = min(most - 0.2, max(0.7, drawing.lognormvariate(0, 0.5) * pace))
        begin, look = drawing.uniform(0, most - shot - 0.1), drawing.choice(LOOKS)
        number = len(graphs)
        graphs.append(f"[{number}:v:0]{filled},{look},{grain},setpts=PTS-STARTPTS[v{number}]")
        inputs += ["-ss", begin, "-t", shot, "-i", MEDIA / clip]
        length += shot
    shots = "".join(f"[v{number}]" for number in range(len(graphs)))
    graph = ";".join([*graphs, f"{shots}concat=n={len(graphs)}:v=1[film]"])
    options: tuple[object, ...] = drawing.choice(
        [
            *((*X264, "-crf", crf) for crf in (17, 20, 23)),
            (*X264, "-crf", 20, "-g", rate, "-sc_threshold", 0),
            (*X264, "-b:v", "900k", "-maxrate", "1400k", "-bufsize", "2M"),
            (*X264, "-b:v", "1500k"),
            (*MPEG2, "-b:v", "2M"),
            ("-c:v", "mpeg4", "-b:v", "1M"),
        ]
    )
    ffmpeg(*inputs, "-filter_complex", graph, "-map", "[film]", "-an", "-r", rate, *options, to)


def main(arguments: Sequence[str]) -> int:
    """Print a row for each film: what was foretold, and by how much that was wrong."""
    parser = argparse.ArgumentParser(description="Compare forecasts with what comes.")
    parser.add_argument("first", type=int, nargs="?", default=100)
    parser.add_argument("last", type=int, nargs="?", default=110)
    parser.add_argument("--quality", type=float)
    parser.set_defaults(profile="hevc", preset="superfast")
    asked = parser.parse_args(arguments)
    for number in range(asked.first, asked.last + 1):
        with tempfile.TemporaryDirectory(prefix="hevcq-forecast-") as name:
            folder = Path(name)
            film(number, folder / "film.mkv")
            crf = random.Random(number).choice([15, 18, 20, 22, 24, 26])
            wanted = f"VMAF {asked.quality}" if asked.quality else f"CRF {crf}"
            request = prepared(folder / "film.mkv", recipe(asked, wanted), folder)
            size, within, cpu_s = 0.0, 0.0, None
            if asked.quality:
                aim = ENCODER.find_quality(request, stop=STOP, exact=True)
                assert not isinstance(aim, str)
                size, within = aim.size or 0.0, aim.within or 0.0
                request, report = aimed(request, aim)
            else:
                unread = replace(request, measured=Measurement(tracks=()), max_seconds=MAX_S)
                found = ENCODER.estimate(unread, SAMPLES, stop=STOP)
                assert found is not None
                size, within, cpu_s = found.size, found.within, found.cpu_s
                report = encoded(request)
            off = f", CPU {cpu_s / report.cpu_s - 1:+.0%}" if cpu_s else ""
            made = request.output.stat().st_size
            print(
                f"{number}: {request.duration_s or 0:.0f} s, {made} bytes, foretold {size / made - 1:+.1%}"
                f" (within {within:.0%}){off}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
