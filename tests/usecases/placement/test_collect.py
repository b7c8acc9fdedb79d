"""Placing what is done: only certified bytes, exactly once, whatever dies or fails in between.

A wrong clock deletes no kept original: what counts is the time that the machine has lived through.

The lock of placements, and the name that a data folder keeps.
"""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from hevcq.domain.certificate import Certificate, Gate, GateResult, Outcome, Sidecar
from hevcq.errors import (
    DiskFull,
    LibraryError,
    SourceChanged,
    Stopped,
    Unavailable,
    VerificationFailed,
)
from hevcq.library.replacement.swap import Swap
from hevcq.ports.catalog import LivedTime, Mode, PlacementState
from hevcq.usecases.context import IDENTITY, data_folder_id
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.placement.collect import DAY_S, MAX_OFF_S, advanced, lived_s
from hevcq.usecases.placement.originals import recover
from hevcq.util.clock import EARLIEST
from support.catalog import new_catalog
from support.fakes.backend import Faulty
from support.ingest.run import NEVER, Bench


class Died(BaseException):
    """The process is gone: nothing after this line ran."""


def state(bench: Bench, job_id: str) -> PlacementState:
    placement = bench.catalog.placement(job_id)
    return placement.state


@pytest.mark.parametrize("mode", [Mode.BESIDE, Mode.REPLACE])
@pytest.mark.parametrize(
    ("port", "method", "moment"),
    [
        ("catalog", "record_placements", "before"),
        ("catalog", "record_placements", "after"),
        ("store", "collect", "before"),
        ("store", "collect", "after"),
        ("store", "delete", "before"),
        ("store", "delete", "after"),
    ],
)
def test_a_death_at_any_step_is_finished_by_the_next_run(tmp_path, mode, port, method, moment):
    bench = Bench(tmp_path, where=Destination(mode))
    item = bench.video()
    job = bench.encode(item)

    def die(name: str) -> None:
        if name == method:
            raise Died

    whole = bench.ports
    if port == "catalog":
        bench.ports = replace(whole, catalog=Faulty(whole.catalog, **{moment: die}))
    else:
        store = Faulty(whole.backend.store, **{moment: die})
        bench.ports = replace(whole, backend=replace(whole.backend, store=store))
    dying = type(bench.collector)(bench.ports, bench.proofs, discard=True)
    with pytest.raises(Died):
        dying.collect(bench.done(job), NEVER)

    bench.collector.collect(bench.done(job), NEVER)

    target = item.path if mode is Mode.REPLACE else bench.media / "a.hevc.mp4"
    assert target.read_bytes() == b"small"
    assert state(bench, job.job_id) in {PlacementState.PLACED, PlacementState.REPLACED}
    leftovers = list(bench.media.rglob(".hevcq-*"))
    assert leftovers == []


@pytest.mark.parametrize("mode", [Mode.BESIDE, Mode.REPLACE, Mode.MIRROR])
def test_subtitles_are_placed_with_the_rendition_and_follow_it(tmp_path, mode):
    output = tmp_path / "output" if mode is Mode.MIRROR else None
    bench = Bench(tmp_path, where=Destination(mode, output))
    item = bench.video()
    job, proof = bench.queue(item), bench.proof

    def with_text(*of: object) -> Certificate:
        made, passed = proof(*of), GateResult(gate=Gate.T1, outcome=Outcome.PASSED)
        text = Sidecar(marks="en", cues=1, text="1\n00:00:01,000 --> 00:00:02,000\none\n")
        return made.model_copy(update={"gates": (*made.gates, passed), "sidecars": (text,)})

    bench.proof = with_text
    bench.work(job)

    target = bench.collector.collect(bench.done(job), NEVER).target

    assert [path.parent for path in tmp_path.rglob("*.srt")] == [target.parent]
    assert target.with_name(f"{target.stem}.en.srt").read_text().endswith("one\n")


@pytest.mark.parametrize("content", [b"", b"{}", b"not json"])
def test_a_certificate_that_proves_nothing_places_nothing(bench, content):
    job = bench.queue(bench.video())
    ref = bench.work(job)
    bench.backend.store.put(ref.certificate_key, content, metadata={})

    with pytest.raises(VerificationFailed):
        bench.collector.collect(bench.done(job), NEVER)

    assert not (bench.media / "a.hevc.mp4").exists()


