"""Uploads of other folders of the inbox may come to one name: no video takes another's place."""

import pytest

from hevcq.domain.job import JobState, Source
from hevcq.domain.keys import LIBRARY_BUCKET
from hevcq.domain.verdict import FailureClass
from support.fakes.farm import Farm


def upload(farm: Farm, key: str, content: bytes) -> Source:
    source = farm.store.add_source(key, content)
    farm.backend.task_publisher.publish(source, [farm.profile.name], announced=False)
    return source


@pytest.mark.parametrize("key", ["TODO/a.mp4", "TODO/hevc/a.mp4"])
def test_a_video_whose_name_another_video_has_is_not_encoded_and_replaces_nothing(farm, key):
    first = farm.submit("a.mp4", b"one clip")
    assert farm.until_settled(first).state is JobState.DONE
    visible = farm.store.stat(farm.key(first))
    second = upload(farm, key, b"another clip")
    assert farm.key(second) == farm.key(first)

    record = farm.until_settled(second)

    assert (record.state, record.failure_class) == (JobState.DEAD, FailureClass.REVIEW)
    assert f"the rendition of {first.key}, which is another video" in farm.letters()[0].reason
    assert farm.store.stat(farm.key(first)) == visible
    assert farm.encoder.calls.count("encode") == 1


def test_of_two_such_videos_under_way_at_once_the_first_that_is_published_stays(farm):
    first = farm.submit("a.mp4", b"one clip")
    second = upload(farm, "TODO/a.mp4", b"another clip")
    farm.encoder.during["encode"] = lambda: farm.encoder.during.clear() or farm.handle("other:0")

    farm.handle()

    assert farm.record(second).state is JobState.DONE
    record = farm.record(first)
    assert (record.state, record.failure_class) == (JobState.DEAD, FailureClass.REVIEW)
    seen = farm.store.stat(farm.key(second))
    assert seen.metadata["job"] == farm.record(second).job_id
    left = {each.key for each in farm.store.list("DONE/")}
    assert left == {seen.key, seen.metadata["certificate"]}, "a certificate without a rendition"


@pytest.mark.parametrize(
    ("key", "content"),
    [("TODO/a.mp4", b"one clip"), ("TODO/all/a.mp4", b"the clip, cut anew")],
    ids=["the same video by another way", "a newer video at the same key"],
)
def test_the_same_video_or_a_newer_version_is_encoded(farm, key, content):
    farm.until_settled(farm.submit("a.mp4", b"one clip"))

    assert farm.until_settled(upload(farm, key, content)).state is JobState.DONE


def test_a_rendition_without_a_certificate_is_replaced(farm):
    first = farm.submit("a.mp4", b"one clip")
    farm.until_settled(first)
    farm.store.delete(farm.store.stat(farm.key(first)).metadata["certificate"])

    second = upload(farm, "TODO/a.mp4", b"another clip")

    assert farm.until_settled(second).state is JobState.DONE


def test_in_a_library_a_video_is_its_path_whichever_way_it_is_ingested(farm):
    for way, content in (("hevc", b"one clip"), ("all", b"the clip, cut anew")):
        key = f"TODO/{way}/nas/a.mp4"
        source = farm.store.add_source(key, content, bucket=LIBRARY_BUCKET)
        farm.backend.task_publisher.publish(source, [farm.profile.name], announced=False)

        assert farm.until_settled(source).state is JobState.DONE
