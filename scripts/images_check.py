"""Build the images with buildah, look into them, and let them work as their own user.

Needs no container engine: `buildah bud --isolation chroot` builds, and a chroot with a read-only
root runs. The base is BASE_IMAGE where that can be pulled, else one that debootstrap makes, cached in
`build/images`. What this machine needs to reach its package registries (pip's settings, a CA bundle)
is mounted while building, and gets into no image.

usage: scripts/images_check.py [--base IMAGE]     (as root, on Linux)
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "images"
SUITE = "trixie"
BASE = f"localhost/hevcq-base:{SUITE}"
WORKER, INGEST, HOME = (f"localhost/hevcq-{name}:check" for name in ("worker", "ingest", "home"))
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
MAX_BYTES = 518_000_000
"""Largest size of an image: what the home image held on Debian 12; it holds 505 MB on Debian 13."""
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
    "-c:a", "aac",
)  # fmt: skip
OWNER, GROUP, MASK = 1234, 2345, 0o027
"""PUID, PGID and UMASK of the home image's run."""
HOME_ENDS_S = 300.0
"""Seconds that a step of the home image may take on a busy machine."""


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
    build("docker/home.Dockerfile", HOME, WORKER_IMAGE=WORKER)
    with mounted(HOME) as image:
        check_home(image)
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
        call(["debootstrap", "--variant=minbase", SUITE, str(root), MIRROR])
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            shutil.rmtree(root / waste, ignore_errors=True)
            (root / waste).mkdir()
        container = call(["buildah", "from", "scratch"]).strip()
        call(["buildah", "add", "--quiet", container, str(root), "/"])
        call(["buildah", "commit", "--quiet", "--rm", container, BASE])


def build(dockerfile: str, tag: str, **arguments: str) -> None:
    """Build one image; its output is shown if it fails."""
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
    """A mounted image and its configuration."""

    def __init__(self, root: Path, name: str) -> None:
        said = json.loads(call(["buildah", "inspect", "--type", "image", name]))
        config = said["Docker"]["config"]
        self.root, self.name = root, name
        self.user = str(config["User"])
        self.entrypoint: list[str] = config["Entrypoint"]
        self.command: list[str] = config.get("Cmd") or []
        self.health: list[str] = (config.get("Healthcheck") or {}).get("Test", [])
        self.environment: list[str] = config["Env"]

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
        inside += [str(self.root), str(scratch), self.user, *self.environment, *command]
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
    size = size_of(image)
    require(size < MAX_BYTES, f"the worker's image holds {size / 1e6:.0f} MB ({listed[0]['size']})")
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
    image.run(["python", "-c", "import hevcq.web.server"])
    require(bool(image.run(["hevcq", "serve", "--help"])), "the page is in the worker's image")
    image.run(["mkdir", "/scratch/media"])
    image.run([*CLIP, "/scratch/media/clip.mp4"])
    image.run(["hevcq", "ingest", "/scratch/media", "--profile", "hevc", "--no-wait"])
    image.run([*image.entrypoint, "hevc", "--drain"])
    image.run(["hevcq", "ingest", "/scratch/media", "--profile", "hevc"])
    made = [path for path in (CACHE / "scratch" / "media").glob("*.mp4") if path.name != "clip.mp4"]
    require(len(made) == 1, "the worker encoded a clip")
    name = made[0].name
    said = image.run(
        ["hevcq", "check", f"/scratch/media/{name}", "--source", "/scratch/media/clip.mp4"]
    )
    require(bool(said), f"hevcq check: {said.strip().splitlines()[-1]}")


class Home:
    """The home image at work as compose.home.yaml runs it: a read-only root, three capabilities, no
    network but its own, and two volumes. `media` and `data` are these volumes on this machine."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.media, self.data = CACHE / "scratch" / "media", CACHE / "scratch" / "data"
        self.said = CACHE / "scratch" / "said"
        script = (
            'set -e; r=$1; s=$2; shift 2; ip link set lo up; mount --bind "$r" "$r"; '
            'mount --bind "$s/media" "$r/media"; mount --bind "$s/data" "$r/data"; '
            'mount -o remount,ro,bind "$r"; mount -t proc proc "$r/proc"; mount -t tmpfs tmpfs "$r/tmp"; '
            'mount --rbind /dev "$r/dev"; mount --rbind /sys "$r/sys"; '
            'exec chroot "$r" /usr/bin/env -i "$@"'
        )
        inside = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]
        inside += ["sh", "-c", script, "sh", str(image.root), str(self.said.parent)]
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [*inside, *self._words(*image.entrypoint, *image.command)], stdout=said, stderr=said
            )

    def _words(self, *command: str) -> list[str]:
        asked = (f"PUID={OWNER}", f"PGID={GROUP}", f"UMASK={MASK:03o}", "HEVCQ_STOP_GRACE_S=60")
        gives_up = ("setpriv", "--bounding-set=-all,+chown,+setgid,+setuid", "--no-new-privs")
        return [*self._image.environment, *asked, *gives_up, *command]

    def pid(self) -> str:
        """Return the process id of the container's first process; "" before it runs."""
        own = self.process.pid
        return Path(f"/proc/{own}/task/{own}/children").read_text().strip()

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command as `docker compose exec` does."""
        enter = ["nsenter", "--target", self.pid(), "--mount", "--pid", "--net", "--root", "--wd"]
        return call([*enter, "/usr/bin/env", "-i", *self._words(*command)], check=check)

    def signal(self, name: str) -> None:
        """Send a signal as `docker compose kill --signal` does."""
        call(["kill", "-s", name, self.pid()])

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds; if it never does, exit with all logs."""
        ends = time.monotonic() + HOME_ENDS_S
        while not holds() and self.process.poll() is None and time.monotonic() < ends:
            time.sleep(0.2)
        if not holds():
            print(self.said.read_text(), file=sys.stderr)
        require(holds(), what)


