"""Run README's two commands on a fresh Debian: debootstrap, a clone, an empty home, a table.

The machine is a chroot with git and make and nothing else of ours; what it takes to reach the package
registries (pip's settings, apt's, a CA bundle) is mounted, and `../shared` where there is one. The suite's
root is kept in `build/distro` and copied for each run; logs are there too.

usage: python -m scripts.distro_check [--suite sid] [--arch arm64] [--tests WORDS]   (root, Linux)
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.images_check import MIRROR, ROOT, call, registry_settings

CACHE = ROOT / "build" / "distro"
NEEDED = "ca-certificates,git,make"
"""What a person must have installed to clone and to say `make`; the rest is setup.sh's."""
CLOSING = re.compile(r"\d+ (done|passed|failed|errors?)\b")
"""The line that says how a step ended: ingest's last sentence, pytest's last line."""
OF_MIRROR = re.compile(r"Acquire::(Check-|https?::Proxy)")
"""Settings of apt that this machine's mirror asks for: a proxy, or the dates of a snapshot."""
ENTER = """set -e; root=$1; shift
mount -t proc proc "$root/proc"; for each in dev sys; do mount --rbind "/$each" "$root/$each"; done
while [ "$1" != -- ]; do mount --rbind -o ro "$1" "$root$2"; shift 2; done; shift
exec chroot "$root" /usr/bin/env -i HOME=/home/new LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""
SHOWS = """. /etc/os-release; echo "$PRETTY_NAME, $(uname -m)"; python3 --version
ffmpeg -version | head -n 1 | cut -d ' ' -f 1-3"""


def main() -> int:
    """Run both commands in the suite; return 0 if both did well."""
    wanted = _arguments()
    missing = [name for name in ("debootstrap", "git", "unshare") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        why = f"{', '.join(missing)} not found" if missing else "only root can do this"
        print(f"distro-check: {why}. On Debian: apt-get install debootstrap git", file=sys.stderr)
        return 2
    name = "-".join(filter(None, (wanted.suite, wanted.arch)))
    with tempfile.TemporaryDirectory(dir=_base(name, wanted).parent) as folder:
        machine = Machine(CACHE / name, Path(folder), name)
        rows = [machine.step("demo", "make", "demo")]
        if wanted.tests != "none":
            rows.append(machine.step("test", "make", "test", f"T={wanted.tests}"))
        print(f"\n{machine.output('sh', '-c', SHOWS)}")
    for step, code, seconds, closing in rows:
        print(f"{'ok    ' if code == 0 else 'WRONG '} {step}  {seconds:6.0f} s  {closing}")
    return 0 if all(code == 0 for _, code, _, _ in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--suite", default="trixie")
    parser.add_argument("--arch", default="", help="another processor, under qemu-user-static")
    parser.add_argument("--tests", default="", help="words for pytest; none: make demo alone")
    return parser.parse_args()


def _base(name: str, wanted: argparse.Namespace) -> Path:
    """Return the suite's root; make it if there is none."""
    base = CACHE / name
    if not base.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"debootstrap {name} from {MIRROR}", flush=True)
        options = ["--variant=minbase", f"--include={NEEDED}"]
        options += [f"--arch={wanted.arch}"] if wanted.arch else []
        part = base.with_name(f"{name}.part")
        shutil.rmtree(part, ignore_errors=True)
        call(["debootstrap", *options, wanted.suite, str(part), MIRROR])
        part.rename(base)
    return base


class Machine:
    """A copy of a suite's root with a clone in it, thrown away afterwards."""

    def __init__(self, base: Path, folder: Path, name: str) -> None:
        self._root, self._name = folder / "root", name
        call(["cp", "-a", "--reflink=auto", str(base), str(self._root)])
        shutil.copy("/etc/resolv.conf", self._root / "etc" / "resolv.conf")
        settings = call(["apt-config", "dump"]) if shutil.which("apt-config") else ""
        lines = [line for line in settings.splitlines() if OF_MIRROR.match(line)]
        (self._root / "etc/apt/apt.conf.d/00mirror").write_text("\n".join([*lines, ""]))
        call(["git", "clone", "--quiet", str(ROOT), str(self._root / "home/new/hevcq")])
        self._mounts: list[str] = []
        shared = ROOT.parent / "shared"
        for place, inside in (
            *registry_settings(folder),
            *([(shared, "/home/new/shared")] if shared.is_dir() else []),
        ):
            target = self._root / inside.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if place.is_dir():
                target.mkdir()
            else:
                target.touch()
            self._mounts += [str(place.resolve()), inside]

    def step(self, name: str, *command: str) -> tuple[str, int, float, str]:
        """Run a command in the clone, with its output in a log; return a row of the table."""
        log = CACHE / f"{self._name}-{name}.log"
        print(f"{' '.join(command)}: {log}", flush=True)
        began = time.monotonic()
        with log.open("wb") as said:
            ran = subprocess.run(
                self._inside("sh", "-c", 'cd /home/new/hevcq && exec "$@"', "sh", *command),
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False,
            )  # fmt: skip
        lines = log.read_text(errors="replace").splitlines()
        closing = [line.strip("= ") for line in lines if CLOSING.search(line)][-1:]
        return name, ran.returncode, time.monotonic() - began, "".join(closing)

    def output(self, *command: str) -> str:
        """Return what a command says in the machine."""
        return call(self._inside(*command))

    def _inside(self, *command: str) -> Sequence[str]:
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]
        return [*enter, str(self._root), *self._mounts, "--", *command]


if __name__ == "__main__":
    sys.exit(main())
