"""A first look at files against one ffprobe for each, at least 5 times less CPU; and a second look.

Bare ffprobe prints format and streams; the first look decides what hevcq needs to know. Both take the
same clips, small generated ones and real ones, in turn, in as many threads. Many of the real clips are
of odd kinds (interlaced, HDR, damaged), which take a look at their pictures. Probes are timed on a sample
and multiplied; the second scan runs over all 10,000 files, with the catalog on disk as an ingest
uses it, and takes a tenth of the first at most.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import MEDIA, clip, own_cpu_s, ratio, report
from hevcq.util.clock import SystemClock
from hevcq.domain.media.facts import MediaInfo
from hevcq.backends.embedded.factory import open_catalog
from hevcq.ffmpeg.probe.probe import probe
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.library.scanning.scan import find
from hevcq.library.scanning.probe_files import Inspect, Inspected, probe_files

FILES, SAMPLE, ROUNDS, THREADS = 10_000, 100, 3, 4
BARE = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json"]
UNREADABLE = frozenset({"made-empty.mp4", "made-not-a-video.mp4", "made-truncated60-moov-last.mp4"})


def fill(folder: Path, video: Path, count: int) -> Path:
    """Make a library of `count` copies of one clip, 100 to a folder."""
    for number in range(count):
        target = folder / f"{number // 100}" / f"video {number}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(video, target)
    return folder


def looked(folder: Path, database: Path, inspect: Inspect) -> float:
    """Return the wall seconds of one scan."""
    catalog = open_catalog(database, SystemClock())
    began = time.perf_counter()
    seen = sum(
        isinstance(item, Inspected)
        for item in probe_files(find([folder]), catalog, inspect, threads=THREADS)
    )
    took = time.perf_counter() - began
    assert seen, "the scan found nothing"
    return took


def ffprobed(folder: Path) -> float:
    """Start ffprobe for each file of a folder, and return the CPU seconds."""
    before = own_cpu_s()
    with ThreadPoolExecutor(THREADS) as pool:
        files = [path for path in folder.rglob("*") if path.is_file()]
        codes = pool.map(
            lambda path: subprocess.call([*BARE, path], stdout=subprocess.DEVNULL), files
        )
        assert not any(codes)
    return own_cpu_s() - before


def first_look(folder: Path, database: Path, inspect: Inspect) -> float:
    """Return the CPU seconds of a first scan."""
    before = own_cpu_s()
    looked(folder, database, inspect)
    return own_cpu_s() - before


def real_clips(folder: Path) -> Path:
    """Return a folder with the readable sample clips, or an empty one where there are none."""
    folder.mkdir()
    for path in sorted(MEDIA.iterdir()) if MEDIA.is_dir() else ():
        if path.suffix != ".md" and path.name not in UNREADABLE:
            shutil.copyfile(path, folder / path.name)
    return folder


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        tools, stop = FfmpegTools("ffmpeg", "ffprobe", SystemClock()), threading.Event()
        video = clip(work, 1, "64x64")
        facts = probe(tools, str(video), stop)

        def real(path: Path) -> MediaInfo:
            return probe(tools, str(path), stop)

        library = fill(work / "library", video, FILES)
        looked(library, work / "known.db", lambda _: facts)
        small = fill(work / "sample", video, SAMPLE)
        clips = real_clips(work / "clips")
        first, second = [], []
        shares: dict[str, tuple[list[float], list[float]]] = {}
        for turn in range(ROUNDS):
            first.append(looked(small, work / f"new{turn}.db", real) * FILES / SAMPLE)
            second.append(looked(library, work / "known.db", refuse))
            for kind, folder in (("small clips", small), ("real clips", clips)):
                bare, ours = shares.setdefault(kind, ([], []))
                if any(folder.iterdir()):
                    bare.append(ffprobed(folder))
                    ours.append(first_look(folder, work / f"{folder.name}{turn}.db", real))
    return report(
        "scan",
        [
            {
                "figure": f"probe {FILES} files ({THREADS} threads)",
                "value": min(first),
                "unit": "s",
            },
            {"figure": f"second scan of {FILES} files", "value": min(second), "unit": "s"},
            *(
                {
                    "figure": f"CPU of a first look / bare ffprobe, {name}",
                    "value": ratio(ours, bare),
                    "limit": 0.2,
                }
                for name, (bare, ours) in shares.items()
                if bare
            ),
            {"figure": "second scan / probing", "value": ratio(second, first), "limit": 0.1},
        ],
    )


def refuse(path: Path) -> MediaInfo:
    """A second scan must not probe."""
    raise AssertionError(f"{path} was probed again")


if __name__ == "__main__":
    sys.exit(main())
