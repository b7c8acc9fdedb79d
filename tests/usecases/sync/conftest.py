"""A machine that syncs from a server of this process."""

import pytest

from support.clips import ManualClock
from support.syncing import Machine


@pytest.fixture
def machine(webdav, tmp_path):
    made = Machine(webdav, tmp_path, ManualClock(auto=True))
    made.target.mkdir()
    return made
