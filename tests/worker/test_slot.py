"""A slot's loop: fair, patient with services, out of the way when it is unfit.

Lost leases, zombies, duplicates, stops and races: one rendition, and nobody settles twice.
"""

import threading
from dataclasses import replace
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from hevcq.domain.job import JobState, Task
from hevcq.domain.verdict import Abandon, Done, Release
from hevcq.errors import (
    AccessDenied,
    ConfigError,
    DiskFull,
    EncoderFailed,
    SourceDamaged,
    StorageError,
    Unavailable,
    WorkerUnfit,
)
from hevcq.worker.handler import Handler, ProfileQueue
from hevcq.worker.pool import WorkerPool
from hevcq.worker.slot import MAX_DENIALS, Slot, SlotOutcome
from support.fakes.backend import HEVC, memory_backend
from support.fakes.farm import Farm

NAMES = ("1080p", "720p", "hevc")


def worker_of(farm: Farm, *served: ProfileQueue) -> Slot:
    queues = served or (ProfileQueue(farm.profile, farm.queue),)
    return Slot(farm.context, farm.handler(), queues)


def many(farm: Farm) -> list[ProfileQueue]:
    """Give the farm three profiles; return their queues."""
    profiles = {name: HEVC.model_copy(update={"name": name}) for name in NAMES}
    backend = memory_backend(farm.clock, profiles)
    farm.with_context(backend=backend)
    farm.backend, farm.store, farm.ledger = backend, backend.store, backend.ledger
    return [ProfileQueue(profiles[name], backend.queues[name]) for name in NAMES]


def test_several_queues_take_turns_however_full_one_of_them_is(farm):
    served = many(farm)
    for number in range(5):
        source = farm.store.add_source(f"TODO/all/{number}.mp4", str(number).encode())
        names = NAMES if number < 2 else ("hevc",)
        farm.backend.task_publisher.publish(source, names, announced=False)
    order = []
    farm.with_context(
        on_event=lambda e: order.append(e.profile) if e.kind == "job_started" else None
    )
    worker = Slot(farm.context, Handler(farm.context, "here:0"), served)

    while worker.step():
        pass

    assert order == ["1080p", "720p", "hevc", "1080p", "720p", "hevc", "hevc", "hevc", "hevc"]


def test_a_send_to_any_queue_wakes_a_slot_that_waits_for_all_of_them(farm):
    farm.clock.auto = False
    served = many(farm)
    worker = Slot(farm.context, Handler(farm.context, "here:0"), served, poll_s=60)
    took = []
    thread = threading.Thread(target=lambda: took.append(worker.step()))
    thread.start()
    farm.clock.until_waiting()

    source = farm.store.add_source("TODO/all/a.mp4", b"clip")
    farm.backend.task_publisher.publish(source, ["hevc"], announced=False)
    thread.join(10)

    assert took == [False], "the wait ended although no time passed"
    assert worker.step() is True


def costly(farm: Farm, *broken: str, error: Exception | None = None) -> tuple[Slot, list]:
    """A slot of three queues with long polls of 20 s, the `broken` of which raise; and its receives."""
    asked: list[tuple[str, float]] = []

    def stand_before(queue) -> None:
        queue.long_poll_s, real = 20.0, queue.receive

        def receive(limit, *, wait_s, stop):
            asked.append((queue.name, wait_s))
            if queue.name in broken:
                raise error or Unavailable("no answer")
            return real(limit, wait_s=wait_s, stop=stop)

        queue.receive = receive

    served = many(farm)
    for each in served:
        stand_before(each.queue)
    for number in range(2):
        source = farm.store.add_source(f"TODO/all/{number}.mp4", str(number).encode())
        farm.backend.task_publisher.publish(source, NAMES, announced=False)
    return Slot(farm.context, Handler(farm.context, "here:0"), served), asked


def test_several_empty_sqs_queues_share_the_time_of_one_long_poll(farm):
    worker, asked = costly(farm)
    while worker.step():
        pass
    asked.clear()

    worker.step()

    assert [name for name, _ in asked] == list(NAMES)
    assert sum(wait_s for _, wait_s in asked) == pytest.approx(20)
    asked.clear()
    source = farm.store.add_source("TODO/all/9.mp4", b"9")
    farm.backend.task_publisher.publish(source, ["720p"], announced=False)
    assert worker.step() is True
    worker.step()
    assert [wait_s for _, wait_s in asked[2:]] == [1.0, 1.0, 1.0], "others may be full"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unavailable("no answer"), "queue_fails"),
        (AccessDenied("AWS could not receive: access is denied."), "queue_fails"),
        (ConfigError("AWS could not find the queue"), "queue_gone"),
    ],
)
def test_a_queue_that_fails_is_named_once_and_keeps_no_other_from_being_served(farm, error, said):
    gone = ["720p"]
    worker, _ = costly(farm, *gone, error=error)

    with capture_logs() as lines:
        for _ in range(MAX_DENIALS + 8):
            worker.step()

    assert (worker.outcome, worker.handled) == (SlotOutcome.RUNNING, 4)
    assert [line["event"] for line in lines if line["event"].startswith("queue")] == [said]


