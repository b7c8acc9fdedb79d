"""Confine ffmpeg: decide what a child may read, write and connect to, and limit the thread that starts it.

ffmpeg parses whatever strangers put into a video. A flaw in one of its decoders must not expose the worker's keys,
other people's videos, or the network. A child inherits the limits of the thread that starts it, and setting them
between fork and exec is unsafe in a threaded process. So a thread of its own gives up rights and starts the child
(about 0.3 ms). Landlock allows files, folders and ports (https://docs.kernel.org/userspace-api/landlock.html),
seccomp forbids system calls (https://docs.kernel.org/userspace-api/seccomp_filter.html); neither needs root.
"""

import contextlib
import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from hevcq.util.processes import NO_NEW_PRIVILEGES, SET_SECCOMP, drop_capabilities, libc, prctl

PROGRAMS = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store",
    "/gnu/store", "/home/linuxbrew/.linuxbrew", "/etc/alternatives",
)  # fmt: skip
"""Folders of programs, libraries and fonts; a child may read and start everything in them."""
DATA = (
    "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/fonts", "/etc/localtime", "/dev/zero",
    "/dev/random", "/dev/urandom", "/sys/devices/system",
)  # fmt: skip
"""What the C library and the encoders read of the system."""
PROCESSES = "/proc"
"""libnuma, and so x265, needs /proc/self/status, and a rule cannot name a process that does not exist yet. Landlock
itself protects the secrets of other processes: environment, memory, files."""
NEEDED = frozenset({1, 2})
"""Capabilities that a child of root keeps, CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: to read other users' videos,
and to write to their scratch folders."""
OF_DEVICES = ("/sys", "/etc/OpenCL", "/etc/vulkan", "/etc/nvidia")
"""What the drivers of graphics hardware read."""
DRIVERS = ("LIBVA_DRIVER_NAME", "LIBVA_DRIVERS_PATH")
"""Environment variables that choose the driver of VAAPI."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a child may use besides programs and libraries: by default nothing.

    `reads` are existing files or folders. `writes` are existing files that it may overwrite; it can create none.
    `relay` is the address of the local proxy with its secret, `http://user:secret@127.0.0.1:port`; the child may
    connect to that port, and gets the address in its environment, which only its own user can read, unlike its
    arguments. `devices` are device files, or folders of them, that a hardware encoder may control; the system's
    information about devices comes with them. `drivers` are variables of DRIVERS. `confined` False means no
    sandbox at all.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    relay: str = ""
    devices: tuple[str, ...] = ()
    drivers: tuple[tuple[str, str], ...] = ()
    confined: bool = True

    def environment(self) -> dict[str, str]:
        proxy = {"http_proxy": self.relay} if self.relay else {}
        return proxy | dict(self.drivers)


NOTHING = Access()


def confine_thread(access: Access, program: str) -> None:
    """Take from the calling thread, for good, every right that a child with this access does not need.

    Protections that the kernel lacks are left out. Raises OSError if the kernel refuses one that it has.
    """
    if not access.confined:
        return
    drop_capabilities(NEEDED)
    if landlock_version():
        ports = [port] if access.relay and (port := urlsplit(access.relay).port) else []
        allow_only(_rights(access, program), ports=ports)
    if seccomp_available():
        deny_calls(ipv4=bool(access.relay))


def _rights(access: Access, program: str) -> list[tuple[str, int]]:
    run, read = READ, READ & ~EXECUTE
    rights = [(path, run) for path in (*PROGRAMS, program, *_libraries(program))]
    rights += [(path, read) for path in (*DATA, *access.reads)]
    rights += [(PROCESSES, READ_FILE)]
    if access.devices:
        rights += [(path, WRITE | IOCTL_DEVICE) for path in access.devices]
        rights += [(path, read) for path in (*access.devices, *OF_DEVICES)]
        folders = dict(access.drivers).get("LIBVA_DRIVERS_PATH", "").split(":")
        rights += [(path, run) for path in folders if path]
    rights += [(path, WRITE) for path in ("/dev/null", *access.writes)]
    return rights


def _libraries(program: str) -> list[str]:
    """Return the folders where a program outside the system's folders has its libraries."""
    home = Path(os.path.realpath(program)).parent
    beside = home.parent if home.name == "bin" else home
    return [str(beside / name) for name in ("lib", "lib64", "libexec")]


