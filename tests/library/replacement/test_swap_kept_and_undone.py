"""What an undo refuses and restores, when an original goes for good, and odd records.

A kill left a swap, an undo or an expiry unfinished, and the library goes on before any start.
"""

import contextlib
import dataclasses
import itertools
import json
import math

import pytest

from hevcq.errors import HevcqError, SwapRefused, UndoRefused
from hevcq.library.filesystem import FileSystem
from hevcq.library.own_files import own_folder
from hevcq.library.replacement.journal import Journal, UndoneOriginals
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
    for_ever,
    looks,
    proof_of,
    second_of,
    sha,
    strays,
    video,
)


@pytest.fixture
def clock():
    return ManualClock()


def replaced(made, clock):
    return Swap(made.root, clock).replace(made.change, made.fetch)


def test_beside_an_interrupted_swap_an_original_is_kept_in_a_folder_of_its_own(tmp_path, clock):
    """The other has its place by its record only: nothing lies there yet."""
    interrupted, made = video(tmp_path, "tv/first.mkv"), video(tmp_path)
    journal = Journal(tmp_path, MortalFileSystem())
    for call in itertools.count(1):
        with pytest.raises(Killed):
            Swap(tmp_path, clock, MortalFileSystem(call)).replace(
                interrupted.change, interrupted.fetch
            )
        if list(journal.under_way()):
            break

    done = replaced(made, clock)

    assert made.change.certificate.job_id in str(done.retained.relative_to(tmp_path))
    assert done.retained.read_bytes() == ORIGINAL


def test_an_undo_of_an_edited_rendition_is_refused_and_both_stay(tmp_path, clock):
    made = video(tmp_path)
    done = replaced(made, clock)
    made.target.write_bytes(b"tags edited by hand")

    with pytest.raises(UndoRefused, match="not what hevcq put there"):
        Swap(tmp_path, clock).undo(made.change.certificate.job_id)
    assert made.target.read_bytes() == b"tags edited by hand"
    assert done.retained.read_bytes() == ORIGINAL


def test_an_undo_leaves_a_strangers_file_at_the_renditions_other_name(tmp_path, clock):
    made = video(tmp_path, "video.avi", "video.mkv")
    replaced(made, clock)
    made.target.write_bytes(b"a stranger's")

    Swap(tmp_path, clock).undo(made.change.certificate.job_id)

    assert made.source.read_bytes() == ORIGINAL
    assert made.target.read_bytes() == b"a stranger's"


def test_an_undo_works_when_the_rendition_or_its_whole_folder_was_removed(tmp_path, clock):
    made = video(tmp_path)
    replaced(made, clock)
    for path in made.target.parent.iterdir():
        path.unlink()
    made.target.parent.rmdir()

    Swap(tmp_path, clock).undo(made.change.certificate.job_id)

    assert made.source.read_bytes() == ORIGINAL


def test_an_undo_of_a_damaged_kept_original_is_refused(tmp_path, clock):
    made = video(tmp_path)
    done = replaced(made, clock)
    done.retained.write_bytes(ORIGINAL[::-1])

    with pytest.raises(UndoRefused, match="was changed"):
        Swap(tmp_path, clock).undo(made.change.certificate.job_id)
    assert made.target.read_bytes() == RENDITION


def test_an_undo_of_an_unknown_job_is_refused(tmp_path, clock):
    with pytest.raises(UndoRefused, match="No original of job"):
        Swap(tmp_path, clock).undo("0" * 32)


def test_two_swaps_of_one_path_are_undone_latest_first(tmp_path, clock):
    first = video(tmp_path, "video.mkv")
    before = looks(first.source)
    replaced(first, clock)
    clock.advance(60)
    second = second_of(first)
    swap = Swap(tmp_path, clock)
    proof = proof_of(first).read_bytes()
    swap.replace(second.change, second.fetch)
    assert first.target.read_bytes() == b"720"
    swap.undo(second.change.certificate.job_id)
    assert proof_of(first).read_bytes() == proof
    swap.replace(second.change, second.fetch)

    for record in sorted(swap.kept(), key=lambda r: -r.created_at):
        swap.undo(record.job_id)

    assert looks(first.source) == before


