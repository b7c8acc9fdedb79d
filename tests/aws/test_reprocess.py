"""Uploads that no job knows of are found in the bucket and queued; what is known is left alone."""

from __future__ import annotations

import pytest

from aws.values import take
from hevcq.domain.job import JobState
from hevcq.errors import ConfigError
from hevcq.usecases.reprocess import Order, Result, reprocess_missing

pytestmark = pytest.mark.aws


class NoCatalog:
    def placement(self, _job_id: str) -> None:
        return None


def put(farm, key: str) -> None:
    farm.clients.s3.put_object(Bucket="uploads", Key=key, Body=b"film of " + key.encode())


def lose_the_events(farm) -> None:
    for queue in farm.backend.queues.values():
        while found := take(queue):
            for delivery in found:
                queue.ack(delivery)


def missing(farm, name: str = "TODO/", **more: object) -> list:
    from contracts.backends import PROFILES

    order = Order([name], who="me", **more)
    return list(reprocess_missing(farm.backend, order, PROFILES, NoCatalog()))


def test_an_upload_whose_event_was_lost_is_queued_once_for_each_profile_that_wants_it(farm) -> None:
    put(farm, "TODO/all/a film+é.mp4")
    put(farm, "TODO/all/")
    put(farm, "elsewhere/b.mp4")
    lose_the_events(farm)

    dry = missing(farm, dry_run=True)
    found = missing(farm)

    assert {each.result for each in dry} == {Result.WOULD_QUEUE}
    assert {(each.job.source.key, each.result) for each in found} == {
        ("TODO/all/a film+é.mp4", Result.QUEUED)
    }
    assert len(found) == len(dry) == len({each.job.profile for each in found})
    for each in found:
        (delivery,) = take(farm.backend.queues[each.job.profile])
        assert delivery.tasks[0].job_id == each.job.job_id
        assert farm.backend.ledger.get(each.job.job_id).state is JobState.QUEUED
    assert missing(farm) == [], "they are on their way"


def test_only_the_newest_version_and_only_below_the_prefix_is_queued(farm) -> None:
    put(farm, "TODO/all/in/a.mp4")
    put(farm, "TODO/all/in/a.mp4")
    put(farm, "TODO/all/beside.mp4")
    lose_the_events(farm)
    newest = farm.clients.s3.head_object(Bucket="uploads", Key="TODO/all/in/a.mp4")["VersionId"]

    found = missing(farm, "TODO/all/in/", profiles=("hevc",))

    assert [each.job.source.version for each in found] == [newest]


def test_a_bucket_that_is_gone_is_one_sentence(farm) -> None:
    farm.backend.store._buckets = type(farm.backend.store._buckets)("no-such-bucket", "out")

    with pytest.raises(ConfigError, match="no-such-bucket"):
        list(farm.backend.store.sources("TODO/"))
