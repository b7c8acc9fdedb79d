"""Recognise files that are still being written: by their names, and by who has them open."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import psutil

_ENDINGS = (
    "!qb !ut aria2 bc! crdownload download fdmdownload filepart opdownload part partial td tmp"
    " unfinished ytdl"
)
UNFINISHED_SUFFIXES = frozenset(_ENDINGS.split())
"""What browsers, torrent and file-transfer programs append to a file until it is complete."""
_INNER = frozenset({"temp", "tmp"})
"""The same before the suffix, as yt-dlp writes it: `name.temp.mp4`."""
_COMPANIONS = (".aria2", ".part", ".st", ".!qB")
"""Names beside a file that its program removes once it is complete."""


def unfinished_by_name(name: str, beside: Collection[str]) -> bool:
    """Return whether a name says that its file is being written; `beside` are the folder's names."""
    parts = name.lower().split(".")
    if len(parts) > 1 and parts[-1] in UNFINISHED_SUFFIXES:
        return True
    if len(parts) > 2 and parts[-2] in _INNER:
        return True
    return any(f"{name}{ending}" in beside for ending in _COMPANIONS)


def open_for_writing(paths: Collection[Path]) -> frozenset[Path]:
    """Return which of these files a process of this machine has open for writing.

    Only what this user may see is reported: a writer of another user, another container or another
    machine is not found, for which there is the time that a file must stay unchanged.
    """
    wanted = {os.path.realpath(path): path for path in paths}
    found = set[Path]()
    if not wanted:
        return frozenset()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            for each in process.open_files():
                mode = getattr(each, "mode", "r")  # known on Linux alone
                if each.path in wanted and ("w" in mode or "a" in mode or "+" in mode):
                    found.add(wanted[each.path])
    return frozenset(found)
