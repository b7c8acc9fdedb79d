"""A publication may take minutes where renditions travel: a stop or a lost lease ends it."""

from hevcq.domain.job import JobState
from hevcq.domain.verdict import Abandon, Release
from hevcq.errors import LeaseLost, Stopped
from support.fakes.farm import Farm
from support.fakes.videofarm import VideoFarm


def slow_publication(farm: Farm, cause: Exception) -> list[str]:
    """Have the next publication meet `cause` on its way; return how it then ended."""
    ends: list[str] = []

    def publish(publication):
        farm.store.publish = whole
        farm.lease.end(cause)
        if publication.stop.is_set():
            ends.append("stopped")
            raise Stopped
        ends.append("went on")
        return whole(publication)

    whole, farm.store.publish = farm.store.publish, publish
    return ends


def test_a_lost_lease_ends_it_and_settles_nothing(tmp_path):
    farm = Farm(tmp_path)
    farm.submit()
    ends = slow_publication(farm, LeaseLost())

    assert isinstance(farm.handle().verdict, Abandon)

    assert ends == ["stopped"]
    assert farm.queue.settled == []
    assert farm.store.published == []


def test_a_stop_sends_a_chunk_back_as_it_was(tmp_path):
    farm = VideoFarm(tmp_path)
    source = farm.split()
    ends = slow_publication(farm, Stopped())

    assert isinstance(farm.handle().verdict, Release)

    assert ends == ["stopped"]
    part = farm.chunks(source)[0]
    assert (part.state, part.failures, part.crashes) == (JobState.QUEUED, 0, 0)
