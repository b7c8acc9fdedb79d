"""Uploads that no job knows of are found in the bucket and queued; what is known is left alone."""

from dataclasses import replace

import pytest

from contracts.backends import PROFILES
from hevcq.backends.aws.clients import MESSAGE_RETENTION_S
from hevcq.backends.aws.dynamodb.schema import job_pk, text
from hevcq.domain.job import JobState, Source, job_id
from hevcq.ports.ledger import JobFilter
from hevcq.usecases.operations.reprocess import (
    JobResult,
    ReprocessRequest,
    jobs_named,
    reprocess_missing,
)
from support.aws.values import NoCatalog, put, take
from support.fakes.farm import FakeWorker

pytestmark = pytest.mark.aws


def lose_the_events(farm) -> None:
    for queue in farm.backend.queues.values():
        while found := take(queue):
            for delivery in found:
                queue.ack(delivery)


def missing(farm, name: str = "TODO/", **more: object) -> list:
    order = ReprocessRequest([name], who="me", **more)
    return list(reprocess_missing(farm.backend, order, PROFILES, NoCatalog()))


@pytest.mark.parametrize("key", ["TODO/all/machine.here/v/a.mp4", "TODO/hevc/machine.here/v/a.mp4"])
def test_a_path_finds_its_jobs_under_this_machines_keys(farm, key):
    backend = replace(farm.backend, namespace=lambda: "here")
    there = "TODO/all/machine.there/v/a.mp4"
    for each in (key, there):
        source = Source(bucket="uploads", key=each, version="v1", size=1)
        backend.ledger.register(source, ["hevc"])

    for name in ("/v/a.mp4", "/v"):
        assert [job.source.key for job in jobs_named(backend, name)] == [key], name
    everything = [job.source.key for job in jobs_named(backend, "/")]
    assert there not in everything


def test_an_upload_whose_event_was_lost_is_queued_once_for_each_profile_that_wants_it(farm):
    put(farm, "TODO/all/a video+é.mp4")
    put(farm, "TODO/all/")
    put(farm, "elsewhere/b.mp4")
    lose_the_events(farm)

    dry = missing(farm, dry_run=True)
    found = missing(farm)

    assert {each.result for each in dry} == {JobResult.WOULD_QUEUE}
    assert {(each.job.source.key, each.result) for each in found} == {
        ("TODO/all/a video+é.mp4", JobResult.QUEUED)
    }
    assert len(found) == len(dry) == len({each.job.profile for each in found})
    for each in found:
        (delivery,) = take(farm.backend.queues[each.job.profile])
        assert delivery.tasks[0].job_id == each.job.job_id
        assert farm.backend.ledger.get(each.job.job_id).state is JobState.QUEUED
    assert missing(farm) == [], "they are on their way"


def test_only_the_newest_version_and_only_below_the_prefix_is_queued(farm):
    put(farm, "TODO/all/in/a.mp4")
    put(farm, "TODO/all/in/a.mp4")
    put(farm, "TODO/all/beside.mp4")
    lose_the_events(farm)
    newest = farm.clients.s3.head_object(Bucket="uploads", Key="TODO/all/in/a.mp4")["VersionId"]

    found = missing(farm, "TODO/all/in/", profiles=("hevc",))

    assert [each.job.source.version for each in found] == [newest]


def waiting(farm, *, begun: bool = False) -> Source:
    """Queue a job whose message is gone; `begun`: its worker died in it."""
    put(farm, "TODO/hevc/a.mp4")
    lose_the_events(farm)
    (source,) = farm.backend.store.sources("TODO/hevc/a.mp4")
    farm.backend.task_publisher.publish(source, ["hevc"], announced=False)
    if begun:
        farm.backend.ledger.claim(source, "hevc", owner="dead", lease_s=300)
    lose_the_events(farm)
    return source


@pytest.mark.parametrize("begun", [False, True])
def test_a_job_whose_message_sqs_kept_no_longer_is_queued_again_once(farm, begun):
    source = waiting(farm, begun=begun)
    assert missing(farm) == [], "it is on its way, as far as anybody knows"
    farm.clock.advance(MESSAGE_RETENTION_S + 301)

    assert [each.result for each in missing(farm, dry_run=True)] == [JobResult.WOULD_QUEUE]
    assert [each.result for each in missing(farm)] == [JobResult.QUEUED]

    assert missing(farm) == [], "its message is new"
    (delivery,) = take(farm.backend.queues["hevc"])
    assert delivery.tasks[0].source == source


def test_a_job_that_a_worker_has_in_hand_or_that_ended_is_not_forgotten(farm):
    source = waiting(farm, begun=True)
    ledger, task_publisher = farm.backend.ledger, farm.backend.task_publisher
    name = job_id(source, "hevc")
    farm.clock.advance(MESSAGE_RETENTION_S + 1)
    ledger.renew(name, 1, lease_s=300)
    assert not task_publisher.message_expired(ledger.get(name))

    ledger.skip(name, 1, "not worth it")
    farm.clock.advance(MESSAGE_RETENTION_S + 1)

    assert not task_publisher.message_expired(ledger.get(name))
    assert task_publisher.requeue(ledger.get(name), who="me", why="again")
    assert not task_publisher.message_expired(
        ledger.get(name).model_copy(update={"profile": "gone"})
    )


def worked_off(farm, folder) -> None:
    """Have a worker make what is queued."""
    worker = FakeWorker(farm.backend, folder, farm.clock)
    worker.do(PROFILES["hevc"], PROFILES["720p"])
    worker.context.scratch.close()


@pytest.mark.parametrize("key", ["TODO/all/a video+é.mp4", "TODO/all/" + "é" * 507])
def test_an_upload_whose_rendition_is_there_is_not_missing_though_the_ledger_forgot_it(
    farm, tmp_path, key
):
    put(farm, key)
    worked_off(farm, tmp_path)
    jobs = list(farm.backend.ledger.jobs(JobFilter(states=frozenset({JobState.DONE}))))
    assert len(jobs) == 2
    for job in jobs:  # as the table does half a year after the job ended
        pk = {"pk": text(job_pk(job.job_id, job.profile))}
        farm.clients.dynamodb.delete_item(TableName=farm.settings.aws.table, Key=pk)
    assert list(farm.backend.ledger.jobs(JobFilter())) == []

    assert missing(farm) == []

    farm.backend.store.delete(next(j.rendition.key for j in jobs if j.profile == "hevc"))
    assert [each.job.profile for each in missing(farm)] == ["hevc"], "a proof alone is no video"
