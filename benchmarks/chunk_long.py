"""What cutting costs in bits at equal quality (BD-rate), and how far seams show: the long form.

Run as `python -m benchmarks.chunk_long` (minutes of CPU on the real sample clips). For the curve a
video of two minutes is cut in two, as its profile would; for the seams every clip is cut at every
key frame, which no plan does. A seam's figure is the one that gate G8 bounds.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chunk_bench import PROFILE, Clip, Places, Run, halves
from benchmarks.chunk_quality import bd_rate, decibel, frame_ssim, video_bytes
from benchmarks.measured import MEDIA, report
from benchmarks.mixed_clip import mixed_clip
from hevcq.domain.chunking.planner import KeyIndex
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.verify.seams import FRAMES_PER_SIDE, MAX_SSIM_DROP, ssim_drop

CRFS = (32.0, 28.0, 24.0, 20.0)
SEAM_CLIPS = (
    "bbb-480p24-30s.mp4",
    "traffic-432p12.mp4",
    "made-h264-opengop-480p24.mkv",
    "gopro-480p30-tmcd-gpmd.mp4",
    "flir-portrait-vfr-bframes.mp4",
    "phone-720p30.mp4",
    "android-720p30-rot180.mp4",
)


@dataclass(frozen=True)
class Pair:
    """The same video in chunks and in one piece."""

    chunked: Run
    whole: Run
    likeness: tuple[list[float], list[float]]
    bytes: tuple[int, int]

    def seams(self, way: int) -> list[float]:
        """Return how far each seam is below its surroundings, chunked (0) or in one piece (1)."""
        ssim = self.likeness[way]
        return [
            ssim_drop(
                ssim[max(0, at - FRAMES_PER_SIDE) : at + FRAMES_PER_SIDE], min(at, FRAMES_PER_SIDE)
            )
            for at in self.chunked.seams
        ]


def recipe(crf: float, preset: str) -> Profile:
    video = PROFILE.video.model_copy(update={"crf": crf, "preset": preset})
    return PROFILE.model_copy(update={"video": video})


def every_key(index: KeyIndex) -> tuple[int, ...]:
    return tuple(range(len(index.keys)))


def both(source: Path, folder: Path, profile: Profile, places: Places) -> Pair:
    """Encode a video both ways and compare each with the source."""
    clip = Clip(source, folder, profile)
    runs = clip.chunked("chunked.mp4", 0, places), clip.whole("whole.mp4")
    alike = [frame_ssim(source, run.output) for run in runs]
    sizes = [video_bytes(run.output) for run in runs]
    for path in folder.glob("*.part"):
        path.unlink()
    for run in runs:
        run.output.unlink()
    return Pair(*runs, (alike[0], alike[1]), (sizes[0], sizes[1]))


def curve(pairs: list[Pair], way: int) -> list[tuple[float, float]]:
    """Return (bytes, quality) of one way at each CRF."""
    return [
        (pair.bytes[way], decibel(sum(pair.likeness[way]) / len(pair.likeness[way])))
        for pair in pairs
    ]


def seam_pairs(folder: Path) -> Iterator[Pair]:
    for name in SEAM_CLIPS:
        for crf in (24.0, 32.0):
            yield both(MEDIA / name, folder, recipe(crf, "ultrafast"), every_key)


def main() -> int:
    """Measure, print, write, judge."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = mixed_clip(folder)
        if source is None:
            raise SystemExit(f"the sample clips are not all in {MEDIA}")
        pairs = [both(source, folder, recipe(crf, "medium"), halves) for crf in CRFS]
        cut = [*pairs, *seam_pairs(folder)]
    rate = bd_rate(curve(pairs, 1), curve(pairs, 0))
    seams = [value for pair in cut for value in pair.seams(0)]
    serial = [value for pair in cut for value in pair.seams(1)]
    return report(
        "chunk_long",
        [
            {"figure": "BD-rate of chunks (SSIM, 4 CRFs)", "value": rate, "limit": 0.005},
            {"figure": f"worst of {len(seams)} seams, SSIM below", "value": max(seams),
             "limit": MAX_SSIM_DROP},
            {"figure": "the same frames in one piece, worst", "value": max(serial)},
        ],
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
