"""The rehearsal of docs/farm/operations.md: the ledger is restored from a backup into another table."""

import pytest

from contracts.backends import PROFILES
from hevcq.backends.aws.factory import open_aws
from hevcq.domain.job import JobState, job_id
from hevcq.ports.ledger import JobFilter
from hevcq.usecases.operations.reprocess import JobResult, ReprocessRequest, reprocess_missing
from support.aws.moto_server import make_farm
from support.aws.values import NoCatalog, put, take
from support.fakes.farm import FakeWorker

pytestmark = pytest.mark.aws
HEVC = PROFILES["hevc"]
OURS = {"hevc": HEVC}


@pytest.fixture
def farm():
    found = make_farm(OURS)
    found.clock.auto = True
    yield found
    found.backend.close()


def work(farm, folder) -> int:
    """Do what is queued; return how many videos were encoded."""
    worker = FakeWorker(farm.backend, folder, farm.clock)
    worker.do(HEVC)
    worker.context.scratch.close()
    return worker.encoder.calls.count("encode")


def reconcile(farm) -> list[JobResult]:
    asked = ReprocessRequest(["TODO/"], who="me")
    return [one.result for one in reprocess_missing(farm.backend, asked, OURS, NoCatalog())]


def versions(farm) -> dict[str, int]:
    """Return how often each rendition was written."""
    listed = farm.clients.s3.list_object_versions(Bucket="out", Prefix="DONE/")["Versions"]
    names = [each["Key"] for each in listed if not each["Key"].endswith(".json")]
    return {name: names.count(name) for name in names}


def test_after_a_restore_nothing_is_lost_and_nothing_doubled(farm, tmp_path):
    # Given a farm with a job that is done, and one that waits
    put(farm, "TODO/hevc/before.mp4")
    assert work(farm, tmp_path / "1") == 1
    put(farm, "TODO/hevc/waits.mp4")
    (waits,) = farm.backend.store.sources("TODO/hevc/waits.mp4")
    farm.backend.ledger.register(waits, ["hevc"])

    # When its table goes back to here, although the waiting job and a later one were done since
    farm.clients.dynamodb.restore_table_to_point_in_time(
        SourceTableName="hevcq", TargetTableName="hevcq.2", UseLatestRestorableTime=True
    )
    put(farm, "TODO/hevc/after.mp4")
    assert work(farm, tmp_path / "2") == 2
    put(farm, "TODO/hevc/sent.mp4")
    made = versions(farm)
    farm.clients.dynamodb.delete_table(TableName="hevcq")
    farm.backend.close()
    aws = farm.settings.aws.model_copy(update={"table": "hevcq.2"})
    settings = farm.settings.model_copy(update={"aws": aws})
    farm.backend = open_aws(settings, OURS, farm.clock, farm.clients)
    assert work(farm, tmp_path / "3") == 1, "what waits in the queues goes on by itself"

    # Then the job whose message is gone is found once its queue has been empty for an hour
    assert reconcile(farm) == []
    farm.clock.advance(3700)
    assert reconcile(farm) == [JobResult.QUEUED]
    work(farm, tmp_path / "4")
    farm.clock.advance(3700)
    assert reconcile(farm) == []
    assert take(farm.backend.queues["hevc"]) == []
    assert farm.backend.queues["hevc"].depth().dead == 0
    assert versions(farm) == {**made, "DONE/hevc/sent.mp4.mp4": 1}
    states = {job.source.key: job.state for job in farm.backend.ledger.jobs(JobFilter())}
    assert states == {
        f"TODO/hevc/{name}.mp4": JobState.DONE for name in ("before", "waits", "sent")
    }
    assert farm.backend.ledger.get(job_id(waits, "hevc")).rendition is not None
