"""What a handler does with one delivery when all goes well, or for a reason that is known."""

from hashlib import sha256
from unittest.mock import Mock

import pytest

from hevcq.domain.certificate import Certificate, Gate, GateResult, Outcome
from hevcq.domain.job import JobState, Task
from hevcq.domain.media.facts import MetadataItem
from hevcq.domain.planning.encode_plan import Refuse, Skip, SkipReason
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.quality import Aim, Probe
from hevcq.domain.verdict import Done, FailureClass, Skipped
from hevcq.ports.encoder import Estimate
from support.fakes.backend import HEVC
from support.fakes.farm import Farm

TOO_LARGE = GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER, detail="about 130 %")


def test_a_source_becomes_one_certified_rendition_and_its_message_is_acked(farm):
    source = farm.submit()

    handled = farm.handle()

    assert handled.verdict == Done()
    record = farm.record(source)
    assert record.state is JobState.DONE
    seen = farm.store.stat(farm.key(source))
    assert record.rendition.key == "DONE/hevc/a.mp4.mp4"
    assert (record.rendition.sha256, record.rendition.size) == (seen.sha256, seen.size)
    certificate = Certificate.parse(farm.store.content(record.rendition.certificate_key))
    assert certificate.rendition_sha256 == seen.sha256
    assert certificate.source == source
    assert certificate.gates[0].gate is Gate.G0
    assert dict(seen.metadata) == {
        "job": record.job_id,
        "fence": "1",
        "profile": "hevc",
        "revision": farm.profile.revision,
        "sha256": seen.sha256,
        "certificate": record.rendition.certificate_key,
    }
    assert farm.queue.settled == [("ack", "m1")]
    assert farm.scratch_files() == []
    assert [h.joined for h in farm.heartbeats] == [1]


def test_only_the_complete_pictures_of_a_recording_are_encoded_and_the_rest_is_reported(farm):
    farm.encoder.trimmed = (b"whole pictures", ("7 pictures left out.",))
    source = farm.submit()

    assert farm.handle().verdict == Done()

    record = farm.record(source)
    made = farm.store.content(farm.key(source))
    assert made == b"rendition " + sha256(b"whole pictures").hexdigest().encode()
    certificate = Certificate.parse(farm.store.content(record.rendition.certificate_key))
    assert "7 pictures left out." in certificate.notices
    assert certificate.source_sha256 != sha256(b"whole pictures").hexdigest()
    assert farm.scratch_files() == []


def test_what_a_recordings_copy_lost_forbids_a_replacement_too(farm):
    plain = farm.encoder.info
    lost = MetadataItem(place="chapters", name="2 editions", size=99, digest="d")
    farm.encoder.info = plain.model_copy(update={"metadata": (lost,)})
    farm.encoder.trimmed = (b"whole pictures", ())
    farm.encoder.during["trim"] = lambda: setattr(farm.encoder, "info", plain)
    farm.with_context(plan=make_plan)
    source = farm.submit()

    assert farm.handle().verdict == Done()

    name = farm.record(source).rendition.certificate_key
    certificate = Certificate.parse(farm.store.content(name))
    assert certificate.losses == ("2 editions of the chapters",)


@pytest.mark.parametrize("mine", [None, (24.0, None)])
def test_a_worker_that_takes_a_job_over_encodes_at_the_crf_that_was_chosen(farm, mine):
    source = farm.store.add_source("TODO/all/a.mp4", b"clip")
    farm.queue.asked = mine  # of a process that chose for its own jobs, the last word
    farm.queue.send_body(Task(source=source, profile="hevc", asked=(27.5, None)).body())

    assert farm.handle().verdict == Done()

    profile = farm.profile if mine else farm.profile.with_asked((27.5, None))
    assert farm.store.stat(farm.key(source)).metadata["revision"] == profile.revision


def test_a_chosen_crf_that_the_profile_does_not_take_fails_its_own_job_alone(farm):
    source = farm.submit()
    farm.receive()
    farm.queue.send_body(Task(source=source, profile="hevc", asked=(99.0, None)).body())

    assert "chose CRF 99" in farm.handle().verdict.reason
    assert (farm.state(source), farm.record(source).failure_class) == (
        JobState.DEAD,
        FailureClass.UNSUPPORTED,
    )


def test_a_display_that_breaks_does_not_break_the_work(farm):
    farm.with_context(on_event=Mock(side_effect=RuntimeError("no terminal")))
    source = farm.submit()

    farm.handle()

    assert farm.state(source) is JobState.DONE


def test_a_task_of_another_profile_is_acked_without_being_claimed(farm):
    source = farm.store.add_source("TODO/all/a.mp4", b"clip")
    farm.queue.send_body(Task(source=source, profile="720p").body())

    farm.handle()

    assert farm.queue.settled == [("ack", "m1")]
    assert farm.ledger.counts() == {}


def test_a_plan_that_says_skip_is_recorded_and_acked(farm):
    skip = Skip(reason=SkipReason.ALREADY_TARGET, detail="It is HEVC already.")
    farm.with_context(plan=lambda _profile, _info: skip)
    source = farm.submit()

    handled = farm.handle()

    assert handled.verdict == Skipped(reason="already_target: It is HEVC already.")
    assert farm.state(source) is JobState.SKIPPED
    assert farm.record(source).reason == "already_target: It is HEVC already."
    assert farm.queue.settled == [("ack", "m1")]
    assert "encode" not in farm.encoder.calls


