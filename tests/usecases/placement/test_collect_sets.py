"""Placing a set of files: as a whole folder or not at all, whatever dies, fails or is in the way."""

import contextlib
import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hevcq.domain.certificate import (
    REQUIRED_OF_SETS,
    Certificate,
    CertifiedFile,
    GateResult,
    Outcome,
)
from hevcq.domain.job import JobRecord, RenditionRef
from hevcq.domain.keys import certificate_key, member_key, rendition_key, set_version
from hevcq.errors import LibraryError, Unavailable, VerificationFailed
from hevcq.library.filesystem import FileSystem
from hevcq.library.place import FetchFile, ToPlace, place, sweep
from hevcq.library.scanning.scan import Rejected, RejectionCause, find
from hevcq.ports.catalog import PlacementState
from hevcq.ports.store import Publication
from hevcq.usecases.ingest.decide import Item, Recorded, decide
from hevcq.usecases.placement.collect import library_root_of
from support.fakes.backend import HEVC, HLS
from support.fakes.encoder import fake_plan
from support.ingest.run import NEVER, Bench
from support.ingest.values import media_info, video
from support.library import MortalFileSystem
from support.processes import Killed


@dataclass
class SetBench(Bench):
    """A bench whose profile makes sets; its queue is that of the usual profile."""

    def video(self, name: str = "a.mp4", content: bytes = b"clip" * 100) -> Item:
        path = self.media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        found = video(path, root=self.media)
        plan = fake_plan(HLS, media_info())
        return decide(found, HEVC, plan, Recorded(), self.where)

    def work(self, job: JobRecord, content: bytes = b"small") -> RenditionRef:
        fence = self.claim(job)
        key = rendition_key(job.source.key, job.profile, "m3u8")
        version = set_version(job.job_id, fence)
        master = f"#EXTM3U\n{version}/v360.m3u8\n".encode()
        files = {
            f"{version}/sound1.mp4": b"snd",
            f"{version}/v360.mp4": content,
            f"{version}/v360.m3u8": b"#EXTM3U\nv360.mp4\n",
        }
        for name, data in files.items():
            self.publish(job, fence, member_key(key, name), data, {})
        proof = self.proof(job, key, master, fence).model_copy(
            update={
                "files": tuple(
                    CertifiedFile(name=n, size=len(d), sha256=sha(d)) for n, d in files.items()
                ),
                "gates": tuple(
                    GateResult(gate=gate, outcome=Outcome.PASSED) for gate in REQUIRED_OF_SETS
                ),
            }
        )
        proof_key = certificate_key(key, proof.digest)
        self.backend.store.put(proof_key, proof.to_json().encode(), metadata={})
        self.publish(job, fence, key, master, {"certificate": proof_key})
        ref = RenditionRef(
            key=key,
            size=proof.total_size,
            sha256=sha(master),
            certificate_key=proof_key,
            certificate_sha256=proof.digest,
        )
        self.backend.ledger.complete(job.job_id, fence, ref, cpu_s=1.0)
        return ref

    def publish(
        self, job: JobRecord, fence: int, key: str, data: bytes, more: dict[str, str]
    ) -> None:
        file = self.folder / "out"
        file.write_bytes(data)
        metadata = {"job": job.job_id, **more}
        publication = Publication(key, file, sha(data), job.job_id, fence, metadata)
        self.backend.store.publish(publication)

    def again(self, job: JobRecord, content: bytes) -> JobRecord:
        """Reprocess the job: a worker makes another set."""
        self.backend.task_publisher.requeue(self.done(job), who="me", why="again")
        self.work(self.done(job), content)
        return self.done(job)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def bench(tmp_path: Path) -> SetBench:
    return SetBench(tmp_path)


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_set_goes_into_a_folder_beside_its_source(bench):
    job = bench.queue(bench.video())
    ref = bench.work(job)

    done = bench.collector.collect(bench.done(job), NEVER)

    version = f"{job.job_id[:8]}-1"
    assert done.target == bench.media / "a.hevc.hls/master.m3u8"
    assert tree(bench.media / "a.hevc.hls") == {
        "master.m3u8": f"#EXTM3U\n{version}/v360.m3u8\n".encode(),
        f"{version}/sound1.mp4": b"snd",
        f"{version}/v360.mp4": b"small",
        f"{version}/v360.m3u8": b"#EXTM3U\nv360.mp4\n",
    }
    assert done.size == ref.size == sum(map(len, tree(bench.media / "a.hevc.hls").values()))
    (proof,) = (bench.media / ".hevcq/certificates").iterdir()
    assert len(Certificate.parse(proof.read_bytes()).files) == 3
    placement = bench.catalog.placement(job.job_id)
    assert placement.state is PlacementState.PLACED
    assert library_root_of(placement) == bench.media
    assert list(bench.backend.store.list("")) == [], "on one machine the store is emptied"
    assert bench.collector.collect(bench.done(job), NEVER).already