def test_a_message_that_a_stopped_poll_brings_goes_back_at_once(farm):
    worker, told = worker_of(farm), threading.Event()
    source, real = farm.submit(), farm.queue.receive

    def receive(limit, *, wait_s, stop):
        told.set()  # the service hands out a message although the worker was told to stop
        return real(limit, wait_s=0, stop=threading.Event())

    farm.queue.receive = receive
    worker.run(told)

    assert (worker.outcome, worker.handled) == (SlotOutcome.STOPPED, 0)
    assert farm.state(source) is JobState.QUEUED
    assert (farm.queue.depth().ready, farm.queue.depth().in_flight) == (1, 0)


def test_a_queue_that_fails_is_polled_again_later_and_later(farm):
    real, farm.queue.receive = farm.queue.receive, Mock(side_effect=Unavailable("no answer"))
    worker = worker_of(farm)
    times = []
    for _ in range(8):
        before = farm.clock.monotonic()
        assert worker.step() is False
        times.append(farm.clock.monotonic() - before)

    assert times == [0.75, 1.5, 3.0, 6.0, 12.0, 22.5, 22.5, 22.5]
    assert worker.outcome is SlotOutcome.RUNNING
    farm.queue.receive = real
    source = farm.submit()
    assert worker.step() is True
    assert farm.state(source) is JobState.DONE


def test_a_queue_on_a_full_disk_is_the_reason_of_the_pause_until_it_answers(farm):
    real, farm.queue.receive = farm.queue.receive, Mock(side_effect=DiskFull("The server is full."))
    pool = WorkerPool(farm.context, [ProfileQueue(farm.profile, farm.queue)])
    pool.workers = [worker_of(farm)]

    pool.workers[0].step()
    full = pool.why_paused("hevc")
    farm.queue.receive = real
    pool.workers[0].step()

    assert (full, pool.why_paused("hevc")) == ("The server is full.", "")


@pytest.mark.parametrize("answered", [False, True])
def test_a_worker_that_no_queue_ever_admits_ends_soon_and_one_that_worked_goes_on(farm, answered):
    worker = worker_of(farm)
    if answered:
        worker.step()
    farm.queue.receive = Mock(side_effect=AccessDenied("AWS could not receive: access is denied."))
    began = farm.clock.monotonic()
    for _ in range(MAX_DENIALS):
        assert worker.outcome is SlotOutcome.RUNNING
        worker.step()

    assert worker.outcome is (SlotOutcome.RUNNING if answered else SlotOutcome.UNFIT)
    if not answered:
        assert isinstance(worker.error, WorkerUnfit)
        assert "access is denied" in str(worker.error)
        assert farm.clock.monotonic() - began <= 120


@pytest.mark.parametrize("error", [StorageError("bad page"), WorkerUnfit("read-only scratch")])
def test_an_unusable_database_or_scratch_folder_ends_the_slot(farm, error):
    farm.queue.receive = Mock(side_effect=error)
    worker = worker_of(farm)

    worker.step()

    assert worker.outcome is SlotOutcome.UNFIT
    assert worker.error is error


def test_a_full_disk_pauses_the_slot_before_it_takes_anything(farm):
    farm.store.free = 1 << 20
    farm.with_context(min_free_bytes=2 << 20)
    farm.submit()
    worker = worker_of(farm)

    with capture_logs() as lines:
        assert worker.step() is False

    assert farm.queue.depth().ready == 1
    assert [line["event"] for line in lines] == ["work_paused"]
    assert "the store has less than 2 MiB free" in lines[0]["reason"]
    farm.store.free = None
    assert worker.step() is True


def test_a_defect_in_the_loop_is_not_swallowed(farm):
    farm.queue.receive = Mock(side_effect=ZeroDivisionError)
    worker = worker_of(farm)

    with pytest.raises(ZeroDivisionError):
        worker.run(threading.Event())

    assert worker.outcome is SlotOutcome.BROKEN


def test_after_a_failure_that_may_be_its_own_the_slot_goes_on_with_another_job(farm):
    farm.encoder.errors["encode"] = [EncoderFailed("broke"), EncoderFailed("broke")]
    first, second, third = farm.submit("1.mp4"), farm.submit("2.mp4"), farm.submit("3.mp4")
    worker = worker_of(farm)
    assert worker.step() is True
    before = farm.clock.monotonic()

    assert [worker.step(), worker.step()] == [True, True]

    assert farm.clock.monotonic() == before, "waiting, it would be the first to meet the job again"
    ends = [(r.state, r.failures) for r in map(farm.record, (first, second, third))]
    assert ends == [(JobState.QUEUED, 0), (JobState.QUEUED, 0), (JobState.DONE, 0)]


