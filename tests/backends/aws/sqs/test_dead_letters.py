"""Dead letters over SQS: listed without being lost, redriven by us or by SQS, killed in between."""

import pytest

from contracts.backends import MAX_RECEIVES, PROFILES, VISIBILITY_S
from hevcq.domain.job import JobState, Source, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.errors import Unavailable
from hevcq.usecases.operations.dead_letters import (
    DeadLetterFilter,
    ExpiredMessages,
)
from hevcq.usecases.operations.reprocess import JobResult, ReprocessRequest, redrive
from support.aws.breaking import Breaking, broken, refusal
from support.aws.values import DAMAGED, bury_many, letters, one, take, task
from support.fakes.farm import FakeWorker
from support.processes import Killed

pytestmark = pytest.mark.aws


def test_a_kill_between_letter_and_delete_loses_nothing(farm, queue):
    queue.send([task()])
    first = one(queue)
    queue._sqs.plan["delete_message"] = [Killed()]
    with pytest.raises(Killed):
        queue.bury(first, DAMAGED)

    farm.clock.advance(VISIBILITY_S + 1)
    again = one(queue)
    assert queue.bury(again, DAMAGED) is True

    found = letters(queue)
    assert [x.task for x in found] == [task(), task()], "known by their job"
    assert again.message_id == first.message_id


def test_a_listing_that_ends_early_gives_everything_back(queue):
    bury_many(queue, 12)
    listing = queue.dead_letters()
    next(listing)
    listing.close()

    assert len(letters(queue)) == 12
    assert len(letters(queue)) == 12


def test_what_sns_could_not_deliver_is_a_dead_letter_of_the_profile(farm, queue):
    farm.clients.sqs.send_message(
        QueueUrl=farm.url("hevcq-hevc-subscription-dlq"),
        MessageBody=task().body(),
        MessageAttributes={"ErrorMessage": {"DataType": "String", "StringValue": "denied"}},
    )

    (dead,) = letters(queue)

    assert (dead.failure_class, dead.task) == (FailureClass.NETWORK, task())
    assert "SNS could not deliver it: denied" in dead.reason
    assert queue.depth().dead == 1
    assert send_back(farm) == [JobResult.QUEUED]
    assert one(queue).tasks == (task(),)
    assert queue.depth().dead == 0


@pytest.mark.parametrize("error", [refusal("AccessDenied", 403), refusal("QueueDoesNotExist")])
def test_a_worker_that_may_not_see_the_subscriptions_letters_counts_its_own(queue, error):
    bury_many(queue, 2)
    queue._urls._urls.clear()
    queue._urls._sqs = Breaking(queue._sqs.client, {"get_queue_url": [None, None, error]})

    assert queue.depth().dead == 2
    assert queue._urls.undelivered == ""


REASON = f"Given up by the queue after {MAX_RECEIVES} receives."


def given_up(farm) -> Source:
    """Upload a video, and let its message be received until SQS moves it."""
    answer = farm.clients.s3.put_object(Bucket="uploads", Key="TODO/hevc/a.mp4", Body=b"clip")
    source = Source(bucket="uploads", key="TODO/hevc/a.mp4", version=answer["VersionId"], size=4)
    farm.backend.ledger.register(source, ["hevc"])
    queue = farm.backend.queues["hevc"]
    for _ in range(MAX_RECEIVES):
        assert len(take(queue)) == 1
        farm.clock.advance(VISIBILITY_S + 1)
    assert take(queue) == []
    assert queue.depth().dead == 1
    return source


def record(farm, source: Source):
    return farm.backend.ledger.get(job_id(source, "hevc"))


def test_its_job_is_recorded_as_dead_and_the_letter_stays(farm):
    source = given_up(farm)
    assert record(farm, source).state is JobState.QUEUED

    assert ExpiredMessages(farm.backend).check() == 1

    found = record(farm, source)
    assert (found.state, found.failure_class, found.reason) == (
        JobState.DEAD,
        FailureClass.RECEIVES,
        REASON,
    )
    assert [x.reason for x in letters(farm.backend.queues["hevc"])] == [REASON]


def test_moved_back_by_sqs_itself_it_is_done(farm, tmp_path):
    source, queue = given_up(farm), farm.backend.queues["hevc"]
    ExpiredMessages(farm.backend).check()
    (dead,) = letters(queue)
    farm.put_body("hevc", dead.body)
    queue.purge(dead)

    FakeWorker(farm.backend, tmp_path, farm.clock).do(PROFILES["hevc"])

    assert record(farm, source).state is JobState.DONE


OF_HEVC = DeadLetterFilter(("hevc",))


def send_back(farm) -> list[JobResult]:
    request = ReprocessRequest((), who="me")
    return [done.result for done in redrive(farm.backend, request, OF_HEVC)]


def test_a_queue_of_several_batches_goes_back_whole_and_each_letter_once(farm, queue):
    bury_many(queue, 25)
    url = farm.url("hevcq-hevc-subscription-dlq")
    farm.clients.sqs.send_message(QueueUrl=url, MessageBody=task(99).body())

    assert send_back(farm) == [JobResult.QUEUED] * 26

    assert (queue.depth().ready, queue.depth().dead) == (26, 0)
    assert queue._sqs.count("delete_message") == 25 + 26, "25 burials, 26 letters"
    jobs = []
    while batch := take(queue):
        jobs += [delivery.tasks[0].job_id for delivery in batch]
    assert sorted(jobs) == sorted(task(number).job_id for number in (*range(25), 99))


@pytest.mark.parametrize("call", ["send_message_batch", "delete_message"])
@pytest.mark.parametrize("lost", [broken(), ("after", broken())])
def test_a_reply_lost_midway_loses_no_letter_and_the_next_run_sends_the_rest(
    farm, queue, call, lost
):
    bury_many(queue, 4)
    queue._sqs.plan[call] = [None, lost]
    with pytest.raises(Unavailable):
        send_back(farm)
    farm.clock.advance(61)

    again = send_back(farm)

    assert set(again) <= {JobResult.QUEUED}
    sent = {each.tasks[0].job_id for each in take(queue)}
    assert sent == {task(number).job_id for number in range(4)}
    assert letters(queue) == []
    assert queue.depth().dead == 0