@pytest.mark.parametrize("of", ["another job", "another attempt", "another job, by the ledger"])
def test_a_certificate_that_is_not_the_jobs_own_places_nothing(bench, of):
    first, other = bench.queue(bench.video("a.mp4")), bench.queue(bench.video("b.mp4"))
    one, two = bench.work(first), bench.work(other)
    done = bench.done(first)
    with bench.backend.store.open(two.certificate_key) as reading:
        proof = reading.read()
    if of == "another attempt":
        mine = bench.proof(first, one.key, b"small", fence=2)
        proof = mine.to_json().encode()
    if of == "another job, by the ledger":
        done = done.model_copy(update={"rendition": two})
    else:
        bench.backend.store.put(one.certificate_key, proof, metadata={})

    with pytest.raises(VerificationFailed, match="not the one that this farm wrote"):
        bench.collector.collect(done, NEVER)


@pytest.mark.parametrize("error", [DiskFull("full"), Unavailable("away"), Stopped("stop")])
def test_what_may_succeed_later_goes_on_waiting(bench, error):
    job = bench.encode()

    with (
        mock.patch.object(type(bench.backend.store), "collect", side_effect=error),
        pytest.raises(type(error)),
    ):
        bench.collector.collect(bench.done(job), NEVER)

    assert state(bench, job.job_id) is PlacementState.WAITING
    assert not bench.collector.collect(bench.done(job), NEVER).already


def test_a_strangers_file_at_the_target_is_left_and_the_rendition_kept(bench):
    job = bench.queue(bench.video())
    ref = bench.work(job)
    target = bench.media / "a.hevc.mp4"
    target.write_text("a treasure")

    with pytest.raises(LibraryError, match="already exists"):
        bench.collector.collect(bench.done(job), NEVER)

    assert target.read_text() == "a treasure"
    assert bench.backend.store.stat(ref.key) is not None
    target.unlink()
    assert bench.collector.collect(bench.done(job), NEVER).target == target


@pytest.mark.parametrize("mode", [Mode.BESIDE, Mode.REPLACE])
def test_a_rendition_of_what_the_source_was_is_not_put_beside_what_it_is(tmp_path, mode):
    bench = Bench(tmp_path, where=Destination(mode))
    item = bench.video()
    job = bench.queue(item)
    ref = bench.work(job)
    item.path.write_bytes(b"CLIP" * 100)
    os.utime(item.path, ns=(0, 1))

    with pytest.raises(SourceChanged):
        bench.collector.collect(bench.done(job), NEVER)

    assert state(bench, job.job_id) is PlacementState.EXPIRED
    assert bench.backend.store.stat(ref.key) is None
    assert [path.read_bytes() for path in bench.media.glob("*.mp4")] == [b"CLIP" * 100]


def test_a_library_that_is_not_mounted_gets_nothing_and_loses_nothing(bench):
    item = bench.video("disk/a.mp4")
    job = bench.queue(item)
    ref = bench.work(job)
    (bench.media / "disk").rename(bench.folder / "unplugged")

    with pytest.raises(LibraryError, match="is missing"):
        bench.collector.collect(bench.done(job), NEVER)

    assert not (bench.media / "disk").exists()
    assert bench.backend.store.stat(ref.key) is not None
    (bench.folder / "unplugged").rename(bench.media / "disk")
    assert not bench.collector.collect(bench.done(job), NEVER).already


def test_a_job_made_again_takes_the_place_of_its_own_older_rendition(bench):
    item = bench.video()
    job = bench.encode(item)
    bench.collector.collect(bench.done(job), NEVER)
    assert bench.backend.ledger.reopen(job.job_id, who="me", why="better recipe")

    adopted = bench.enqueuer.adopt(replace(item, job_id=job.job_id))
    assert adopted is not None
    assert state(bench, job.job_id) is PlacementState.WAITING
    bench.work(job, b"smaller still")
    bench.collector.collect(bench.done(job), NEVER)

    assert (bench.media / "a.hevc.mp4").read_bytes() == b"smaller still"
    (proof,) = (bench.media / ".hevcq/certificates").iterdir()
    assert hashlib.sha256(b"smaller still").hexdigest() in proof.read_text()


def test_an_older_rendition_that_a_person_edited_is_not_cleared_away_for_a_newer(bench):
    item = bench.video()
    job = bench.encode(item)
    placed = bench.collector.collect(bench.done(job), NEVER).target
    placed.write_bytes(b"cut by hand")
    assert bench.backend.ledger.reopen(job.job_id, who="me", why="better recipe")
    bench.enqueuer.adopt(replace(item, job_id=job.job_id))
    ref = bench.work(job, b"smaller still")

    with pytest.raises(LibraryError, match="already exists"):
        bench.collector.collect(bench.done(job), NEVER)

    assert placed.read_bytes() == b"cut by hand"
    assert bench.backend.store.stat(ref.key) is not None


