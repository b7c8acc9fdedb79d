"""What a split video's parts are asked before they count: each guard alone, where nothing else helps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hevcq.domain.chunking.split_plan import VideoPlan
from hevcq.domain.job import JobState, TaskKind
from hevcq.errors import SourceDamaged
from support.fakes.videofarm import CHUNKS, VideoFarm


@pytest.fixture
def farm(tmp_path):
    return VideoFarm(tmp_path)


def test_a_plan_that_can_be_read_but_is_not_the_one_that_was_made_is_not_gone_by(farm):
    source = farm.split()
    (key,) = [key for key in farm.kept(source) if key.endswith("plan.json")]
    video = VideoPlan.parse(farm.store.content(key))
    other = video.model_copy(update={"duration_s": video.duration_s + 1})
    farm.store.put(key, other.model_dump_json().encode(), metadata={})

    assert farm.until_settled(source, rounds=100).state is JobState.DONE
    assert "encode_chunk" not in farm.encoder.calls


def test_no_join_is_sent_while_a_chunk_is_missing(farm):
    farm.split()
    farm.handle()

    left = [delivery.tasks[0].kind for delivery in iter(farm.receive, None)]

    assert left == [TaskKind.CHUNK] * (CHUNKS - 1)


def test_a_chunk_of_an_older_split_has_a_later_one_announced_whose_own_message_is_lost(farm):
    source = farm.split()
    old = farm.task(source, 0)
    farm.begun_anew(source)
    assert farm.killed_at("queue.send:before")
    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    farm.queue.ack(farm.receive())
    assert farm.quiet()
    farm.queue.send([old])

    assert farm.until_settled(source).state is JobState.DONE


def test_a_chunks_letter_that_the_service_moved_back_starts_its_dead_job_anew(farm):
    source = farm.split()
    farm.encoder.errors["encode_chunk"] = [SourceDamaged("holes")]
    assert farm.until_settled(source).state is JobState.DEAD
    (letter,) = farm.letters()
    assert letter.task.kind is TaskKind.CHUNK
    assert farm.queue.redrive(letter)

    farm.do(replace(farm.receive(), from_dlq=True))

    assert farm.until_settled(source).state is JobState.DONE
    assert farm.letters() == []
