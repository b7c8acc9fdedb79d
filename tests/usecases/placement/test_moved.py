"""A library that was moved, renamed or copied is done as it was: by content, not by path."""

import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.job import JobState
from hevcq.domain.profile import Profile
from hevcq.library.replacement.steps import Steps
from hevcq.library.scanning.scan import find, probe_files
from hevcq.ports.catalog import Fingerprint, Mode, Placement, PlacementState
from hevcq.ports.ledger import JobFilter
from hevcq.usecases.ingest.decide import Disposition, IngestPlan, Item
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.ingest.session import Ingest
from hevcq.usecases.operations.reprocess import (
    JobResult,
    ReprocessRequest,
    cancel,
    reprocess,
)
from hevcq.usecases.placement.originals import moved_placement, recover
from hevcq.usecases.placement.undo import UndoResult, undo
from support.catalog import new_catalog
from support.clips import ManualClock
from support.fakes.backend import HEVC
from support.fakes.encoder import passed
from support.ingest.run import NEVER, Bench, session
from support.processes import Killed


class Library:
    """A media folder that is ingested, moved, and ingested again."""

    def __init__(self, folder: Path, where: Destination) -> None:
        self.bench = Bench(folder, where=where)
        self.root = self.bench.media

    def put(self, name: str, content: bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def session(self, profile: Profile = HEVC) -> Ingest:
        return session(self.bench, roots=(self.root,), profiles=(profile,))

    def plan(self, ingest: Ingest | None = None) -> IngestPlan:
        probe = partial(self.bench.encoder.probe, stop=NEVER)
        return (ingest or self.session()).plan(
            probe_files(find([self.root]), self.bench.catalog, lambda p: probe(str(p)), threads=1)
        )

    def ingest(self, *, work: bool = True) -> dict[str, int]:
        ingest = self.session()
        plan = self.plan(ingest)
        ingest.queue(plan.items)
        ingest.summary.add_planned(plan)
        for kind in (Disposition.QUEUE, Disposition.JOIN, Disposition.COLLECT):
            for item in plan.of(kind):
                ingest.enqueuer.step([item], NEVER)
        if work:
            for job in list(self.bench.backend.ledger.jobs(JobFilter())):
                if job.state is JobState.QUEUED:
                    self.bench.backend.store.check(job.source)
                    self.bench.work(job, b"small " + job.source.source_id.encode())
            ingest.step(NEVER)
        return {outcome.value: count for outcome, count in ingest.summary.counts().items()}

    def item(self, name: str) -> Item:
        return next(item for item in self.plan().items if item.path == self.root / name)

    def move(self, name: str = "videos2") -> None:
        self.root = self.root.rename(self.root.with_name(name))

    def where(self, mode: Mode) -> None:
        self.bench.where = Destination(mode)
        self.bench.wire()

    def forget(self) -> None:
        """Lose the data folder."""
        media, root = self.bench.media, self.root
        media.mkdir(exist_ok=True)
        folder = self.bench.folder / "new"
        folder.mkdir()
        self.bench = Bench(folder, where=self.bench.where)
        self.root = root


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path, Destination(Mode.BESIDE))


@pytest.fixture
def done(library: Library) -> Library:
    library.put("tv/a.mkv", b"first" * 100)
    library.put("tv/b.mkv", b"second" * 100)
    assert library.ingest() == {"placed": 2}
    return library


@pytest.mark.parametrize("lost", [False, True], ids=["known", "data folder lost"])
def test_after_the_root_was_moved_everything_is_done(done, *, lost):
    done.move()
    if lost:
        done.forget()

    assert done.plan().counts() == {Disposition.DONE: 2}
    assert done.ingest() == {"done_earlier": 2}
    done.root = done.root.rename(done.root.with_name("videos3"))
    assert done.ingest() == {"done_earlier": 2}


@pytest.mark.parametrize("lost", [False, True], ids=["known", "data folder lost"])
@pytest.mark.parametrize("names", [("A (2020).mkv", ""), ("A (2020).mkv", "A (2020).hevc.mp4"),
                                   ("", "other.hevc.mp4"), ("x/A.mkv", "y/z.hevc.mp4")])  # fmt: skip
