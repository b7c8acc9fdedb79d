"""Lost leases, zombies, duplicates, stops and races: one rendition, and nobody settles twice."""

import threading
from dataclasses import replace

from hevcq.domain.job import JobState, Task
from hevcq.domain.verdict import Abandon, Done, Release
from hevcq.errors import EncoderFailed, SourceDamaged, WorkerUnfit
from hevcq.worker.delivery.lease import Heartbeat
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import WorkerPool


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


def test_a_lease_lost_just_before_publishing_publishes_nothing(farm):
    farm.submit()
    proven = "encode/store.put:after"
    farm.come_to(lambda point: farm.clock.advance(400) if point == proven else None)

    handled = farm.handle()

    assert isinstance(handled.verdict, Abandon)
    assert farm.store.published == []
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


def test_whatever_breaks_because_of_a_stop_is_a_stop_and_no_failure(farm):
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


def test_a_worker_that_one_task_of_a_delivery_found_unfit_stays_unfit_after_the_next(farm):
    first, second = farm.submit("a.mp4"), farm.submit("b.mp4")
    farm.receive()
    tasks = (Task(source=first, profile="hevc"), Task(source=second, profile="hevc"))
    both = replace(farm.receive(), tasks=tasks)
    farm.encoder.errors["encode"] = [WorkerUnfit("sick"), EncoderFailed("once")]

    result = farm.handler().process(ProfileQueue(farm.profile, farm.queue), both)

    assert isinstance(result.unfit, WorkerUnfit)


def test_many_slots_racing_over_duplicates_make_one_rendition_each(farm):
    """Real threads and real heartbeats; only time is virtual and stands still."""
    farm.clock.auto = False
    farm.with_context(heartbeat=Heartbeat)
    sources = [farm.submit(f"{n}.mp4", f"video {n}".encode()) for n in range(12)]
    for source in sources:
        farm.queue.send([Task(source=source, profile="hevc")] * 2)
    done = threading.Event()

    def watch(event):
        settled = [farm.record(s).state is JobState.DONE for s in sources]
        if all(settled):
            done.set()

    farm.with_context(on_event=watch)
    pool = WorkerPool(farm.context, [ProfileQueue(farm.profile, farm.queue)], slots=4, poll_s=0.01)
    pool.start()
    try:
        assert done.wait(20)
    finally:
        pool.ask()
        for thread in pool._threads:
            farm.clock.advance(100)
            thread.join(10)

    assert pool.finish().value == "stopped"
    assert len(farm.store.published) == len(sources)
    assert {farm.record(s).fence for s in sources} == {1}


def test_what_a_dead_worker_held_is_begun_again_when_its_lease_ends(farm):
    source = farm.submit()
    farm.ledger.claim(source, "hevc", owner="dead:0", lease_s=farm.profile.queue.visibility_s)
    farm.clock.advance(0.7 * farm.profile.queue.visibility_s)

    handled = farm.handle("alive:0")

    assert handled.verdict.delay_s <= 0.3 * farm.profile.queue.visibility_s + 1


ENDED = "encode/ledger.complete:after"


def test_a_heartbeat_behind_the_written_end_keeps_the_lease_that_settles(farm):
    farm.submit()
    farm.come_to(lambda at: farm.lease.beat(farm.clock.monotonic()) if at == ENDED else None)

    assert farm.handle().verdict == Done()
    assert farm.queue.settled == [("ack", "m1")]


def test_who_lost_the_lease_behind_the_written_end_settles_nothing(farm):
    farm.submit()
    farm.come_to(lambda at: farm.clock.advance(400) if at == ENDED else None)

    assert isinstance(farm.handle().verdict, Abandon)
    assert farm.queue.settled == []
