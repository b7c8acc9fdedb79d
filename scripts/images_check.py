"""Build the images with buildah, look into them, and let them work as their own user.

Needs no container engine: `buildah bud --isolation chroot` builds, and a chroot with a read-only
root runs. The base is BASE_IMAGE where that can be pulled, else one that debootstrap makes, cached in
`build/images`. What this machine needs to reach its package registries (pip's settings, a CA bundle)
is mounted while building, and gets into no image.

usage: scripts/images_check.py [--base IMAGE]     (as root, on Linux)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "images"
BASE = "localhost/hevcq-base:bookworm"
WORKER, INGEST = "localhost/hevcq-worker:check", "localhost/hevcq-ingest:check"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
MOST_BYTES = 700_000_000
"""Largest size of the worker's image; it was 1.07 GB when this check was written."""
UNWANTED = (
    *(f"usr/bin/{name}" for name in ("gcc", "cc", "g++", "c++", "make", "ld", "pip", "pip3")),
    "opt/build", "src", "root/.cache", "scratch/.cache", "opt/hevcq/bin/pip",
)  # fmt: skip
FREE = {"/scratch", "/tmp", "/var/tmp", "/run/lock", "/dev/shm"}
"""Folders that the user may write in by their modes; all but /scratch are read-only at run time or
empty."""
CLIP = (
    "ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=2",
    "-f", "lavfi", "-i", "sine=duration=2", "-c:v", "libx264", "-preset", "ultrafast", "-qp", "4",
    "-c:a", "aac", "/scratch/media/clip.mp4",
)  # fmt: skip


