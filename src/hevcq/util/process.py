"""Close this process to others of the same user: they could read its keys in /proc.

Also what the sandbox of child processes needs of the kernel: `prctl` and raw system calls.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import MutableMapping
from functools import lru_cache

SET_DUMPABLE, GET_DUMPABLE = 4, 3
SET_SECCOMP = 22
NO_NEW_PRIVILEGES = 38
DROP_CAPABILITY = 24
CAPABILITIES = range(41)
"""Numbers of prctl's options (man 2 prctl)."""
_SECRET = re.compile(
    r"^AWS_|SECRET|TOKEN|PASSW|CREDENTIAL|_KEY|^HEVCQ_(NOTIFY|WEBHOOK|MEDIA_SERVER)", re.IGNORECASE
)


@lru_cache(maxsize=1)
def libc() -> ctypes.CDLL:
    """Return the C library of this process."""
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    library.getenv.restype = ctypes.c_void_p
    return library


def prctl(option: int, *arguments: object, check: bool = True) -> int:
    """Call prctl, filled up with zeros; raise OSError if it fails, unless `check` is false."""
    words = [
        ctypes.c_ulong(word) if isinstance(word, int) else word
        for word in (*arguments, 0, 0, 0, 0)[:4]
    ]
    done = int(libc().prctl(ctypes.c_int(option), *words))
    if done < 0 and check:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return done


def drop_capabilities(needed: frozenset[int]) -> None:
    """Let programs that this thread starts have no capability of root's but the needed ones.

    Does nothing for other users: they have none. Raises nothing where root itself may not.
    """
    if os.geteuid() == 0:
        for capability in CAPABILITIES:
            if capability not in needed:
                prctl(DROP_CAPABILITY, capability, check=False)


def close_to_others(variables: MutableMapping[str, str]) -> None:
    """Keep other processes of this user from reading this one's memory and environment.

    Clears the kernel's "dumpable" flag: /proc/<pid>/environ, mem, fd, root and cwd are then root's,
    ptrace is refused, and a crash leaves no core dump with keys in it. Root may still look; so the
    values of `variables`, the environment, that may be secret are overwritten where /proc shows them. This
    process itself still sees them. Does nothing where the system is not Linux.
    """
    try:
        prctl(SET_DUMPABLE, 0)
    except (OSError, AttributeError):
        return
    for name, value in list(variables.items()):
        shown = libc().getenv(os.fsencode(name)) if _SECRET.search(name) and value else None
        if shown:
            variables[name] = value  # moves it to fresh memory
            if libc().getenv(os.fsencode(name)) != shown:
                ctypes.memset(shown, 0, len(os.fsencode(value)))


def is_closed() -> bool:
    """Whether other processes of this user may not look into this one."""
    try:
        return prctl(GET_DUMPABLE, check=False) != 1
    except AttributeError:
        return False
