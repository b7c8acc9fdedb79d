"""Follow videos whose library was moved or renamed.

What is done is found by content: the certificates in the library's `.hevcq` know it. A job that waits,
and its rendition that is not in place yet, follow the same file to its new path.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hevcq.errors import HevcqError
from hevcq.library.filesystem import is_fine_time, same_bytes
from hevcq.library.names import kept_folder
from hevcq.library.replacement.journal import Record
from hevcq.ports.catalog import UNPLACED, Fingerprint, Mode, Placement, PlacementState
from hevcq.sql.catalog import Catalog
from hevcq.usecases.context import LibraryPorts
from hevcq.usecases.placement.lock import placing


def moved_placement(
    catalog: Catalog, path: Path, fingerprint: Fingerprint, profile: str
) -> Placement | None:
    """Return the waiting placement of the file that is now at `path`, recorded for another path.

    Size, modification time and inode make it the same file; size and time to the nanosecond make it a
    copy. One still at its old path was not moved: the file here is a second name.
    """
    return next(
        (
            each
            for each in catalog.alike(fingerprint)
            if (each.profile, each.state in UNPLACED) == (profile, True)
            and each.source != path
            and (same_bytes(each.fingerprint, fingerprint) or is_fine_time(fingerprint.mtime_ns))
            and not os.path.lexists(each.source)
        ),
        None,
    )


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
    """Record the present paths of replaced videos whose library, folder or file was moved or renamed.

    A library whose records cannot be read or written is left to the caller, who meets it next.
    """
    for folder in folders:
        if not kept_folder(folder).is_dir():
            continue
        moved: list[Placement] = []
        swap = ports.open_swap(folder)
        with suppress(HevcqError, OSError):
            swap.follow()
        with suppress(HevcqError, OSError):
            moved = [each for record in swap.kept() if (each := _moved(ports, folder, record))]
        if moved:
            with placing(ports):
                ports.catalog.record_placements(moved)


def _moved(ports: LibraryPorts, folder: Path, record: Record) -> Placement | None:
    known = ports.catalog.placement(record.job_id)
    if known is None or known.state is not PlacementState.REPLACED:
        return None
    if known.target == record.target and known.source == record.source:
        return None
    if known.root != folder and os.path.lexists(known.target):
        return None  # the library was copied, and the other one is still there
    return replace(
        known,
        root=folder,
        source=record.source,
        target=record.target,
        retained=record.retained,
    )
