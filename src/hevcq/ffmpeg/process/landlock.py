"""Restrict the calling thread, and the programs it starts, with Landlock (Linux 5.13).

The kernel's own way to give up rights without being root: from then on the thread, and every process
it starts, may use only the files, folders and ports that were named. See
https://docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterable
from functools import lru_cache

from hevcq.util.process import NO_NEW_PRIVILEGES, libc, prctl

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same on every processor but Alpha."""
VERSION_FLAG = 1
PATH_BENEATH, NET_PORT = 1, 2
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEVICE = 1 << 14, 1 << 15
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
"""Rights that a rule for a file may grant; the others are of folders."""
FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Number of known rights on files for each version; 16 since version 5."""
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
SINCE_NETWORK, SINCE_SCOPES = 4, 6
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = READ_FILE | WRITE_FILE | TRUNCATE


@lru_cache(maxsize=1)
def version() -> int:
    """Return the version of the kernel's Landlock; 0 if it has none, or forbids it here."""
    return max(0, int(libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG)))


def restrict_thread(
    rights: Iterable[tuple[str, int]], *, ports: Iterable[int] = (), any_port: bool = False
) -> None:
    """Allow the calling thread these files and folders, each with its rights, and nothing else.

    A path that does not exist is left out. `ports` are the TCP ports it may connect to, where the
    kernel can tell them apart; `any_port` leaves the network alone. There is no way back. Raises
    OSError if the kernel refuses.
    """
    known = version()
    handled = (1 << FS_RIGHTS.get(known, 16)) - 1
    network = BIND_TCP | CONNECT_TCP if known >= SINCE_NETWORK and not any_port else 0
    scopes = ABSTRACT_SOCKETS | SIGNALS if known >= SINCE_SCOPES else 0
    size = 8 if known < SINCE_NETWORK else 16 if known < SINCE_SCOPES else 24
    wanted = (ctypes.c_uint64 * 3)(handled, network, scopes)
    ruleset = _checked(CREATE_RULESET, wanted, ctypes.c_size_t(size), 0)
    try:
        for path, allowed in rights:
            _allow_path(ruleset, path, allowed & handled)
        for port in ports if network else ():
            rule = (ctypes.c_uint64 * 2)(CONNECT_TCP, port)
            _checked(ADD_RULE, ruleset, NET_PORT, rule, 0)
        prctl(NO_NEW_PRIVILEGES, 1)
        _checked(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


def _allow_path(ruleset: int, path: str, allowed: int) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                allowed &= ON_FILES
            rule = _PathRule(allowed, descriptor)
            _checked(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            os.close(descriptor)


def _checked(number: int, *arguments: object) -> int:
    done = int(libc().syscall(number, *arguments))
    if done < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, f"Landlock: {os.strerror(failed)} ({errno.errorcode.get(failed)})")
    return done