def test_a_plan_that_refuses_is_buried_naming_the_policy(farm):
    refuse = Refuse(policy="policies.dynamic_hdr", detail="It is Dolby Vision.")
    farm.with_context(plan=lambda _profile, _info: refuse)
    farm.submit()

    farm.handle()

    (letter,) = farm.letters()
    assert letter.failure_class is FailureClass.UNSUPPORTED
    assert letter.reason == "It is Dolby Vision. (policies.dynamic_hdr)"


def too_large(farm, source) -> list[Estimate]:
    return [Estimate(1.3 * farm.record(source).source.size, 0.05, 9)] * 2


def test_a_long_video_whose_trial_encode_is_too_large_is_skipped(farm):
    farm.encoder.info = farm.encoder.info.model_copy(update={"duration_s": 600.0})
    first = farm.submit("a.mp4")
    farm.encoder.estimates = too_large(farm, first)
    farm.handle()
    second = farm.submit("copy.mp4")

    farm.handle()

    said = "Would be larger (about 130 % of the original)."
    assert farm.record(first).reason == f"not_smaller: {said}"
    assert farm.record(second).reason == f"remembered: {said}"
    assert farm.encoder.calls.count("estimate") == 2
    assert "encode" not in farm.encoder.calls
    assert farm.scratch_files() == []


@pytest.mark.parametrize(
    ("duration_s", "large", "calls"),
    [(599.0, 0, 0), (600.0, 0, 1), (600.0, 1, 2)],
    ids=["short", "long, and shrinks by its first sample", "by several"],
)
def test_a_video_that_its_trial_encode_does_not_rule_out_is_encoded(farm, duration_s, large, calls):
    farm.encoder.info = farm.encoder.info.model_copy(update={"duration_s": duration_s})
    farm.encoder.estimates = too_large(farm, farm.submit("a.mp4"))[:large]

    assert farm.handle().verdict == Done()
    assert farm.encoder.calls.count("estimate") == calls
    assert farm.encoder.calls.count("encode") == 1


AIM = Aim(target=93, crf=22.5, sampled=93.1, probes=(), metric="vmaf_v0.6.1")


@pytest.mark.parametrize(
    ("aim", "verified", "crfs", "said"),
    [
        (AIM, [92.0], [22.5], "Quality 92.0"),
        # Frames that the search did not see are worse: once more, better by more than was missed.
        (AIM, [90.0, 93.0], [22.5, 18.0], "Quality 93.0"),
        # A second miss is said, and the video is there.
        (AIM, [90.0, 91.0], [22.5, 18.0], "Only quality 91.0"),
        ("VMAF is not made for HDR", [], [None], "CRF 24 is used"),
    ],
)
def test_a_quality_that_was_asked_for_is_searched_checked_and_said(
    tmp_path, aim, verified, crfs, said
):
    recipe = HEVC.video.model_copy(update={"quality": 93.0, "crf": 24.0})
    farm = Farm(tmp_path, HEVC.model_copy(update={"video": recipe}))
    farm.encoder.info = farm.encoder.info.model_copy(update={"duration_s": 600.0})
    farm.encoder.aim, farm.encoder.verified = aim, list(verified)
    source = farm.submit()

    assert farm.handle().verdict == Done()

    record = farm.record(source)
    assert farm.encoder.crfs == crfs
    assert record.cpu_s == len(crfs)
    # What a search has sampled is not sampled again.
    assert ("estimate" in farm.encoder.calls) is (aim is not AIM)
    assert record.rendition.notices[-1].startswith(said)
    certificate = Certificate.parse(farm.store.content(record.rendition.certificate_key))
    found = certificate.quality
    assert (found and (found.crf, found.verified)) == (
        (verified and (crfs[-1], verified[-1])) or None
    )
    assert farm.scratch_files() == []


@pytest.mark.parametrize(("share", "encoded"), [(1.0, True), (1.3, False)])
def test_a_quality_that_would_take_far_more_than_the_source_is_not_encoded(
    tmp_path, share, encoded
):
    recipe = HEVC.video.model_copy(update={"quality": 93.0})
    farm = Farm(tmp_path, HEVC.model_copy(update={"video": recipe}))
    size = farm.record(farm.submit()).source.size
    probe = Probe(crf=22.5, vmaf=93.1, size=round(share * size))
    farm.encoder.aim, farm.encoder.verified = AIM.model_copy(update={"probes": (probe,)}), [93.0]

    verdict = farm.handle().verdict

    assert (farm.encoder.crfs == [22.5]) is encoded
    assert (" of the original, for VMAF 93" in getattr(verdict, "reason", "")) is not encoded


def test_a_quality_out_of_reach_is_said_before_the_encode_and_the_original_kept(tmp_path):
    recipe = HEVC.video.model_copy(update={"quality": 93.0})
    farm = Farm(tmp_path, HEVC.model_copy(update={"video": recipe}))
    farm.encoder.aim = AIM.model_copy(update={"crf": 12, "sampled": 88.04})
    farm.submit()

    verdict = farm.handle().verdict

    assert "VMAF 93 is out of reach; CRF 12" in verdict.reason
    assert "gives 88.0 in samples" in verdict.reason
    assert farm.encoder.crfs == []
