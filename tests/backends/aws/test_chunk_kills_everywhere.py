"""A kill before and after each step of split, chunk and join, on the emulator: the long form.

The same scenarios as over memory and the embedded backend; `test_chunked_video.py` has some of them
in every run, for each takes a second or two here.
"""

from __future__ import annotations

import pytest

from backends.aws.test_chunked_video import CloudVideoFarm
from worker.chunking.test_chunk_kills import CASES, costs_at_most_one_chunk

pytestmark = [pytest.mark.aws, pytest.mark.slow]


@pytest.mark.parametrize(("name", "point"), CASES)
def test_a_kill_at_any_point_on_aws_costs_at_most_one_chunk_and_loses_nothing(
    tmp_path, name, point
):
    farm = CloudVideoFarm(tmp_path)

    costs_at_most_one_chunk(farm, name, point)

    farm.backend.close()
