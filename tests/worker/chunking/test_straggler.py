"""A worker that is far slower than the others gives its chunk up, once, and nothing is counted."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from hevcq.domain.job import JobState
from hevcq.domain.verdict import REQUEUED_CHUNK_DELAY_S, Release
from hevcq.errors import Stopped, Unavailable
from hevcq.ports.encoder import EncodeProgress
from hevcq.worker.chunking.straggler import StragglerWatch
from hevcq.worker.delivery.context import RequeuedChunks
from hevcq.worker.encode_slots import EncodeSlots
from support.clips import ManualClock
from support.fakes.encoder import fake_index
from support.fakes.videofarm import EmbeddedVideoFarm, VideoFarm

CHUNKS, CHUNK_S = 5, 20.0


class Paced:
    """Encodes chunks as fast as they play; `slow` says how many times slower some begin."""

    def __init__(self, farm: VideoFarm) -> None:
        self.farm, self.slow, self.begun = farm, {}, []
        self._encode = farm.encoder.encode_chunk
        farm.encoder.encode_chunk = self.encode_chunk
        farm.encoder.index = fake_index(length_s=100, every_s=20)

    def encode_chunk(self, request, plan, chunk, *, on_progress, stop):
        first = chunk.index not in self.begun
        times = self.slow.get(chunk.index, [1.0])
        whole = CHUNK_S * (times[0] if first else times[-1])
        self.begun.append(chunk.index)
        for step in range(int(whole)):
            self.farm.clock.advance(1.0)
            on_progress(EncodeProgress(step / whole, 0.0, 0, None, 0))
            if stop.is_set():
                raise Stopped
        return self._encode(request, plan, chunk, on_progress=on_progress, stop=stop)


def handing_on(farm: VideoFarm) -> VideoFarm:
    """Have a farm's workers hand on what trails, and cut its videos for as many workers."""
    farm.with_context(slots_per_job=lambda _profile: CHUNKS, requeue_stragglers=True)
    return farm


def split(farm, slow: dict[int, list[float]], done: int = CHUNKS - 1) -> tuple[Paced, object]:
    paced = Paced(farm)
    source = farm.split()
    assert len(farm.chunks(source)) == CHUNKS
    paced.slow = slow
    for _ in range(done):
        farm.handle()
    return paced, source


class HandsOn:
    """What holds over every backend; whoever inherits brings a `farm` that hands on."""

    def test_a_chunk_that_trails_is_released_uncounted_and_another_worker_ends_it(self, farm):
        paced, source = split(farm, {4: [5.0, 1.0]})

        handled = farm.handle("slow:0")

        assert isinstance(handled.verdict, Release)
        assert handled.verdict.delay_s == REQUEUED_CHUNK_DELAY_S
        part = farm.chunks(source)[4]
        assert (part.state, part.failures, part.crashes) == (JobState.QUEUED, 0, 0)
        assert farm.handle("other:0") is None, "it is hidden until others are free"
        assert farm.scratch_files() == []
        record = farm.until_settled(source)
        assert record.state is JobState.DONE
        assert paced.begun == [0, 1, 2, 3, 4, 4]

    def test_who_handed_a_chunk_on_leaves_it_to_others_for_a_moment(self, farm):
        paced, source = split(farm, {4: [5.0, 1.0]})
        farm.handle("slow:0")

        for _ in range(2):
            farm.clock.advance(REQUEUED_CHUNK_DELAY_S)
            refused = farm.handle("slow:1")
            assert isinstance(refused.verdict, Release)
            assert refused.verdict.delay_s == REQUEUED_CHUNK_DELAY_S
        farm.with_context(requeued_chunks=RequeuedChunks())
        farm.clock.advance(REQUEUED_CHUNK_DELAY_S)
        farm.handle("elsewhere:0")

        assert farm.chunks(source)[4].state is JobState.DONE
        assert paced.begun.count(4) == 2

    def test_who_handed_a_chunk_on_takes_it_back_if_nobody_else_does(self, farm):
        paced, source = split(farm, {4: [5.0, 5.0]})
        farm.handle("slow:0")

        for _ in range(3):
            farm.clock.advance(REQUEUED_CHUNK_DELAY_S)
            farm.handle("slow:0")

        assert farm.chunks(source)[4].state is JobState.DONE
        assert paced.begun.count(4) == 2

    def test_a_message_with_few_receives_to_spare_is_left_to_nobody(self, farm):
        numbers = farm.profile.queue.model_copy(update={"max_receives": 4, "max_failures": 3})
        paced, source = split(farm, {4: [5.0, 5.0]})
        farm.handle("slow:0")
        farm.profile = farm.profile.model_copy(update={"queue": numbers})

        farm.clock.advance(REQUEUED_CHUNK_DELAY_S)
        farm.handle("slow:0")

        assert farm.chunks(source)[4].state is JobState.DONE
        assert paced.begun.count(4) == 2

    @pytest.mark.parametrize(
        ("chunk", "slow", "done", "fleet", "begun"),
        [
            pytest.param(4, [5.0, 5.0], 4, True, 2, id="one hard for all is handed on once"),
            pytest.param(4, [2.5, 1.0], 4, True, 1, id="others are hardly faster"),
            pytest.param(0, [5.0, 1.0], 0, True, 1, id="the first ones are measured by nobody"),
            pytest.param(4, [5.0, 1.0], 4, False, 1, id="slots of one machine hand nothing on"),
        ],
    )
    def test_a_chunk_is_handed_on_only_where_that_pays(self, farm, chunk, slow, done, fleet, begun):
        farm.with_context(requeue_stragglers=fleet)
        paced, source = split(farm, {chunk: slow}, done=done)

        assert farm.until_settled(source).state is JobState.DONE
        assert paced.begun.count(chunk) == begun

    def test_a_ledger_that_does_not_answer_the_look_ends_nothing(self, farm, monkeypatch):
        paced, source = split(farm, {4: [5.0, 1.0]})

        with monkeypatch.context() as patched:
            patched.setattr(farm.ledger, "subjobs", Mock(side_effect=Unavailable("no answer")))
            patched.setattr(
                "hevcq.worker.chunking.chunk_job.send_join", lambda _context, _task: None
            )
            farm.handle()

        assert paced.begun.count(4) == 1
        assert farm.chunks(source)[4].state is JobState.DONE


class TestHandedOn(HandsOn):
    """In memory and in a data folder."""

    @pytest.fixture(params=[VideoFarm, EmbeddedVideoFarm])
    def farm(self, request, tmp_path):
        return handing_on(request.param(tmp_path))


def test_a_slot_whose_encode_ended_expects_nothing_more():
    encode_slots = EncodeSlots(1, ManualClock(auto=True))
    encode_slots.enter("a")
    encode_slots.received("a")

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
    farm.ledger.subjobs = lambda _job: known
    fence = SimpleNamespace(number=1, job_id="job")
    lease = SimpleNamespace(end=ended.append)
    trail = StragglerWatch(farm.context, video, chunks[0], lease, fence)
    on_progress = trail.watched(lambda _now: None)
    farm.clock.advance(1_000)

    on_progress(EncodeProgress(0.1, 1.0, 1, 1.0, 7))

    assert len(ended) == told
