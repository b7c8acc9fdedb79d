"""The tag by which the input bucket lets a source go: only when all is settled well, on that version."""

import threading
from pathlib import Path

import pytest

from contracts.backends import PROFILES
from hevcq.backends.aws.factory import open_aws
from hevcq.backends.aws.s3.metadata import MAX_TAGS
from hevcq.domain.job import JobState, Source, job_id
from hevcq.ports.ledger import JobFilter
from hevcq.usecases.operations.reprocess import (
    ReprocessRequest,
    SourceFinisher,
    finished_since,
    reprocess,
)
from support.aws import iam
from support.aws.breaking import Breaking, broken
from support.aws.moto_server import Farm, make_farm
from support.fakes.farm import FakeWorker

pytestmark = pytest.mark.aws
KEY = "TODO/all/a.mp4"
DONE = {"hevcq": "done"}


@pytest.fixture
def farm(farm):
    """A farm whose daily task tags; two profiles want every upload."""
    aws = farm.settings.aws.model_copy(update={"tag_done": True})
    settings = farm.settings.model_copy(update={"aws": aws})
    farm.backend = open_aws(settings, PROFILES, farm.clock, farm.clients)
    return farm


class Shift(FakeWorker):
    """One worker process of the farm: `do` handles what is in queues now, then the daily task runs."""

    def __init__(self, farm: Farm, folder: Path, known=PROFILES):
        super().__init__(farm.backend, folder, farm.clock)
        self.known = known
        self.daily = lambda: list(finished_since(farm.backend, known, farm.clock.now() - 86_400))

    def do(self, *names: str) -> None:
        super().do(*(PROFILES[name] for name in names))
        self.daily()


def upload(farm: Farm, content: bytes = b"clip", **more) -> Source:
    answer = farm.clients.s3.put_object(Bucket="uploads", Key=KEY, Body=content, **more)
    version = answer.get("VersionId") or answer["ETag"].strip('"')
    return Source(bucket="uploads", key=KEY, version=version, size=len(content))


def tags(farm: Farm, source: Source) -> dict[str, str]:
    found = farm.clients.s3.get_object_tagging(
        Bucket=source.bucket, Key=source.key, VersionId=source.version
    )
    return {tag["Key"]: tag["Value"] for tag in found["TagSet"]}


def states(farm: Farm) -> set[JobState]:
    return {job.state for job in farm.backend.ledger.jobs(JobFilter())}


def test_the_last_profile_to_end_well_tags_the_upload(farm, tmp_path):
    source, shift = upload(farm), Shift(farm, tmp_path)

    shift.do("hevc")
    assert tags(farm, source) == {}

    shift.do("720p")
    assert states(farm) == {JobState.DONE}
    assert tags(farm, source) == DONE


def test_a_job_of_a_profile_that_does_not_subscribe_is_waited_for_too(farm, tmp_path):
    known = {**PROFILES, "720p": PROFILES["720p"].model_copy(update={"subscribe": False})}
    source, shift = upload(farm), Shift(farm, tmp_path, known)
    farm.backend.ledger.register(source, ["720p"])

    shift.do("hevc")
    assert tags(farm, source) == {}

    shift.do("720p")
    assert tags(farm, source) == DONE


def test_a_rendition_that_is_not_what_its_job_says_keeps_the_upload(farm, tmp_path):
    source, shift = upload(farm), Shift(farm, tmp_path)
    shift.daily = list
    shift.do("hevc", "720p")
    key = farm.backend.ledger.get(job_id(source, "hevc")).rendition.key
    farm.clients.s3.put_object(Bucket="out", Key=key, Body=b"something else")

    assert list(finished_since(farm.backend, PROFILES, farm.clock.now() - 86_400)) == []
    assert tags(farm, source) == {}


def test_what_ended_before_the_time_is_not_looked_at(farm, tmp_path):
    source, shift = upload(farm), Shift(farm, tmp_path)
    shift.daily = list
    shift.do("hevc", "720p")

    assert list(finished_since(farm.backend, PROFILES, farm.clock.now() + 1)) == []
    assert list(finished_since(farm.backend, PROFILES, farm.clock.now() - 86_400)) == [source]


def test_only_the_version_that_was_worked_on_is_tagged_and_a_newer_one_is_not(farm, tmp_path):
    source, shift = upload(farm), Shift(farm, tmp_path)
    shift.do("hevc", "720p")
    newer = upload(farm, b"another clip")

    SourceFinisher(farm.backend, PROFILES)(source)

    assert (tags(farm, source), tags(farm, newer)) == (DONE, {})


