"""Copy a file's metadata: times, mode, owner, extended attributes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

SKIPPED = ("security.", "trusted.")
"""Attribute namespaces of the kernel and its security modules: set by policy, never copied
 (https://man7.org/linux/man-pages/man7/xattr.7.html)."""


def copy_metadata(source: Path, target: Path) -> tuple[str, ...]:
    """Copy owner, mode, extended attributes and times from `source` to `target`.

    Return one sentence for each that could not be preserved, as the file system or the user's rights
    may not allow it. Raises OSError if `source` or `target` is gone.
    """
    facts = os.lstat(source)
    lost = [*_copy_owner(facts, target), *_copy_mode(facts, target)]
    lost.extend(_copy_attributes(source, target))
    # Times last: every change above touches them on some file systems.
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns), follow_symlinks=False)
    return tuple(lost)


def _copy_owner(facts: os.stat_result, target: Path) -> list[str]:
    now = os.lstat(target)
    if (now.st_uid, now.st_gid) == (facts.st_uid, facts.st_gid):
        return []
    try:
        os.chown(target, facts.st_uid, facts.st_gid, follow_symlinks=False)
    except PermissionError:
        return _copy_group(facts, target)
    except OSError as error:
        return [f"Owner not preserved: {error.strerror}."]
    return []


def _copy_group(facts: os.stat_result, target: Path) -> list[str]:
    try:
        os.chown(target, -1, facts.st_gid, follow_symlinks=False)
    except OSError:
        return ["Owner and group not preserved: only root can change them."]
    return ["Owner not preserved: only root can change it."]


def _copy_mode(facts: os.stat_result, target: Path) -> list[str]:
    try:
        # The set-id bits mean nothing on a video and must not travel to another owner's file.
        target.chmod(stat.S_IMODE(facts.st_mode) & 0o1777)
    except OSError as error:
        return [f"Mode not preserved: {error.strerror}."]
    return []


def _copy_attributes(source: Path, target: Path) -> list[str]:
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except (AttributeError, OSError):
        # Not supported by this system or file system: nothing to copy.
        return []
    lost: list[str] = []
    for name in names:
        if name.startswith(SKIPPED):
            continue
        try:
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENODATA:
                lost.append(f"Attribute {name!r} not preserved: {error.strerror}.")
    return lost
