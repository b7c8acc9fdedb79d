"""What hevcq adds to one long encode: CPU of everything it does / CPU of the identical bare ffmpeg.

Run as `python benchmarks/encode_bench.py [ROUNDS]`. The bare command is the one in the certificate,
at the same niceness; hevcq's own must be the same in every run. Rounds are interleaved, and every
second one runs backwards. The clip is repeated until its bare encode takes 30 s.
"""

import json
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import Usage, clip, encode_only, ingest, ratio, repeat, report, run
from hevcq.ffmpeg.process.limits import NICE

HERE = Path(__file__).resolve().parent
HEVCQ = [str(Path(sys.executable).parent / "hevcq")]
WITHOUT_GATES = [sys.executable, str(HERE / "hevcq_without_gates.py")]
LONG_S = 30.0
"""The shortest encode that the figures are for, in seconds of wall time."""
WORTH_A_ROW = 0.002
"""A gate that takes less than this share of the encode is not shown."""
Seen = dict[str, list[tuple[Usage, dict[str, object]]]]


def one(command: list[str], library: Path, folder: Path) -> tuple[Usage, dict[str, object]]:
    """Ingest a one-file library afresh; return usage and certificate."""
    usage, (certificate,) = ingest(command, library, folder, 1)
    return usage, json.loads(certificate.read_text())


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
        repeat(source, library / source.name, times)
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
        library, arguments = long_enough(clip(folder, 16, "1920x1080"), folder)
        print("bare:", shlex.join(arguments[:1]), f"… of {library.name}")
        seen = measured(rounds, library, folder, arguments)
    cpu = {key: [u.cpu_s for u, _ in values] for key, values in seen.items()}
    wall = {key: [u.wall_s for u, _ in values] for key, values in seen.items()}
    return report(
        "encode",
        [
            {
                "figure": "bare ffmpeg",
                "value": sorted(cpu["bare"])[len(cpu["bare"]) // 2],
                "unit": "CPU s",
            },
            {
                "figure": "CPU without gates / bare",
                "value": ratio(cpu["without"], cpu["bare"]),
                "limit": 1.02,
            },
            {
                "figure": "CPU with all default gates / bare",
                "value": ratio(cpu["with"], cpu["bare"]),
                "limit": 1.10,
            },
            {"figure": "wall without gates / bare", "value": ratio(wall["without"], wall["bare"])},
            {
                "figure": "wall with all default gates / bare",
                "value": ratio(wall["with"], wall["bare"]),
            },
            *gates([certificate for _, certificate in seen["with"]]),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