def test_a_video_and_its_rendition_renamed_by_another_program_stay_done(done, names, *, lost):
    for old, new in zip(("a.mkv", "a.hevc.mp4"), names, strict=True):
        if new:
            path = done.root / "tv" / new
            path.parent.mkdir(exist_ok=True)
            (done.root / "tv" / old).rename(path)
    if lost:
        done.forget()

    assert done.ingest() == {"done_earlier": 2}
    rendition = done.root / "tv" / (names[1] or "a.hevc.mp4")
    assert done.item(f"tv/{names[0] or 'a.mkv'}").reason.startswith(f"Done earlier: {rendition}")
    assert len(list(done.bench.backend.ledger.jobs(JobFilter()))) == (0 if lost else 2)


def test_segments_of_equal_size_and_time_are_no_copies_of_one_another(library):
    first = library.put("1.mkv", b"first" * 100)
    os.utime(first, ns=(0, 1_500_000_000 * 10**9))
    assert library.ingest() == {"placed": 1}
    first.rename(library.root.with_name("away.mkv"))
    second = library.put("2.mkv", b"third" * 100)
    os.utime(second, ns=(0, 1_500_000_000 * 10**9))

    assert library.item("2.mkv").disposition is Disposition.QUEUE


def test_what_is_queued_when_the_library_moves_is_encoded_once_from_its_new_path(library):
    library.put("a.mkv", b"first" * 100)
    assert library.ingest(work=False) == {}
    (job,) = library.bench.backend.ledger.jobs(JobFilter())

    library.move()

    assert library.ingest(work=False) == {}
    bench, names = library.bench, [str(library.root / "a.mkv")]
    (ended,) = cancel(bench.backend, names, "me", catalog=bench.catalog)
    (again,) = reprocess(bench.backend, ReprocessRequest(names), bench.catalog)
    assert (ended.result, again.job.job_id) == (JobResult.CANCELLED, job.job_id)
    assert library.ingest() == {"placed": 1}
    (same,) = library.bench.backend.ledger.jobs(JobFilter())
    assert (same.job_id, same.state) == (job.job_id, JobState.DONE)
    assert (library.root / "a.hevc.mp4").is_file()


def test_what_was_encoded_before_the_move_is_put_in_place_after_it(library):
    library.put("a.mkv", b"first" * 100)
    library.ingest(work=False)
    (job,) = library.bench.backend.ledger.jobs(JobFilter())
    library.bench.work(job)

    library.move()

    assert library.plan().counts() == {Disposition.COLLECT: 1}
    assert library.ingest() == {"placed": 1}
    assert (library.root / "a.hevc.mp4").is_file()


FINE, COARSE = 1_500_000_000 * 10**9 + 123, 1_500_000_000 * 10**9
WAITING, PLACED = PlacementState.WAITING, PlacementState.PLACED


@pytest.mark.parametrize(
    ("mtime_ns", "inode", "profile", "state", "still_there", "follows"),
    [
        (FINE, 8, "hevc", WAITING, False, True),
        (COARSE, 7, "hevc", WAITING, False, True),
        (COARSE, 8, "hevc", WAITING, False, False),
        (FINE, 7, "720p", WAITING, False, False),
        (FINE, 7, "hevc", PLACED, False, False),
        (FINE, 7, "hevc", WAITING, True, False),
    ],
)
def test_what_waits_follows_the_same_file_alone(
    tmp_path, mtime_ns, inode, profile, state, *, still_there, follows
):
    old, seen, catalog = (
        tmp_path / "a.mkv",
        Fingerprint(9, mtime_ns, 7, 1),
        new_catalog(ManualClock()),
    )
    known = Placement("j", tmp_path, old, seen, profile, Mode.BESIDE, old, 30.0, state)
    catalog.record_placements([known])
    if still_there:
        old.touch()

    found = moved_placement(catalog, tmp_path / "b.mkv", replace(seen, inode=inode), "hevc")

    assert (found is not None) == follows