def protections() -> tuple[list[str], list[str]]:
    """Return what this system protects from ffmpeg, and what it cannot protect, with what it would need."""
    landlocked, filtered = landlock_version(), seccomp_available()
    kept, open_ = [], []
    for what, held, needs in (
        ("other files", landlocked > 0, "Landlock (Linux 5.13)"),
        ("the network", filtered or landlocked >= SINCE_NETWORK, "seccomp or Linux 6.7"),
        ("memory and keys of other processes", filtered or landlocked > 0, "seccomp or Landlock"),
        ("signals to other processes", landlocked >= SINCE_SCOPES, "Linux 6.12"),
    ):
        if held:
            kept.append(what)
        else:
            open_.append(f"{what} (needs {needs})")
    return kept, open_


CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same on every processor except Alpha."""
VERSION_FLAG = 1
PATH_BENEATH, NET_PORT = 1, 2
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEVICE = 1 << 14, 1 << 15
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
"""Rights that a rule for a file may grant; the others are for folders."""
FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Number of rights on files in each version; 16 since version 5."""
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
SINCE_NETWORK, SINCE_SCOPES = 4, 6
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = READ_FILE | WRITE_FILE | TRUNCATE


@lru_cache(maxsize=1)
def landlock_version() -> int:
    """Return the version of the kernel's Landlock; 0 if it has none, or forbids it here."""
    return max(0, int(libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG)))