def main() -> int:
    """Run every check; return the exit code."""
    given = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    given.add_argument("--base", help="a base that buildah can pull; default: made by debootstrap")
    base = given.parse_args().base
    missing = [name for name in ("buildah", "debootstrap", "unshare") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        why = f"{', '.join(missing)} not found" if missing else "only root can do this"
        print(
            f"images-check: {why}. On Debian: apt-get install buildah debootstrap", file=sys.stderr
        )
        return 2
    if base is None:
        base = BASE
        make_base()
    build("docker/worker.Dockerfile", WORKER, BASE_IMAGE=base)
    build("docker/ingest.Dockerfile", INGEST, WORKER_IMAGE=WORKER)
    with mounted(WORKER) as image:
        check_content(image)
        check_work(image)
    with mounted(INGEST) as image:
        said = image.run([*image.entrypoint, "--version"]).split()
        require(said[:1] == ["hevcq"], f"the command line starts: {' '.join(said)}")
    print("images-check: everything holds")
    return 0


def make_base() -> None:
    """Make a minimal Debian as an image of its own, once."""
    if call(["buildah", "images", "--quiet", BASE], check=False).strip():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        root = Path(folder) / "root"
        print(f"debootstrap from {MIRROR}", flush=True)
        call(["debootstrap", "--variant=minbase", "bookworm", str(root), MIRROR])
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            shutil.rmtree(root / waste, ignore_errors=True)
            (root / waste).mkdir()
        container = call(["buildah", "from", "scratch"]).strip()
        call(["buildah", "add", "--quiet", container, str(root), "/"])
        call(["buildah", "commit", "--quiet", "--rm", container, BASE])


def build(dockerfile: str, tag: str, **arguments: str) -> None:
    """Build one image; what it prints is shown if it fails."""
    print(f"build {dockerfile}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = ["buildah", "bud", "--isolation", "chroot", "--network", "host"]
        command += ["--format", "docker", "--file", dockerfile, "--tag", tag]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        for place, inside in registry_settings(Path(folder)):
            command += ["--volume", f"{place}:{inside}:ro"]
        call([*command, str(ROOT)])


def registry_settings(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield what pip needs on this machine to reach its registries, and where to mount it."""
    listed = call([sys.executable, "-m", "pip", "config", "list"]).splitlines()
    pairs = (line.split("=", 1) for line in listed)
    known = {name.split(".", 1)[1]: value.strip("'\"") for name, value in pairs}
    bundle = Path(known.get("cert", os.environ.get("SSL_CERT_FILE", "")))
    known.pop("constraint", None)
    if bundle.is_file():
        known["cert"] = "/run/check/ca.crt"
        yield bundle, known["cert"]
    file = folder / "pip.conf"
    lines = (f"{name} = {value}" for name, value in known.items())
    file.write_text("\n".join(["[global]", *lines, ""]))
    yield file, "/etc/pip.conf"


class Image:
    """A mounted image, and what its configuration says."""

    def __init__(self, root: Path, name: str) -> None:
        said = json.loads(call(["buildah", "inspect", "--type", "image", name]))
        config = said["Docker"]["config"]
        self.root, self.name = root, name
        self.user = str(config["User"])
        self.entrypoint: list[str] = config["Entrypoint"]
        self.health: list[str] = (config.get("Healthcheck") or {}).get("Test", [])
        self._environment: list[str] = config["Env"]

    def run(self, command: Sequence[str], *, check: bool = True) -> str:
        """Run a command as the image's user, with a read-only root and only /scratch to write."""
        scratch = CACHE / "scratch"
        script = (
            'set -e; r=$1; s=$2; u=$3; shift 3; mount --bind "$r" "$r"; mount -o remount,ro,bind "$r"; '
            'mount -t proc proc "$r/proc"; mount --rbind /dev "$r/dev"; mount --rbind /sys "$r/sys"; '
            'mount -t tmpfs tmpfs "$r/tmp"; mount --bind "$s" "$r/scratch"; '
            'exec chroot --userspec="$u:$u" "$r" /usr/bin/env -i "$@"'
        )
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"]
        inside += [str(self.root), str(scratch), self.user, *self._environment, *command]
        return call(inside, check=check)


@contextmanager
def mounted(name: str) -> Iterator[Image]:
    """Mount an image and an empty scratch folder that belongs to its user."""
    container = call(["buildah", "from", "--pull-never", name]).strip()
    scratch = CACHE / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, mode=0o700)
    try:
        image = Image(Path(call(["buildah", "mount", container]).strip()), name)
        os.chown(scratch, int(image.user), int(image.user))
        yield image
    finally:
        call(["buildah", "rm", container])
        shutil.rmtree(scratch, ignore_errors=True)


def check_content(image: Image) -> None:
    """Check the image's user, size, and that nothing is left of its build."""
    require(int(image.user) >= 10_000, f"the user is {image.user}, not root")
    require(image.health == ["CMD", "hevcq-health"], "a health check is set")
    listed = json.loads(call(["buildah", "images", "--json", image.name]))
    size = sum(path.lstat().st_size for path in image.root.rglob("*") if not path.is_dir())
    require(
        size < MOST_BYTES, f"the worker's image holds {size / 1e6:.0f} MB ({listed[0]['size']})"
    )
    left = [name for name in UNWANTED if (image.root / name).exists()]
    left += [str(path) for path in (image.root / "var/cache/apt/archives").glob("*.deb")]
    require(not left, f"no compiler, pip or cache is inside {left or ''}")
    ours = ["(", "-user", image.user, "-o", "-perm", "-0002", ")", "-not", "-type", "l"]
    writable = set(image.run(["find", "/", "-xdev", *ours], check=False).split())
    require(writable <= FREE, f"its user may write in {', '.join(sorted(writable))} only")
    require(image.run(["id", "-u"]).strip() == image.user, "commands run as that user")


def check_work(image: Image) -> None:
    """Check that the image finds itself fit, encodes a clip, and verifies it."""
    lines = [json.loads(line) for line in image.run(["hevcq", "doctor", "--json"]).splitlines()]
    wrong = [f"{line['name']}: {line['detail']}" for line in lines if not line["ok"]]
    require(not wrong and len(lines) > 5, f"hevcq doctor: {len(lines)} checks ok {wrong or ''}")
    print("      ", next(line["detail"] for line in lines if line["name"] == "sandbox"))
    image.run(["mkdir", "/scratch/media"])
    image.run(CLIP)
    image.run(["hevcq", "ingest", "/scratch/media", "--profile", "hevc", "--no-wait"])
    image.run([*image.entrypoint, "hevc", "--drain"])
    image.run(["hevcq", "ingest", "/scratch/media", "--profile", "hevc", "--skip-upload"])
    made = [path for path in (CACHE / "scratch" / "media").glob("*.mp4") if path.name != "clip.mp4"]
    require(len(made) == 1, "the worker encoded a clip")
    name = made[0].name
    said = image.run(["hevcq", "verify", "/scratch/media/clip.mp4", f"/scratch/media/{name}"])
    require(bool(said), f"hevcq verify: {said.strip().splitlines()[-1]}")


def require(holds: bool, what: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Print what holds, or end with what does not."""
    print("ok    " if holds else "WRONG ", what.strip(), flush=True)
    if not holds:
        raise SystemExit(1)


def call(command: Sequence[str], *, check: bool = True) -> str:
    """Run a command and return its output; end with all it printed if it fails."""
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, errors="replace"
    )
    if check and ran.returncode != 0:
        print(ran.stdout[-8000:], ran.stderr[-8000:], file=sys.stderr)
        raise SystemExit(f"images-check: {' '.join(command[:6])} ... ended with {ran.returncode}")
    return ran.stdout


if __name__ == "__main__":
    sys.exit(main())
