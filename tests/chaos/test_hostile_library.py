"""Links, planted names and forged proofs in a person's folders: nothing outside is ever written."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from hevcq.domain.certificate import Gate, GateResult, Outcome, require_passed
from hevcq.errors import LibraryError, SwapRefused, VerificationFailed
from hevcq.library.files import FileSystem, temp_of
from hevcq.library.names import certificate_beside, temp_beside
from hevcq.library.place import Rendition, place
from hevcq.library.scan import Found, find
from hevcq.library.swap import Swap
from library.libkit import RENDITION, certificate, film
from support import ManualClock

PRECIOUS = b"not yours to write"
LINKS = [os.symlink, os.link]


@pytest.fixture
def outside(tmp_path):
    path = tmp_path / "outside" / "precious"
    path.parent.mkdir()
    path.write_bytes(PRECIOUS)
    return path


def beside(made) -> Rendition:
    target = made.source.with_suffix(".mkv")
    return Rendition(made.root, made.source, target, made.change.certificate)


@pytest.mark.parametrize("link", LINKS)
def test_a_link_planted_at_the_certificates_temporary_name_is_not_written_through(
    tmp_path, outside, link
):
    made = film(tmp_path / "library")
    wanted = beside(made)
    link(outside, temp_of(certificate_beside(wanted.target)))
    place(wanted, made.fetch, FileSystem())
    assert outside.read_bytes() == PRECIOUS
    assert not certificate_beside(wanted.target).is_symlink()
    assert wanted.target.read_bytes() == RENDITION


@pytest.mark.parametrize("link", LINKS)
def test_a_link_planted_at_the_renditions_temporary_name_is_not_written_through(
    tmp_path, outside, link
):
    made = film(tmp_path / "library")
    wanted = beside(made)
    link(outside, temp_beside(wanted.target, wanted.certificate.job_id))
    place(wanted, made.fetch, FileSystem())
    assert outside.read_bytes() == PRECIOUS
    assert not wanted.target.is_symlink()


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_at_the_target_is_refused_and_what_it_names_stays_as_it_is(
    tmp_path, outside, dangling
):
    made = film(tmp_path / "library")
    wanted = beside(made)
    named = outside.with_name("new") if dangling else outside
    wanted.target.symlink_to(named)
    with pytest.raises(LibraryError):
        place(wanted, made.fetch, FileSystem())
    assert named.exists() is not dangling
    assert outside.read_bytes() == PRECIOUS


def test_a_folder_swapped_for_a_link_between_scan_and_swap_is_refused(tmp_path, outside):
    made = film(tmp_path / "library")
    twin = outside.parent / made.source.name
    twin.write_bytes(made.original)
    made.source.parent.rename(tmp_path / "library" / "moved")
    made.source.parent.symlink_to(outside.parent)
    with pytest.raises(SwapRefused, match="changed since it was scanned"):
        Swap(made.root, ManualClock()).replace(made.change, made.fetch)
    assert twin.read_bytes() == made.original


def test_an_original_swapped_for_a_link_between_check_and_read_is_refused(tmp_path, outside):
    class Quick(FileSystem):
        def digest(self, path):
            if path == made.source and not path.is_symlink():
                path.unlink()
                path.symlink_to(outside)
            return super().digest(path)

    made = film(tmp_path / "library")
    with pytest.raises(SwapRefused):
        Swap(made.root, ManualClock(), Quick()).replace(made.change, made.fetch)
    assert outside.read_bytes() == PRECIOUS


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b'{"a":' * 100_000, b"\xff\xfe{", b"9" * 10_000],
    ids=["deep list", "deep object", "no UTF-8", "a number too long"],
)
def test_a_hostile_file_under_the_certificates_name_is_refused(tmp_path, content):
    made = film(tmp_path / "library")
    wanted = beside(made)
    certificate_beside(wanted.target).write_bytes(content)
    with pytest.raises(LibraryError, match="not one of hevcq's certificates"):
        place(wanted, made.fetch, FileSystem())
    assert certificate_beside(wanted.target).read_bytes() == content


def test_a_certificates_name_taken_by_gigabytes_costs_no_memory(tmp_path):
    class Counting(FileSystem):
        def read(self, path):
            assert path.stat().st_size < 2**26, "read whole"
            return super().read(path)

    made = film(tmp_path / "library")
    wanted = beside(made)
    with certificate_beside(wanted.target).open("wb") as sparse:
        sparse.truncate(8 * 2**30)
    with pytest.raises(LibraryError, match="not one of hevcq's certificates"):
        place(wanted, made.fetch, Counting())


def test_a_pipe_or_giant_under_a_certificates_name_does_not_hold_up_a_scan(tmp_path):
    for name in ("a.hevc.mkv", "b.hevc.mkv"):
        (tmp_path / name).write_bytes(b"film")
    os.mkfifo(certificate_beside(tmp_path / "a.hevc.mkv"))
    with certificate_beside(tmp_path / "b.hevc.mkv").open("wb") as sparse:
        sparse.truncate(8 * 2**30)
    found = [item for item in find([tmp_path]) if isinstance(item, Found)]
    assert [item.path.name for item in found] == ["a.hevc.mkv", "b.hevc.mkv"]


@pytest.mark.parametrize("first", [Outcome.FAILED, Outcome.UNKNOWN, Outcome.REVIEW])
def test_a_pass_added_behind_a_failed_gate_proves_nothing(tmp_path, first):
    proof = film(tmp_path).change.certificate
    forged = (GateResult(gate=Gate.G4, outcome=first), *proof.gates)
    with pytest.raises(VerificationFailed, match="G4"):
        require_passed(forged)


def forged(made, **changes):
    return made.change.certificate.model_copy(update=changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"rendition_sha256": "0" * 64},
        {"rendition_size": 1},
        {"source_sha256": "0" * 64},
        {"gates": ()},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_forged_certificate_replaces_nothing(tmp_path, changes):
    made = film(tmp_path / "library")
    change = replace(made.change, certificate=forged(made, **changes))
    with pytest.raises((SwapRefused, VerificationFailed)):
        Swap(made.root, ManualClock()).replace(change, made.fetch)
    assert made.source.read_bytes() == made.original


def test_the_certificate_of_another_film_replaces_nothing(tmp_path):
    made = film(tmp_path / "library")
    other = made.source.with_name("other.avi")
    other.write_bytes(made.original[::-1])
    proof = certificate(other, made.original[::-1], made.rendition)
    with pytest.raises(SwapRefused, match="SHA-256"):
        Swap(made.root, ManualClock()).replace(replace(made.change, certificate=proof), made.fetch)
    assert made.source.read_bytes() == made.original