def allow_only(rights: Iterable[tuple[str, int]], *, ports: Iterable[int] = ()) -> None:
    """Allow the calling thread these files and folders, each with its rights, and nothing else.

    Missing paths are left out. `ports` are the TCP ports that it may connect to, if the kernel can filter ports.
    There is no way back. Raises OSError if the kernel refuses.
    """
    version = landlock_version()
    handled = (1 << FS_RIGHTS.get(version, 16)) - 1
    network = BIND_TCP | CONNECT_TCP if version >= SINCE_NETWORK else 0
    scopes = ABSTRACT_SOCKETS | SIGNALS if version >= SINCE_SCOPES else 0
    size = 8 if version < SINCE_NETWORK else 16 if version < SINCE_SCOPES else 24
    attributes = (ctypes.c_uint64 * 3)(handled, network, scopes)
    ruleset = _landlock_call(CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    try:
        for path, allowed in rights:
            _allow_path(ruleset, path, allowed & handled)
        for port in ports if network else ():
            rule = (ctypes.c_uint64 * 2)(CONNECT_TCP, port)
            _landlock_call(ADD_RULE, ruleset, NET_PORT, rule, 0)
        prctl(NO_NEW_PRIVILEGES, 1)
        _landlock_call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_path(ruleset: int, path: str, allowed: int) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                allowed &= ON_FILES
            rule = ctypes.c_char_p(struct.pack("=Qi", allowed, descriptor))
            _landlock_call(ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
        finally:
            os.close(descriptor)


def _landlock_call(number: int, *arguments: object) -> int:
    done = int(libc().syscall(number, *arguments))
    if done < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, f"Landlock: {os.strerror(failed)} ({errno.errorcode.get(failed)})")
    return done


FILTER_MODE = 2
LOAD, AND, JUMP_EQUAL, JUMP_FROM, JUMP_SET, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
"""Instructions of the filter language: 32-bit load, and, jump if equal, at least or set, return."""
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24
"""Offsets in bytes in the filter's view of a call: its number, the architecture, the lower half of two arguments."""
ALLOW = 0x7FFF_0000
DENY = 0x0005_0000 | errno.EACCES
UNKNOWN_CALL = 0x0005_0000 | errno.ENOSYS
FOREIGN = 0x4000_0000
"""Numbers from this on belong to x32, a second set of calls on x86-64."""
IPV4, STREAM, KIND_OF_SOCKET = 2, 1, 0xF
NAMESPACES = 0x7E02_0000
"""The flags of clone that create a namespace."""
NEW_CALLS = (*range(425, 434), 438, 440, 442, 443, 448, 452, 463, 466)
"""Denied calls with the same number on all processors: io_uring, mounts, pidfd_getfd, process_madvise, quotactl_fd,
process_mrelease, fchmodat2, setxattrat, removexattrat."""


@dataclass(frozen=True, slots=True)
class Processor:
    """The numbers of the system calls on one kind of processor.

    `denied` is ptrace, process_vm_readv and _writev, kcmp, perf_event_open, bpf, userfaultfd, the three of the
    keyring, mount, umount2, pivot_root, chroot, unshare, setns, open_by_handle_at; then the calls that change
    modes, owners, times and attributes of files.
    """

    architecture: int
    socket: int
    clone: int
    denied: tuple[int, ...]


PROCESSORS = {
    "x86_64": Processor(
        0xC000_003E, 41, 56,
        (101, 310, 311, 312, 298, 321, 323, 248, 249, 250, 165, 166, 155, 161, 272, 308, 304,
         90, 91, 268, 92, 93, 94, 260, 132, 235, 261, 280, 188, 189, 190, 197, 198, 199),
    ),
    "aarch64": Processor(
        0xC000_00B7, 198, 220,
        (117, 270, 271, 272, 241, 280, 282, 217, 218, 219, 40, 39, 41, 51, 97, 268, 265,
         52, 53, 54, 55, 88, 5, 6, 7, 14, 15, 16),
    ),
}  # fmt: skip
CLONE3 = 435


@lru_cache(maxsize=1)
def seccomp_available() -> bool:
    """Whether this kernel and processor can filter system calls."""
    if platform.machine() not in PROCESSORS or sys.maxsize < 2**32:
        return False
    # Given no filter, a kernel with seccomp answers EFAULT, another one EINVAL.
    prctl(SET_SECCOMP, FILTER_MODE, check=False)
    return ctypes.get_errno() == errno.EFAULT


def deny_calls(*, ipv4: bool = False) -> None:
    """Forbid the calling thread, for good, the system calls that ffmpeg never needs.

    They fail with "permission denied": sockets, access to other processes, owners, modes and times of files
    (Landlock has no rule for them), namespaces and mounts, and io_uring, which would bypass the filter. The list
    names forbidden calls, not allowed ones, so that a new libc or decoder does not break. `ipv4` still allows TCP
    sockets over IPv4. Raises OSError if the kernel refuses.
    """
    program = build_filter(PROCESSORS[platform.machine()], ipv4=ipv4)
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    prctl(NO_NEW_PRIVILEGES, 1)
    prctl(SET_SECCOMP, FILTER_MODE, ctypes.c_char_p(head))


@lru_cache(maxsize=4)
def build_filter(processor: Processor, *, ipv4: bool) -> bytes:
    code = [(LOAD, 0, 0, ARCHITECTURE), (JUMP_EQUAL, 1, 0, processor.architecture), _end(DENY)]
    code += [(LOAD, 0, 0, NUMBER)]
    if processor is PROCESSORS["x86_64"]:
        code += [(JUMP_FROM, 0, 1, FOREIGN), _end(DENY)]
    # clone3 hides its flags from a filter; without it libc falls back to clone.
    code += [(JUMP_EQUAL, 0, 1, CLONE3), _end(UNKNOWN_CALL)]
    for number in (*processor.denied, *NEW_CALLS):
        code += [(JUMP_EQUAL, 0, 1, number), _end(DENY)]
    spaces = [(LOAD, 0, 0, FIRST), (JUMP_SET, 0, 1, NAMESPACES), _end(DENY), _end(ALLOW)]
    code += [(JUMP_EQUAL, 0, len(spaces), processor.clone), *spaces]
    stream = [
        (LOAD, 0, 0, FIRST), (JUMP_EQUAL, 1, 0, IPV4), _end(DENY),
        (LOAD, 0, 0, SECOND), (AND, 0, 0, KIND_OF_SOCKET),
        (JUMP_EQUAL, 1, 0, STREAM), _end(DENY), _end(ALLOW),
    ]  # fmt: skip
    sockets = stream if ipv4 else [_end(DENY)]
    code += [(JUMP_EQUAL, 0, len(sockets), processor.socket), *sockets]
    return b"".join(struct.pack("HBBI", *line) for line in [*code, _end(ALLOW)])


def _end(answer: int) -> tuple[int, int, int, int]:
    return (RETURN, 0, 0, answer)
