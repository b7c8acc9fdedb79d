"""A kill costs one chunk at most: a video of ten minutes, five kills, the real handler."""

from __future__ import annotations

import pytest
from benchmarks.kill_bench import KILLS, lives

from support.fakes.videofarm import EmbeddedVideoFarm, VideoFarm


@pytest.mark.parametrize("kind", [VideoFarm, EmbeddedVideoFarm])
def test_five_kills_cost_a_video_of_ten_minutes_one_chunk_each_at_most(kind):
    for life in lives(kind, 5):
        assert max(life.lost) <= 1.0
        assert sum(life.lost) > 0, "nothing was lost: were there kills?"
        assert sum(share > 0 for share in life.lost) <= KILLS
