"""A worker that sweeps late, after its job was queued and split again, harms nothing of the new split."""

from __future__ import annotations

import pytest

from hevcq.domain.job import JobState
from hevcq.usecases.operations.reprocess import ReprocessRequest, reprocess
from hevcq.worker.chunking import split
from hevcq.worker.chunking.split import sweep_leftovers
from support.fakes.videofarm import CHUNKS, EmbeddedVideoFarm, VideoFarm


@pytest.fixture(params=[VideoFarm, EmbeddedVideoFarm])
def farm(request, tmp_path):
    return request.param(tmp_path)


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


def test_a_sweep_that_begins_late_leaves_the_next_split_alone(farm, monkeypatch):
    source, late = farm.chunked(), []
    swept = split.sweep

    def later(context, job_id, **named):
        if not late:
            late.append(job_id)
            split_again(farm, source)
        swept(context, job_id, **named)

    monkeypatch.setattr("hevcq.worker.chunking.join_job.sweep", later)
    farm.handle()

    assert late
    assert farm.state(source) is JobState.SPLIT
    assert len(farm.parts(source)) == CHUNKS + 1
    assert ends_in_chunks(farm, source)


def test_parts_are_forgotten_only_while_their_job_is_not_split(farm):
    source = farm.split()

    farm.ledger.forget_parts(farm.record(source).job_id)

    assert len(farm.parts(source)) == CHUNKS + 1


def test_a_start_that_read_a_job_before_it_was_split_again_leaves_its_parts_alone(
    farm, monkeypatch
):
    source = farm.chunked()
    assert farm.killed_at("store.list:before")
    assert farm.state(source) is JobState.DONE
    forget, late = farm.ledger.forget_parts, []

    def later(job_id):
        if not late:
            late.append(job_id)
            split_again(farm, source)
        forget(job_id)

    with monkeypatch.context() as patch:
        patch.setattr(farm.ledger, "forget_parts", later)
        sweep_leftovers(farm.context)

    assert ends_in_chunks(farm, source)


def test_what_an_attempt_left_that_never_split_goes_once_its_job_is_queued(farm):
    source = farm.submit()
    assert farm.killed_at("store.put:after")
    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    fence = farm.record(source).fence
    farm.ledger.interrupt(farm.record(source).job_id, fence, "stopped")

    sweep_leftovers(farm.context)

    assert farm.kept(source) == []