def test_an_original_goes_only_when_its_days_are_over(tmp_path, clock):
    kept = video(tmp_path, "a.mkv", keep_days=30.0)
    forever = video(tmp_path, "c.mkv", keep_days=math.inf, original=ORIGINAL + b"c")
    done = [replaced(made, clock) for made in (kept, forever)]
    swap = Swap(tmp_path, clock)
    assert len(list(swap.kept())) == 2

    assert swap.expire(clock.now() + 30 * DAY - 1, for_ever) == []
    (gone,) = swap.expire(clock.now() + 30 * DAY, for_ever)

    assert (gone.record.source.name, gone.outcome) == ("a.mkv", Expiry.REMOVED)
    assert [d.retained.exists() for d in done] == [False, True]
    assert gone.freed == len(ORIGINAL)
    assert kept.target.read_bytes() == RENDITION
    with pytest.raises(UndoRefused):
        swap.undo(kept.change.certificate.job_id)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_expiry_killed_at_any_call_is_finished_by_the_next(tmp_path, clock, when):
    for number in range(1, 100):
        made = video(tmp_path / str(number))
        replaced(made, clock)
        fs = MortalFileSystem(number, when)
        with contextlib.suppress(Killed):
            Swap(made.root, clock, fs).expire(clock.now() + 31 * DAY, for_ever)
        Swap(made.root, clock).expire(clock.now() + 31 * DAY, for_ever)
        assert made.target.read_bytes() == RENDITION
        assert list(Swap(made.root, clock).kept()) == []
        assert [p for p in made.root.rglob(".hevcq/originals/**/*") if p.is_file()] == []
        if fs.count < number:
            return
    pytest.fail("it never ran to its end")


def test_a_damaged_record_is_reported_and_keeps_nothing_else_from_being_settled(tmp_path, clock):
    made = video(tmp_path)
    fs = MortalFileSystem(40, "after")
    with pytest.raises(Killed):
        Swap(tmp_path, clock, fs).replace(made.change, made.fetch)
    (tmp_path / ".hevcq/journal/zz.json").write_text("{")

    settled = Swap(tmp_path, clock).recover()

    assert [s.outcome.value for s in settled][-1] == "stuck"
    assert len(settled) == 2
    assert made.target.read_bytes() in {ORIGINAL, RENDITION}


def test_a_record_that_points_out_of_the_library_is_not_followed(tmp_path, clock):
    made = video(tmp_path / "root")
    replaced(made, clock)
    (record,) = (tmp_path / "root/.hevcq/kept").iterdir()
    record.write_text(record.read_text().replace('"tv/video.avi"', '"../../etc/video.avi"'))
    with pytest.raises(HevcqError, match="damaged"):
        Swap(tmp_path / "root", clock).undo(made.change.certificate.job_id)


def test_another_file_of_the_same_size_where_an_original_was_kept_stays(tmp_path, clock):
    done = replaced(video(tmp_path), clock)
    done.retained.write_bytes(ORIGINAL[::-1])

    (each,) = Swap(tmp_path, clock).free(lambda _record: True)

    assert (each.outcome, done.retained.read_bytes()) == (Expiry.STILL_KEPT, ORIGINAL[::-1])


SECOND = 1_500_000_000 * 10**9


@pytest.mark.parametrize(
    ("content", "mtime_ns", "profile", "restored"),
    [
        (b"original", 1, "hevc", True),
        (b"original", SECOND, "720p", False),
        (b"ORIGINAL", SECOND, "hevc", False),
    ],
)
def test_a_restored_original_is_known_by_its_bytes_where_its_time_is_of_a_second(
    tmp_path, content, mtime_ns, profile, restored
):
    notes = own_folder(tmp_path) / "undone"
    notes.mkdir(parents=True)
    facts = {"profile": "hevc", "size": 8, "mtime_ns": SECOND, "source_sha256": sha(b"original")}
    (notes / "8.j.json").write_text(json.dumps(facts))
    path = tmp_path / "a.mkv"
    path.write_bytes(content)

    assert UndoneOriginals(FileSystem()).holds(path, 8, mtime_ns, profile) == restored


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


def test_a_second_swap_beside_a_killed_one_costs_neither_its_original(tmp_path):
    made = video(tmp_path, "video.mkv")
    with pytest.raises(Killed):
        swap_of(made, DiesAfter("exchange")).replace(made.change, made.fetch)
    second = second_of(made)
    swap_of(made).replace(second.change, second.fetch)

    swap_of(made).recover()

    assert strays(tmp_path) == []
    swap_of(made).undo(second.change.certificate.job_id)
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
