"""Decide what a child may read, write and connect to, and confine the thread that starts it.

ffmpeg parses whatever strangers put into a video. A flaw in one of its decoders must not give away
the worker's keys, other people's videos, or the network. Limits are inherited, and cannot be set in
a child between fork and exec without unsafe code in a threaded process; so a thread of its own gives
up the rights and starts the child (about 0.3 ms).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hevcq.ffmpeg.process import landlock, seccomp
from hevcq.util.process import drop_capabilities

PROGRAMS = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store",
    "/gnu/store", "/home/linuxbrew/.linuxbrew", "/etc/alternatives",
)  # fmt: skip
"""Folders of programs, libraries and fonts, of which a child may read and start everything."""
DATA = (
    "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/fonts", "/etc/localtime", "/dev/zero",
    "/dev/random", "/dev/urandom", "/sys/devices/system",
)  # fmt: skip
"""What the C library and the encoders ask of the system."""
PROCESSES = "/proc"
"""libnuma, and so x265, needs /proc/self/status, and a rule cannot name the process that is yet to
be. Landlock itself keeps closed what is secret of other processes: environment, memory, files."""
NEEDED = frozenset({1, 2})
"""Capabilities that a child of root keeps, CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: to read videos
and write to scratch folders of other users."""
NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/pki", "/run")
"""What a child needs besides to fetch a URL from another machine."""


OF_DEVICES = ("/sys", "/etc/OpenCL", "/etc/vulkan", "/etc/nvidia")
"""What the drivers of graphics hardware read."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a child may use besides programs and libraries: by default nothing.

    `reads` are files (or folders) that exist; `writes` are existing files it may overwrite; it can
    create none. `relay` is the address of the local proxy with its secret,
    `http://user:secret@127.0.0.1:port`: the child gets it by its environment, which unlike its
    arguments only its own user can read, and may connect to that port. `network` leaves it all
    sockets, for a URL of another machine. `devices` are device files (or folders of them) it may
    control, for a hardware encoder, with what the system says of devices. `confined` False means no sandbox at all.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    relay: str = ""
    network: bool = False
    devices: tuple[str, ...] = ()
    confined: bool = True

    def environment(self) -> dict[str, str]:
        """Return the variables to add to the child's environment."""
        return {"http_proxy": self.relay} if self.relay else {}


NOTHING = Access()


def confine_thread(access: Access, program: str) -> None:
    """Take from the calling thread, for good, what a child with this access does not need.

    What the kernel does not know is left out. Raises OSError if it refuses what it knows.
    """
    if not access.confined:
        return
    drop_capabilities(NEEDED)
    if landlock.version():
        ports = [port] if access.relay and (port := urlsplit(access.relay).port) else []
        landlock.restrict_thread(_rights(access, program), ports=ports, any_port=access.network)
    if seccomp.available():
        seccomp.restrict_thread(ipv4=bool(access.relay), any_socket=access.network)


def _rights(access: Access, program: str) -> list[tuple[str, int]]:
    run, read = landlock.READ, landlock.READ & ~landlock.EXECUTE
    rights = [(path, run) for path in (*PROGRAMS, program, *_libraries(program))]
    rights += [(path, read) for path in (*DATA, *access.reads)]
    if access.network:
        rights += [(path, read) for path in NAMES]
    rights += [(PROCESSES, landlock.READ_FILE)]
    if access.devices:
        rights += [(path, landlock.WRITE | landlock.IOCTL_DEVICE) for path in access.devices]
        rights += [(path, read) for path in (*access.devices, *OF_DEVICES)]
    rights += [(path, landlock.WRITE) for path in ("/dev/null", *access.writes)]
    return rights


def _libraries(program: str) -> list[str]:
    """Return the folders where a program outside the system's folders has its libraries."""
    home = Path(os.path.realpath(program)).parent
    beside = home.parent if home.name == "bin" else home
    return [str(beside / name) for name in ("lib", "lib64", "libexec")]


def protections() -> tuple[list[str], list[str]]:
    """Return what this system keeps ffmpeg from, and what it cannot keep it from, with the reason."""
    landlocked, filtered = landlock.version(), seccomp.available()
    kept, open_ = [], []
    for what, held, needs in (
        ("other files", landlocked > 0, "Landlock (Linux 5.13)"),
        ("the network", filtered or landlocked >= landlock.SINCE_NETWORK, "seccomp or Linux 6.7"),
        ("memory and keys of other processes", filtered or landlocked > 0, "seccomp or Landlock"),
        ("signals to other processes", landlocked >= landlock.SINCE_SCOPES, "Linux 6.12"),
    ):
        if held:
            kept.append(what)
        else:
            open_.append(f"{what} (needs {needs})")
    return kept, open_