@pytest.mark.parametrize("what", ["rendition", "certificate", "flipped"])
def test_a_lost_or_damaged_rendition_fails_with_a_remedy_that_makes_it_again(bench, what):
    job = bench.queue(bench.video())
    ref = bench.work(job)
    store = bench.backend.store
    if what == "flipped":
        store.collect = lambda key, target, **_: _written(target, b"smalm")  # type: ignore[method-assign]
    else:
        store.delete(ref.key if what == "rendition" else ref.certificate_key)

    with pytest.raises(VerificationFailed) as caught:
        bench.collector.collect(bench.done(job), NEVER)

    assert str(bench.media / "a.mp4") in str(caught.value)
    assert caught.value.remedy is not None
    assert f"hevcq retry {job.job_id}" in caught.value.remedy
    assert state(bench, job.job_id) is PlacementState.REFUSED
    assert not (bench.media / "a.hevc.mp4").exists()


def _written(target: Path, content: bytes) -> str:
    target.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


KEEP = 30.0


class House:
    """A library with one replaced original, kept for 30 days, and a start of hevcq on it."""

    def __init__(self, folder: Path, wall: float = EARLIEST + 400 * DAY_S) -> None:
        self.bench = Bench(folder, where=Destination(Mode.REPLACE, keep_days=KEEP))
        self.clock = self.bench.clock
        self.clock.jump_wall(wall - self.clock.now())
        job = self.bench.queue(self.bench.video())
        self.bench.work(job)
        self.bench.collector.collect(self.bench.done(job), NEVER)

    def start(self) -> str:
        """Start hevcq as `hevcq ingest` does; return what it said."""
        self.bench.events.clear()
        recover(self.bench.ports, [self.bench.media], self.bench.events.append)
        return " ".join(event.reason or "" for event in self.bench.events)

    @property
    def kept(self) -> bool:
        return bool(list(Swap(self.bench.media, self.clock).kept()))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_an_original_goes_when_its_days_were_lived_through(house):
    house.clock.advance(29 * DAY_S)
    assert house.start() == ""
    assert house.kept
    house.clock.advance(1.1 * DAY_S)

    assert "retention ended" in house.start()
    assert not house.kept


def test_clock_that_runs_60_days_ahead_for_weeks_deletes_nothing_early(house):
    house.clock.jump_wall(60 * DAY_S)
    for _ in range(29):
        assert "1 kept originals stay" in house.start()
        house.clock.advance(DAY_S)
    assert house.kept
    house.clock.jump_wall(-60 * DAY_S)
    assert house.start() == ""
    house.clock.jump_wall(60 * DAY_S)
    house.clock.advance(1.1 * DAY_S)

    assert "retention ended" in house.start()
    assert not house.kept, "30 days were lived through"


def test_a_restart_60_days_ahead_deletes_nothing(house):
    house.clock.restart(off_s=60 * DAY_S)

    said = house.start()

    assert house.kept
    assert "has not been seen running for that long" in said


def test_an_original_that_this_data_folder_does_not_know_is_kept_from_now_on(house):
    house.bench.catalog = new_catalog(house.clock)
    lived_s(house.bench.catalog, house.clock)
    house.clock.advance(40 * DAY_S)
    house.bench.wire()

    assert "1 kept originals stay" in house.start()
    assert house.kept
    house.clock.advance(KEEP * DAY_S)
    house.start()

    assert not house.kept


SEEN = LivedTime(100.0, highest_wall=2e9, uptime_s=50.0, boot="a")


@pytest.mark.parametrize(
    ("change", "gained"),
    [
        ({"uptime_s": 60.0}, 10.0),
        ({"uptime_s": 40.0}, 40.0),
        ({"uptime_s": 60.0, "boot": "b"}, 60.0),
        ({"uptime_s": 60.0, "boot": "b", "highest_wall": 2e9 + 100.0}, 100.0),
        ({"uptime_s": 60.0, "boot": "b", "highest_wall": 9e9}, 60.0 + MAX_OFF_S),
    ],
    ids=["up", "started, by its uptime", "started", "off for a while", "off for too long"],
)
def test_what_passed_is_what_the_kernel_counted_and_little_of_the_rest(change, gained):
    seen = replace(SEEN, **{"highest_wall": 1e9, **change})

    now = advanced(SEEN, seen)

    assert (now.total_s, now.highest_wall) == (100.0 + gained, max(2e9, seen.highest_wall))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../../etc\n"])
def test_an_identity_that_cannot_be_one_is_made_anew(tmp_path, content):
    (tmp_path / IDENTITY).write_bytes(content)
    assert data_folder_id(tmp_path).isalnum()
