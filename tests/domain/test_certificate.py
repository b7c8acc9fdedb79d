"""A certificate proves every required gate or nothing: unknown and missing count as failed."""

import json

import pytest

from hevcq.domain.certificate import (
    NEVER_OFF,
    REQUIRED,
    REQUIRED_OF_SETS,
    Certificate,
    CertifiedFile,
    Gate,
    GateResult,
    Outcome,
    require_passed,
    why_keep_original,
)
from hevcq.domain.job import Source
from hevcq.errors import VerificationFailed

ALL = tuple(GateResult(gate=gate, outcome=Outcome.PASSED) for gate in REQUIRED)


def certificate(**changes) -> Certificate:
    facts = {
        "job_id": "0" * 32,
        "fence": 1,
        "source": Source(bucket="b", key="TODO/a.mp4", version="v", size=9),
        "source_sha256": "a" * 64,
        "rendition_key": "DONE/hevc/a.mp4.mp4",
        "rendition_sha256": "b" * 64,
        "rendition_size": 5,
        "profile": "hevc",
        "revision": "0123456789ab",
        "ffmpeg": "ffmpeg version 5.1",
        "arguments": ("ffmpeg", "-i", "ü\n"),
        "gates": ALL,
        "hevcq_version": "0.1.0",
        "made_at": 1.5,
    }
    return Certificate(**(facts | changes))


def changed(gate: Gate, outcome: Outcome) -> tuple[GateResult, ...]:
    return tuple(
        GateResult(gate=gate, outcome=outcome, detail="why") if r.gate is gate else r for r in ALL
    )


def test_a_certificate_reads_back_as_it_was_written():
    made = certificate(notices=("a track was dropped",))
    assert Certificate.parse(made.to_json()) == made
    assert Certificate.parse(made.to_json().encode()) == made


def test_the_gates_before_placing_are_all_required():
    assert tuple(Gate)[:8] == REQUIRED
    require_passed(ALL)


@pytest.mark.parametrize("gate", REQUIRED)
@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.PASSED])
def test_any_other_outcome_than_passed_proves_nothing_but_an_optional_gate_may_be_off(
    gate, outcome
):
    results = changed(gate, outcome)
    if outcome is Outcome.OFF and gate not in NEVER_OFF:
        require_passed(results)
        return
    with pytest.raises(VerificationFailed, match=gate.name):
        require_passed(results)
    with pytest.raises(VerificationFailed):
        Certificate.parse(certificate(gates=results).to_json())


def without(field: str) -> str:
    return json.dumps(certificate().model_dump(mode="json", exclude={field}))


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "{}", b"\xff\xfe", certificate().to_json().replace("b" * 64, "b" * 63)]
    + [without(each) for each in ("job_id", "source", "source_sha256", "gates", "revision")],
)
def test_what_is_not_a_whole_certificate_proves_nothing(text):
    with pytest.raises(VerificationFailed, match="not readable"):
        Certificate.parse(text)


def test_the_original_is_kept_where_the_rendition_is_not_smaller():
    assert why_keep_original(ALL) is None
    assert why_keep_original(changed(Gate.G6, Outcome.NOT_SMALLER)) == "why"
    # The gates after it need not have run: there is nothing to publish.
    assert why_keep_original(changed(Gate.G6, Outcome.NOT_SMALLER)[:7]) == "why"
    assert why_keep_original([GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER)])


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNKNOWN])
def test_a_failure_outranks_a_rendition_that_is_not_smaller(outcome):
    results = (
        GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER),
        GateResult(gate=Gate.G8, outcome=outcome),
    )
    with pytest.raises(VerificationFailed):
        why_keep_original(results)


@pytest.mark.parametrize(
    "change",
    [
        {"rendition_sha256": "c" * 64},
        {"source_sha256": "c" * 64},
        {"cpu_s": 1.0},
        {"gates": (*ALL, ALL[0])},
    ],
)
def test_an_edited_certificate_has_another_digest(change):
    assert certificate(**change).digest != certificate().digest


RUNG = CertifiedFile(name="0123abcd-1/v720.mp4", size=7, sha256="c" * 64)
ALL_OF_A_SET = tuple(GateResult(gate=gate, outcome=Outcome.PASSED) for gate in REQUIRED_OF_SETS)


def test_a_set_reads_back_with_the_digest_of_each_file():
    made = certificate(files=(RUNG,), gates=ALL_OF_A_SET)
    assert Certificate.parse(made.to_json()) == made
    assert made.total_size == 5 + 7
    other = made.model_copy(update={"files": (RUNG.model_copy(update={"sha256": "d" * 64}),)})
    assert other.digest != made.digest


@pytest.mark.parametrize("files", [(), (RUNG,)], ids=["file", "set"])
@pytest.mark.parametrize("gate", REQUIRED_OF_SETS)
def test_a_file_needs_every_gate_of_files_and_a_set_those_of_sets_too(gate, files):
    missing = tuple(result for result in ALL_OF_A_SET if result.gate is not gate)
    if gate not in REQUIRED and not files:
        require_passed(missing)
        return
    with pytest.raises(VerificationFailed, match=f"{gate.name} .*did not run"):
        require_passed(missing, of_set=bool(files))
    with pytest.raises(VerificationFailed, match=gate.name):
        Certificate.parse(certificate(files=files, gates=missing).to_json())


def test_one_bad_rung_is_named_and_fails_the_set():
    bad = GateResult(gate=Gate.G4, outcome=Outcome.FAILED, detail="broken", file="v360.mp4")
    with pytest.raises(VerificationFailed, match=r"\(G4, v360.mp4\): broken"):
        require_passed((*ALL_OF_A_SET, bad), of_set=True)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a.mp4", "a/../../b", "a\\b.mp4", "a\0b"])
def test_no_file_of_a_set_lies_outside_its_folder(name):
    with pytest.raises(ValueError, match="name"):
        CertifiedFile(name=name, size=1, sha256="c" * 64)
