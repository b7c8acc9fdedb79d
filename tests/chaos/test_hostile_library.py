"""Links, planted names and forged proofs in a person's folders: nothing outside is ever written."""

import hashlib
import json
import os

import pytest

from chaos.hostile_kit import in_time, plant
from hevcq.errors import StorageError, SwapRefused
from hevcq.library.filesystem import FileSystem, temp_of
from hevcq.library.own_files import Certificates, temp_beside
from hevcq.library.place import ToPlace, certificate_of, place
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.replacement.swap import Swap
from hevcq.library.scanning.scan import FoundFile, find
from support.clips import ManualClock
from support.library import RENDITION, certificate, for_ever, one, video

PRECIOUS = b"not yours to write"
LINKS = [os.symlink, os.link]


@pytest.fixture
def outside(tmp_path):
    path = tmp_path / "outside" / "precious"
    path.parent.mkdir()
    path.write_bytes(PRECIOUS)
    return path


def beside(made) -> ToPlace:
    target = made.source.with_suffix(".mkv")
    return ToPlace(made.root, made.source, target, made.change.certificate)


@pytest.mark.parametrize("link", LINKS)
def test_links_planted_at_temporary_names_are_not_written_through(tmp_path, outside, link):
    made = video(tmp_path / "library")
    wanted = beside(made)
    proof = certificate_of(wanted.home, wanted.certificate)
    proof.parent.mkdir(parents=True)
    link(outside, temp_of(proof))
    link(outside, temp_beside(wanted.target, wanted.certificate.job_id))
    place(wanted, one(made.fetch), FileSystem())
    assert outside.read_bytes() == PRECIOUS
    assert proof.is_file()
    assert not proof.is_symlink()
    assert not wanted.target.is_symlink()
    assert wanted.target.read_bytes() == RENDITION


def test_an_original_swapped_for_a_link_between_check_and_read_is_refused(tmp_path, outside):
    class Quick(FileSystem):
        def digest(self, path):
            if path == made.source and not path.is_symlink():
                path.unlink()
                path.symlink_to(outside)
            return super().digest(path)

    made = video(tmp_path / "library")
    with pytest.raises(SwapRefused):
        Swap(made.root, ManualClock(), Quick()).replace(made.change, made.fetch)
    assert outside.read_bytes() == PRECIOUS


@pytest.mark.parametrize("link", ["", "certificates"])
def test_certificates_behind_a_link_are_not_read(tmp_path, link):
    made = video(tmp_path / "elsewhere", "a.mkv", "a.hevc.mkv")
    wanted = ToPlace(made.root, made.source, made.target, made.change.certificate)
    place(wanted, one(made.fetch), FileSystem())
    (tmp_path / "library/.hevcq").mkdir(parents=True)
    if link:
        (tmp_path / "library/.hevcq" / link).symlink_to(made.root / ".hevcq" / link)
    else:
        (tmp_path / "library/.hevcq").rmdir()
        (tmp_path / "library/.hevcq").symlink_to(made.root / ".hevcq")
    moved = made.target.rename(tmp_path / "library" / made.target.name)

    assert list(Certificates().of_rendition(moved, len(made.rendition))) == []
    assert list(Certificates([made.root]).of_rendition(moved, len(made.rendition))) != []


def test_a_pipe_or_giant_under_a_certificates_name_does_not_hold_up_a_scan(tmp_path):
    (tmp_path / "a.mkv").write_bytes(b"source")
    for name in ("a.hevc.mkv", "b.hevc.webm"):
        (tmp_path / name).write_bytes(b"clip" * len(name))
        made = certificate(tmp_path / "a.mkv", b"source", (tmp_path / name).read_bytes())
        trap = certificate_of(tmp_path, made)
        trap.parent.mkdir(parents=True, exist_ok=True)
        plant(trap, "pipe" if name.startswith("a") else "giant")
    found = [item for item in find([tmp_path]) if isinstance(item, FoundFile)]
    assert [item.path.name for item in found] == ["a.hevc.mkv", "a.mkv", "b.hevc.webm"]


