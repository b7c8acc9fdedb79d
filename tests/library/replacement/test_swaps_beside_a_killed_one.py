"""A kill left a swap, an undo or an expiry unfinished, and the library goes on before any start."""

import contextlib
import dataclasses
import json
import math
import os

import pytest

from hevcq.errors import SwapRefused, UndoRefused
from hevcq.library.filesystem import fingerprint_of
from hevcq.library.replacement.retention import Expiry
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import (
    DAY,
    ORIGINAL,
    RENDITION,
    Killed,
    MortalFileSystem,
    QuickFileSystem,
    certificate,
    for_ever,
    sha,
    strays,
    video,
)


class DiesAfter(MortalFileSystem):
    """Dies right after the first call of this name that is about a path with these words."""

    def __init__(self, call: str, words: str = "", **options) -> None:
        super().__init__(**options)
        self.last, self.words = call, words

    def _call(self, name: str, call, args):
        result = super()._call(name, call, args)
        if name == self.last and any(self.words in str(each) for each in args):
            self.die(name)
        return result


def swap_of(made, fs=None) -> Swap:
    return Swap(made.root, ManualClock(), fs or QuickFileSystem())


def second_of(made, smaller: bytes = b"720"):
    """The change of a video that is a rendition already."""
    return dataclasses.replace(
        made.change,
        fingerprint=fingerprint_of(os.lstat(made.target)),
        certificate=certificate(made.target, RENDITION, smaller, "720p"),
    ), lambda new: new.write_bytes(smaller) and sha(smaller)


def test_a_second_swap_beside_a_killed_one_costs_neither_its_original(tmp_path):
    made = video(tmp_path, "video.mkv")
    with pytest.raises(Killed):
        swap_of(made, DiesAfter("exchange")).replace(made.change, made.fetch)
    change, fetch = second_of(made)
    swap_of(made).replace(change, fetch)

    swap_of(made).recover()

    assert strays(tmp_path) == []
    swap_of(made).undo(change.certificate.job_id)
    assert made.source.read_bytes() == RENDITION
    swap_of(made).undo(made.change.certificate.job_id)
    assert made.source.read_bytes() == ORIGINAL


@pytest.mark.parametrize("way", [{}, {"no_exchange": True}, {"no_rename2": True}], ids=str)
@pytest.mark.parametrize("target", ["video.avi", "video.mkv"])
@pytest.mark.parametrize("at", range(1, 40, 2))
def test_the_same_job_once_more_after_a_kill_leaves_one_swap_and_nothing_else(
    tmp_path, way, target, at
):
    made = video(tmp_path, "video.avi")
    with contextlib.suppress(Killed):
        swap_of(made, MortalFileSystem(at, **way)).replace(made.change, made.fetch)
    there = dataclasses.replace(made.change, target=tmp_path / target)
    fs = MortalFileSystem(**way)

    with contextlib.suppress(SwapRefused):  # what lies at the path may be the rendition already
        swap_of(made, fs).replace(there, made.fetch)

    assert [p for p in strays(tmp_path) if not p.endswith(".part")] == []
    swap_of(made, fs).recover()
    assert strays(tmp_path) == []
    for record in list(swap_of(made, fs).kept()):
        swap_of(made, fs).undo(record.job_id)
    assert made.source.read_bytes() == ORIGINAL


def test_what_a_kill_left_and_cannot_be_settled_is_not_written_over(tmp_path):
    made = video(tmp_path, "video.mkv")
    with pytest.raises(Killed):
        swap_of(made, DiesAfter("exchange")).replace(made.change, made.fetch)
    (left,) = tmp_path.glob(".hevcq/journal/*.json")
    left.write_bytes(left.read_bytes()[:100])

    with pytest.raises(SwapRefused, match=r"was not replaced: The swap record .* is damaged"):
        swap_of(made).replace(made.change, made.fetch)


def test_an_original_that_cannot_be_kept_where_it_should_be_waits_until_it_can(tmp_path):
    held = 0
    for at in range(1, 40):
        root = tmp_path / str(at)
        made = video(root, "video.mkv")
        with contextlib.suppress(Killed):
            swap_of(made, MortalFileSystem(at)).replace(made.change, made.fetch)
        records = list(root.glob(".hevcq/journal/*.json"))
        if not records or not list(root.glob(".hevcq-*.original")):
            continue
        place = root / json.loads(records[0].read_bytes())["retained"]
        if place.exists():
            place.unlink()  # a second name of what is aside
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"a stranger's")
        (found,) = swap_of(made, QuickFileSystem()).recover()

        if found.outcome is RecoveryOutcome.STUCK:
            held += 1
            assert place.read_bytes() == b"a stranger's"
            place.unlink()
        swap_of(made, QuickFileSystem()).recover()
        for record in list(swap_of(made).kept()):
            swap_of(made, QuickFileSystem()).undo(record.job_id)
        assert made.source.read_bytes() == ORIGINAL
    assert held


def test_an_expiry_killed_before_its_record_went_never_takes_a_newer_original(tmp_path):
    old = video(tmp_path, "video.avi", "video.mkv", keep_days=0.0)
    swap_of(old).replace(old.change, old.fetch)
    now = ManualClock().now()
    with pytest.raises(Killed):
        swap_of(old, DiesAfter("unlink", "originals")).expire(now, for_ever)
    new = video(tmp_path, "video.avi", original=ORIGINAL + b"2", keep_days=math.inf)
    swap_of(new).replace(new.change, new.fetch)

    outcomes = {e.outcome for e in swap_of(new).expire(now + DAY, for_ever)}

    assert Expiry.REMOVED not in outcomes
    swap_of(new).undo(new.change.certificate.job_id)
    assert new.source.read_bytes() == ORIGINAL + b"2"


@pytest.mark.parametrize("way", [{}, {"no_exchange": True}], ids=["exchange", "aside"])
def test_an_original_deleted_right_after_a_killed_undo_stays_deleted(tmp_path, way):
    made = video(tmp_path, "video.mkv")
    swap_of(made).replace(made.change, made.fetch)
    last = ("rename_new", "originals") if way else ("exchange", "")
    with pytest.raises(Killed):
        swap_of(made, DiesAfter(*last, **way)).undo(made.change.certificate.job_id)
    assert made.source.read_bytes() == ORIGINAL
    made.source.unlink()

    (one,) = swap_of(made).recover()

    assert (one.undo, one.outcome) == (True, RecoveryOutcome.HELD)
    assert "changed or removed by another program" in one.reason
    assert strays(tmp_path) == []
    assert swap_of(made).recover() == []
    if not way:
        assert not made.source.exists()
    with pytest.raises(UndoRefused):
        swap_of(made).undo(made.change.certificate.job_id)