def test_in_a_bucket_without_versions_nothing_is_tagged(farm, tmp_path):
    farm.clients.s3.create_bucket(
        Bucket="plain", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    answer = farm.clients.s3.put_object(Bucket="plain", Key=KEY, Body=b"clip")
    source = Source(bucket="plain", key=KEY, version=answer["ETag"].strip('"'), size=4)

    assert farm.backend.store.mark_source_finished(source, collected=True) is False

    assert farm.clients.s3.get_object_tagging(Bucket="plain", Key=KEY)["TagSet"] == []


def test_other_tags_stay_and_a_persons_word_stands(farm, tmp_path):
    mine = upload(farm, Tagging="team=news")
    Shift(farm, tmp_path).do("hevc", "720p")
    assert tags(farm, mine) == {"team": "news", **DONE}

    kept = upload(farm, b"kept", Tagging="hevcq=keep")
    Shift(farm, tmp_path / "2").do("hevc", "720p")
    assert tags(farm, kept) == {"hevcq": "keep"}

    full = upload(farm, b"full", Tagging="&".join(f"t{n}=x" for n in range(MAX_TAGS)))
    Shift(farm, tmp_path / "3").do("hevc", "720p")
    assert "hevcq" not in tags(farm, full)


def test_what_ingest_took_in_stays_until_its_machine_says_that_it_is_collected(farm, tmp_path):
    video = tmp_path / "a.mp4"
    video.write_bytes(b"clip")
    source = farm.backend.store.accept(video, KEY, moved=lambda _n: None, stop=threading.Event())

    Shift(farm, tmp_path).do("hevc", "720p")
    assert (states(farm), tags(farm, source)) == ({JobState.DONE}, {})

    assert farm.backend.store.mark_source_finished(source, collected=True)
    assert tags(farm, source) == DONE


def test_a_tag_that_cannot_be_written_keeps_the_source_and_not_the_job(farm, tmp_path):
    source = upload(farm)
    farm.backend.store._s3 = Breaking(farm.clients.s3, plan={"put_object_tagging": [broken()]})

    Shift(farm, tmp_path).do("hevc", "720p")

    assert states(farm) == {JobState.DONE}
    assert tags(farm, source) == {}


def test_a_source_that_is_reprocessed_is_held_again_first(farm, tmp_path):
    source, shift = upload(farm, Tagging="team=news"), Shift(farm, tmp_path)
    shift.do("hevc", "720p")

    (again,) = reprocess(farm.backend, ReprocessRequest([job_id(source, "hevc")], who="me"))

    assert again.result == "queued"
    assert tags(farm, source) == {"team": "news", "hevcq": "again"}
    shift.do("hevc")
    assert tags(farm, source) == {"team": "news", **DONE}


def test_what_ingest_finds_there_already_is_held_again_before_it_is_queued(farm, tmp_path):
    video, store = tmp_path / "video.mp4", farm.backend.store
    video.write_bytes(b"clip")

    def accepted() -> Source:
        return store.accept(video, KEY, moved=lambda _n: None, stop=threading.Event())

    source = accepted()
    assert store.mark_source_finished(source, collected=True)

    assert accepted() == source
    assert tags(farm, source) == {"hevcq": "again"}, "the bucket's rule may let it go meanwhile"


def test_without_the_setting_no_tag_is_read_or_written(tmp_path):
    farm = make_farm(PROFILES)
    farm.clock.auto = True
    try:
        source = upload(farm)
        with iam.recorded(farm.clients.s3, farm.clients.control) as calls:
            Shift(farm, tmp_path).do("hevc", "720p")
            list(reprocess(farm.backend, ReprocessRequest([job_id(source, "hevc")], who="me")))
        assert {name for _, name, _ in calls} & {"GetObjectTagging", "PutObjectTagging"} == set()
        assert tags(farm, source) == {}
    finally:
        farm.backend.close()


def test_the_policies_allow_the_tag_on_uploads_alone(farm, tmp_path):
    source = upload(farm)
    shift = Shift(farm, tmp_path)
    daily, shift.daily = shift.daily, list
    shift.do("hevc", "720p")
    with iam.recorded(farm.clients.s3, farm.clients.control, farm.clients.dynamodb) as calls:
        daily()
    with iam.recorded(farm.clients.s3, farm.clients.control) as more:
        list(reprocess(farm.backend, ReprocessRequest([job_id(source, "hevc")], who="me")))

    role = ("modules/input_tagger/roles.tf", "task")
    used = iam.require_allowed(calls, *role)
    assert ("s3:PutObjectVersionTagging", f"input:{KEY}") in used
    tagger, operator = iam.allowed(*role), iam.allowed("operator.tf", "operator")
    asked = {g for call in more for g in iam.needed(*call) if "Tagging" in g[0]}
    assert asked
    assert all(iam.covered(grant, operator) for grant in asked)
    assert not iam.covered(("s3:PutObjectVersionTagging", "output:DONE/hevc/a.mp4"), tagger)
    worker = iam.allowed("modules/worker_service/roles.tf", "task")
    assert not [action for action, _ in worker if "Tagging" in action]
