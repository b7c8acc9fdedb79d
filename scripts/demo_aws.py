"""The demo of the farm on AWS, without an account: an emulator, four workers, two ingests.

Run by `make demo-aws` (see scripts/demo_aws.sh). Starts the emulator the tests use, makes the
farm's buckets, topic, queues and tables on it, starts one worker process a profile, ingests a few
clips over S3, then one of them as an HLS ladder, shows what became of them, and stops everything it
started, however it ends.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.demo import clips  # noqa: E402
from tests.support.aws.emulator import (  # noqa: E402
    KEYS,
    REGION,
    Emulator,
    NotStarted,
    create_resources,
    emulated_clients,
)

from hevcq.settings.model import AwsSettings  # noqa: E402
from hevcq.settings.profile_files import load_profiles  # noqa: E402

PROFILES = ("hevc", "720p", "1080p", "hls")
HLS = "hls"
END_S = 20


def main() -> int:
    """Run the demo; return the exit code of the ingest."""
    wanted = _arguments()
    # So that a `kill` ends in the same order as Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = wanted.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    media = wanted.media.expanduser().resolve() if wanted.media else _clips(out / "clips")
    if not media.is_dir():
        print(f"{media} is not a folder; say MEDIA=<folder of videos>.", file=sys.stderr)
        return 2
    renditions = out / "aws-renditions"
    shutil.rmtree(renditions, ignore_errors=True)  # of an earlier demo, in the demo's own folder
    try:
        with contextlib.ExitStack() as stack:
            code = _demo(stack, wanted.hevcq, media, renditions)
    except KeyboardInterrupt:
        code = 130
    print("Everything that was started is stopped; nothing was left in any account.")
    # A file that is no video is part of the show, and not a failure of the demo.
    return 0 if code == 1 and wanted.media is None else code


def _clips(folder: Path) -> Path:
    """Return the demo's clips with one that is large enough for the profile 720p to have work."""
    target = clips(folder) / "cinema" / "trailer-1080p.mp4"
    if not any("1080p" in path.name for path in folder.rglob("*")):
        target.parent.mkdir(exist_ok=True)
        part = target.with_name(f"part-{target.name}")
        picture = ["-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=24:duration=1.5"]
        encode = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "16", "-pix_fmt", "yuv420p"]
        command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *picture, *encode, str(part)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        part.replace(target)
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The demo of hevcq on AWS, on an emulator.")
    parser.add_argument("--hevcq", type=Path, default=ROOT / ".venv" / "bin" / "hevcq")
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out")
    parser.add_argument("--media", type=Path, default=None)
    return parser.parse_args()


def _demo(stack: contextlib.ExitStack, hevcq: Path, media: Path, renditions: Path) -> int:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hevcq-demo-")))
    try:
        endpoint = stack.enter_context(Emulator()).endpoint
    except NotStarted as error:
        sys.exit(str(error))
    print(f"The emulator of S3, SNS, SQS and DynamoDB is at {endpoint}")
    settings = _farm(endpoint, folder)
    print("Made two buckets, a topic, four queues with their dead letters, and two tables")
    workers = stack.enter_context(_workers(hevcq, settings, folder))
    print("Four workers run: " + ", ".join(f"{n} ({p})" for n, p in workers.items()))
    print(f"\nVideos of {media} (only read), renditions to {renditions}\n", flush=True)
    command = [str(hevcq), "ingest", str(media), "--output", str(renditions)]
    code = subprocess.run(command, env=settings, check=False).returncode
    code = _stream(command, media, renditions, settings) or code
    print("\nThe farm afterwards (hevcq status):", flush=True)
    subprocess.run([str(hevcq), "status"], env=settings, check=False)
    return code


def _stream(command: list[str], media: Path, renditions: Path, settings: Mapping[str, str]) -> int:
    """Ingest the smallest clip as an HLS ladder, and list the set; return the exit code."""
    clip = _smallest(media)
    if clip is None:
        return 0
    print(f"\nThe smallest of them as an HLS ladder, which no upload gets unasked: {clip.name}\n")
    sys.stdout.flush()
    once = [command[0], "ingest", str(clip), *command[3:], "--profile", HLS]
    code = subprocess.run(once, env=settings, check=False).returncode
    for master in sorted(renditions.rglob("master.m3u8")):
        print(f"\nPlayers open {master}; the files of the set beside it:")
        for path in sorted(p for p in master.parent.rglob("*") if p.is_file()):
            print(f"  {path.relative_to(master.parent)}  {path.stat().st_size:,} bytes")
    return code


def _smallest(media: Path) -> Path | None:
    """Return the file with the smallest picture, for the demo is to be short."""
    found: list[tuple[int, int, Path]] = []
    for path in (p for p in media.rglob("*") if p.is_file()):
        command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries"]
        seen = subprocess.run(
            [*command, "stream=width,height", "-of", "csv=p=0:s=x", str(path)],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
        ).stdout.partition("\n")[0]
        sides = [int(side) for side in seen.strip().split("x") if side.isdigit()]
        if len(sides) >= 2:
            found.append((sides[0] * sides[1], path.stat().st_size, path))
    return min(found)[2] if found else None


def _farm(endpoint: str, folder: Path) -> dict[str, str]:
    """Make the resources; return the environment in which hevcq works on them."""
    wanted = AwsSettings(
        region=REGION,
        endpoint_url=endpoint,
        input_bucket="hevcq-demo-input",
        output_bucket="hevcq-demo-output",
    )
    profiles = {n: p for n, p in load_profiles(ROOT / "workers").items() if n in PROFILES}
    made = create_resources(emulated_clients(wanted), wanted, profiles)
    names = folder / "profiles"
    names.mkdir()
    for name in PROFILES:
        shutil.copy(ROOT / "workers" / f"{name}.yaml", names)
    return environment(made, names, folder / "data")


def environment(made: AwsSettings, profiles: Path, data: Path) -> dict[str, str]:
    """Return the environment in which hevcq works on this farm, and on no other."""
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("HEVCQ_", "AWS_"))}
    told = {**made.model_dump(), "profiles": ",".join(PROFILES)}
    own = {f"HEVCQ_AWS__{name.upper()}": str(value) for name, value in told.items()}
    return {
        **clean,
        **KEYS,
        **own,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HEVCQ_BACKEND": "aws",
        "HEVCQ_DATA_DIR": str(data),
        "HEVCQ_PROFILES_DIR": str(profiles),
    }


@contextlib.contextmanager
def _workers(hevcq: Path, settings: Mapping[str, str], folder: Path) -> Iterator[dict[str, int]]:
    # Should the demo itself be killed, its workers are told to stop by the kernel.
    guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in PROFILES:
            with (folder / f"worker-{name}.log").open("wb") as log:
                started[name] = subprocess.Popen(
                    [*guard, str(hevcq), "worker", name, "--workers", "1"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**settings, "HEVCQ_STOP_GRACE_S": "0"},
                    start_new_session=True,
                )
        yield {name: child.pid for name, child in started.items()}
    finally:
        for child in started.values():
            child.terminate()
        # A worker that waits for work ends with its poll, after 20 s at most.
        for child in started.values():
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(timeout=END_S + 5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


if __name__ == "__main__":
    sys.exit(main())
