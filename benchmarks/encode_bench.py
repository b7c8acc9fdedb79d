"""What hevcq adds to one long encode: CPU of everything it does / CPU of the identical bare ffmpeg.

Run as `python benchmarks/encode_bench.py [ROUNDS]`. The bare command is the one in the certificate,
at the same niceness; hevcq's own must be the same in every run. Rounds are interleaved, and every
second one runs backwards. The clip is repeated until its bare encode takes 30 s.
"""

import json
import os
import shlex
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import Usage, ratio, report, run
from hevcq.ffmpeg.process.limits import NICE
from support.clips import MEDIA, ffmpeg

HERE = Path(__file__).resolve().parent
HEVCQ = [str(Path(sys.executable).parent / "hevcq")]
WITHOUT_GATES = [sys.executable, str(HERE / "hevcq_without_gates.py")]
LONG_S = 30.0
"""The shortest encode that the figures are for, in seconds of wall time."""
WORTH_A_ROW = 0.002
"""A gate that takes less than this share of the encode is not shown."""
Seen = dict[str, list[tuple[Usage, dict[str, object]]]]


def one(command: list[str], library: Path, folder: Path) -> tuple[Usage, dict[str, object]]:
    """Ingest a one-file library into fresh folders; return usage and certificate."""
    data, output = folder / "data", folder / "output"
    for path in (data, output):
        shutil.rmtree(path, ignore_errors=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "HEVCQ_DATA_DIR": str(data)}
    options = ["--profile", "hevc", "--output", str(output), "--workers", "1"]
    usage = run([*command, "ingest", str(library), *options], environment)
    (certificate,) = output.glob(".hevcq/certificates/*.json")
    return usage, json.loads(certificate.read_text())


def clip(folder: Path) -> Path:
    """Return a real 1080p clip where it is there, else a generated one with grain."""
    real = MEDIA / "bbb-1080p24-15s.mp4"
    if real.is_file():
        return real
    picture = "testsrc2=size=1920x1080:rate=24:duration=16,noise=alls=4:allf=t"
    sound = ("-f", "lavfi", "-i", "sine=frequency=440:duration=16", "-c:a", "aac")
    coded = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "16", "-pix_fmt", "yuv420p"]
    ffmpeg("-f", "lavfi", "-i", picture, *sound, *coded, folder / "made.mp4")
    return folder / "made.mp4"


def encode_only(arguments: list[str], output: Path) -> list[str]:
    """Return a certificate's command with its rendition moved, and without the thumbnails beside it."""
    place = next(n for n, word in enumerate(arguments) if Path(word).stem == "rendition")
    return [*arguments[:place], f"file:{output}"]


def bare(arguments: list[str], output: Path) -> list[str]:
    """Return the certificate's command with its output moved, as nice as hevcq makes it."""
    return ["nice", "-n", str(NICE), *encode_only(arguments, output)]


def arguments_of(certificate: dict[str, object]) -> list[str]:
    """Return the command that a certificate tells of."""
    arguments = certificate["arguments"]
    assert isinstance(arguments, list)
    return [str(word) for word in arguments]


def long_enough(source: Path, folder: Path) -> tuple[Path, list[str]]:
    """Return a library of one video that takes LONG_S to encode, and the command that does it."""
    times = 1
    while True:
        library = folder / f"library{times}"
        library.mkdir()
        copied = ("-map", "0:v", "-map", "0:a?", "-c", "copy", library / source.name)
        ffmpeg("-stream_loop", times - 1, "-i", source, *copied)
        arguments = arguments_of(one(WITHOUT_GATES, library, folder)[1])
        output = folder / "bare.mp4"
        took = run(bare(arguments, output)).wall_s
        output.unlink()
        if took >= LONG_S:
            return library, arguments
        times += max(1, int(times * LONG_S / took - times))


def measured(rounds: int, library: Path, folder: Path, arguments: list[str]) -> Seen:
    """Run bare ffmpeg, hevcq without gates and hevcq in turn; return their usage and certificates."""
    seen: Seen = {"bare": [], "without": [], "with": []}
    output = folder / "bare.mp4"
    for number in range(rounds):
        for kind in list(seen)[:: -1 if number % 2 else 1]:
            if kind == "bare":
                seen[kind].append((run(bare(arguments, output)), {}))
                output.unlink()
                continue
            usage, certificate = one(WITHOUT_GATES if kind == "without" else HEVCQ, library, folder)
            made = arguments_of(certificate)
            assert encode_only(made, output) == encode_only(arguments, output)
            seen[kind].append((usage, certificate))
    return seen


def gates(certificates: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return what each gate took as a share of its encode's wall time, where that can be seen."""
    shares: dict[str, list[float]] = {}
    for certificate in certificates:
        results, whole = certificate["gates"], certificate["encode_s"]
        assert isinstance(results, list)
        assert isinstance(whole, float)
        for result in results:
            shares.setdefault(result["gate"], []).append(result["seconds"] / whole)
    medians = {gate: statistics.median(found) for gate, found in shares.items()}
    return [
        {"figure": f"wall of {gate} / encode", "value": share}
        for gate, share in medians.items()
        if share >= WORTH_A_ROW
    ]


def main() -> int:
    """Measure, print, write, judge."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library, arguments = long_enough(clip(folder), folder)
        print("bare:", shlex.join(arguments[:1]), f"… of {library.name}")
        seen = measured(rounds, library, folder, arguments)
    cpu = {key: [u.cpu_s for u, _ in values] for key, values in seen.items()}
    wall = {key: [u.wall_s for u, _ in values] for key, values in seen.items()}
    rows: list[dict[str, object]] = [
        {"figure": "bare ffmpeg", "value": sorted(cpu["bare"])[rounds // 2], "unit": "CPU s"}
    ]
    for name, taken, limits in (("CPU", cpu, (1.02, 1.10)), ("wall", wall, (None, None))):
        for kind, limit in zip(("without", "with all default"), limits, strict=True):
            value = ratio(taken[kind.partition(" ")[0]], taken["bare"])
            rows.append({"figure": f"{name} {kind} gates / bare", "value": value, "limit": limit})
    return report("encode", [*rows, *gates([proof for _, proof in seen["with"]])])


if __name__ == "__main__":
    sys.exit(main())
