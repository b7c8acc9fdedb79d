"""A video that is uploaded again while its first rendition is on its way keeps the later one."""

from __future__ import annotations

import pytest

from contracts.backends import PROFILES
from hevcq.domain.job import JobState, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.handler import Handler, ProfileQueue
from hevcq.worker.scratch import Scratch
from support.aws.values import take
from support.fakes.encoder import FakeEncoder, fake_plan
from support.fakes.farm import NoHeartbeat

pytestmark = pytest.mark.aws
KEY, MADE = "TODO/hevc/a.mp4", "DONE/hevc/a.mp4.mp4"


def upload(farm, content: bytes):
    farm.clients.s3.put_object(Bucket="uploads", Key=KEY, Body=content)
    (source,) = farm.backend.store.sources(KEY)
    return source


@pytest.mark.parametrize("moment", ["before_the_look", "before_the_write"])
def test_a_late_publication_does_not_replace_that_of_a_later_upload(farm, tmp_path, moment) -> None:
    store, queue = farm.backend.store, farm.backend.queues["hevc"]
    scratch = Scratch(tmp_path / "scratch", farm.clock)
    parts = (farm.backend, FakeEncoder(), fake_plan, scratch, farm.clock)
    context = WorkerContext(*parts, threads=1, heartbeat=NoHeartbeat)
    sources = [upload(farm, b"the first clip")]

    def work(worker: str) -> None:
        (delivery,) = take(queue)
        Handler(context, worker).handle(ProfileQueue(PROFILES["hevc"], queue), delivery)

    def overtaken(*asked):
        setattr(*place, whole)
        sources.append(upload(farm, b"the second clip"))
        work("quick:0")
        return whole(*asked)

    place = (store, "publish") if moment == "before_the_look" else (store._publisher, "_upload")
    whole = getattr(*place)
    setattr(*place, overtaken)
    work("slow:0")

    first, second = (farm.backend.ledger.get(job_id(source, "hevc")) for source in sources)
    assert second.state is JobState.DONE
    assert store.stat(MADE).sha256 == second.rendition.sha256
    assert store.stat(MADE).metadata["job"] == second.job_id
    assert (first.state, first.failure_class) == (JobState.DEAD, FailureClass.CHANGED)
