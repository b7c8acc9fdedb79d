"""A job that dies whole while a chunk's message stands for it still becomes a dead letter."""

from __future__ import annotations

import threading

import pytest

from hevcq.domain.job import JobState
from hevcq.errors import SourceDamaged
from hevcq.usecases.operations.dead_letters import DeadLetterFilter, RedriveRequest, redrive
from support.fakes.videofarm import EmbeddedVideoFarm, VideoFarm


@pytest.mark.parametrize("kind", [VideoFarm, EmbeddedVideoFarm])
def test_a_kill_before_the_burial_of_a_redriven_chunk_leaves_a_letter(tmp_path, kind):
    farm = kind(tmp_path)
    source = farm.split()
    farm.encoder.errors["encode_chunk"] = [SourceDamaged("holes")]
    assert farm.until_settled(source).state is JobState.DEAD
    order = RedriveRequest(wanted=DeadLetterFilter(), who="person")
    assert len(list(redrive(farm.backend, order, clock=farm.clock, stop=threading.Event()))) == 1
    farm.encoder.errors["preflight"] = [SourceDamaged("holes everywhere")]
    assert farm.killed_at("queue.bury:before")
    assert farm.state(source) is JobState.DEAD

    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    farm.until_settled(source)

    assert ["holes everywhere" in letter.reason for letter in farm.letters()] == [True]
