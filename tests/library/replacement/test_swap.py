"""What a swap refuses, what it keeps, and that an undo brings back the very same file."""

import dataclasses
import errno
import os

import pytest

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.errors import (
    HevcqError,
    SwapRefused,
)
from hevcq.library.filesystem import FileSystem
from hevcq.library.own_files import own_folder
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import (
    ORIGINAL,
    RENDITION,
    MortalFileSystem,
    looks,
    proof_of,
    strays,
    video,
)


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
    assert proof_of(made).read_text() == made.change.certificate.to_json()
    assert sorted(p.name for p in made.target.parent.iterdir()) == [made.target.name]
    assert strays(tmp_path) == []


def test_an_undo_brings_back_the_same_inode_and_leaves_nothing_of_the_rendition(tmp_path, clock):
    made = video(tmp_path, "tv/video.avi", "video.mkv")
    before = looks(made.source)
    replaced(made, clock)

    Swap(tmp_path, clock).undo(made.change.certificate.job_id)

    assert looks(made.source) == before
    assert os.lstat(made.source).st_ino == made.facts.st_ino
    assert sorted(p.name for p in made.source.parent.iterdir()) == ["video.avi"]
    assert not proof_of(made).exists()
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


def put_folder(made) -> None:
    made.source.unlink()
    made.source.mkdir()


def put_link(made) -> None:
    os.rename(made.source, made.root / "elsewhere.avi")
    made.source.symlink_to(made.root / "elsewhere.avi")


def put_copy(made) -> None:
    (made.root / "copy").write_bytes(ORIGINAL)
    os.utime(made.root / "copy", ns=(1, made.facts.st_mtime_ns))
    os.replace(made.root / "copy", made.source)


def change_within_size_and_times(made) -> None:
    made.source.write_bytes(ORIGINAL[::-1])
    os.utime(made.source, ns=(1, made.facts.st_mtime_ns))


@pytest.mark.parametrize(
    ("meanwhile", "said"),
    [
        (lambda made: os.link(made.source, made.root / "second.avi"), "2 names (hard links)"),
        (lambda made: made.source.unlink(), "no longer exists"),
        (put_folder, "not a regular file"),
        (put_link, "symbolic link"),
        (put_copy, "G0"),
        (lambda made: made.source.write_bytes(ORIGINAL + b"more"), "G0"),
        (lambda made: os.utime(made.source), "G0"),
        (change_within_size_and_times, "SHA-256"),
    ],
    ids=["hard link", "gone", "folder", "link", "copy", "grown", "touched", "within"],
)
def test_an_original_that_is_not_the_scanned_file_alone_is_refused(
    tmp_path, clock, meanwhile, said
):
    made = video(tmp_path)
    meanwhile(made)

    assert said in refused(made, clock)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("video.mkv", "already exists"),
        ("VIDEO.mkv", "VIDEO.mkv"),
        ("video.MKV", "video.MKV"),
    ],
)
def test_a_strangers_file_at_the_target_or_its_twin_by_case_is_refused_and_kept(
    tmp_path, clock, name, said
):
    made = video(tmp_path, "video.avi", "video.mkv")
    (tmp_path / name).write_bytes(b"a stranger's")

    assert said in refused(made, clock)
    assert (tmp_path / name).read_bytes() == b"a stranger's"


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


@pytest.mark.parametrize("other", ["other", "root2"])
def test_an_original_outside_the_root_is_refused(tmp_path, clock, other):
    made = video(tmp_path / other)
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
    ],
    ids=["missing", "failed", "unknown", "off"],
)
def test_a_certificate_without_every_gate_is_refused(tmp_path, clock, gates):
    made = video(tmp_path)
    proof = made.change.certificate
    broken = {gate.gate for gate in gates}
    kept = tuple(r for r in proof.gates if r.gate not in broken) if gates else ()
    proof = proof.model_copy(update={"gates": kept + gates})
    made.change = dataclasses.replace(made.change, certificate=proof)

    assert "does not prove" in refused(made, clock)


@pytest.mark.parametrize(
    ("size", "losses", "said"),
    [
        (len(ORIGINAL) - 1, (), "another source"),
        (len(ORIGINAL) + 1, (), "another source"),
        (len(ORIGINAL), ("a note of the movie",), "lacks: a note of the movie"),
    ],
)
def test_a_certificate_of_another_source_or_of_a_loss_is_refused(
    tmp_path, clock, size, losses, said
):
    made = video(tmp_path)
    source = made.change.certificate.source.model_copy(update={"size": size})
    proof = made.change.certificate.model_copy(update={"source": source, "losses": losses})
    made.change = dataclasses.replace(made.change, certificate=proof)

    assert said in refused(made, clock)


@pytest.mark.parametrize("more", [0, 1])
def test_a_rendition_that_is_not_smaller_replaces_nothing(tmp_path, clock, more):
    made = video(tmp_path, rendition=ORIGINAL + bytes(more))

    assert "is not smaller" in refused(made, clock)


def test_a_copy_of_the_original_that_came_out_wrong_is_never_the_only_one(tmp_path, clock):
    made = video(tmp_path)
    away = own_folder(tmp_path)

    class Rotting(MortalFileSystem):
        def copy(self, old, new):
            new.write_bytes(old.read_bytes()[::-1])

    with pytest.raises(HevcqError, match="copy differs from the original"):
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
