"""A chunk that trails is handed on over SQS and DynamoDB as it is over the other backends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backends.aws.test_chunked_video import CloudVideoFarm
from worker.chunking.test_handed_on import HandsOn, handing_on

pytestmark = pytest.mark.aws


class TestHandedOn(HandsOn):
    """On the emulator, where workers are machines of their own."""

    @pytest.fixture
    def farm(self, tmp_path) -> Iterator[CloudVideoFarm]:
        found = CloudVideoFarm(tmp_path)
        handing_on(found)
        yield found
        found.backend.close()
