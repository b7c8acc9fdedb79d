"""A video whose key frames are farther apart than a chunk may be long is still cut at each of them."""

from __future__ import annotations

import pytest

from domain.chunking.indexes import chunky, clip, every, index, planned
from hevcq.domain.chunking.planner import ChunkPlan, plan_chunks


def test_chunks_are_as_long_as_the_key_frames_are_apart():
    recipe, info = chunky(chunking={"max_s": 90.0}), clip()

    found = plan_chunks(recipe, info, planned(recipe, info), index(every(100, 1000), 1000))

    assert isinstance(found, ChunkPlan)
    assert [found.seconds(chunk) for chunk in found.chunks] == pytest.approx([100.0] * 10)
    assert sum(chunk.frames for chunk in found.chunks) == 25_000
