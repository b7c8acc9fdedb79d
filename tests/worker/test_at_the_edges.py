"""Small parts of a worker where something comes twice, late, or was written by an older release."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace

import pytest

from hevcq.domain.job import JobState
from hevcq.ports.encoder import EncodeProgress
from hevcq.worker.chunking.straggler import StragglerWatch
from hevcq.worker.encode_slots import EncodeSlots
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.monitoring.health import Health
from hevcq.worker.monitoring.periodic import Periodic
from hevcq.worker.pool import Numbers, WorkerPool
from hevcq.worker.signals import StopSignals
from hevcq.worker.slot import SlotOutcome
from support.clips import ManualClock
from support.fakes.farm import Farm
from support.fakes.videofarm import VideoFarm

HEALTH = Health(slots=1, alive=1, handled=0, oldest_poll_s=0)


def test_after_a_hangup_nothing_more_is_said_on_the_terminal(tmp_path):
    terminal = os.open(tmp_path / "terminal", os.O_CREAT | os.O_WRONLY)
    try:
        with StopSignals() as signals:
            signals._terminals = [terminal]
            signals._handle(signal.SIGHUP, None)
            assert signals.asked.wait(30)
        os.write(terminal, b"said to nobody")
    finally:
        os.close(terminal)

    assert signals.received == signal.SIGHUP
    assert (tmp_path / "terminal").read_bytes() == b""


def test_a_periodic_thing_begins_once_however_often_the_pool_looks():
    clock, done, again = ManualClock(), [], threading.Event()

    def step() -> None:
        done.append(clock.now())
        if len(done) == 2:
            again.set()

    tidy = Periodic("tidy", step, clock, every_s=60)
    for _ in range(3):
        tidy.look(HEALTH)
    clock.until_waiting()
    clock.advance(59)
    assert len(done) == 1
    clock.advance(1)
    assert again.wait(30)
    tidy.close()

    assert done[1] - done[0] == 60


def test_a_pool_that_nobody_stops_works_until_it_is_asked(tmp_path):
    farm = Farm(tmp_path)
    farm.clock.auto = False
    source = farm.submit()
    pool = WorkerPool(
        farm.context, [ProfileQueue(farm.profile, farm.queue)], Numbers(slots=1, grace_s=20)
    )
    signals, ended = StopSignals(), []
    runner = threading.Thread(target=lambda: ended.append(pool.run(signals)))
    runner.start()
    pause = threading.Event()
    for _ in range(5_000):
        farm.clock.advance(0.5)
        if farm.record(source).state is JobState.DONE:
            break
        pause.wait(0.002)
    signals.ask()
    for _ in range(5_000):
        farm.clock.advance(0.5)
        runner.join(0.002)
        if not runner.is_alive():
            break

    assert ended == [SlotOutcome.STOPPED]
    assert farm.record(source).state is JobState.DONE
    assert farm.encoder.calls.count("encode") == 1


def test_a_slot_whose_encode_ended_expects_nothing_more():
    encode_slots = EncodeSlots(1, ManualClock(auto=True))
    encode_slots.enter("a")
    encode_slots.took("a")

    encode_slots.expect("a", 1.0)

    assert not encode_slots.enter("b"), "what is not encoding is not about to end"


@pytest.mark.parametrize(("finished_at", "told"), [(1_010.0, 1), (None, 0)])
def test_parts_without_times_say_nothing_of_how_long_a_chunk_should_take(
    tmp_path, finished_at, told
):
    farm = VideoFarm(tmp_path)
    times = {"started_at": 1_000.0, "finished_at": finished_at}
    known = [part.model_copy(update=times) for part in farm.parts(farm.chunked())]
    chunks = [SimpleNamespace(cost=0.3, index=n) for n in range(3)]
    video = SimpleNamespace(job_id="job", chunks=SimpleNamespace(chunks=chunks))
    ended = []
    farm.ledger.parts = lambda _job: known
    fence = SimpleNamespace(number=1, job_id="job")
    lease = SimpleNamespace(end=ended.append)
    trail = StragglerWatch(farm.context, video, chunks[0], lease, fence)
    on_progress = trail.watched(lambda _now: None)
    farm.clock.advance(1_000)

    on_progress(EncodeProgress(0.1, 1.0, 1, 1.0, 7))

    assert len(ended) == told
