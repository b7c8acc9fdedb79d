"""A video in chunks on the emulator: SQS, DynamoDB and S3 carry its parts to one rendition."""

import threading

import pytest

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobState, Source, job_id
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile_sections import Chunking, ChunkMode
from hevcq.domain.verdict import RetryIn
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.usecases.operations.reprocess import JobResult, cancel
from hevcq.worker.admission import Scratch
from hevcq.worker.delivery.claim import WorkerContext
from support.aws import iam
from support.aws.breaking import Breaking, broken
from support.aws.moto_server import make_farm
from support.clips import make_clip
from support.fakes.videofarm import CHUNKED, CHUNKS, VideoFarm
from worker.chunking.test_split_sets import (
    LADDER,
    leaves_one_whole_set,
    proven,
)


class CloudVideoFarm(VideoFarm):
    """The video farm over the emulator, on its clock."""

    def __init__(self, folder, profile=CHUNKED) -> None:
        super().__init__(folder, profile)
        self.cloud = make_farm({profile.name: profile})
        self.clock, self.backend = self.cloud.clock, self.cloud.backend
        self.clock.auto = True
        self.queue = self.backend.queues[profile.name]
        self.ledger, self.store = self.backend.ledger, self.backend.store
        scratch = Scratch(folder / "scratch", self.clock)
        self.with_context(backend=self.backend, clock=self.clock, scratch=scratch)

    def submit(self, name: str = "a.mp4", content: bytes = b"clip") -> Source:
        path = self.folder / name
        if not path.exists():
            path.write_bytes(content)
        stop = threading.Event()
        key = f"TODO/{self.profile.name}/{name}"
        # The upload announces itself: S3, then SNS, then the profile's queue.
        return self.store.accept(path, key, moved=lambda _n: None, stop=stop)


@pytest.fixture
def farm(tmp_path):
    found = CloudVideoFarm(tmp_path)
    yield found
    found.backend.close()


def recorded(farm: CloudVideoFarm):
    made = farm.cloud.clients
    return iam.recorded(made.s3, made.control, made.sqs, made.polls, made.sns, made.dynamodb)


def is_whole(farm: CloudVideoFarm, source: Source) -> None:
    """One proven rendition, and nothing left of how it was made."""
    record = farm.record(source)
    assert record.state is JobState.DONE
    assert farm.renditions() == [farm.key(source)]
    with farm.store.open(record.rendition.certificate_key) as stream:
        certificate = Certificate.parse(stream.read())
    assert certificate.rendition_sha256 == farm.store.stat(farm.key(source)).sha256
    assert farm.kept(source) == []
    assert (farm.quiet(), farm.letters()) == (True, [])


@pytest.mark.aws
@pytest.mark.parametrize("kind", ["farm", "ladder"])
def test_a_video_becomes_one_rendition_by_chunks_and_a_join_that_the_task_role_allows(
    request, kind
):
    farm = request.getfixturevalue(kind)
    source = farm.submit()
    with recorded(farm) as calls:
        for _ in range(CHUNKS + 2):
            assert farm.handle() is not None
    if kind == "farm":
        is_whole(farm, source)
        assert farm.encoder.calls.count("encode_chunk") == CHUNKS
        assert farm.ledger.counts() == {("hevc", JobState.DONE): 1}
    else:
        assert farm.state(source) is JobState.DONE
        proven(farm, source)

    used = iam.require_allowed(calls, "modules/worker_service/roles.tf", "task", farm.profile.name)
    actions = {action for action, _ in used}
    assert {"sqs:SendMessage", "dynamodb:BatchGetItem", "s3:DeleteObject"} <= actions


@pytest.fixture
def ladder(tmp_path):
    found = CloudVideoFarm(tmp_path, LADDER)
    yield found
    found.backend.close()


@pytest.mark.aws
def test_a_kill_amid_the_files_of_a_set_on_aws_leaves_one_whole_set(ladder):
    leaves_one_whole_set(ladder, "store.publish#3:after")


@pytest.mark.aws
def test_an_operator_may_cancel_a_split_video_and_clear_away_its_parts(farm):
    source = farm.split()
    farm.handle()
    with recorded(farm) as calls:
        (cancelled,) = cancel(farm.backend, [source.key], "me")

    assert cancelled.result is JobResult.CANCELLED
    assert farm.kept(source) == []
    iam.require_allowed(calls, "operator.tf", "operator")


@pytest.mark.aws
def test_a_source_that_breaks_in_mid_chunk_costs_one_failure_and_no_frame(farm):
    source = farm.split()
    # The chunk's plan is read, and then its video, which breaks.
    farm.store._s3 = Breaking(farm.cloud.clients.s3, {"get_object": [None, broken()]})

    assert isinstance(farm.handle().verdict, RetryIn)
    assert farm.chunks(source)[0].failures == 1
    farm.until_settled(source)

    is_whole(farm, source)
    assert farm.encoder.calls.count("encode_chunk") == CHUNKS + 1


@pytest.mark.aws
def test_a_source_replaced_while_its_chunk_reads_it_is_refused(farm):
    source = farm.split()
    newer = farm.folder / "newer.mp4"
    newer.write_bytes(b"another clip")

    def replaced() -> None:
        farm.store.accept(newer, source.key, moved=lambda _n: None, stop=threading.Event())

    farm.encoder.during["encode_chunk"] = replaced
    farm.handle()

    record = farm.record(source)
    assert record.state is not JobState.DONE
    assert "replaced" in record.reason
    assert farm.renditions() == []


@pytest.mark.aws
@pytest.mark.media
def test_a_real_video_has_all_its_frames(tmp_path):
    video = CHUNKED.video.model_copy(update={"preset": "ultrafast"})
    chunking = Chunking(mode=ChunkMode.ALWAYS, target_s=1.0)
    profile = CHUNKED.model_copy(update={"video": video, "chunking": chunking})
    farm = CloudVideoFarm(tmp_path, profile)
    extra = ("-g", "25", "-keyint_min", "25", "-sc_threshold", "0")
    make_clip(tmp_path, name="video.mp4", seconds=4, extra=extra)
    encoder = FfmpegEncoder("ffmpeg", "ffprobe", farm.clock)
    scratch = Scratch(tmp_path / "scratch", farm.clock)
    parts = (farm.backend, encoder, make_plan, scratch, farm.clock)
    farm.context = WorkerContext(
        *parts, threads=1, on_event=farm.events.append, heartbeat=farm._heartbeat
    )
    source = farm.submit("video.mp4")

    record = farm.until_settled(source)

    assert (record.state, record.reason) == (JobState.DONE, "")
    rendition, stop = tmp_path / "rendition.mp4", threading.Event()
    farm.store.collect(record.rendition.key, rendition, stop=stop)
    measured = [
        encoder.measure(str(path), encoder.probe(str(path), stop=stop), stop=stop).tracks[0].packets
        for path in (rendition, tmp_path / "video.mp4")
    ]
    assert measured == [100, 100]
    assert farm.ledger.get(job_id(source, "hevc")).split.chunks >= 2
    farm.backend.close()
