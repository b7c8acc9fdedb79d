"""The way of a video on AWS: boto3 upload, S3 event, SNS, SQS, the real worker and ffmpeg, S3."""

import threading

import pytest

from hevcq.backends.aws.s3 import metadata as object_metadata
from hevcq.domain.job import JobState, job_id
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Gates, Profile, VideoCodec, VideoRecipe
from hevcq.domain.profile_sections import QueueNumbers
from hevcq.domain.verdict import FailureClass
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ports.queue import Selection
from hevcq.usecases.operations.dead_letters import (
    DeadLetterFilter,
    RedriveRequest,
    RedriveResult,
    redrive,
)
from hevcq.util.clock import SystemClock
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.handler import Handler, ProfileQueue
from hevcq.worker.scratch import Scratch
from hevcq.worker.slot import Slot
from support.aws.moto_server import Farm, make_farm
from support.clips import make_clip

pytestmark = [pytest.mark.aws, pytest.mark.media]


def profile(name: str, **more: object) -> Profile:
    return Profile(
        name=name,
        description="for tests",
        video=VideoRecipe(codec=VideoCodec.HEVC, preset="ultrafast", crf=32),
        gates=Gates(minimum_saving=None, review_below=0.0),
        queue=QueueNumbers(visibility_s=60, heartbeat_s=20),
        **more,
    )


PROFILES = {"hevc": profile("hevc"), "small": profile("small", subscribe=False)}


@pytest.fixture
def farm() -> Farm:
    found = make_farm(PROFILES, clock=SystemClock())
    yield found
    found.backend.close()


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clips", seconds=1, size="160x120")


@pytest.fixture
def scratch(tmp_path):
    found = Scratch(tmp_path / "scratch", SystemClock())
    yield found
    found.close()


def worker(farm: Farm, scratch: Scratch, served: Profile = PROFILES["hevc"]) -> Slot:
    encoder = FfmpegEncoder("ffmpeg", "ffprobe", farm.clock)
    context = WorkerContext(farm.backend, encoder, make_plan, scratch, farm.clock, threads=1)
    queue = farm.backend.queues[served.name]
    return Slot(context, Handler(context, farm.backend.owner), [ProfileQueue(served, queue)])


def upload(farm: Farm, key: str, content: bytes) -> None:
    farm.clients.s3.put_object(Bucket="uploads", Key=key, Body=content)


def work_off(farm: Farm, made: Slot, queue: str = "hevc") -> None:
    """Step until the queue has nothing ready."""
    for _ in range(20):
        if farm.backend.queues[queue].depth().ready == 0:
            return
        assert made.step()
    raise AssertionError("the queue does not come to its end")


def renditions(farm: Farm) -> list[str]:
    return [o.key for o in farm.backend.store.list("DONE/") if not o.key.endswith(".json")]


def nothing_is_left(farm: Farm, scratch: Scratch) -> None:
    """Hold that no message, work file, part of an upload or scratch file is anywhere."""
    work_off(farm, worker(farm, scratch, PROFILES["small"]), "small")
    for name in PROFILES:
        depth = farm.backend.queues[name].depth()
        assert (depth.ready, depth.in_flight, depth.delayed) == (0, 0, 0), name
    assert list(farm.backend.store.list("work/")) == []
    for bucket in ("uploads", "out"):
        assert "Uploads" not in farm.clients.s3.list_multipart_uploads(Bucket=bucket)
    assert [path for path in scratch.folder.rglob("*/*") if path.is_file()] == []


def planted(farm: Farm, fence: str, key: str) -> str:
    """Put somebody's object in the place of the one rendition to come; return the job's id."""
    (source,) = farm.backend.store.sources("TODO/")
    job = job_id(source, "hevc")
    metadata = {
        object_metadata.JOB: job,
        object_metadata.FENCE: fence,
        object_metadata.SHA256: "0" * 64,
    }
    farm.clients.s3.put_object(Bucket="out", Key=key, Body=b"another", Metadata=metadata)
    return job


@pytest.mark.parametrize("fence", ["1", "no number"])
def test_a_fence_that_the_ledger_never_granted_ends_the_job_once_and_says_what_to_do(
    farm, clip, scratch, fence
) -> None:
    upload(farm, "TODO/hevc/a.mp4", clip.read_bytes())
    key = "DONE/hevc/a.mp4.mp4"
    job = planted(farm, fence, key)

    work_off(farm, worker(farm, scratch))

    record = farm.backend.ledger.get(job)
    assert (record.state, record.failure_class) == (JobState.DEAD, FailureClass.REVIEW), record
    (letter,) = farm.backend.queues["hevc"].dead_letters(Selection())
    assert (letter.attempts, key in letter.reason) == (1, True)
    with farm.backend.store.open(key) as file:
        assert file.read() == b"another"

    assert farm.backend.store.delete(key)
    order = RedriveRequest(DeadLetterFilter(), who="tester", why="removed it")
    stop = threading.Event()
    done = list(redrive(farm.backend, order, stop=stop))
    assert [each.result for each in done] == [RedriveResult.REDRIVEN]
    work_off(farm, worker(farm, scratch))
    assert farm.backend.ledger.get(job).state is JobState.DONE
    nothing_is_left(farm, scratch)
