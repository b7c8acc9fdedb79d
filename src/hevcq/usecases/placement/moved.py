"""Recognise videos and renditions that were renamed or moved, by content instead of path.

A library may be moved (`mv videos videos2`), mounted elsewhere (a container's `/media`), copied to
another disk, or renamed file by file by another program. What was done for a video then still holds.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.errors import HevcqError
from hevcq.library.filesystem import FileSystem, fingerprint_of, is_fine_time, same_bytes
from hevcq.library.names import kept_folder, shown_path
from hevcq.ports.catalog import (
    UNPLACED,
    Catalog,
    Fingerprint,
    Mode,
    Placement,
    PlacementState,
)
from hevcq.usecases.context import LibraryPorts
from hevcq.usecases.placement.lock import placement_lock

FOLLOWED = UNPLACED | {PlacementState.PLACED, PlacementState.UNDONE}
"""States of placements that follow a moved video. A replaced or expired one has no source any more."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A placement recorded for a video at another path. `exact`: the same file, not only a copy."""

    placement: Placement
    exact: bool


def moved_placement(
    catalog: Catalog, path: Path, fingerprint: Fingerprint, profile: str
) -> Moved | None:
    """Return the placement of the video that is now at `path`, if it was recorded for another path.

    Size, modification time and inode make it the same file; size and modification time to the
    nanosecond make it a copy. A time of whole seconds proves nothing alone: segments of a recorder
    have equal sizes, and copies of them equal times. A video still at its old path was not moved: the
    file here is a second name or a second copy.
    """
    left = [
        each for each in _moved(catalog, path, fingerprint) if each.placement.profile == profile
    ]
    return max(left, key=lambda each: each.exact, default=None)


def recorded_at(catalog: Catalog, path: Path) -> Iterator[str]:
    """Yield the job ids of the videos at or below `path` that an ingest knows, and of the video that
    was moved to `path` since."""
    for placement in catalog.placements(under=path):
        yield placement.job_id
    with contextlib.suppress(OSError):
        for each in _moved(catalog, path, fingerprint_of(os.lstat(path))):
            yield each.placement.job_id


def _moved(catalog: Catalog, path: Path, fingerprint: Fingerprint) -> list[Moved]:
    fine = is_fine_time(fingerprint.mtime_ns)
    return [
        Moved(each, exact)
        for each in catalog.alike(fingerprint)
        if each.state in FOLLOWED and each.source != path and not _there(each)
        if (exact := same_bytes(each.fingerprint, fingerprint)) or fine
    ]


def _there(placement: Placement) -> bool:
    try:
        now = fingerprint_of(os.lstat(placement.source))
    except OSError:
        return False
    known = placement.fingerprint
    return (now.size, now.mtime_ns) == (known.size, known.mtime_ns)


class RenditionFinder:
    """Finds a placed rendition that is no longer at its target, among the renditions of a scan.

    `seen` are their paths by size in bytes.
    """

    def __init__(self, seen: Mapping[int, Iterable[Path]], stop: threading.Event) -> None:
        self._seen = seen
        self._fs = FileSystem(stop)

    def find(self, placement: Placement, size: int, source: Path) -> Path | None:
        """Return where the rendition of `size` bytes is, for a video that is now at `source`.

        It is looked for at its old path, beside the video under its old and its new name, and by its
        digest among the renditions of this scan. Raises Stopped.
        """
        old = shown_path(placement.target)
        renamed = old.name
        if old.name.startswith(placement.source.stem):
            renamed = source.stem + old.name[len(placement.source.stem) :]
        nearby = os.path.relpath(old.parent, placement.source.parent)
        folder = Path(os.path.normpath(source.parent / nearby))
        places = (folder / renamed, folder / old.name, old)
        if old != placement.target:
            return self._playlist(places, placement)
        for path in places:
            if self._size(path) == size:
                return path
        return self.by_content(size, placement.sha256) if placement.sha256 else None

    def _playlist(self, folders: Iterable[Path], placement: Placement) -> Path | None:
        """Return the master playlist of a set that was moved: `size` is that of all its files."""
        name = placement.target.name
        seen = (path for paths in self._seen.values() for path in paths if path.name == name)
        found = (*(folder / name for folder in folders), *seen)
        return next((path for path in found if self._holds(path, placement.sha256)), None)

    def by_content(self, size: int, sha256: str) -> Path | None:
        """Return where this scan saw a rendition of `size` bytes with this digest. Raises Stopped."""
        found = (path for path in self._seen.get(size, ()) if self._holds(path, sha256))
        return next(found, None)

    def _size(self, path: Path) -> int | None:
        try:
            facts = self._fs.lstat(path)
        except OSError:
            return None
        return None if facts is None else facts.st_size

    def _holds(self, path: Path, sha256: str) -> bool:
        try:
            return self._fs.digest(path) == sha256
        except OSError:
            return False


def at_its_new_path(
    placement: Placement, source: Path, root: Path, fingerprint: Fingerprint
) -> Placement:
    """Return the placement of a video that is at `source` now, below the library root `root`."""
    if placement.mode is Mode.MIRROR:
        # The output folder's records are found by the depth of the source below its root.
        depth = len(placement.source.parent.relative_to(placement.root).parts)
        root = (source.parent, *source.parents[1:])[min(depth, len(source.parents) - 1)]
    return replace(placement, root=root, source=source, fingerprint=fingerprint)


def follow_replaced(ports: LibraryPorts, folders: Iterable[Path]) -> None:
    """Record the present paths of replaced videos whose library was moved: its own records hold them."""
    for folder in folders:
        if not kept_folder(folder).is_dir():
            continue
        moved: list[Placement] = []
        try:
            for record in ports.open_swap(folder).kept():
                known = ports.catalog.placement(record.job_id)
                if known is None or known.source == record.source:
                    continue
                if known.state is PlacementState.REPLACED and not os.path.lexists(known.target):
                    moved.append(
                        replace(
                            known,
                            root=folder,
                            source=record.source,
                            target=record.target,
                            retained=record.retained,
                        )
                    )
        except (HevcqError, OSError):
            pass  # a damaged record is reported by the recovery
        if moved:
            with placement_lock(ports.data_dir):
                ports.catalog.record_placements(moved)
