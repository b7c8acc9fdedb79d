"""What a swap refuses, what it keeps, and that an undo brings back the very same file."""

from __future__ import annotations

import dataclasses
import os

import pytest

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.errors import (
    SwapRefused,
)
from hevcq.library.filesystem import FileSystem
from hevcq.library.names import certificate_beside
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import ORIGINAL, RENDITION, looks, strays, video


@pytest.fixture
def clock():
    return ManualClock()


def replaced(made, clock):
    return Swap(made.root, clock).replace(made.change, made.fetch)


def refused(made, clock) -> str:
    before = looks(made.source) if made.source.is_file() else None
    with pytest.raises(SwapRefused) as caught:
        Swap(made.root, clock).replace(made.change, made.fetch)
    if before is not None:
        assert looks(made.source) == before
    assert strays(made.root) == []
    assert list(made.root.rglob(".hevcq/originals/*")) == []
    return str(caught.value)


def test_a_replaced_original_leaves_its_times_rights_and_attributes_to_the_rendition(
    tmp_path, clock
):
    made = video(tmp_path, "tv/video.avi", "video.mkv")
    before = looks(made.source)

    done = replaced(made, clock)

    assert not made.source.exists()
    assert looks(made.target) == (RENDITION, *before[1:])
    assert looks(done.retained) == before
    assert os.lstat(done.retained).st_ino == made.facts.st_ino
    assert certificate_beside(made.target).read_text() == made.change.certificate.to_json()
    assert strays(tmp_path) == []


def test_an_undo_brings_back_the_same_inode_and_leaves_nothing_of_the_rendition(tmp_path, clock):
    made = video(tmp_path, "tv/video.avi", "video.mkv")
    before = looks(made.source)
    replaced(made, clock)

    Swap(tmp_path, clock).undo(made.change.certificate.job_id)

    assert looks(made.source) == before
    assert os.lstat(made.source).st_ino == made.facts.st_ino
    assert sorted(p.name for p in made.source.parent.iterdir()) == ["video.avi"]
    assert list(tmp_path.rglob(".hevcq/originals/*")) == []


def test_a_second_replace_of_the_same_job_changes_nothing(tmp_path, clock):
    made = video(tmp_path)
    replaced(made, clock)
    before = looks(made.target)

    again = Swap(tmp_path, clock).replace(made.change, lambda new: pytest.fail("fetched again"))

    assert again.already
    assert looks(made.target) == before


def test_a_second_replace_is_refused_once_the_rendition_was_edited(tmp_path, clock):
    made = video(tmp_path)
    replaced(made, clock)
    made.target.write_bytes(b"edited")

    with pytest.raises(SwapRefused, match="hevcq undo"):
        Swap(tmp_path, clock).replace(made.change, made.fetch)
    assert made.target.read_bytes() == b"edited"


def test_a_hard_linked_original_is_refused(tmp_path, clock):
    made = video(tmp_path)
    os.link(made.source, tmp_path / "second name.avi")

    assert "2 names (hard links)" in refused(made, clock)


@pytest.mark.parametrize("how", ["grown", "touched", "replaced"])
def test_an_original_that_changed_since_the_scan_is_refused(tmp_path, clock, how):
    made = video(tmp_path)
    if how == "grown":
        with made.source.open("ab") as more:
            more.write(b"more")
    elif how == "touched":
        os.utime(made.source)
    else:
        other = tmp_path / "other"
        other.write_bytes(ORIGINAL)
        os.utime(other, ns=(1, made.facts.st_mtime_ns))
        os.replace(other, made.source)

    assert "G0" in refused(made, clock)


def test_an_original_changed_within_its_size_and_times_is_refused_by_its_digest(tmp_path, clock):
    made = video(tmp_path)
    made.source.write_bytes(ORIGINAL[::-1])
    os.utime(made.source, ns=(1, made.facts.st_mtime_ns))

    assert "SHA-256" in refused(made, clock)