@contextmanager
def at_home(image: Image) -> Iterator[Home]:
    """Run the home image with a library of two clips; kill what still runs at the end."""
    scratch = CACHE / "scratch"
    scratch.chmod(0o755)
    os.chown(scratch, 0, 0)
    for name in ("media/Shows", "data"):
        (scratch / name).mkdir(parents=True)
    for number in range(2):
        call([*CLIP, str(scratch / "media" / "Shows" / f"{number}.mp4")])
    for path in (scratch / "media", *(scratch / "media").rglob("*")):
        os.chown(path, OWNER, GROUP)
    home = Home(image)
    try:
        yield home
    finally:
        home.process.kill()
        home.process.wait()


def check_home(image: Image) -> None:
    """Check that the home image serves a library and its page as the user it is told."""
    size = size_of(image)
    require(size < MAX_BYTES, f"the home image holds {size / 1e6:.0f} MB")
    require((image.user, image.health) == ("0", ["CMD", "hevcq-health"]), "it starts as root once")
    with at_home(image) as home:
        home.wait(lambda: "Watching" in home.said.read_text(), "the service starts")
        home.run("hevcq", "libraries", "add", "/media/Shows", "--place", "replace")
        before = {each: each.read_bytes() for each in (home.media / "Shows").glob("*.mp4")}
        home.signal("HUP")
        home.wait(
            lambda: all(each.read_bytes() != was for each, was in before.items()),
            f"{len(before)} clips of a library that was added are replaced",
        )
        probe = ("ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0")
        codecs = {home.run(*probe, f"/media/Shows/{each.name}").split()[0] for each in before}
        require(codecs == {"hevc"}, "they are HEVC now")
        check_page(home)
        check_owners(home)
        began = time.monotonic()
        home.signal("TERM")
        home.process.wait(HOME_ENDS_S)
        took = f"{time.monotonic() - began:.1f} s"
        require("Stopped." in home.said.read_text(), f"SIGTERM ends it in {took}")
        require(home.process.returncode == 0, "and its exit code is 0")


def check_page(home: Home) -> None:
    """Check that the page and the health check answer, and that messages can be sent."""
    python = "/opt/hevcq/bin/python"
    asks = (
        "from urllib.request import urlopen as o; print(o('http://127.0.0.1:8790/healthz').status)"
    )
    require(home.run(python, "-c", asks, check=False).strip() == "200", "/healthz answers 200")
    said = home.run("hevcq-health").strip()
    require(bool(said), f"hevcq-health: {said}")
    token = home.run("hevcq", "serve", "new-token").split()
    require(bool(token), "hevcq serve new-token prints what signs one in")
    home.run(python, "-c", "import apprise")


def check_owners(home: Home) -> None:
    """Check that all created files belong to the configured user and group."""
    status = Path(f"/proc/{home.pid()}/status").read_text()
    require(f"Uid:\t{OWNER}\t{OWNER}\t{OWNER}" in status, f"it runs as user {OWNER}")
    made = [path for top in (home.media, home.data) for path in top.rglob("*")]
    wrong = [each for each in made if (each.lstat().st_uid, each.lstat().st_gid) != (OWNER, GROUP)]
    require(not wrong, f"{len(made)} files belong to {OWNER}:{GROUP} {wrong or ''}")
    loose = [each for each in home.data.rglob("*") if each.lstat().st_mode & MASK]
    require(not loose, f"UMASK {MASK:03o} holds for the data folder {loose or ''}")


def size_of(image: Image) -> int:
    """Return the bytes of an image's files."""
    return sum(path.lstat().st_size for path in image.root.rglob("*") if not path.is_dir())


def require(holds: bool, what: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Print a condition that holds; exit with one that does not."""
    print("ok    " if holds else "WRONG ", what.strip(), flush=True)
    if not holds:
        raise SystemExit(1)


def call(command: Sequence[str], *, check: bool = True) -> str:
    """Run a command and return its output; if it fails, exit with everything it printed."""
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, errors="replace"
    )
    if check and ran.returncode != 0:
        print(ran.stdout[-8000:], ran.stderr[-8000:], file=sys.stderr)
        raise SystemExit(f"images-check: {' '.join(command[:6])} ... ended with {ran.returncode}")
    return ran.stdout


if __name__ == "__main__":
    sys.exit(main())
