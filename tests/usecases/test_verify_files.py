"""`hevcq check --source`: which certificate is believed, and what is said of files that are not as certified."""

import hashlib
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from hevcq.domain.certificate import REQUIRED, Certificate, CertifiedFile, Gate, GateResult, Outcome
from hevcq.domain.job import Task
from hevcq.domain.planning import planner
from hevcq.errors import UsageError, VerificationFailed
from hevcq.library.own_files import certificate_path
from hevcq.usecases import verify_files as use_case
from hevcq.usecases.verify_files import (
    VerifyFilesReport,
    VerifyFilesRequest,
    read_certificate,
    verify_files,
)
from support.fakes.backend import HEVC, HLS
from support.fakes.encoder import FakeEncoder, fake_plan, passed

NEVER = threading.Event()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Pair:
    """A source, its rendition, and certificates where a test puts them."""

    def __init__(self, root: Path, rendition: str = "a.hevc.mp4") -> None:
        self.root = root
        self.source, self.rendition = root / "a.mp4", root / rendition
        self.source.write_bytes(b"source" * 100)
        self.rendition.parent.mkdir(parents=True, exist_ok=True)
        self.rendition.write_bytes(b"rendition")
        self.proof = self.certified()

    def certified(self, **changes: object) -> Certificate:
        body = {"bucket": "b", "key": "TODO/a.mp4", "version": "1", "size": 600}
        task = Task.model_validate({"source": body, "profile": "hevc"})
        gates = tuple(GateResult(gate=gate, outcome=Outcome.PASSED) for gate in REQUIRED)
        facts = {
            "job_id": task.job_id,
            "fence": 1,
            "source": task.source,
            "source_sha256": digest(self.source),
            "rendition_key": "DONE/hevc/a.mp4.mp4",
            "rendition_sha256": digest(self.rendition),
            "rendition_size": 9,
            "profile": "hevc",
            "revision": HEVC.revision,
            "ffmpeg": "ffmpeg",
            "arguments": ("ffmpeg",),
            "gates": gates,
            "hevcq_version": "0",
            "made_at": 1.0,
        }
        return Certificate(**{**facts, **changes})

    def keep(self, proof: Certificate) -> Path:
        sizes = proof.rendition_size, self.source.stat().st_size
        path = certificate_path(self.root, proof.rendition_sha256, sizes, proof.job_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(proof.to_json())
        return path

    def found(self) -> Certificate | None:
        return read_certificate(self.rendition, self.source)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_the_certificate_in_the_library_or_beside_it_is_found(pair):
    beside = pair.rendition.with_name(f"{pair.rendition.name}.certificate.json")
    beside.write_text(pair.proof.to_json())
    assert pair.found() == pair.proof
    beside.unlink()

    pair.keep(pair.proof)
    assert pair.found() == pair.proof


def test_a_rendition_that_was_cut_short_does_not_pass_for_one_without_a_certificate(pair):
    pair.keep(pair.proof)
    pair.rendition.write_bytes(b"rendi")

    assert pair.found() == pair.proof
    pair.source.unlink()
    assert pair.found() is None


def test_a_certificate_that_cannot_be_read_or_is_none_is_reported(pair):
    beside = pair.rendition.with_name(f"{pair.rendition.name}.certificate.json")
    beside.symlink_to(pair.root / "gone.json")
    with pytest.raises(UsageError, match=r"Cannot read the certificate .*\.json: No such"):
        pair.found()
    beside.unlink()
    beside.write_text('{"not": "one"}')
    with pytest.raises(VerificationFailed):
        pair.found()


@pytest.fixture
def of_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setattr(use_case, "make_plan", fake_plan)
    monkeypatch.setattr(planner, "make_plan", fake_plan)
    pair = Pair(tmp_path, "a.hls/master.m3u8")
    chunk = tmp_path / "a.hls" / "v360" / "1.m4s"
    chunk.parent.mkdir()
    chunk.write_bytes(b"chunk")
    file = CertifiedFile(name="v360/1.m4s", size=5, sha256=digest(chunk))
    pair.proof = pair.certified(files=(file,), profile="hls")
    return pair


def verified(
    pair: Pair, proof: Certificate | None, profile=HLS, encoder: FakeEncoder | None = None
) -> VerifyFilesReport:
    request = VerifyFilesRequest(pair.source, pair.rendition, profile, proof)
    return verify_files(
        encoder or FakeEncoder(), request, stop=NEVER, scratch=lambda _: nullcontext(pair.root)
    )


def test_a_set_is_verified_whole_with_the_digest_of_each_file(of_set):
    report = verified(of_set, of_set.proof)
    assert report.passed
    assert [g.file for g in report.gates if g.gate is Gate.G9] == ["", "1.m4s"]

    (of_set.rendition.parent / "v360" / "1.m4s").write_bytes(b"other")
    (failed,) = verified(of_set, of_set.proof).failures
    assert (failed.gate, failed.file, failed.detail) == (
        Gate.G9,
        "1.m4s",
        "digest differs from the certificate",
    )

    (of_set.rendition.parent / "v360" / "1.m4s").unlink()
    encoder = FakeEncoder()
    encoder.verify = lambda *_, **__: ()
    gone = verified(of_set, of_set.proof, encoder=encoder)
    assert [g.file for g in gone.failures] == ["1.m4s"]


def test_a_set_and_one_file_are_told_apart(of_set):
    with pytest.raises(UsageError, match="is a set of files, which the profile hevc does not make"):
        verified(of_set, None, HEVC)
    of_set.rendition = of_set.root / "a.mp4"
    with pytest.raises(UsageError, match="is one file, which the profile hls does not make"):
        verified(of_set, None)


def test_a_gate_that_the_certificate_does_not_record_is_unknown(pair):
    proof = pair.certified(gates=tuple(g for g in pair.proof.gates if g.gate is not Gate.G1))
    report = verified(pair, proof, HEVC)
    first = next(g for g in report.gates if g.gate is Gate.G1)
    assert (first.outcome, first.detail) == (Outcome.UNKNOWN, "not certified")
    assert not report.passed


@pytest.mark.parametrize(("which", "gate"), [("source", Gate.G0), ("rendition", Gate.G9)])
def test_other_bytes_than_the_certificate_names_do_not_pass(pair, which, gate):
    assert verified(pair, pair.proof, HEVC).passed
    getattr(pair, which).write_bytes(b"one bit more")
    report = verified(pair, pair.proof, HEVC)
    assert not report.passed
    assert [r.gate for r in report.gates if r.outcome is Outcome.FAILED] == [gate]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNKNOWN, Outcome.NOT_SMALLER])
def test_any_gate_that_does_not_pass_fails_the_pair(pair, outcome):
    encoder = FakeEncoder()
    assert verified(pair, None, HEVC, encoder).passed
    encoder.gates = passed(GateResult(gate=Gate.G4, outcome=outcome, detail="why"))
    assert not verified(pair, None, HEVC, encoder).passed
