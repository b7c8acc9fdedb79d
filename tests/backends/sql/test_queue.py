"""What only the embedded queue promises: fair rounds, refusals, cheap counting."""

import threading

import pytest

from contracts.backends import MAX_RECEIVES, VISIBILITY_S, task
from hevcq.backends.sql.statements import MAX_LOOKED_AT
from hevcq.domain.job import JobState, RenditionRef, Split, Task, TaskKind
from hevcq.domain.verdict import FailureClass
from hevcq.errors import BadMessage
from hevcq.ports.queue import Delivery, Queue


@pytest.fixture
def queue(opener) -> Queue:
    return opener().backend.queues["hevc"]


def take(queue: Queue, limit: int = 100) -> list[Delivery]:
    return queue.receive(limit, wait_s=0, stop=threading.Event())


def order(queue: Queue) -> list[str]:
    """Receive one by one, as workers do, and say in which order."""
    found = []
    while batch := take(queue, 1):
        found.append(batch[0].tasks[0].source.key[9:-4])
    return found


def join(name: str) -> Task:
    changes = {"kind": TaskKind.JOIN, "split": "s-1"}
    return task(name, group=name[0]).model_copy(update=changes)


def send(queue: Queue, *names: str) -> None:
    queue.send([task(name, group=name[0] if name[0].islower() else "") for name in names])


@pytest.mark.parametrize(
    ("sent", "served"),
    [
        ("1 2 3, 4", "1 2 3 4"),
        ("a1 a2 a3 a4, b1 b2, c1", "a1 a2 b1 c1 a3 b2 a4"),
    ],
    ids=["without groups in order of sending", "groups that wait take turns"],
)
def test_tasks_are_served_in_a_fair_order(queue, sent, served):
    for batch in sent.split(", "):
        send(queue, *batch.split())

    assert order(queue) == served.split()


def test_a_join_goes_before_the_chunks_of_other_videos(queue):
    send(queue, "a1", "a2", "b1", "c1")
    take(queue, 1)
    queue.send([join("a-"), join("b-")])
    send(queue, "X")

    assert order(queue) == ["a-", "b-", "b1", "c1", "a2", "X"]


def test_what_comes_back_is_served_first(queue):
    send(queue, "1", "2")
    (first,) = take(queue, 1)
    send(queue, "3")

    queue.release(first)

    assert order(queue) == ["1", "2", "3"]


def test_a_task_of_another_profile_is_refused_before_anything_is_sent(queue):
    with pytest.raises(BadMessage, match="'720p' does not belong in 'hevc'"):
        queue.send([task(1), task(2, profile="720p")])

    assert take(queue) == []


def test_a_send_between_a_look_and_the_nap_is_heard(queue, monkeypatch):
    looked, real = [], queue._peek

    def peek():
        answer = real()
        if not looked:
            looked.append(answer)
            send(queue, "1")
        return answer

    monkeypatch.setattr(queue, "_peek", peek)

    assert len(queue.receive(1, wait_s=500, stop=threading.Event())) == 1
    assert looked == [(False, None)]


@pytest.mark.parametrize("alive", [False, True])
def test_a_message_that_is_given_up_buries_its_job_too_unless_a_lease_lives(opener, clock, alive):
    """Found by the simulation: the dead letter was there, and the ledger said RUNNING for ever."""
    backend = opener().backend
    backend.queues["hevc"].send([task("1")])
    for _ in range(MAX_RECEIVES):
        (held,) = take(backend.queues["hevc"])
        job = held.tasks[0]
        if not alive:
            backend.ledger.claim(job.source, "hevc", owner="gone", lease_s=VISIBILITY_S)
        clock.advance(VISIBILITY_S + 1)
    if alive:
        backend.ledger.claim(job.source, "hevc", owner="alive", lease_s=VISIBILITY_S)

    assert take(backend.queues["hevc"]) == []

    record = backend.ledger.get(job.job_id)
    if alive:
        assert record.state is JobState.RUNNING
        clock.advance(VISIBILITY_S + 1)  # its worker was killed in the last attempt
        assert take(backend.queues["hevc"]) == []
        record = backend.ledger.get(job.job_id)
    assert (record.state, record.failure_class) == (JobState.DEAD, FailureClass.RECEIVES)
    assert record.reason == "Received 3 times without being settled."


def split_job(backend):
    """Return a job that is split in two, and the task of its first chunk."""
    first = task("1")
    fence = backend.ledger.claim(first.source, "hevc", owner="a", lease_s=VISIBILITY_S).fence
    split = Split(name="digest-1", chunks=2, frames=2, seconds=1.0, plan_sha256="0" * 64)
    backend.ledger.split(first.job_id, fence, split, [1, 1])
    facts = {"kind": TaskKind.CHUNK, "chunk": 0, "split": split.name}
    return first.job_id, first.model_copy(update=facts)


@pytest.mark.parametrize("case", ["waits", "done", "held", "older"])
def test_a_chunks_message_that_is_given_up_buries_the_split_job_only_if_it_needs_it(
    opener, clock, case
):
    backend = opener().backend
    job, chunk = split_job(backend)
    if case == "older":
        chunk = chunk.model_copy(update={"split": "digest-0"})
    elif case != "waits":
        long = 100 * VISIBILITY_S
        fence = backend.ledger.claim_subjob(chunk.unit_id, owner="b", lease_s=long).fence
        if case == "done":
            made = RenditionRef(key="work/0", size=1, sha256="0" * 64, certificate_key="c")
            backend.ledger.complete(chunk.unit_id, fence, made, cpu_s=1.0)
    backend.queues["hevc"].send([chunk])

    for _ in range(MAX_RECEIVES):
        assert len(take(backend.queues["hevc"])) == 1
        clock.advance(VISIBILITY_S + 1)
    assert take(backend.queues["hevc"]) == []

    assert backend.queues["hevc"].depth().dead == (case != "held")
    record = backend.ledger.get(job)
    buried = (JobState.DEAD, FailureClass.RECEIVES)
    assert (record.state, record.failure_class) == (
        buried if case == "waits" else (JobState.SPLIT, None)
    )


def test_a_job_that_this_process_waits_for_goes_before_what_others_left(queue):
    send(queue, "1", "2", "MINE", "3", "TOO")
    for wanted in ("MINE", "TOO"):
        queue.prefer(task(wanted).job_id)

    assert order(queue) == ["MINE", "TOO", "1", "2", "3"]


def test_a_process_with_a_recipe_of_its_own_leaves_what_others_queued(queue):
    others = [f"{number}" for number in range(MAX_LOOKED_AT + 1)]
    send(queue, *others, "MINE")
    queue.asked = (27.5, None)
    queue.prefer(task("MINE").job_id)

    assert order(queue) == ["MINE"]
    queue.asked = None
    assert len(take(queue, MAX_LOOKED_AT)) == MAX_LOOKED_AT
