"""Forbid the calling thread, and the programs it starts, the system calls ffmpeg never needs.

A filter of the kernel answers them with "permission denied": sockets, looking into other processes,
owners, modes and times of files (Landlock has no rule for them), namespaces and mounts, and io_uring,
which would do any of it past the filter. A list of what is
forbidden, not of what is allowed: a new libc or decoder must not break.
See https://docs.kernel.org/userspace-api/seccomp_filter.html.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys
from dataclasses import dataclass
from functools import lru_cache

from hevcq.util.process import NO_NEW_PRIVILEGES, SET_SECCOMP, prctl

FILTER_MODE = 2
LOAD, AND, JUMP_EQUAL, JUMP_FROM, JUMP_SET, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
"""Instructions of the filter language: 32-bit load, and, jump if equal, at least or set, return."""
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24
"""Offsets in bytes in what the filter sees of a call; of an argument its lower half."""
ALLOW = 0x7FFF_0000
DENY = 0x0005_0000 | errno.EACCES
UNKNOWN_CALL = 0x0005_0000 | errno.ENOSYS
FOREIGN = 0x4000_0000
"""Numbers from here on are of x32, a second set of calls on x86-64."""
IPV4, STREAM, KIND_OF_SOCKET = 2, 1, 0xF
NAMESPACES = 0x7E02_0000
"""The flags of clone that make a namespace."""
NEW_CALLS = (*range(425, 434), 438, 440, 442, 443, 448, 452, 463, 466)
"""The same numbers everywhere: io_uring, mounts, pidfd_getfd, process_madvise, quotactl_fd,
process_mrelease, fchmodat2, setxattrat, removexattrat."""


@dataclass(frozen=True, slots=True)
class Processor:
    """The numbers of the system calls on one kind of processor.

    `denied` is ptrace, process_vm_readv and _writev, kcmp, perf_event_open, bpf, userfaultfd, the
    keyring's three, mount, umount2, pivot_root, chroot, unshare, setns, open_by_handle_at; then
    what changes modes, owners, times and attributes of files.
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
def available() -> bool:
    """Whether this kernel and processor can filter system calls."""
    if platform.machine() not in PROCESSORS or sys.maxsize < 2**32:
        return False
    # Without a filter to read, a kernel that has filters answers EFAULT, another EINVAL.
    prctl(SET_SECCOMP, FILTER_MODE, check=False)
    return ctypes.get_errno() == errno.EFAULT


def restrict_thread(*, ipv4: bool = False, any_socket: bool = False) -> None:
    """Forbid the calling thread those calls for good; `ipv4` leaves it TCP sockets over IPv4.

    Raises OSError if the kernel refuses.
    """
    program = build_filter(PROCESSORS[platform.machine()], ipv4=ipv4, any_socket=any_socket)
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    prctl(NO_NEW_PRIVILEGES, 1)
    prctl(SET_SECCOMP, FILTER_MODE, ctypes.c_char_p(head))


@lru_cache(maxsize=4)
def build_filter(processor: Processor, *, ipv4: bool, any_socket: bool) -> bytes:
    """Return the filter's instructions, 8 bytes each."""
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
    if not any_socket:
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
