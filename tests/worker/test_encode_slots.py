"""Jobs are fetched and published while others encode: who may, when, and what a stop does to them."""

import threading

import pytest

from hevcq.domain.job import JobState, Phase
from hevcq.errors import ConfigError, LeaseLost, Stopped
from hevcq.ports.encoder import EncodeProgress
from hevcq.worker.admission import AHEAD_S, EncodeSlots
from hevcq.worker.delivery.lease import Heartbeat
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import Numbers, WorkerPool
from hevcq.worker.slot import SlotOutcome
from support.clips import ManualClock
from support.fakes.farm import Farm

PATIENCE = 20_000


def fine() -> None:
    """A lease that is well."""


@pytest.fixture
def encode_slots() -> EncodeSlots:
    return EncodeSlots(1, ManualClock(auto=True))


def test_an_idle_pool_looks_for_work_with_as_many_slots_as_it_encodes(encode_slots):
    assert encode_slots.enter("a")
    assert not encode_slots.enter("b")

    encode_slots.leave("a")

    assert encode_slots.enter("b")


def test_one_more_is_taken_once_the_encode_is_about_to_end(encode_slots):
    encode_slots.enter("a")
    encode_slots.received("a")
    assert not encode_slots.enter("b"), "the first job is not even encoding"
    with encode_slots.encoding("a", fine):
        assert not encode_slots.enter("b"), "nobody knows when it ends"
        encode_slots.expect("a", AHEAD_S + 1)
        assert not encode_slots.enter("b"), "it would be kept from idle workers"
        encode_slots.expect("a", AHEAD_S)
        assert encode_slots.enter("b")
        assert not encode_slots.enter("c"), "one ahead, not two"
    encode_slots.received("b")

    assert not encode_slots.enter("c"), "the next one is about to encode"


def test_an_encode_waits_for_the_one_before_it_and_ends_with_its_lease(encode_slots):
    lost = [None, None, LeaseLost()]

    def check() -> None:
        error = lost.pop(0)
        if error is not None:
            raise error

    with (
        encode_slots.encoding("a", fine),
        pytest.raises(LeaseLost),
        encode_slots.encoding("b", check),
    ):
        raise AssertionError("two encode at a time")
    with encode_slots.encoding("b", fine):
        pass


def test_a_stop_sends_back_what_waits_and_lets_go_on_what_need_not(encode_slots):
    with encode_slots.encoding("a", fine):
        encode_slots.close()
        with pytest.raises(Stopped), encode_slots.encoding("b", fine):
            raise AssertionError("it began after the stop")
    with encode_slots.encoding("b", fine):
        pass


class Encodes:
    """Encodes that say they end soon, and go on until each is let end by its number."""

    def __init__(self, farm: Farm) -> None:
        self.farm, self.begun, self.at_once, self.most = farm, 0, 0, 0
        self.ends = [threading.Event() for _ in range(9)]
        self.stop: threading.Event | None = None
        self._lock = threading.Lock()
        plain = farm.encoder.encode

        def encode(request, *, on_progress, stop):
            on_progress(EncodeProgress(0.5, 5.0, 125, 1.0, 7))
            with self._lock:
                number, self.begun, self.at_once = self.begun, self.begun + 1, self.at_once + 1
                self.most = max(self.most, self.at_once)
            try:
                if not self.wait(lambda: self.ends[number].is_set() or stop.is_set()):
                    raise AssertionError("the encode was not let end")
                return plain(request, on_progress=lambda _p: None, stop=stop)
            finally:
                with self._lock:
                    self.at_once -= 1

        farm.encoder.encode = encode

    @staticmethod
    def wait(happened) -> bool:
        pause = threading.Event()
        return any(happened() or pause.wait(0.001) for _ in range(PATIENCE))


@pytest.fixture
def farm(tmp_path) -> Farm:
    farm = Farm(tmp_path)
    farm.clock.auto = False
    farm.with_context(heartbeat=Heartbeat)
    return farm


def pool_of(farm: Farm) -> WorkerPool:
    numbers = Numbers(slots=1, pipelined=True, grace_s=20)
    return WorkerPool(farm.context, [ProfileQueue(farm.profile, farm.queue)], numbers)


def end(farm: Farm, pool: WorkerPool) -> SlotOutcome:
    pool.ask()
    assert Encodes.wait(lambda: farm.clock.advance(0.5) or not pool.step())
    return pool.finish()


def begins(farm: Farm, encodes: Encodes, number: int) -> bool:
    return encodes.wait(lambda: farm.clock.advance(0.1) or encodes.begun == number + 1)


def looked_at(farm: Farm, encodes: Encodes, jobs: int) -> bool:
    calls = farm.encoder.calls
    return encodes.wait(lambda: farm.clock.advance(0.1) or calls.count("preflight") == jobs)


def test_the_next_job_is_ready_when_the_encode_before_it_ends_and_only_one_encodes(farm):
    encodes, sources = Encodes(farm), [farm.submit(f"{n}.mp4") for n in range(4)]
    pool = pool_of(farm)
    pool.start()

    for number in range(4):
        assert begins(farm, encodes, number)
        if number < 3:
            assert looked_at(farm, encodes, number + 2), "the next job was not fetched meanwhile"
            assert encodes.begun == number + 1
            assert farm.queue.depth().ready == 2 - number, "more than one was taken ahead"
        encodes.ends[number].set()

    done = [JobState.DONE] * 4
    assert encodes.wait(lambda: [farm.state(source) for source in sources] == done)
    assert end(farm, pool) is SlotOutcome.STOPPED
    assert encodes.most == 1
    assert pool.state().slots == 1
    assert farm.queue.depth().in_flight == 0


def test_a_stop_releases_the_job_fetched_ahead_at_once_and_lets_the_other_end(farm):
    encodes = Encodes(farm)
    first, second = farm.submit("a.mp4"), farm.submit("b.mp4")
    pool = pool_of(farm)
    pool.start()
    assert looked_at(farm, encodes, 2)

    pool.ask()

    assert encodes.wait(lambda: farm.clock.advance(0.01) or farm.queue.depth().ready == 1)
    record = farm.record(second)
    assert (record.state, record.failures, record.crashes) == (JobState.QUEUED, 0, 0)
    assert farm.state(first) is JobState.RUNNING
    assert farm.record(first).progress.phase is Phase.ENCODE
    encodes.ends[0].set()
    assert end(farm, pool) is SlotOutcome.STOPPED
    assert (farm.state(first), encodes.begun) == (JobState.DONE, 1)
    assert list((farm.folder / "scratch").iterdir()) == []


@pytest.mark.parametrize("error", [ConfigError("no credentials"), ZeroDivisionError("a defect")])
def test_a_slot_that_dies_in_its_poll_leaves_its_place_to_the_others(farm, error):
    source, plain = farm.submit(), farm.queue.receive

    def fails_once(*_asked, **_named):
        farm.queue.receive = plain
        raise error

    farm.queue.receive = fails_once
    pool = pool_of(farm)
    pool.start()

    done = Encodes.wait(lambda: farm.clock.advance(0.5) or farm.state(source) is JobState.DONE)

    end(farm, pool)
    assert done, "the place of the dead slot is held for ever, and nobody looks for work"
