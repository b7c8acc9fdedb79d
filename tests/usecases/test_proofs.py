"""A certificate counts for the bytes that are there, and only if this farm wrote it or the gates say so."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.domain.certificate import Certificate, Gate, GateResult, Outcome
from hevcq.errors import SourceUnreadable, Stopped, VerificationFailed
from hevcq.library.filesystem import FileSystem
from hevcq.library.own_files import Certificates
from hevcq.ports.catalog import Mode, PlacementState
from hevcq.usecases.ingest.decide import Disposition
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.proofs import OwnRenditions, TargetState
from support.catalog import new_catalog
from support.fakes.backend import memory_backend
from support.ingest.run import NEVER, Bench, session
from support.ingest.values import video

CONTENT = b"rendition" * 1000


@pytest.fixture
def target(bench: Bench) -> Path:
    """A rendition that was encoded and placed beside its source."""
    return bench.place(bench.video(), CONTENT).target


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read and hashed."""
    read: list[str] = []
    digest = FileSystem.digest

    def noted(self: FileSystem, path: Path) -> str:
        read.append(path.name)
        return digest(self, path)

    monkeypatch.setattr(FileSystem, "digest", noted)
    return read


def lost(bench: Bench) -> None:
    """The data folder is gone: catalog and ledger."""
    bench.backend = memory_backend(bench.clock)
    forget(bench)


def forget(bench: Bench) -> None:
    """The catalog is gone, or is another machine's; the ledger is not."""
    bench.catalog = new_catalog(bench.clock)
    bench.wire()


def planned(bench: Bench):
    """Return what an ingest says of the one video."""
    (item,) = session(bench).plan([video(bench.media / "a.mp4", root=bench.media)]).items
    return item


def zeroed(path: Path) -> None:
    """Overwrite 97 % with zeros, and put the times back as a failing disk would leave them."""
    facts, content = path.stat(), path.read_bytes()
    keep = len(content) * 3 // 100
    path.write_bytes(content[:keep] + bytes(len(content) - keep))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def edited(target: Path, **changes: object) -> Certificate:
    """Rewrite the certificate beside the target, and return it."""
    (path,) = Certificates().paths_of_rendition(target, target.stat().st_size)
    proof = Certificate.parse(path.read_bytes()).model_copy(update=changes)
    path.write_text(proof.to_json())
    return proof


def gates_fail(bench: Bench) -> None:
    wrong = GateResult(gate=Gate.G4, outcome=Outcome.FAILED, detail="it does not decode")
    bench.encoder.gates = tuple(
        wrong if result.gate is Gate.G4 else result for result in bench.encoder.gates
    )


@pytest.mark.parametrize("remembered", [True, False])
def test_a_sound_rendition_is_done_and_costs_nothing_the_second_time(
    bench, target, digests, remembered
):
    if not remembered:
        forget(bench)

    assert planned(bench).disposition is Disposition.DONE
    assert digests == ([] if remembered else [target.name])
    assert planned(bench).disposition is Disposition.DONE
    assert digests == ([] if remembered else [target.name])


@pytest.mark.parametrize("remembered", [True, False])
def test_a_rendition_zeroed_to_97_percent_is_not_done(bench, target, remembered):
    if not remembered:
        forget(bench)
    zeroed(target)

    item = planned(bench)

    assert item.disposition is Disposition.REFUSE
    assert f"{target} was damaged or changed" in item.reason
    assert "hevcq retry" in item.reason


def test_a_swapped_rendition_with_an_edited_certificate_is_compared_by_the_gates(bench, target):
    forget(bench)
    target.write_bytes(b"x" * len(CONTENT))
    edited(target, rendition_sha256=FileSystem().digest(target))
    gates_fail(bench)

    item = planned(bench)

    assert item.disposition is Disposition.REFUSE
    assert (
        "failed a new check (The new file cannot be decoded without errors (G4): it does not decode)"
        in item.reason
    )


def test_a_rendition_whose_certificate_nobody_knows_is_compared_by_the_gates_once(bench, target):
    lost(bench)

    assert planned(bench).disposition is Disposition.DONE
    assert planned(bench).disposition is Disposition.DONE
    assert bench.encoder.calls.count("verify") == 1

    edited(target, cpu_s=3.0)
    assert planned(bench).disposition is Disposition.DONE
    assert bench.encoder.calls.count("verify") == 2, "another certificate is another claim"


def test_a_source_that_was_changed_since_without_a_record_is_not_done(bench, target, digests):
    source = bench.media / "a.mp4"
    forget(bench)
    os.utime(source, ns=(1, 1))
    assert planned(bench).disposition is Disposition.DONE, "only its times changed"
    assert source.name in digests

    source.write_bytes(b"CLIP" * 100)

    item = planned(bench)
    assert item.disposition is Disposition.REFUSE
    assert "was made of other bytes" in item.reason


def test_a_moved_source_is_hashed_once_and_its_hashing_can_be_stopped(bench, target, digests):
    moved = (bench.media / "a.mp4").rename(bench.media / "b.mp4")
    os.utime(moved, ns=(1, 1))
    own = OwnRenditions(bench.proofs, Certificates())
    for _ in range(2):
        assert own.state(target, moved, 400) is TargetState.OURS
    assert digests == [moved.name]

    bench.catalog.database.change("DELETE FROM hashed_file")
    bench.proofs.stop.set()
    with pytest.raises(Stopped):
        own.state(target, moved, 400)


@pytest.fixture
def replacing(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path, where=Destination(Mode.REPLACE))
    bench.collector._proofs = replace(bench.proofs, verify_before_replace=True)
    return bench


def test_an_original_goes_for_what_a_fleet_made_only_after_the_gates_on_this_machine(replacing):
    job = replacing.encode()

    done = replacing.collector.collect(replacing.done(job), NEVER)

    assert replacing.encoder.calls.count("verify") == 1
    assert done.target.read_bytes() == b"small"
    assert done.retained is not None


def test_an_original_goes_for_what_this_machine_made_without_another_run_of_the_gates(tmp_path):
    bench = Bench(tmp_path, where=Destination(Mode.REPLACE))
    bench.place(bench.video())

    assert "verify" not in bench.encoder.calls


@pytest.mark.parametrize("why", ["a gate fails", "no profile", "unreadable"])
def test_an_original_stays_where_a_rendition_cannot_be_proven_here(replacing, why):
    item = replacing.video()
    job = replacing.encode(item)
    if why == "a gate fails":
        gates_fail(replacing)
    elif why == "unreadable":
        replacing.encoder.errors["preflight"] = [SourceUnreadable("it cannot be read.")]
    else:
        replacing.collector._proofs = replace(replacing.collector._proofs, profiles={})

    with pytest.raises(VerificationFailed, match="failed the check on this machine") as caught:
        replacing.collector.collect(replacing.done(job), NEVER)

    assert "The original is unchanged." in str(caught.value)
    assert item.path.read_bytes() == b"clip" * 100
    assert replacing.catalog.placement(job.job_id).state is PlacementState.REFUSED


def test_a_file_written_to_while_it_is_hashed_is_not_remembered(bench, target, monkeypatch):
    digest = FileSystem.digest

    def slow(self: FileSystem, path: Path) -> str:
        found = digest(self, path)
        path.write_bytes(b"other" * 9)
        return found

    monkeypatch.setattr(FileSystem, "digest", slow)
    bench.catalog.database.change("DELETE FROM hashed_file")

    bench.proofs.digest(target)

    assert bench.catalog.hashed(target) is None
