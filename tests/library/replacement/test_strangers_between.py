"""Somebody else works in the library between a kill and the next start."""

import errno

import pytest

from hevcq.errors import UndoRefused
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import (
    ORIGINAL,
    RENDITION,
    FailingFileSystem,
    Killed,
    MortalFileSystem,
    QuickFileSystem,
    strays,
    video,
)

STRANGER = b"a stranger's clip"


class DiesAt(MortalFileSystem):
    """Dies right after a rename to, or an unlink of, a path whose name ends with `ending`."""

    def __init__(self, ending: str, **options) -> None:
        super().__init__(**options)
        self.ending = ending

    def rename_new(self, old, new):
        super().rename_new(old, new)
        if str(new).endswith(self.ending):
            self.die(self.ending)

    def unlink(self, path):
        super().unlink(path)
        if str(path).endswith(self.ending):
            self.die(self.ending)


def swap_of(made, fs=None):
    return Swap(made.root, ManualClock(), fs or QuickFileSystem())


def interrupted(made, ending: str, **options):
    with pytest.raises(Killed):
        swap_of(made, DiesAt(ending, **options)).replace(made.change, made.fetch)


def recovered(made, fs=None) -> RecoveryOutcome:
    (one,) = swap_of(made, fs).recover()
    assert one.reason.endswith(".")
    return one.outcome


def test_a_strangers_file_at_the_originals_path_stays_and_the_original_is_kept(tmp_path):
    made = video(tmp_path, "video.mkv")
    interrupted(made, "originals/2023-11-14/video.mkv")
    made.source.write_bytes(STRANGER)

    assert recovered(made) is RecoveryOutcome.HELD

    assert made.source.read_bytes() == STRANGER
    assert strays(tmp_path) == []
    with pytest.raises(UndoRefused, match="Move that file away"):
        swap_of(made).undo(made.change.certificate.job_id)
    made.source.unlink()
    swap_of(made).undo(made.change.certificate.job_id)
    assert made.source.read_bytes() == ORIGINAL


class DiesAside(MortalFileSystem):
    """Dies as soon as an original was moved aside, or its name was exchanged."""

    def __init__(self, original, **options) -> None:
        super().__init__(**options)
        self.original = original

    def rename_new(self, old, new):
        super().rename_new(old, new)
        if old == self.original:
            self.die("rename_new")

    def exchange(self, one, other):
        return super().exchange(one, other) and self.die("exchange")


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_file_saved_in_the_originals_place_stays_and_one_copy_of_the_original_is_kept(
    tmp_path, exchanged
):
    made = video(tmp_path, "video.mkv")
    away = {"other_device": tmp_path / ".hevcq/originals", "no_exchange": True}
    way = {} if exchanged else away
    with pytest.raises(Killed):
        swap_of(made, DiesAside(made.source, **way)).replace(made.change, made.fetch)
    made.source.write_bytes(STRANGER)

    assert recovered(made, MortalFileSystem(**way)) is RecoveryOutcome.HELD

    assert made.source.read_bytes() == STRANGER
    assert strays(tmp_path) == []
    (kept,) = swap_of(made).kept()
    assert kept.retained.read_bytes() == ORIGINAL


def test_a_file_saved_over_the_original_before_the_exchange_is_left_alone(tmp_path):
    made = video(tmp_path, "video.mkv")
    interrupted(made, ".original")
    made.source.write_bytes(STRANGER)

    assert recovered(made) is RecoveryOutcome.ROLLED_BACK

    assert made.source.read_bytes() == STRANGER
    assert strays(tmp_path) == []
    assert list(swap_of(made).kept()) == []


@pytest.mark.parametrize("suffix", ["video.mkv", "video.avi"])
def test_an_original_taken_out_of_hevcqs_folder_leaves_the_rendition_in_place(tmp_path, suffix):
    made = video(tmp_path, suffix, "video.mkv")
    interrupted(made, f"originals/2023-11-14/{suffix}")
    (tmp_path / ".hevcq/originals/2023-11-14" / suffix).unlink()

    assert recovered(made) is RecoveryOutcome.ROLLED_BACK

    assert made.target.read_bytes() == RENDITION
    assert strays(tmp_path) == []


def test_a_damaged_temporary_rendition_makes_the_swap_go_back(tmp_path):
    made = video(tmp_path, "video.avi", "video.mkv")
    interrupted(made, "originals/2023-11-14/video.avi")
    (new,) = tmp_path.glob(".hevcq-*.part")
    new.write_bytes(RENDITION[::-1])

    assert recovered(made) is RecoveryOutcome.ROLLED_BACK
    assert made.source.read_bytes() == ORIGINAL
    assert strays(tmp_path) == []


def test_an_interrupted_undo_is_held_when_a_stranger_took_the_path(tmp_path):
    made = video(tmp_path, "video.avi", "video.mkv")
    swap_of(made).replace(made.change, made.fetch)
    with pytest.raises(Killed):
        swap_of(made, DiesAt(".undone")).undo(made.change.certificate.job_id)
    assert not made.target.exists()
    made.source.write_bytes(STRANGER)

    assert recovered(made) is RecoveryOutcome.HELD

    assert made.source.read_bytes() == STRANGER
    assert made.target.read_bytes() == RENDITION
    assert strays(tmp_path) == []
    assert len(list(swap_of(made).kept())) == 1


def test_an_undo_whose_kept_original_is_gone_is_refused(tmp_path):
    made = video(tmp_path, "video.mkv")
    done = swap_of(made).replace(made.change, made.fetch)
    done.retained.unlink()

    with pytest.raises(UndoRefused, match="is no longer at"):
        swap_of(made).undo(made.change.certificate.job_id)
    assert made.target.read_bytes() == RENDITION


def test_a_record_is_stuck_while_the_disk_is_broken_and_settled_after(tmp_path):
    made = video(tmp_path, "video.avi", "video.mkv")
    interrupted(made, "originals/2023-11-14/video.avi")

    # Ten calls look and sweep; from there on nothing can be changed.
    assert recovered(made, FailingFileSystem(10, errno.EIO)) is RecoveryOutcome.STUCK
    assert recovered(made) is RecoveryOutcome.FINISHED


def test_a_folder_that_is_away_at_the_next_start_is_waited_for_and_settled_when_it_is_back(
    tmp_path,
):
    made = video(tmp_path / "library", "tv/video.mkv")
    with pytest.raises(Killed):
        swap_of(made, DiesAside(made.source)).replace(made.change, made.fetch)
    made.source.parent.rename(tmp_path / "away")

    (found,) = swap_of(made).recover()
    assert found.outcome is RecoveryOutcome.STUCK
    assert "tv is gone" in found.reason

    (tmp_path / "away").rename(made.source.parent)
    assert recovered(made) is RecoveryOutcome.FINISHED
    swap_of(made).undo(made.change.certificate.job_id)
    assert made.source.read_bytes() == ORIGINAL
    assert strays(made.root) == []