def test_a_forged_certificate_removes_nothing_behind_a_link(bench, tmp_path):
    job = bench.encode()
    bench.collector.collect(bench.done(job), NEVER)
    kept = tmp_path / "elsewhere/below/holiday.mp4"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    placed = bench.media / "a.hevc.hls"
    (placed / "0badf00d-1").symlink_to(tmp_path / "elsewhere")
    (record,) = (bench.media / ".hevcq/certificates").iterdir()
    proof = Certificate.parse(record.read_bytes())
    more = CertifiedFile(name="0badf00d-1/below/holiday.mp4", size=4, sha256=sha(b"mine"))
    forged = proof.model_copy(update={"files": (*proof.files, more)})
    record.write_bytes(forged.to_json().encode())

    bench.collector.collect(bench.again(job, b"other"), NEVER)

    assert kept.read_bytes() == b"mine"
    left = {"0badf00d-1", "master.m3u8", f"{job.job_id[:8]}-2"}
    assert {path.name for path in placed.iterdir()} == left


def test_a_file_that_a_person_put_into_or_changed_in_an_older_set_is_not_removed(bench):
    job = bench.encode()
    bench.collector.collect(bench.done(job), NEVER)
    sound = f"{job.job_id[:8]}-1/sound1.mp4"
    for mine in ("mine.txt", sound):
        (bench.media / "a.hevc.hls" / mine).write_bytes(b"me!")

    bench.collector.collect(bench.again(job, b"other"), NEVER)

    found = tree(bench.media / "a.hevc.hls")
    assert (found["mine.txt"], found[sound]) == (b"me!", b"me!")
    assert shown(found) == b"other"
    assert f"{job.job_id[:8]}-1/v360.mp4" not in found


def shown(found: dict[str, bytes]) -> bytes:
    """Return the picture that the master playlist leads to; every file of its set must be there."""
    version = found["master.m3u8"].decode().splitlines()[1].partition("/")[0]
    assert found[f"{version}/sound1.mp4"] == b"snd"
    assert found[f"{version}/v360.m3u8"] == b"#EXTM3U\nv360.mp4\n"
    return found[f"{version}/v360.mp4"]


def changed(bench: SetBench) -> JobRecord:
    """Place the set of a video, change the video, and have its new set made."""
    bench.place(bench.video(), b"old")
    job = bench.encode(bench.video(content=b"another cut" * 90), b"new")
    return bench.done(job)


def test_the_set_of_a_changed_video_takes_the_place_of_the_old_one(bench):
    job = changed(bench)

    done = bench.collector.collect(job, NEVER)

    assert done.target == bench.media / "a.hevc.hls/master.m3u8"
    found = tree(bench.media / "a.hevc.hls")
    assert shown(found) == b"new"
    assert {name.partition("/")[0] for name in found} == {"master.m3u8", f"{job.job_id[:8]}-1"}
    (proof,) = (bench.media / ".hevcq/certificates").iterdir()
    assert Certificate.parse(proof.read_bytes()).job_id == job.job_id
    states = {each.job_id == job.job_id: each.state for each in bench.catalog.placements()}
    assert states == {True: PlacementState.PLACED, False: PlacementState.EXPIRED}


@pytest.mark.parametrize("harm", ["playlist", "certificate", "other video", "namesake"])
def test_a_set_that_is_not_provably_this_videos_is_not_followed(bench, harm):
    job = changed(bench)
    (record,) = (bench.media / ".hevcq/certificates").iterdir()
    if harm == "playlist":
        (bench.media / "a.hevc.hls/master.m3u8").write_bytes(b"mine")
    elif harm == "certificate":
        record.unlink()
    else:
        other = "/b.mp4" if harm == "other video" else "/elsewhere/a.mp4"
        record.write_text(record.read_text().replace("/a.mp4", other))
    before = tree(bench.media / "a.hevc.hls")

    with pytest.raises(LibraryError, match="already exists"):
        bench.collector.collect(job, NEVER)

    assert tree(bench.media / "a.hevc.hls") == before


def in_hand(bench: SetBench, job: JobRecord) -> tuple[ToPlace, FetchFile]:
    """Return what is placed for a job that is done, and what fetches its files."""
    placement = bench.catalog.placement(job.job_id)
    with bench.backend.store.open(job.rendition.certificate_key) as reading:
        proof = Certificate.read(reading)

    def fetch(name: str, target: Path) -> str:
        key = member_key(proof.rendition_key, name) if name else proof.rendition_key
        with bench.backend.store.open(key) as stream:
            target.write_bytes(stream.read())
        return sha(target.read_bytes())

    return ToPlace(bench.media, placement.source, placement.target, proof), fetch


def test_a_playlist_that_a_person_saves_while_the_new_set_is_collected_stays(bench):
    rendition, fetch = in_hand(bench, changed(bench))
    before = tree(bench.media / "a.hevc.hls")

    def saving(name: str, target: Path) -> str:
        rendition.target.write_bytes(b"mine")
        return fetch(name, target)

    with pytest.raises(LibraryError, match="already exists"):
        place(rendition, saving, FileSystem())

    assert tree(bench.media / "a.hevc.hls") == {**before, "master.m3u8": b"mine"}