def plant_record(root, name: str, **paths: str) -> None:
    """Put a record of a swap that never was into a folder, as an unpacked archive may bring one."""
    digest = hashlib.sha256(PRECIOUS).hexdigest()
    record = {
        "hevcq_swap": 1, "job_id": "a" * 32, "profile": "hevc", "source": "gone.avi",
        "target": "gone.mkv", "new": f".hevcq-{'a' * 32}.part", "aside": None,
        "retained": ".hevcq/originals/2026-01-01/gone.avi",
        "fingerprint": {"size": len(PRECIOUS), "mtime_ns": 1, "inode": 1, "device": 1},
        "source_sha256": digest, "rendition_sha256": digest, "rendition_size": len(PRECIOUS),
        "certificate": "{}", "keep_days": 0.0, "created_at": 1.0,
    }  # fmt: skip
    folder = root / ".hevcq" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{'a' * 32}.json").write_text(json.dumps({**record, **paths}))


CLIMBING = [
    {"new": "video.avi"},
    {"aside": "video.avi"},
    {"retained": "video.avi"},
    {"source": "copy.avi", "retained": "video.avi"},
    {"new": "../outside/precious"},
    {"new": "out/.hevcq-x.part"},
    {"source": "out/new", "retained": ".hevcq/originals/evil"},
    {"source": "copy.avi", "retained": ".hevcq/originals/out/precious"},
    {"job_id": "/../../outside/precious"},
    {"source": "a\0b"},
    {"target": "a\ud800b"},
]  # fmt: skip


@pytest.mark.parametrize("paths", CLIMBING, ids=lambda paths: ",".join(paths.values()))
def test_a_forged_record_of_a_swap_moves_and_removes_nothing(tmp_path, outside, paths):
    root = tmp_path / "library"
    originals = root / ".hevcq" / "originals"
    originals.mkdir(parents=True)
    for path in (root / "video.avi", root / "copy.avi", originals / "evil"):
        path.write_bytes(PRECIOUS)
    for folder in (root, originals):
        (folder / "out").symlink_to(outside.parent)
    before = set(tmp_path.rglob("*"))
    swap = Swap(root, ManualClock())

    plant_record(root, "journal", **paths)
    (settled,) = swap.recover()
    plant_record(root, "kept", **paths)
    for try_it in (lambda: swap.undo("a" * 32), lambda: swap.expire(1e12, for_ever)):
        with pytest.raises(StorageError, match=r"damaged|out is a link"):
            try_it()

    assert settled.outcome is RecoveryOutcome.STUCK
    assert before <= set(tmp_path.rglob("*"))
    assert [path.name for path in outside.parent.iterdir()] == ["precious"]


NOTES = {
    "a link": lambda path, outside: path.symlink_to(outside),
    "a link to nothing": lambda path, outside: path.symlink_to(outside.with_name("new")),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a folder": lambda path, _: path.mkdir(),
    "NUL": lambda path, _: path.write_text('"a\\u0000/.hevcq-x"'),
    "no name": lambda path, _: path.write_text('"\\ud800/.hevcq-x"'),
    "torn": lambda path, _: path.write_text("{"),
    "a video": lambda path, _: path.write_text('"video.avi"'),
    "a way out": lambda path, _: path.write_text('"../outside/.hevcq-x"'),
}


@pytest.mark.parametrize("what", NOTES)
def test_a_forged_note_of_a_placement_holds_up_and_removes_nothing(tmp_path, outside, what):
    root = tmp_path / "library"
    (root / ".hevcq" / "busy").mkdir(parents=True)
    for path in (root / "video.avi", outside.with_name(".hevcq-x")):
        path.write_bytes(PRECIOUS)
    NOTES[what](root / ".hevcq" / "busy" / ("b" * 32), outside)

    assert in_time(Swap(root, ManualClock()).recover) == []

    assert (root / "video.avi").read_bytes() == PRECIOUS
    assert {path.name for path in outside.parent.iterdir()} == {"precious", ".hevcq-x"}


def test_a_link_in_the_locks_place_makes_no_file_elsewhere(tmp_path, outside):
    made = video(tmp_path / "library")
    (made.root / ".hevcq").mkdir()
    (made.root / ".hevcq" / "lock").symlink_to(outside.with_name("new"))
    with pytest.raises(SwapRefused, match="cannot be written"):
        Swap(made.root, ManualClock()).replace(made.change, made.fetch)
    assert not outside.with_name("new").exists()
    assert made.source.read_bytes() == made.original
