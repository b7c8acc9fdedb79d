"""A published rendition is adopted only if it is this job's, proven, and whole: else encoded again."""

import json

import pytest

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobState
from hevcq.domain.verdict import Abandon, Release
from hevcq.errors import LeaseLost, Stopped
from support.fakes.backend import HEVC
from support.fakes.farm import Farm, adoptable
from support.fakes.videofarm import VideoFarm


@pytest.fixture
def farm(tmp_path) -> Farm:
    farm = adoptable(tmp_path)
    farm.seen = farm.store.stat(farm.key(farm.source))
    return farm


def certificate(farm: Farm) -> dict:
    return json.loads(farm.store.content(farm.seen.metadata["certificate"]))


def rewrite(farm: Farm, content: bytes) -> None:
    farm.store.put(farm.seen.metadata["certificate"], content, metadata={})


def encodes_again(farm: Farm) -> None:
    """Require that what is there is not adopted."""
    assert farm.until_settled(farm.source).state is JobState.DONE
    assert farm.encoder.calls.count("encode") == 2


def test_what_a_killed_attempt_published_is_adopted_with_what_it_cost(farm):
    farm.encoder.seconds = 99.0
    record = farm.until_settled(farm.source)

    assert record.state is JobState.DONE
    assert record.cpu_s == 1.0
    assert record.rendition.sha256 == farm.seen.sha256
    assert farm.encoder.calls.count("encode") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"job_id": "0" * 32},
        {"source_sha256": "0" * 64},
        {"rendition_sha256": "0" * 64},
        {"rendition_size": 1},
        {"rendition_key": "DONE/hevc/other.mp4"},
        {"revision": "000000000000"},
        {"profile": "720p"},
        {"ffmpeg": "ffmpeg version 4"},
        {"gates": []},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_certificate_that_proves_something_else_adopts_nothing(farm, change):
    rewrite(farm, json.dumps(certificate(farm) | change).encode())

    encodes_again(farm)


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"x" * 100, None], ids=repr)
def test_a_certificate_that_is_none_or_gone_adopts_nothing(farm, content):
    if content is None:
        farm.store.delete(farm.seen.metadata["certificate"])
    else:
        rewrite(farm, content)

    encodes_again(farm)


def test_a_rendition_whose_bytes_are_not_the_certified_ones_is_not_adopted(farm):
    key = farm.seen.key
    made, content, job, fence = farm.store._objects[key]
    farm.store._objects[key] = (made, content[:-1] + b"?", job, fence)

    encodes_again(farm)


def test_a_certificate_that_the_ledger_does_not_know_adopts_nothing(farm):
    edited = Certificate.model_validate(certificate(farm) | {"cpu_s": 9.0})
    rewrite(farm, edited.to_json().encode())

    encodes_again(farm)


def test_a_new_recipe_encodes_again_over_the_old_rendition(tmp_path):
    farm = Farm(tmp_path)
    source = farm.submit()
    farm.handle()
    before = farm.store.stat(farm.key(source))
    farm.profile = HEVC.model_copy(update={"video": HEVC.video.model_copy(update={"crf": 20.0})})
    farm.encoder.salt = "crf 20"
    farm.backend.task_publisher.requeue(farm.record(source), who="a person", why="a new recipe")

    record = farm.until_settled(source)

    after = farm.store.stat(farm.key(source))
    assert record.state is JobState.DONE
    assert after.sha256 != before.sha256
    assert after.metadata["revision"] == farm.profile.revision


def slow_publication(farm: Farm, cause: Exception) -> list[str]:
    """Have the next publication meet `cause` on its way; return how it then ended."""
    ends: list[str] = []

    def publish(publication):
        farm.store.publish = whole
        farm.lease.end(cause)
        if publication.stop.is_set():
            ends.append("stopped")
            raise Stopped
        ends.append("went on")
        return whole(publication)

    whole, farm.store.publish = farm.store.publish, publish
    return ends


def test_a_lost_lease_ends_it_and_settles_nothing(tmp_path):
    farm = Farm(tmp_path)
    farm.submit()
    ends = slow_publication(farm, LeaseLost())

    assert isinstance(farm.handle().verdict, Abandon)

    assert ends == ["stopped"]
    assert farm.queue.settled == []
    assert farm.store.published == []


def test_a_stop_sends_a_chunk_back_as_it_was(tmp_path):
    farm = VideoFarm(tmp_path)
    source = farm.split()
    ends = slow_publication(farm, Stopped())

    assert isinstance(farm.handle().verdict, Release)

    assert ends == ["stopped"]
    part = farm.chunks(source)[0]
    assert (part.state, part.failures, part.crashes) == (JobState.QUEUED, 0, 0)
