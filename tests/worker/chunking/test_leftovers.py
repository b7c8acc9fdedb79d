"""What killed workers leave below work/ is removed, and what is still needed is not."""

import pytest

from hevcq.domain.job import JobState, job_id, subjob_id
from hevcq.domain.keys import work_folder, work_key
from hevcq.errors import SourceDamaged
from hevcq.usecases.operations.reprocess import ReprocessRequest, reprocess
from hevcq.worker.encode_job import sweep_leftovers
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import WorkerPool
from support.fakes.videofarm import CHUNKS, EmbeddedVideoFarm, VideoFarm


@pytest.fixture(params=[VideoFarm, EmbeddedVideoFarm])
def farm(request, tmp_path):
    return request.param(tmp_path)


def leave(farm, source, split: str = "older-0") -> str:
    key = work_key(work_folder(job_id(source, "hevc"), "hevc"), split, "00000.part")
    farm.store.put(key, b"left behind", metadata={})
    return key


@pytest.mark.parametrize("end", [JobState.DONE, JobState.DEAD])
def test_objects_of_an_ended_job_are_swept(farm, end):
    source = farm.submit()
    if end is JobState.DEAD:
        farm.encoder.errors["encode_chunk"] = [SourceDamaged("holes")]
    assert farm.until_settled(source).state is end
    leave(farm, source)

    sweep_leftovers(farm.context)

    assert farm.kept(source) == []


def test_objects_of_the_current_split_stay_and_older_ones_are_swept(farm):
    source = farm.split()
    farm.handle()
    needed, old = farm.kept(source), leave(farm, source)

    sweep_leftovers(farm.context)

    assert farm.store.stat(old) is None
    assert farm.kept(source) == needed
    assert farm.until_settled(source).state is JobState.DONE
    assert farm.encoder.calls.count("encode_chunk") == CHUNKS


def test_the_plan_of_a_job_that_is_being_split_stays(farm):
    source = farm.submit()
    assert farm.killed_at("store.put:after")
    (plan,) = farm.kept(source)

    sweep_leftovers(farm.context)

    assert farm.kept(source) == [plan]


def test_a_dead_part_is_remembered_so_that_its_delivery_still_becomes_a_letter(farm):
    source = farm.split()
    farm.encoder.errors["encode_chunk"] = [SourceDamaged("holes")]
    assert farm.killed_at("queue.bury:before")
    sweep_leftovers(farm.context)
    split = farm.record(source).split
    assert farm.ledger.get(subjob_id(job_id(source, "hevc"), split.name, 0)) is not None
    farm.clock.advance(farm.profile.queue.visibility_s + 1)

    farm.until_settled(source)

    assert len(farm.letters()) == 1


def test_a_start_sweeps_leftovers_where_the_store_expires_nothing(farm):
    source = farm.submit()
    farm.until_settled(source)
    key = leave(farm, source)
    for sweep_on_start in (False, True):
        farm.with_context(sweep_on_start=sweep_on_start)
        pool = WorkerPool(farm.context, [ProfileQueue(farm.profile, farm.queue)])
        pool.start()
        pool.interrupt()
        for thread in pool._threads:
            thread.join(20)

        assert (farm.store.stat(key) is None) is sweep_on_start


def split_again(farm, source) -> None:
    """Have a person process the job anew, and another worker split it."""
    farm.store.delete(farm.key(source))
    (done,) = reprocess(
        farm.backend, ReprocessRequest(names=[farm.record(source).job_id], who="person")
    )
    assert done.result.value == "queued"
    for _ in range(5):
        farm.handle("other:0")
        if farm.state(source) is JobState.SPLIT:
            break
    assert farm.state(source) is JobState.SPLIT


def ends_in_chunks(farm, source) -> bool:
    """Let the farm work on; return whether every chunk of the second split was encoded for it."""
    before = farm.encoder.calls.count("encode_chunk")
    assert farm.until_settled(source).state is JobState.DONE
    return farm.encoder.calls.count("encode_chunk") - before == CHUNKS


def test_a_start_that_read_a_job_before_it_was_split_again_leaves_its_parts_alone(
    farm, monkeypatch
):
    source = farm.chunked()
    assert farm.killed_at("store.list:before")
    assert farm.state(source) is JobState.DONE
    forget, late = farm.ledger.forget_subjobs, []

    def later(job_id):
        if not late:
            late.append(job_id)
            split_again(farm, source)
        forget(job_id)

    with monkeypatch.context() as patch:
        patch.setattr(farm.ledger, "forget_subjobs", later)
        sweep_leftovers(farm.context)

    assert ends_in_chunks(farm, source)


def test_objects_of_an_unknown_job_are_swept(farm):
    key = f"{work_folder('0' * 32, 'hevc')}digest-1/plan.json"
    farm.store.put(key, b"{}", metadata={})

    sweep_leftovers(farm.context)

    assert farm.store.stat(key) is None