@pytest.mark.parametrize("old", [b"", b"old"], ids=["first", "replaced"])
def test_a_kill_after_any_call_shows_the_old_set_or_the_new_one(tmp_path, old):
    ends = set[bytes]()
    for number in range(1, 200):
        (tmp_path / str(number)).mkdir()
        bench = SetBench(tmp_path / str(number))
        if old:
            job = changed(bench)
        else:
            queued = bench.encode(content=b"new")
            job = bench.done(queued)
        fs, folder = MortalFileSystem(number, "after"), bench.media / "a.hevc.hls"
        with contextlib.suppress(Killed):
            place(*in_hand(bench, job), fs)
        ends.add(shown(tree(folder)) if tree(folder) else b"")
        sweep(bench.media, FileSystem())
        assert [p.name for p in bench.media.glob(".hevcq-*")] == []

        bench.collector.collect(job, NEVER)

        found = tree(folder)
        assert shown(found) == b"new"
        assert {name.partition("/")[0] for name in found} == {"master.m3u8", f"{job.job_id[:8]}-1"}
        assert len(list(folder.iterdir())) == 2
        proofs = [path.name for path in (bench.media / ".hevcq/certificates").iterdir()]
        assert sum(job.job_id in name for name in proofs) == 1
        assert [p.name for p in bench.media.glob(".hevcq-*")] == []
        assert not list((bench.media / ".hevcq").glob("busy/*"))
        if fs.count < number:
            break
    assert ends == {old, b"new"}
    assert number > 15


@pytest.mark.parametrize("harm", ["gone", "other bytes"])
def test_a_set_that_the_store_damaged_is_not_placed(bench, harm):
    job = bench.queue(bench.video())
    ref = bench.work(job)
    rung = member_key(ref.key, f"{job.job_id[:8]}-1/v360.mp4")
    if harm == "gone":
        bench.backend.store.delete(rung)
    else:
        bench.backend.store.put(rung, b"noise", metadata={})

    with pytest.raises(VerificationFailed) as raised:
        bench.collector.collect(bench.done(job), NEVER)

    assert "v360.mp4" in raised.value.message
    assert "hevcq retry" in raised.value.remedy
    assert not (bench.media / "a.hevc.hls").exists()
    assert [p.name for p in bench.media.glob(".hevcq-*")] == []


def test_a_scan_takes_no_file_of_a_placed_set_for_a_video(bench):
    bench.place(bench.video())
    (bench.media / "trip.hls").mkdir()
    (bench.media / "trip.hls/mine.mp4").write_bytes(b"mine")
    (bench.media / "trip.hls/master.m3u8").write_bytes(b"#EXTM3U\n")

    found = list(find([bench.media]))

    taken = {
        each.path.relative_to(bench.media).as_posix()
        for each in found
        if not isinstance(each, Rejected)
    }
    assert taken == {"a.mp4", "trip.hls/mine.mp4"}
    assert [each.cause for each in found if isinstance(each, Rejected)] == [
        RejectionCause.OWN_RENDITION
    ]


def test_a_placed_set_with_a_damaged_file_is_noticed(bench):
    job = bench.encode()
    bench.collector.collect(bench.done(job), NEVER)
    placement = bench.catalog.placement(job.job_id)
    assert placement is not None
    assert bench.proofs.why_changed(placement) == ""
    rung = bench.media / f"a.hevc.hls/{job.job_id[:8]}-1/v360.mp4"

    rung.write_bytes(b"noise")
    changed = bench.proofs.why_changed(placement)
    rung.unlink()
    gone = bench.proofs.why_changed(placement)

    words = (
        "a.hevc.hls (its file v360.mp4) was damaged or changed since it was put there; move it away"
    )
    assert words in changed
    assert words in gone


def test_one_file_that_cannot_be_fetched_ends_the_others_before_anything_is_removed(
    bench, monkeypatch
):
    job = bench.encode()
    store, writing, failed = bench.backend.store, threading.Semaphore(0), threading.Event()
    real, left = store.collect, []

    def collect(key: str, *how: Any, **named: Any) -> str:
        if key.endswith("sound1.mp4"):
            writing.acquire(timeout=10)  # another file is being written
            failed.set()
            raise Unavailable("The store does not answer.")
        writing.release()
        failed.wait(10)
        try:
            return real(key, *how, **named)
        except OSError as error:
            left.append(str(error))
            raise

    monkeypatch.setattr(store, "collect", collect)
    with pytest.raises(Unavailable):
        bench.collector.collect(bench.done(job), NEVER)
    assert left == [], "a folder that is still written to was removed"
    assert tree(bench.media) == {"a.mp4": b"clip" * 100} | {
        name: data for name, data in tree(bench.media).items() if name.startswith(".hevcq/")
    }
