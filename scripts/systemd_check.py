"""Let a real systemd run the unit of `hevcq service install`, in a root file system of its own.

The worker's image of `make images-check` gets Debian's systemd, which boots in namespaces of its own
after pivot_root: nothing of this machine's file systems is mounted there. (A systemd that shares
`/tmp` empties it when it boots.) Start, reload, hardening, watchdog, restart and stop are looked at.

usage: scripts/systemd_check.py     (as root, on Linux, after make images-check)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from images_check import WORKER, call, require  # type: ignore[import-not-found]

PACKAGES = "systemd procps"
NAME = "hevcq-systemd-check"
WAIT_S = 180.0
DATA, SETTINGS = "/home/homer/.local/share/hevcq", "/home/homer/.config/hevcq/hevcq.toml"
CLIP = (
    "ffmpeg -v error -f lavfi -i testsrc2=size=%s:rate=25:duration=%d -c:v libx264"
    " -preset ultrafast -qp 8 %s.part.mp4 && mv %s.part.mp4 %s"
)
BOOT = r"""
set -e
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"; mount -o remount,ro,bind "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for place in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$place"; done
chmod 1777 "$root/tmp"; mkdir "$root/dev/pts" "$root/dev/shm"
for device in null:3 zero:5 full:7 random:8 urandom:9; do
  mknod -m 666 "$root/dev/${device%:*}" c 1 "${device#*:}"
done
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs tmpfs "$root/dev/shm"
hostname systemd-check
ip link set lo up
mkdir -p "$root/.machine"; cd "$root"; pivot_root . .machine; umount -l /.machine; cd /
# Whatever else could be seen could be changed: systemd empties folders when it boots.
awk '$5 != "/" && $0 !~ / - (proc|sysfs|cgroup2|tmpfs) / { bad = 1 } END { exit bad }' \
  /proc/self/mountinfo
[ -z "$(ls -A /.machine)" ]
exec env -i container=check PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv \
  --bounding-set=-sys_module,-sys_rawio,-sys_time,-sys_boot,-mknod,-sys_ptrace,-syslog \
  /lib/systemd/systemd --system --log-target=null --show-status=no