@pytest.mark.parametrize("copied", [False, True])
def test_a_replaced_video_in_a_moved_library_can_be_undone_by_its_job(tmp_path, *, copied):
    library = Library(tmp_path, Destination(Mode.REPLACE))
    root = library.root
    library.put("a.mp4", b"first" * 100)
    assert library.ingest() == {"placed": 1}
    (job,) = library.bench.backend.ledger.jobs(JobFilter())

    library.move()
    if copied:
        shutil.copytree(library.root, root)
    recover(library.bench.ports, [library.root], library.bench.events.append)
    root = root if copied else library.root

    placement = library.bench.catalog.placement(job.job_id)
    assert placement.state is PlacementState.REPLACED
    assert (placement.source, placement.root) == (root / "a.mp4", root)
    assert placement.retained.read_bytes() == b"first" * 100


@pytest.mark.parametrize("how", ["known", "data folder lost", "copied back", "renamed"])
def test_a_video_whose_original_was_restored_is_not_replaced_again_unasked(tmp_path, how):
    library = Library(tmp_path, Destination(Mode.REPLACE))
    path = library.put("a.mp4", b"first" * 100)
    assert library.ingest() == {"placed": 1}
    (undone,) = undo(library.bench.ports, [library.root])
    assert undone.result is UndoResult.RESTORED
    if how == "data folder lost":
        library.forget()
    elif how == "copied back":  # as from an originals folder on another device
        copy = path.with_name("copy")
        shutil.copy2(path, copy)
        copy.replace(path)
    elif how == "renamed":
        path = path.rename(path.with_name("b.mp4"))

    assert library.ingest() == {"done_earlier": 1}
    assert path.read_bytes() == b"first" * 100
    assert "Undone on request" in library.item(path.name).reason

    library.where(Mode.BESIDE)
    if how in {"data folder lost", "copied back"}:
        assert library.item(path.name).disposition is Disposition.QUEUE


def test_a_restored_video_that_is_named_itself_is_replaced_again_and_forgotten(tmp_path):
    library = Library(tmp_path, Destination(Mode.REPLACE))
    path = library.put("a.mp4", b"first" * 100)
    library.ingest()
    list(undo(library.bench.ports, [library.root]))
    library.forget()
    folder, library.root = library.root, path
    assert library.ingest() == {"placed": 1}

    assert list((folder / ".hevcq/undone").iterdir()) == []


def test_job_of_a_file_that_was_replaced_since_ends_as_skipped(library):
    path = library.put("a.mkv", b"first" * 100)
    library.ingest(work=False)
    (job,) = library.bench.backend.ledger.jobs(JobFilter())
    path.write_bytes(b"replaced since" * 50)

    assert library.ingest(work=False) == {"skipped": 1}

    states = {each.job_id: each.state for each in library.bench.backend.ledger.jobs(JobFilter())}
    assert states.pop(job.job_id) is JobState.SKIPPED
    assert list(states.values()) == [JobState.QUEUED]


def test_what_is_to_be_made_again_is_encoded_although_its_rendition_is_in_place(done):
    (job, _) = done.bench.backend.ledger.jobs(JobFilter())
    assert done.bench.backend.task_publisher.requeue(job, who="me", why="better recipe")
    name = "tv/a.mkv" if job.source.key.endswith("a.mkv") else "tv/b.mkv"

    assert done.item(name).disposition is Disposition.JOIN
    assert done.ingest() == {"done_earlier": 2}
    again = done.bench.backend.ledger.get(job.job_id)
    assert (again.state, again.fence) == (JobState.DONE, job.fence + 1)


@pytest.mark.parametrize("linked", [".hevcq", ".hevcq/certificates", ".hevcq/journal"])
def test_nothing_is_encoded_for_a_library_whose_records_are_behind_a_link(library, linked):
    library.put("a.mkv", b"first" * 100)
    (library.bench.folder / "elsewhere").mkdir()
    (library.root / linked).parent.mkdir(exist_ok=True)
    (library.root / linked).symlink_to(library.bench.folder / "elsewhere")

    item = library.item("a.mkv")

    assert item.disposition is Disposition.REFUSE
    assert "is a symbolic link; remove the link" in item.reason


