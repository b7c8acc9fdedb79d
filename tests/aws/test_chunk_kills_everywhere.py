"""A kill before and after each step of split, chunk and join, on the emulator: the long form.

The same scenarios as over memory and the embedded backend; `test_chunked_film.py` has some of them
in every run, for each takes a second or two here.
"""

from __future__ import annotations

import pytest

from aws.test_chunked_film import CloudFilmFarm
from hevcq.domain.job import JobState
from worker.chunks.test_chunk_kills import CASES, SCENARIOS

pytestmark = [pytest.mark.aws, pytest.mark.slow]


@pytest.mark.parametrize(("name", "point"), CASES)
def test_a_kill_at_any_point_costs_at_most_one_chunk_and_loses_nothing(tmp_path, name, point):
    farm, scenario = CloudFilmFarm(tmp_path), SCENARIOS[name]
    source = scenario.prepare(farm)

    if (name, point) != ("lost part", "after-collect-parts"):
        assert farm.killed_at(point), "the scenario does not meet the point"
    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    record = farm.until_settled(source, rounds=120)

    assert record.state is scenario.end
    assert farm.quiet()
    assert len(farm.letters()) == scenario.letters
    assert farm.encoder.calls.count("encode_chunk") <= scenario.chunk_encodes
    done = scenario.end is JobState.DONE
    assert farm.renditions() == ([farm.key(source)] if done else [])
    if done:
        assert farm.store.stat(farm.key(source)).sha256 == record.rendition.sha256
        assert farm.kept(source) == []
    farm.backend.close()