"""


class Machine:
    """A booted systemd; `run` enters it."""

    def __init__(self, root: str, cgroup: Path) -> None:
        joins = f'echo $$ > {cgroup}/cgroup.procs; exec "$@"'
        inside = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork"]
        self._process = subprocess.Popen(
            ["sh", "-c", joins, "sh", *inside, "--kill-child", "bash", "-c", BOOT, "boot", root]
        )

    @property
    def _pid(self) -> str:
        own = self._process.pid
        return Path(f"/proc/{own}/task/{own}/children").read_text().strip()

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command as root."""
        enter = ["nsenter", "--target", self._pid, "--mount", "--pid", "--uts", "--ipc", "--net"]
        enter += [
            "--cgroup",
            "--root",
            "--wd",
            "/usr/bin/env",
            "-i",
            "PATH=/opt/hevcq/bin:/usr/bin:/bin",
        ]
        return str(call([*enter, *command], check=check)).strip()

    def homer(self, script: str, *, check: bool = True) -> str:
        """Run a shell command as the person whose videos these are."""
        given = ["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups"]
        return self.run(*given, "env", "HOME=/home/homer", "sh", "-c", script, check=check)

    def show(self, name: str) -> str:
        """Return a property of the unit."""
        return self.run("systemctl", "show", "hevcq", "-p", name, "--value", check=False)

    def journal(self) -> str:
        """Return what the service said."""
        return self.run("journalctl", "-u", "hevcq", "--no-pager", "-o", "cat")

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds; end with the journal if it never does."""
        ends = time.monotonic() + WAIT_S
        while not holds() and time.monotonic() < ends:
            time.sleep(0.5)
        if not holds():
            print(self.journal(), file=sys.stderr)
        require(holds(), what)

    def end(self) -> None:
        """End systemd and everything in it."""
        self._process.kill()
        self._process.wait()


def main() -> int:
    """Run every check; return the exit code."""
    missing = [name for name in ("buildah", "unshare", "nsenter") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        print("systemd-check: needs root, buildah and util-linux", file=sys.stderr)
        return 2
    places = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
    top = next((each for each in places if (each / "cgroup.controllers").exists()), None)
    if top is None:
        print("systemd-check: there is no cgroup2 here", file=sys.stderr)
        return 2
    cgroup = top / NAME
    container = call(["buildah", "from", "--pull-never", WORKER]).strip()
    cgroup.mkdir(exist_ok=True)
    try:
        prepare = f"apt-get update && apt-get install -y --no-install-recommends {PACKAGES}"
        prepare += " && useradd --uid 4321 --create-home homer"
        prepare += " && install -d -o homer /srv/media/Shows /srv/media/Camera"
        inside = ["buildah", "run", "--isolation", "chroot", "--network", "host", "--user", "0"]
        call([*inside, container, "--", "sh", "-c", prepare])
        machine = Machine(call(["buildah", "mount", container]).strip(), cgroup)
        try:
            check_unit(machine)
        finally:
            machine.end()
    finally:
        call(["buildah", "rm", container])
        for each in sorted(cgroup.rglob("*/"), reverse=True):
            each.rmdir()
        cgroup.rmdir()
    print("systemd-check: everything holds")
    return 0


def check_unit(machine: Machine) -> None:
    """Install the unit, and look at all that systemd does with it."""
    booted = ("running", "degraded")
    machine.wait(
        lambda: machine.run("systemctl", "is-system-running", check=False) in booted,
        "systemd boots",
    )
    print("      ", machine.run("systemctl", "--version").partition("\n")[0])
    show = "/srv/media/Shows/a.mp4"
    machine.homer(CLIP % ("320x180", 2, show, show, show))
    before = machine.run("sha256sum", show)
    machine.homer("hevcq libraries add /srv/media/Shows --place replace")
    install(machine)
    machine.run("systemctl", "enable", "--now", "hevcq", check=False)
    active = machine.show("ActiveState") == "active"
    require(active, f"it starts, and says that it is ready{'' if active else machine.journal()}")
    machine.wait(lambda: machine.run("sha256sum", show) != before, "a video is replaced")
    check_limits(machine)
    machine.homer("hevcq libraries add /srv/media/Camera")
    machine.run("systemctl", "reload", "hevcq")
    said = "Settings read again; libraries: Shows, Camera."
    machine.wait(lambda: said in machine.journal(), "a reload takes a library")
    require(
        "mounted read-only here" in machine.journal(), "and says that the unit is older than it"
    )
    install(machine)
    machine.run("systemctl", "restart", "hevcq")
    check_restarts(machine)
    clip = "/srv/media/Camera/long.mp4"
    machine.homer(CLIP % ("1280x720", 20, clip, clip, clip))
    machine.wait(lambda: "1 queued" in machine.show("StatusText"), "a new file is seen")
    began = time.monotonic()
    machine.run("systemctl", "stop", "hevcq")
    require(machine.show("ExecMainStatus") == "0", f"a stop takes {time.monotonic() - began:.0f} s")


def install(machine: Machine) -> None:
    """Write the unit; its watchdog and restart are made quick."""
    words = ["hevcq", "--config", SETTINGS, "--data-dir", DATA, "service", "install", "--system"]
    machine.run("env", "HOME=/root", "SUDO_USER=homer", *words, "--as", "homer")
    folder = "/etc/systemd/system/hevcq.service.d"
    quick = r"printf '[Service]\nWatchdogSec=9\nRestartSec=1\n'"
    machine.run("sh", "-c", f"mkdir -p {folder} && {quick} > {folder}/quick.conf")
    machine.run("systemctl", "daemon-reload")


def check_limits(machine: Machine) -> None:
    """Check what the running service may not do."""
    pid = machine.show("MainPID")
    status = machine.run("cat", f"/proc/{pid}/status")
    held = [
        line
        for line in status.splitlines()
        if line.startswith(("CapBnd", "NoNewPrivs", "Seccomp:"))
    ]
    expected = ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    require(held == expected, "it has no capabilities, and its filter is on")
    tries = "for f in /etc /home/homer /srv/media/Camera /srv/media/Shows; do touch $f/x && echo $f; done"
    enter = ("nsenter", "--target", pid, "--mount", "setpriv", "--reuid=4321", "--clear-groups")
    wrote = machine.run(*enter, "--regid=4321", "sh", "-c", tries, check=False)
    require(wrote == "/srv/media/Shows", "it can write the library, and no other folder")


def check_restarts(machine: Machine) -> None:
    """Check that a hanging and a killed service are started anew."""
    for signal, what in (("STOP", "the watchdog replaces one that hangs"), ("KILL", "kill -9 too")):
        before = machine.show("MainPID")
        machine.run("kill", "-s", signal, before)
        machine.wait(
            lambda old=before: (  # type: ignore[misc]
                machine.show("MainPID") not in {old, "0"}
                and machine.show("ActiveState") == "active"
            ),
            what,
        )


if __name__ == "__main__":
    sys.exit(main())
