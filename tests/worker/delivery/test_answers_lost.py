"""A call that happened although its answer did not arrive, and calls that never get through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hevcq.domain.job import JobState, job_id
from hevcq.domain.verdict import Done, FailureClass, Release, RetryIn
from hevcq.errors import SourceDamaged, Unavailable
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.slot import _names
from support.fakes.farm import Farm
from support.fakes.videofarm import VideoFarm


def lost(port, call, *, times=1, happened=True):
    """Let the next calls of a port end without an answer."""
    real, left = getattr(port, call), [times]

    def without_answer(*args, **more):
        if left[0]:
            left[0] -= 1
            if happened:
                real(*args, **more)
            raise Unavailable("no answer")
        return real(*args, **more)

    setattr(port, call, without_answer)


def test_a_publication_whose_answer_was_lost_is_found_and_completed(tmp_path):
    farm = Farm(tmp_path)
    source = farm.submit()
    lost(farm.store, "publish")

    assert isinstance(farm.handle().verdict, Done)

    assert farm.state(source) is JobState.DONE
    assert [key for key, _, _ in farm.store.published] == [farm.key(source)]


@pytest.mark.parametrize("there", [None, "another job", "other bytes"])
def test_a_publication_that_did_not_happen_is_not_taken_for_one(tmp_path, there):
    farm = Farm(tmp_path)
    source = farm.submit()
    if there is not None:
        owner = "somebody else's" if there == "another job" else job_id(source, "hevc")
        farm.store.put(farm.key(source), b"what is there", metadata={"job": owner})
    lost(farm.store, "publish", happened=False)

    assert isinstance(farm.handle().verdict, RetryIn)
    assert farm.state(source) is JobState.QUEUED
    assert farm.store.published == []


def test_a_completion_whose_answer_was_lost_has_happened(tmp_path):
    farm = Farm(tmp_path)
    source = farm.submit()
    lost(farm.ledger, "complete")

    assert isinstance(farm.handle().verdict, Done)

    assert farm.state(source) is JobState.DONE
    assert farm.encoder.calls.count("encode") == 1


def test_a_video_whose_chunks_could_not_be_queued_is_looked_at_again_soon(tmp_path):
    farm = VideoFarm(tmp_path)
    source = farm.submit()
    queue = farm.context.backend.queues["hevc"]
    lost(queue, "send", times=3, happened=False)

    handled = farm.handle()

    assert isinstance(handled.verdict, Release)
    assert farm.state(source) is JobState.SPLIT
    assert not farm.record(source).split.announced
    assert farm.until_settled(source).state is JobState.DONE
    assert farm.encoder.calls.count("keyframes") == 1, "it was not split again"


def test_work_that_cannot_be_swept_keeps_no_video_from_being_done(tmp_path):
    farm = VideoFarm(tmp_path)
    source = farm.chunked()
    lost(farm.store, "list", happened=False)

    assert isinstance(farm.handle().verdict, Done)

    assert farm.state(source) is JobState.DONE
    assert farm.kept(source) != [], "a later sweep removes it"


def test_a_job_whose_worker_died_after_its_part_was_given_up_is_buried_by_the_next(tmp_path):
    farm = VideoFarm(tmp_path)
    source = farm.split()
    farm.encoder.errors["encode_chunk"] = [SourceDamaged("holes")]
    assert farm.killed_at("ledger.bury#2:before")
    assert farm.state(source) is JobState.SPLIT

    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    record = farm.until_settled(source)

    assert (record.state, record.failure_class) == (JobState.DEAD, FailureClass.DAMAGED)
    assert [letter.reason for letter in farm.letters()] == [record.reason]


def test_lines_about_a_message_of_several_jobs_name_none_of_them_alone(tmp_path):
    farm = Farm(tmp_path)
    farm.submit()
    delivery = farm.receive()
    served = ProfileQueue(farm.profile, farm.queue)

    assert _names(served, delivery)["job"] == delivery.tasks[0].job_id
    several = replace(delivery, tasks=delivery.tasks * 2)
    assert _names(served, several) == {"profile": "hevc", "attempt": 1}
