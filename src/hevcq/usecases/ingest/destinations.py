"""Where a rendition goes: beside its source, in a mirrored tree, or in the source's own place."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.keys import MASTER, SET_EXTENSION
from hevcq.library.names import MAX_NAME_BYTES, SET_SUFFIX
from hevcq.ports.catalog import Mode
from hevcq.settings.libraries import KEEP_DAYS

ROOM_FOR_COMPANIONS = 40
"""Bytes of a name left for the suffixes of the certificate and temporary files beside it."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where renditions go. `output` is the folder of mode MIRROR; `keep_days` is for REPLACE."""

    mode: Mode
    output: Path | None = None
    keep_days: float = KEEP_DAYS

    def has(self, mode: Mode, target: Path) -> bool:
        """Return whether a rendition placed in `mode` at `target` is where this ingest wants it."""
        below = self.output is None or self.output in target.parents
        return mode is self.mode and below

    def target(
        self, source: Path, root: Path, profile: str, extension: str, *, whole_name: bool = False
    ) -> Path:
        """Return the path of one rendition; of a set, that of its master playlist in its own folder.

        Beside and mirrored it is `<stem>.<profile>.<extension>`; `whole_name` keeps the source's
        suffix in it (`a.avi.hevc.mkv`), for when `a.avi` and `a.mkv` would meet. A replaced
        source keeps its name, with the suffix of the new container.
        """
        if self.mode is Mode.REPLACE:
            return source.with_name(_name(_stem(source), f".{_suffix(source, extension)}"))
        kept = source.name if whole_name else _stem(source)
        folder = source.parent
        if self.mode is Mode.MIRROR and self.output is not None:
            folder = self.output / source.parent.relative_to(root)
        if extension == SET_EXTENSION:
            ending = SET_SUFFIX if f".{profile}" == SET_SUFFIX else f".{profile}{SET_SUFFIX}"
            return folder / _name(kept, ending) / MASTER
        return folder / _name(kept, f".{profile}.{extension}")


def _stem(source: Path) -> str:
    return source.stem or source.name


def _suffix(source: Path, extension: str) -> str:
    """Return the source's own suffix if it means the same container, else `extension`."""
    own = source.suffix.removeprefix(".")
    same = {"m4v": "mp4", "qt": "mov"}.get(own.lower(), own.lower())
    return own if same == extension else extension


def _name(stem: str, ending: str) -> str:
    """Return stem and ending; a stem too long for the file system keeps its head and a digest."""
    room = MAX_NAME_BYTES - ROOM_FOR_COMPANIONS - len(os.fsencode(ending))
    raw = os.fsencode(stem)
    if len(raw) <= room:
        return stem + ending
    digest = hashlib.sha256(raw).hexdigest()[:12]
    head = raw[: room - len(digest) - 1].decode("utf-8", "ignore")
    return f"{head}~{digest}{ending}"