def test_an_original_that_is_gone_is_refused(tmp_path, clock):
    made = video(tmp_path)
    made.source.unlink()

    assert "is gone" in refused(made, clock)


def test_a_symlink_in_the_originals_place_is_refused(tmp_path, clock):
    made = video(tmp_path)
    elsewhere = tmp_path / "elsewhere.avi"
    os.rename(made.source, elsewhere)
    made.source.symlink_to(elsewhere)

    assert "symbolic link" in refused(made, clock)
    assert elsewhere.read_bytes() == ORIGINAL


def test_a_folder_in_the_originals_place_is_refused(tmp_path, clock):
    made = video(tmp_path)
    made.source.unlink()
    made.source.mkdir()

    assert "not a regular file" in refused(made, clock)


def test_a_strangers_file_at_the_target_is_refused_and_kept(tmp_path, clock):
    made = video(tmp_path, "video.avi", "video.mkv")
    made.target.write_bytes(b"a stranger's")

    assert "exists already" in refused(made, clock)
    assert made.target.read_bytes() == b"a stranger's"


@pytest.mark.parametrize("twin", ["VIDEO.mkv", "video.MKV"])
def test_a_name_that_differs_only_by_case_from_the_target_is_refused(tmp_path, clock, twin):
    made = video(tmp_path, "video.avi", "video.mkv")
    (tmp_path / twin).write_bytes(b"a twin")

    assert twin in refused(made, clock)


def test_a_target_that_is_the_original_in_another_case_is_refused(tmp_path, clock):
    assert "only by case" in refused(video(tmp_path, "video.MKV", "video.mkv"), clock)


def test_a_target_that_is_the_originals_own_inode_is_refused(tmp_path, clock):
    class OneInode(FileSystem):
        """A case-insensitive share that finds the original under the target's name too."""

        def lstat(self, path):
            return super().lstat(made.source if path == made.target else path)

    made = video(tmp_path, "video.avi", "video.mkv")
    with pytest.raises(SwapRefused, match="one file"):
        Swap(tmp_path, clock, OneInode()).replace(made.change, made.fetch)
    assert made.source.read_bytes() == ORIGINAL


def test_a_target_in_another_folder_is_refused(tmp_path, clock):
    made = video(tmp_path, "video.avi")
    made.change = dataclasses.replace(made.change, target=tmp_path / "sub" / "video.mkv")

    assert "another folder" in refused(made, clock)


def test_an_original_outside_the_root_is_refused(tmp_path, clock):
    made = video(tmp_path / "other")
    (tmp_path / "root").mkdir()
    with pytest.raises(SwapRefused, match="not below the library root"):
        Swap(tmp_path / "root", clock).replace(made.change, made.fetch)


@pytest.mark.parametrize(
    "gates",
    [
        (),
        (GateResult(gate=Gate.G4, outcome=Outcome.FAILED, detail="3 error lines"),),
        (GateResult(gate=Gate.G4, outcome=Outcome.UNKNOWN),),
        (GateResult(gate=Gate.G4, outcome=Outcome.OFF),),
        (GateResult(gate=Gate.G7, outcome=Outcome.REVIEW),),
    ],
    ids=["missing", "failed", "unknown", "off", "review"],
)
def test_a_certificate_without_every_gate_is_refused(tmp_path, clock, gates):
    made = video(tmp_path)
    proof = made.change.certificate
    broken = {gate.gate for gate in gates}
    kept = tuple(r for r in proof.gates if r.gate not in broken) if gates else ()
    proof = proof.model_copy(update={"gates": kept + gates})
    made.change = dataclasses.replace(made.change, certificate=proof)

    assert "does not prove" in refused(made, clock)


def test_a_certificate_of_another_source_is_refused(tmp_path, clock):
    made = video(tmp_path)
    source = made.change.certificate.source.model_copy(update={"size": 7})
    proof = made.change.certificate.model_copy(update={"source": source})
    made.change = dataclasses.replace(made.change, certificate=proof)

    assert "another source" in refused(made, clock)
