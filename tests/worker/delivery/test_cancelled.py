"""A cancelled job stops its workers, publishes nothing, and leaves no message behind."""

from unittest.mock import Mock

import pytest

from hevcq.domain.job import JobState, job_id
from hevcq.domain.verdict import Abandon, FailureClass
from hevcq.errors import StaleFence, Unavailable
from hevcq.usecases.operations.reprocess import JobResult, cancel
from support.fakes.farm import Farm
from support.fakes.videofarm import EmbeddedVideoFarm, VideoFarm


def ended(farm: Farm, source) -> list[JobResult]:
    names = [job_id(source, farm.profile.name)]
    return [done.result for done in cancel(farm.backend, names, "ana")]


@pytest.fixture(params=[VideoFarm, EmbeddedVideoFarm])
def videos(request, tmp_path):
    return request.param(tmp_path)


def left(farm: Farm, source) -> None:
    """No message, no letter, no rendition, no part: only the record with its reason."""
    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    record = farm.until_settled(source)
    assert (record.state, record.reason) == (JobState.DEAD, "Cancelled by ana.")
    assert record.failure_class is FailureClass.CANCELLED
    depth = farm.queue.depth()
    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (0, 0, 0, 0)
    assert not [found.key for found in farm.store.list("DONE/")]


def test_a_running_encode_stops_at_its_next_heartbeat(tmp_path):
    farm = Farm(tmp_path)
    source = farm.submit()

    def midway() -> None:
        ended(farm, source)
        farm.lease.beat(farm.clock.monotonic())

    farm.encoder.during["encode"] = midway
    handled = farm.handle()

    assert isinstance(farm.lease.cause, StaleFence)
    assert (type(handled.verdict), handled.settled) == (Abandon, False)
    left(farm, source)
    assert farm.encoder.calls.count("encode") == 1
    assert farm.scratch_files() == []


def test_the_chunks_of_a_cancelled_video_are_not_encoded(videos):
    source = videos.split()
    videos.handle()

    assert ended(videos, source) == [JobResult.CANCELLED]

    assert videos.kept(source) == [], "what was kept for it is gone"
    left(videos, source)
    assert videos.encoder.calls.count("encode_chunk") == 1


def test_a_video_cancelled_in_its_join_publishes_nothing(videos):
    source = videos.chunked()
    videos.encoder.during["verify"] = lambda: ended(videos, source)
    videos.handle()

    left(videos, source)


def test_parts_that_cannot_be_cleared_away_keep_no_other_job_from_being_cancelled(tmp_path):
    farm = VideoFarm(tmp_path)
    split, waiting = farm.split(), farm.submit("b.mp4")

    listing, farm.store.list = farm.store.list, Mock(side_effect=Unavailable("access is denied"))
    names = [source.key for source in (split, waiting)]
    results = [done.result for done in cancel(farm.backend, names, "ana")]
    farm.store.list = listing

    assert results == [JobResult.CANCELLED] * 2
    left(farm, split)
    left(farm, waiting)
