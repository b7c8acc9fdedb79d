"""The farm that most tests of split videos use."""

import pytest

from support.fakes.videofarm import VideoFarm


@pytest.fixture
def farm(tmp_path):
    return VideoFarm(tmp_path)
