"""One video of two minutes out of the real sample clips, for benchmarks that need a longer one."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.measured import MEDIA

SCENES = (
    ("bbb-480p24-30s.mp4", "v:0", 30),
    ("gopro-480p30-tmcd-gpmd.mp4", "v:0", 12),
    ("traffic-432p12.mp4", "v:0", 30),
    ("long-1080p30-6min-lowbitrate.mp4", "v:0", 20),
    ("nasa-2video-2audio-2sub.mp4", "v:1", 16),
    ("flir-portrait-vfr-bframes.mp4", "v:0", 11),
    ("phone-720p30.mp4", "v:0", 3),
    ("android-720p30-rot180.mp4", "v:0", 4),
    ("iphone-320p-rot90-mebx.mov", "v:0", 4),
)
"""A drawn video, two moving cameras, a standing one, slides, space, an infrared camera, phones."""
SIZE, RATE = (640, 360), 24


def mixed_video(folder: Path) -> Path | None:
    """Make the video in `folder` with sound, H.264 as a phone or a disc has it; None without clips."""
    if not all((MEDIA / name).is_file() for name, _, _ in SCENES):
        return None
    made = folder / "mixed.mp4"
    width, height = SIZE
    command: list[str] = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
    graph, ends = [], ""
    for number, (name, stream, seconds) in enumerate(SCENES):
        command += ["-t", str(seconds), "-i", str(MEDIA / name)]
        graph.append(
            f"[{number}:{stream}]scale={width}:{height}:force_original_aspect_ratio=increase,"
            f"crop={width}:{height},setsar=1,format=yuv420p,fps={RATE}[s{number}]"
        )
        ends += f"[s{number}]"
    graph.append(f"{ends}concat=n={len(SCENES)}:v=1[video]")
    sound = sum(seconds for *_, seconds in SCENES)
    command += ["-f", "lavfi", "-t", str(sound), "-i", "anoisesrc=color=pink:amplitude=0.1:seed=1"]
    command += ["-filter_complex", ";".join(graph), "-map", "[video]", "-map", f"{len(SCENES)}:a"]
    command += ["-c:v", "libx264", "-preset", "medium", "-crf", "20", "-c:a", "aac"]
    subprocess.run([*command, "-b:a", "128k", "-shortest", str(made)], check=True)
    return made
