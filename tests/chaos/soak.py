"""Does a worker that works for hours grow? `python -m tests.chaos.soak --minutes 120`.

One worker process that never stops working, a feeder that never lets it be idle, and looks at /proc.
This process must have one thread only, for it forks the worker.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

Sample = Mapping[str, float]
"""One look, by the names of BOUNDS; and `jobs`, which counts those that are done. Sizes are in KiB."""
BOUNDS: dict[str, tuple[float, float, float]] = {
    "descriptors": (3, 0, 0),
    "rss_kib": (4096, 0.05, 0),
    "children": (1, 0, 0),
    "threads": (2, 0, 0),
    "temp_files": (2, 0, 0),
    # The ledger keeps every job, and the log says some lines of each, both by design.
    "database_kib": (1024, 0, 4096),
    "wal_kib": (8192, 0, 0),
    "log_kib": (256, 0, 2048),
}
"""How far the last third of a run may lie above its second one: a number, a share of it, or so much
for each thousand jobs done between them, whichever is most."""
SLOTS, BACKLOG, SAMPLES = 2, 40, 120


def look(pid: int, folder: Path, jobs: int) -> Sample:
    """Take a sample of a process and of its data folder."""
    proc = Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
    )
    return {
        "jobs": jobs,
        "descriptors": len(os.listdir(proc / "fd")),
        "rss_kib": int(status["VmRSS"].split()[0]),
        "children": sum(_children(task) for task in (proc / "task").iterdir()),
        "threads": int(status["Threads"]),
        # A job's folder may go while it is read; os.walk passes over it, rglob does not.
        "temp_files": sum(len(names) for _, _, names in os.walk(folder / "scratch")),
        "database_kib": _kib(folder.glob("data/*.db")),
        "wal_kib": _kib(folder.glob("data/*.db-wal")),
        "log_kib": _kib(folder.glob("log")),
    }


def growth(samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    """Return by how much each figure's median grew from the second third to the last, and its bound.

    The first third is not looked at: caches fill and pools open there.
    """
    assert len(samples) >= 9, "too few samples for a verdict"
    third = len(samples) // 3
    before, after = (
        {name: sorted(each[name] for each in part)[len(part) // 2] for name in samples[0]}
        for part in (samples[third : 2 * third], samples[2 * third :])
    )
    jobs = after["jobs"] - before["jobs"]
    return {
        name: (after[name] - before[name], max(most, share * before[name], each * jobs / 1000))
        for name, (most, share, each) in BOUNDS.items()
    }


def _children(task: Path) -> int:
    try:
        return len((task / "children").read_text().split())
    except OSError:
        return 0


def _kib(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths) // 1024


def soak(folder: Path, seconds: float, *, real: bool) -> list[Sample]:
    """Let a worker work for so long; return the samples, when it has ended."""
    from chaos.kills.places import Place
    from chaos.kills.worker import Orders, work
    from hevcq.domain.job import JobState
    from hevcq.domain.profile import Profile
    from hevcq.domain.profile_sections import Gates, VideoRecipe
    from support.clips import make_clip

    video = VideoRecipe(codec="hevc", preset="ultrafast", crf=34)
    quick = Profile(name="hevc", description="", video=video, gates=Gates(minimum_saving=None))
    place = Place(folder, {quick.name: quick})
    clip = b"clip"
    if real:
        clip = make_clip(folder / "clip", seconds=2, size="320x180").read_bytes()
    pid = os.fork()
    if pid == 0:
        try:
            with (folder / "log").open("a") as log:
                os.dup2(log.fileno(), 2)
            work(place, Orders(real=real, slots=SLOTS), "00")
        finally:
            os._exit(0)
    backend = place.open()  # only now: a database must not be shared with a fork
    samples: list[Sample] = []
    began, number, every = time.monotonic(), 0, seconds / SAMPLES
    try:
        while (now := time.monotonic() - began) < seconds:
            if backend.queues[quick.name].depth().ready < BACKLOG // 2:
                for _ in range(BACKLOG):
                    number += 1
                    path = place.videos / f"{number}.mp4"
                    path.write_bytes(clip)
                    place.submit(backend, path, quick.name)
            if now >= every * len(samples):
                done = backend.ledger.counts().get((quick.name, JobState.DONE), 0)
                samples.append(look(pid, folder, done))
            time.sleep(min(0.05, every / 4))
        return samples
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        backend.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--real", action="store_true", help="real encodes instead of a stub")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hevcq-soak-") as folder:
        samples = soak(Path(folder), asked.minutes * 60, real=asked.real)
    grown = growth(samples)
    flat = all(grew <= bound for grew, bound in grown.values())
    told = {"flat": flat, "jobs": samples[-1]["jobs"], "grew": grown, "last": samples[-1]}
    print(json.dumps(told), flush=True)
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
