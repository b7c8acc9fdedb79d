"""The demo: take or make a few clips, ingest them, and show the results.

Run by `make demo` (see scripts/demo.sh). With --media it ingests that folder, whose files are
only read; else a few small real clips beside the checkout, or three generated ones if there are none.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "media"
REAL = ("traffic-432p12.mp4", "phone-720p30.mp4", "made-kitchen-sink.mkv", "made-not-a-video.mp4")
"""Small real clips: a camera's, a phone's, one with every kind of track, and a text in disguise."""
MADE: dict[str, list[str]] = {
    "holiday/beach.mp4": ["testsrc2=size=640x360:rate=25:duration=6", "libx264"],
    "holiday/party.mkv": ["mandelbrot=size=640x360:rate=25:end_scale=0.1", "libx264"],
    "old/camera.mov": ["life=size=320x240:rate=25:mold=10:ratio=0.1", "mpeg4"],
}
SECONDS = "6"


def main() -> int:
    """Run the demo; return the exit code of the ingest."""
    wanted = _arguments()
    out = wanted.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    media = wanted.media.expanduser().resolve() if wanted.media else clips(out / "clips")
    if not media.is_dir():
        print(f"{media} is not a folder; say MEDIA=<folder of videos>.", file=sys.stderr)
        return 2
    renditions = out / "renditions"
    print(f"Videos of {media} (only read), renditions to {renditions}\n", flush=True)
    command = [str(wanted.hevcq), "--data-dir", str(out / "data"), "ingest", str(media)]
    where = ["--profile", "hevc", "--output", str(renditions)]
    code = subprocess.run([*command, *where], check=False).returncode
    made = _closing(str(wanted.hevcq), media, renditions)
    # The file that is no video is part of the show; a clip without its rendition is a failure.
    return 0 if code == 1 and wanted.media is None and made == len(REAL) - 1 else code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The demo of hevcq.")
    parser.add_argument("--hevcq", type=Path, default=ROOT / ".venv" / "bin" / "hevcq")
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out")
    parser.add_argument("--media", type=Path, default=None)
    return parser.parse_args()


def clips(folder: Path) -> Path:
    """Return a folder of clips: real ones where they are at hand, else generated ones."""
    folder.mkdir(parents=True, exist_ok=True)
    real = [SHARED / name for name in REAL if (SHARED / name).is_file()]
    for clip in real:
        if not (folder / clip.name).exists():
            shutil.copy2(clip, folder / clip.name)
    if not real:
        _generate(folder)
    return folder


def _generate(folder: Path) -> None:
    if shutil.which("ffmpeg") is None:
        sys.exit("ffmpeg is missing: `apt-get install ffmpeg` (Debian), then `make demo` again.")
    for name, (source, codec) in MADE.items():
        target = folder / name
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"part-{target.name}")
        picture = ["-f", "lavfi", "-i", source, "-f", "lavfi", "-i", "sine=frequency=330"]
        quality = ["-crf", "16", "-preset", "veryfast"] if codec == "libx264" else ["-q:v", "2"]
        encode = ["-t", SECONDS, "-c:v", codec, *quality, "-pix_fmt", "yuv420p", "-c:a", "aac"]
        command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *picture, *encode, str(part)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        part.replace(target)


def _closing(hevcq: str, media: Path, renditions: Path) -> int:
    """Say what to try next; return how many renditions there are."""
    made = sorted(p for p in renditions.rglob("*") if p.suffix in {".mp4", ".mkv", ".mov"})
    if not made:
        return 0
    print("\nTry next:")
    quoted = shlex.quote
    print(f"  ffplay {quoted(str(made[0]))}")
    proofs = quoted(str(renditions / ".hevcq" / "certificates"))
    print(f"  less {proofs}/*   # the proofs: every gate, both SHA-256")
    print(f"  {quoted(hevcq)} ingest {quoted(str(media))} --dry-run   # what it would do for real")
    return len(made)


if __name__ == "__main__":
    sys.exit(main())
