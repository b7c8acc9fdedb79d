"""What a queue gives up by itself is recorded by whoever looks, and can still be brought back."""

from dataclasses import replace

import pytest

from hevcq.domain.job import JobState, Task, TaskKind
from hevcq.domain.verdict import FailureClass
from hevcq.ports.queue import DeadLetter
from hevcq.usecases.operations.dead_letters import ExpiredMessages
from hevcq.worker.handler import ProfileQueue
from support.fakes.farm import Farm
from support.fakes.videofarm import VideoFarm


@pytest.fixture
def farm(tmp_path):
    """A farm whose queue gives up apart from the ledger, as SQS does."""
    made = VideoFarm(tmp_path)
    made.backend = replace(made.backend, external_dlq=True)
    made.with_context(backend=made.backend)
    return made


def give_up(farm, *, kind: TaskKind = TaskKind.ENCODE, chunk: int | None = None) -> None:
    """Receive messages and let them run out until the queue has given one of this kind up."""
    limit = farm.profile.queue.max_receives
    for _ in range(limit + 1):
        taken = []
        while (delivery := farm.receive()) is not None:
            (task,) = delivery.tasks
            taken.append(delivery)
            if (task.kind, task.chunk) != (kind, chunk):
                farm.queue.release(delivery, delay_s=1e6)
        farm.clock.advance(farm.profile.queue.visibility_s + 1)
    assert farm.letters(), "nothing was given up"


def moved_back(farm) -> None:
    """Let the service move its letters back, as they are (StartMessageMoveTask)."""
    for letter in farm.letters():
        farm.queue.send_body(letter.body)
        assert farm.queue.purge(letter)


def dead(farm, source) -> tuple[JobState, FailureClass | None]:
    record = farm.record(source)
    return record.state, record.failure_class


GIVEN_UP = (JobState.DEAD, FailureClass.RECEIVES)


def test_a_queued_job_that_the_queue_gave_up_is_dead_with_the_reason(farm):
    source = farm.submit()
    give_up(farm)
    assert farm.state(source) is JobState.QUEUED

    assert ExpiredMessages(farm.backend).check() == 1

    assert dead(farm, source) == GIVEN_UP
    assert farm.record(source).reason == farm.letters()[0].reason


def test_a_given_up_job_under_a_lease_is_dead_once_the_lease_ends(farm):
    source = farm.submit()
    give_up(farm)
    farm.ledger.claim(source, farm.profile.name, owner="gone", lease_s=60.0)
    look = ExpiredMessages(farm.backend)
    assert look.check() == 0
    assert farm.state(source) is JobState.RUNNING

    farm.clock.advance(61)

    assert look.check() == 1, "it was too early, and is asked again although no letter is new"
    assert dead(farm, source) == GIVEN_UP


def test_a_chunk_that_the_queue_gave_up_ends_its_video(farm):
    source = farm.split()
    give_up(farm, kind=TaskKind.CHUNK, chunk=1)
    assert farm.state(source) is JobState.SPLIT

    assert ExpiredMessages(farm.backend).check() == 1

    assert dead(farm, source) == GIVEN_UP


def test_a_chunk_that_is_done_all_the_same_ends_nothing(farm):
    source = farm.split()
    give_up(farm, kind=TaskKind.CHUNK, chunk=1)
    farm.queue.send([farm.task(source, 1)])
    while farm.chunks(source)[1].state is not JobState.DONE:
        farm.handle()

    assert ExpiredMessages(farm.backend).check() == 0
    assert farm.state(source) is JobState.SPLIT


def test_a_given_up_job_whose_letter_the_service_moved_back_is_tried_again(farm):
    source = farm.submit()
    give_up(farm)
    ExpiredMessages(farm.backend).check()

    moved_back(farm)

    assert farm.until_settled(source).state is JobState.DONE


def test_a_given_up_chunk_whose_letter_the_service_moved_back_reopens_its_video(farm):
    source = farm.split()
    give_up(farm, kind=TaskKind.CHUNK, chunk=1)
    ExpiredMessages(farm.backend).check()
    farm.clock.advance(1e6)
    while (delivery := farm.receive()) is not None:
        farm.do(delivery)
    assert dead(farm, source) == GIVEN_UP, "its sisters do not bring it back"

    moved_back(farm)

    assert farm.until_settled(source).state is JobState.DONE


def farm_with_dead_job(tmp_path) -> tuple[Farm, object]:
    farm = Farm(tmp_path)
    source = farm.submit()
    record = farm.record(source)
    claim = farm.ledger.claim(source, "hevc", owner="w", lease_s=60)
    farm.ledger.bury(record.job_id, claim.fence, "broke", FailureClass.DAMAGED)
    return farm, source


def deliver(farm: Farm, *, from_dlq: bool) -> None:
    delivery = replace(farm.receive(), from_dlq=from_dlq)
    farm.handler().process(ProfileQueue(farm.profile, farm.queue), delivery)


def test_a_letter_moved_back_by_the_service_reopens_its_dead_job(tmp_path):
    farm, source = farm_with_dead_job(tmp_path)

    deliver(farm, from_dlq=True)

    assert farm.state(source) is JobState.DONE
    assert farm.record(source).failures == 0
    ((job, _who, why),) = farm.ledger.reopened
    assert (job, why) == (
        farm.record(source).job_id,
        "its dead letter was moved back",
    )


def letter_of(farm, source) -> DeadLetter:
    """Return the letter of a whole job that the queue gave up."""
    task = Task(source=source, profile=farm.profile.name)
    return DeadLetter(
        letter_id="1",
        queue=farm.queue.name,
        body=task.body(),
        reason="Given up by the queue after 10 receives.",
        failure_class=FailureClass.RECEIVES,
        attempts=10,
        tail=(),
        buried_at=0.0,
        task=task,
    )


def test_a_chunk_of_an_older_split_ends_nothing(farm):
    """On AWS the records of an older split stay until they expire."""
    source = farm.split()
    task = farm.task(source, 1)
    old = task.model_copy(update={"split": "older-1"})
    real = farm.ledger.get
    farm.ledger.get = lambda name: real(task.unit_id if name == old.unit_id else name)

    look = ExpiredMessages(farm.backend)
    assert look.record(replace(letter_of(farm, source), task=old)) is False
    assert farm.state(source) is JobState.SPLIT


def test_a_letter_that_a_worker_wrote_or_that_its_split_needs_no_more_ends_nothing(farm):
    split, queued = farm.split(), farm.submit("b.mp4")
    look = ExpiredMessages(farm.backend)

    assert not look.record(replace(letter_of(farm, queued), failure_class=FailureClass.DAMAGED))
    assert not look.record(letter_of(farm, split))
    assert (farm.state(queued), farm.state(split)) == (JobState.QUEUED, JobState.SPLIT)
