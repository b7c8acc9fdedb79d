"""What a swap meets seldom: strangers' files among its records, copies that rot, newer records."""

from __future__ import annotations

import errno
import json
import os

import pytest

from hevcq.errors import HevcqError, StorageError, SwapRefused
from hevcq.library.names import own_folder
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import DAY, ORIGINAL, RENDITION, MortalFileSystem, strays, video


@pytest.fixture
def clock():
    return ManualClock()


def test_a_strangers_file_among_the_records_is_no_record_and_stays(tmp_path, clock):
    made = video(tmp_path)
    Swap(tmp_path, clock).replace(made.change, made.fetch)
    mine = [own_folder(tmp_path) / folder / "notes.txt" for folder in ("journal", "kept")]
    for path in mine:
        path.write_text("mine")

    swap = Swap(tmp_path, clock)

    assert swap.recover() == []
    assert [record.job_id for record in swap.kept()] == [made.change.certificate.job_id]
    assert [path.read_text() for path in mine] == ["mine", "mine"]


def test_a_record_of_a_newer_hevcq_is_stuck_and_nothing_is_guessed_of_it(tmp_path, clock):
    made = video(tmp_path)
    done = Swap(tmp_path, clock).replace(made.change, made.fetch)
    job = made.change.certificate.job_id
    record = own_folder(tmp_path) / "kept" / f"{job}.json"
    told = {**json.loads(record.read_text()), "hevcq_swap": 2}
    (own_folder(tmp_path) / "journal" / f"{job}.json").write_text(json.dumps(told))
    record.unlink()

    (found,) = Swap(tmp_path, clock).recover()

    assert found.outcome is RecoveryOutcome.STUCK
    assert "written by a newer hevcq" in found.reason
    assert made.target.read_bytes() == RENDITION
    assert done.retained.read_bytes() == ORIGINAL


def test_a_newer_record_of_a_kept_original_is_an_error_of_its_own(tmp_path, clock):
    made = video(tmp_path)
    Swap(tmp_path, clock).replace(made.change, made.fetch)
    job = made.change.certificate.job_id
    record = own_folder(tmp_path) / "kept" / f"{job}.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "hevcq_swap": 2}))

    with pytest.raises(StorageError, match="newer hevcq"):
        Swap(tmp_path, clock).find(job)


def test_a_kept_original_that_somebody_took_out_is_not_weighed(tmp_path, clock):
    first, second = video(tmp_path, "a.mkv"), video(tmp_path, "b.mkv", original=ORIGINAL + b"b")
    swap = Swap(tmp_path, clock)
    gone = swap.replace(first.change, first.fetch)
    swap.replace(second.change, second.fetch)
    gone.retained.unlink()

    usage = swap.usage()

    assert (usage.count, usage.size) == (1, len(ORIGINAL) + 1)


def test_a_library_where_nothing_was_ever_replaced_has_nothing_to_settle_or_to_remove(
    tmp_path, clock
):
    made = video(tmp_path)
    swap = Swap(tmp_path, clock)

    assert (swap.recover(), swap.expire(clock.now() + 400 * DAY)) == ([], [])

    assert not own_folder(tmp_path).exists()
    assert made.source.read_bytes() == ORIGINAL


def test_a_copy_of_the_original_that_came_out_wrong_is_never_the_only_one(tmp_path, clock):
    made = video(tmp_path)
    away = own_folder(tmp_path)

    class Rotting(MortalFileSystem):
        def copy(self, old, new):
            new.write_bytes(old.read_bytes()[::-1])

    with pytest.raises(HevcqError, match="not equal to it"):
        Swap(tmp_path, clock, Rotting(other_device=away)).replace(made.change, made.fetch)

    Swap(tmp_path, clock).recover()
    assert made.source.read_bytes() == ORIGINAL
    assert strays(tmp_path) == []
    assert list(Swap(tmp_path, clock).kept()) == []


def test_an_original_taken_out_in_mid_swap_leaves_no_swap_behind(tmp_path, clock):
    made = video(tmp_path, "video.avi", "video.mkv")

    class Robbed(MortalFileSystem):
        def rename_new(self, old, new):
            if new == made.target:
                for kept in own_folder(tmp_path).glob("originals/*/video.avi"):
                    kept.unlink()
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(new))
            super().rename_new(old, new)

    with pytest.raises(HevcqError):
        Swap(tmp_path, clock, Robbed()).replace(made.change, made.fetch)

    assert not made.target.exists()
    assert strays(tmp_path) == []
    assert Swap(tmp_path, clock).recover() == []


@pytest.mark.parametrize("name", ["tv/video.mkv", "tv/video.avi"])
def test_an_original_whose_folder_was_moved_away_behind_a_link_is_not_replaced(
    tmp_path, clock, name
):
    root, elsewhere = tmp_path / "library", tmp_path / "elsewhere"
    made = video(root, name, "video.mkv")
    (root / "tv").rename(elsewhere)
    (root / "tv").symlink_to(elsewhere)

    with pytest.raises(SwapRefused, match="behind a link"):
        Swap(root, clock).replace(made.change, made.fetch)

    assert [path.name for path in elsewhere.iterdir()] == [made.source.name]
    assert made.source.read_bytes() == ORIGINAL