@pytest.mark.parametrize("linkable", [True, False])
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_rendition_beside_its_original_takes_its_place_without_another_encode(
    library, monkeypatch, *, linkable, interrupted
):
    path = library.put("a.mp4", b"first" * 100)
    assert library.ingest() == {"placed": 1}
    (job,) = library.bench.backend.ledger.jobs(JobFilter())
    rendition = (library.root / "a.hevc.mp4").read_bytes()
    if not linkable:
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError))

    library.where(Mode.REPLACE)
    if interrupted:
        ingest = library.session()
        ingest.queue(library.plan(ingest).items)
        ingest.enqueuer.step(library.plan(ingest).items, NEVER)
    assert library.ingest() == {"placed": 1}

    assert path.read_bytes() == rendition
    assert [p.name for p in library.root.iterdir() if p.suffix] == ["a.mp4"]
    (same,) = library.bench.backend.ledger.jobs(JobFilter())
    assert (same.job_id, same.fence) == (job.job_id, job.fence)
    (undone,) = undo(library.bench.ports, [library.root])
    assert undone.result is UndoResult.RESTORED
    assert path.read_bytes() == b"first" * 100


@pytest.mark.parametrize("moment", ["before the exchange", "after it is recorded"])
def test_a_kill_while_a_rendition_beside_takes_its_place_costs_no_encode(
    library, monkeypatch, moment
):
    path = library.put("a.mp4", b"first" * 100)
    assert library.ingest() == {"placed": 1}
    rendition = (library.root / "a.hevc.mp4").read_bytes()
    (job,) = library.bench.backend.ledger.jobs(JobFilter())
    library.where(Mode.REPLACE)
    ports = library.bench.ports
    record = ports.catalog.record_placements

    def record_and_die(placements):
        record(placements)
        if any(each.state is PlacementState.REPLACED for each in placements):
            raise Killed

    with monkeypatch.context() as patched:
        if moment == "before the exchange":
            patched.setattr(Steps, "forward", Mock(side_effect=Killed))
        else:
            patched.setattr(ports.catalog, "record_placements", record_and_die)
        with pytest.raises(Killed):
            library.ingest()
    recover(ports, [library.root], lambda event: None)
    if moment == "before the exchange":
        assert library.ingest() == {"placed": 1}

    assert path.read_bytes() == rendition
    assert [p.name for p in library.root.iterdir() if p.suffix] == ["a.mp4"]
    (same,) = library.bench.backend.ledger.jobs(JobFilter())
    assert same.fence == job.fence


def test_a_damaged_rendition_beside_its_original_takes_no_place(library):
    path = library.put("a.mp4", b"first" * 100)
    library.ingest()
    rendition = library.root / "a.hevc.mp4"
    rendition.write_bytes(rendition.read_bytes()[::-1])

    library.where(Mode.REPLACE)

    assert library.ingest() == {"refused": 1}
    assert path.read_bytes() == b"first" * 100


def test_what_replacing_would_lose_is_said_before_a_queued_video_is_encoded(library):
    path = library.put("a.mp4", b"first" * 100)
    library.ingest(work=False)
    os.link(path, path.with_name("second name.txt"))

    library.where(Mode.REPLACE)

    assert "2 names (hard links)" in library.item("a.mp4").reason
    assert library.ingest(work=False) == {"refused": 1}
    library.where(Mode.BESIDE)
    assert library.ingest() == {"placed": 1}


def test_a_copy_on_another_disk_is_done_too_and_a_second_name_is_not(done):
    copy = done.root.with_name("copy")
    shutil.copytree(done.root, copy)
    second = done.root / "tv/link.mkv"
    os.link(done.root / "tv/a.mkv", second)
    assert done.item("tv/link.mkv").disposition is Disposition.QUEUE
    second.unlink()
    shutil.rmtree(done.root)

    done.root = copy
    assert done.ingest() == {"done_earlier": 2}


def test_what_another_profile_made_is_not_done(done):
    done.move()

    plan = done.plan(done.session(HEVC.model_copy(update={"name": "720p"})))

    assert plan.counts() == {Disposition.QUEUE: 2}


def test_a_renamed_rendition_that_nobody_knows_counts_only_after_the_gates(done):
    (done.root / "tv/a.hevc.mp4").rename(done.root / "tv/other.hevc.mp4")
    done.forget()
    done.bench.encoder.gates = passed(GateResult(gate=Gate.G4, outcome=Outcome.FAILED))

    assert done.item("tv/a.mkv").disposition is Disposition.QUEUE
