"""A swap and an undo lose power at every step: an intact original or a rendition is found again."""

import os
import shutil
from pathlib import Path

import pytest

from chaos.powercut.disk import Disk, Loss, write
from hevcq.errors import HevcqError
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import (
    CHANGING,
    SYNCS,
    MortalFileSystem,
    QuickFileSystem,
    Video,
    strays,
    video,
)

ELSEWHERE = {"other_device": ".hevcq/originals"}
LAYOUTS = {
    "same name": ("tv/video.mkv", None, {}),
    "same name, no exchange": ("tv/video.mkv", None, {"no_exchange": True}),
    "new suffix": ("tv/video.avi", "video.mkv", {}),
    "originals on another device": ("tv/video.mkv", None, ELSEWHERE),
    "originals on another device, no exchange": (
        *("tv/video.mkv", None, {**ELSEWHERE, "no_exchange": True}),
    ),
}
SEEDS = 24


class RecordedFileSystem(MortalFileSystem):
    """Tells the disk of every change and every fsync."""

    def __init__(self, disk: Disk, **options) -> None:
        super().__init__(**options)
        self._disk = disk

    def _call(self, name: str, call, args):
        if name not in CHANGING:
            return call(*args)
        self._disk.look()
        result = call(*args)
        if name in SYNCS:
            self._disk.synced(args[0])
        else:
            self._disk.look()
        return result


def recorded(tmp_path: Path, layout, *, undo: bool) -> tuple[Video, Disk]:
    root = tmp_path / "library"
    name, target, options = layout
    if "other_device" in options:
        options = {**options, "other_device": root / options["other_device"]}
    made = video(root, name, target)
    if undo:
        before = RecordedFileSystem(Disk(root), **options)
        Swap(root, ManualClock(), before).replace(made.change, made.fetch)
    disk = Disk(root)
    swap = Swap(root, ManualClock(), RecordedFileSystem(disk, **options))
    fsync = os.fsync

    def record_each(descriptor: int) -> None:
        # The notes of locks are written beside the seam.
        fsync(descriptor)
        disk.synced(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", record_each)
        if undo:
            swap.undo(made.change.certificate.job_id)
        else:
            swap.replace(made.change, made.fetch)
    disk.look()
    return made, disk


def found_again(made: Video, root: Path) -> str:
    """Start hevcq on what is left; return which good end was reached."""
    source = root / made.source.relative_to(made.root)
    target = root / made.target.relative_to(made.root)
    swap = Swap(root, ManualClock(), QuickFileSystem())
    assert [item for item in swap.recover() if item.outcome is RecoveryOutcome.STUCK] == []
    kept = list(swap.kept())
    if source.exists() and source.read_bytes() == made.original:
        assert kept == []
        return "original"
    assert target.read_bytes() == made.rendition
    assert [record.retained.read_bytes() for record in kept] == [made.original]
    assert swap.undo(kept[0].job_id).source == source
    assert source.read_bytes() == made.original
    return "rendition"


@pytest.mark.parametrize("undo", [False, True], ids=["swap", "undo"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_library_that_loses_power_anywhere_has_its_original_or_a_rendition(
    tmp_path, layout, undo, record_property
):
    made, disk = recorded(tmp_path, layout, undo=undo)
    ends: dict[str, int] = {}
    states = 0
    left, seen = tmp_path / "left", set()
    for count in range(len(disk.events) + 1):
        for loss in Loss:
            for seed in range(SEEDS if loss is Loss.SOME else 1):
                tree = disk.after_cut(count, loss, seed)
                if tree in seen:
                    continue
                seen.add(tree)
                write(tree, left)
                try:
                    end = found_again(made, left)
                except (AssertionError, OSError, HevcqError) as error:
                    pytest.fail(f"after event {count} of {len(disk.events)}, {loss}: {error!r}")
                ends[end] = ends.get(end, 0) + 1
                assert strays(left) == [], f"after event {count} of {len(disk.events)}, {loss}"
                states += 1
                shutil.rmtree(left)
    print(f"{states} states after {len(disk.events)} events: {ends}")
    record_property("states", states)
    assert set(ends) == {"original", "rendition"}
    assert states > (5 if undo else 20)
