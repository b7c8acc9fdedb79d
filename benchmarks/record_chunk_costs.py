"""Encode every group of pictures of real clips alone, and print what each took: chunk_costs.tsv.

Run as `python -m benchmarks.record_chunk_costs [PRESET] [CLIP…]`; without clips, the mixed video.
CPU seconds are the encode's own; a part that is looked at afterwards costs the same for all.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.measured import MEDIA
from benchmarks.mixed_clip import mixed_clip
from hevcq.util.clock import SystemClock
from hevcq.domain.chunking.planner import chunks_at
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ports.encoder import EncodeRequest
from hevcq.settings.profile_files import installed_folder, load_profile

ENCODER = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
STOP = threading.Event()


def record(source: Path, profile: Profile, folder: Path) -> None:
    """Print a row for each group of pictures of one video."""
    info = ENCODER.probe(str(source), stop=STOP)
    plan = make_plan(profile, info)
    if not isinstance(plan, EncodePlan):
        raise SystemExit(f"{source.name} is not encoded: {plan}")
    index = ENCODER.keyframes(str(source), info, stop=STOP)
    chunks = chunks_at(profile, plan, index, tuple(range(len(index.keys))))
    for chunk in chunks.chunks:
        output = folder / "part"
        request = EncodeRequest(
            profile=profile,
            plan=plan,
            info=info,
            location=str(source),
            output=output,
            duration_s=info.duration_s,
            source_size=info.size,
            max_seconds=3600,
            threads=1,
        )
        told = ENCODER.encode_chunk(request, chunks, chunk, on_progress=lambda _: None, stop=STOP)
        output.unlink()
        row = (source.stem, profile.video.preset, f"{chunks.seconds(chunk):.3f}")
        print(*row, chunk.frames, chunk.bytes, f"{told.cpu_s:.3f}", sep="\t", flush=True)


def main() -> None:
    """Record the named clips, or the mixed video."""
    words = sys.argv[1:]
    profile = load_profile(installed_folder() / "hevc.yaml")
    preset = words[0] if words else profile.video.preset
    video = profile.video.model_copy(update={"preset": preset, "skip_codecs": ()})
    profile = profile.model_copy(update={"video": video})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = [MEDIA / word for word in words[1:]] or [mixed_clip(folder)]
        for clip in clips:
            if clip is None:
                raise SystemExit(f"the sample clips are not all in {MEDIA}")
            record(clip, profile, folder)


if __name__ == "__main__":
    main()