def test_a_lease_lost_after_the_failure_was_recorded_leaves_the_message_to_its_next_holder(farm):
    farm.submit()
    farm.encoder.errors["encode"] = [SourceDamaged("A slice is missing.")]
    bury = farm.ledger.bury

    def and_freezes(*given, **more):
        bury(*given, **more)
        farm.clock.advance(400)

    farm.ledger.bury = and_freezes

    assert isinstance(farm.handle().verdict, Abandon)
    assert farm.queue.settled == []


ENDED = "encode/ledger.complete:after"


@pytest.mark.parametrize(("lost_at", "published"), [("encode/store.put:after", 0), (ENDED, 1)])
def test_a_lease_lost_before_publishing_or_settling_does_neither(farm, lost_at, published):
    farm.submit()
    farm.come_to(lambda point: farm.clock.advance(400) if point == lost_at else None)

    assert isinstance(farm.handle().verdict, Abandon)

    assert len(farm.store.published) == published
    assert farm.queue.settled == []


def test_a_job_over_its_time_limit_is_buried_as_that_and_not_abandoned(farm):
    farm.submit()

    def for_ever():
        while not farm.lease.stop.is_set():
            farm.clock.advance(60)
            farm.lease.beat(farm.clock.monotonic())

    farm.encoder.during["encode"] = for_ever

    farm.handle()

    (letter,) = farm.letters()
    assert letter.failure_class.value == "limit"
    assert letter.attempts == 1


def test_a_duplicate_delivery_while_the_job_runs_waits_longer_each_time(farm):
    source = farm.submit()
    farm.queue.send([Task(source=source, profile="hevc")])
    delays = []

    def duplicates():
        for _ in range(4):
            farm.encoder.during.clear()
            handled = farm.handle("there:0")
            assert isinstance(handled.verdict, Release)
            delays.append(handled.verdict.delay_s)
            farm.heartbeats.pop()
            steps = int(handled.verdict.delay_s // 60) + 1
            for _ in range(steps):
                farm.clock.advance(60)
                farm.lease.beat(farm.clock.monotonic())

    farm.encoder.during["encode"] = duplicates

    farm.handle("here:0")
    record = farm.until_settled(source)

    assert record.state is JobState.DONE
    assert delays == sorted(set(delays))
    doubled = [farm.profile.queue.visibility_s * 0.9 * 2**number for number in range(4)]
    assert all(delay >= least for delay, least in zip(delays, doubled, strict=True))
    assert farm.encoder.calls.count("encode") == 1


def test_an_error_after_a_stop_is_a_stop_and_no_failure(farm):
    source = farm.submit()
    handler = farm.handler()

    def broken():
        handler.interrupt()
        raise EncoderFailed("ffmpeg ended with SIGTERM")

    farm.encoder.during["encode"] = broken

    handled = handler.process(ProfileQueue(farm.profile, farm.queue), farm.receive())

    assert isinstance(handled.verdict, Release)
    assert farm.record(source).failures == 0


def test_a_delivery_that_comes_after_the_stop_goes_back_unclaimed(farm):
    source = farm.submit()
    handler = farm.handler()
    handler.interrupt()

    handler.process(ProfileQueue(farm.profile, farm.queue), farm.receive())

    assert farm.record(source).fence == 0
    assert farm.queue.depth().ready == 1


def test_several_tasks_in_one_delivery_go_only_when_all_are_settled(farm):
    first, second = farm.submit("a.mp4"), farm.submit("b.mp4")
    farm.receive()
    delivery = farm.receive()
    both = replace(
        delivery,
        tasks=(Task(source=first, profile="hevc"), Task(source=second, profile="hevc")),
    )
    farm.encoder.errors["encode"] = [None, EncoderFailed("once")]
    served = ProfileQueue(farm.profile, farm.queue)

    farm.handler().process(served, both)

    assert (farm.state(first), farm.state(second)) == (JobState.DONE, JobState.QUEUED)
    assert farm.queue.settled == [("release", "m2")]
    farm.clock.advance(100)
    again = replace(farm.receive(), tasks=both.tasks)
    farm.handler().process(served, again)
    assert (farm.state(first), farm.state(second)) == (JobState.DONE, JobState.DONE)
    assert farm.queue.settled == [("release", "m2"), ("ack", "m2")]
    assert farm.encoder.calls.count("encode") == 3


def test_a_heartbeat_after_the_written_end_keeps_the_lease(farm):
    farm.submit()
    farm.come_to(lambda at: farm.lease.beat(farm.clock.monotonic()) if at == ENDED else None)

    assert farm.handle().verdict == Done()
    assert farm.queue.settled == [("ack", "m1")]


@pytest.mark.parametrize("error", [ConfigError("no such queue"), AccessDenied("denied")])
def test_a_slot_none_of_whose_queues_can_be_read_ends(farm, error):
    worker, _ = costly(farm, *NAMES, error=error)

    for _ in range(MAX_DENIALS):
        worker.step()

    assert worker.outcome is SlotOutcome.UNFIT
