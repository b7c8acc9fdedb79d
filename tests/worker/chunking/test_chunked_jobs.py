"""A video in chunks: split, encoded by parts, joined once, whatever order its messages come in."""

import pytest

from hevcq.domain.certificate import Certificate
from hevcq.domain.events import EventName
from hevcq.domain.job import (
    JobRecord,
    JobState,
    Phase,
    Progress,
    Source,
    Split,
    SubjobOf,
    TaskKind,
    job_id,
    split_progress,
    subjob_id,
)
from hevcq.domain.profile_sections import Chunking, ChunkMode
from hevcq.domain.quality import Aim
from hevcq.domain.verdict import Done
from support.fakes.encoder import fake_index
from support.fakes.videofarm import CHUNKED, CHUNKS, VideoFarm


def test_a_video_becomes_one_rendition_by_its_chunks_and_their_join(farm):
    source = farm.submit()

    record = farm.until_settled(source)

    assert record.state is JobState.DONE
    assert [c for c in farm.encoder.calls if c in {"encode", "encode_chunk", "join"}] == [
        *["encode_chunk"] * CHUNKS,
        "join",
    ]
    assert farm.renditions() == [farm.key(source)]
    assert farm.quiet()
    assert farm.letters() == []
    certificate = Certificate.parse(farm.store.content(record.rendition.certificate_key))
    assert "concat" in certificate.arguments
    assert certificate.cpu_s == pytest.approx(CHUNKS * farm.encoder.seconds + 0.1)
    assert certificate.fence == record.fence
    # What happens to its parts is no end of the job.
    kinds = [event.kind for event in farm.events if event.kind is not EventName.JOB_PROGRESS]
    assert kinds.count(EventName.JOB_DONE) == 1
    assert kinds.count(EventName.PART_DONE) == CHUNKS
    assert kinds.count(EventName.JOB_SPLIT) == 1
    assert {event.job_id for event in farm.events} == {job_id(source, "hevc")}
    encoding = [e for e in farm.events if e.progress and e.progress.phase is Phase.ENCODE]
    assert {event.part for event in encoding} == {f"Chunk {n} of 3" for n in (1, 2, 3)}


def test_the_chunks_of_a_video_have_the_crf_that_was_searched_for_it_once(tmp_path):
    aimed = CHUNKED.video.model_copy(update={"quality": 93.0})
    farm = VideoFarm(tmp_path, CHUNKED.model_copy(update={"video": aimed}))
    farm.encoder.aim = Aim(target=93, crf=22.5, sampled=93.1, probes=(), metric="vmaf_v0.6.1")
    farm.encoder.verified = [93.4]
    source = farm.submit()

    record = farm.until_settled(source)

    assert record.state is JobState.DONE
    assert farm.encoder.calls.count("search") == 1
    assert farm.encoder.crfs == [22.5] * CHUNKS
    certificate = Certificate.parse(farm.store.content(record.rendition.certificate_key))
    assert certificate.quality is not None
    assert certificate.quality.verified == 93.4


def test_the_chunks_of_a_video_share_a_group_and_carry_the_split(farm):
    source = farm.split()

    tasks = [farm.receive().tasks[0] for _ in range(CHUNKS)]

    assert {task.group for task in tasks} == {source.source_id}
    assert {task.split for task in tasks} == {farm.record(source).split.name}
    assert [(task.kind, task.chunk) for task in tasks] == [
        (TaskKind.CHUNK, number) for number in range(CHUNKS)
    ]


@pytest.mark.parametrize(
    ("mode", "target_s", "slots_per_job", "splits"),
    [
        (ChunkMode.ALWAYS, 20, 1, True),
        (ChunkMode.AUTO, 1, 2, True),
        (ChunkMode.AUTO, 1, 1, False),
        (ChunkMode.AUTO, 20, 9, False),
        (ChunkMode.OFF, 1, 9, False),
    ],
)
def test_a_video_is_split_where_its_profile_asks_for_it_and_it_pays(
    tmp_path, mode, target_s, slots_per_job, splits
):
    chunking = Chunking(mode=mode, target_s=target_s)
    farm = VideoFarm(tmp_path, CHUNKED.model_copy(update={"chunking": chunking}))
    farm.with_context(slots_per_job=lambda _profile: slots_per_job)

    record = farm.until_settled(farm.submit())

    assert record.state is JobState.DONE
    assert ("encode_chunk" in farm.encoder.calls) is splits
    assert ("keyframes" in farm.encoder.calls) is splits, "the pass over packets is not for nothing"


def test_a_video_that_cannot_be_cut_is_encoded_whole(farm):
    farm.encoder.index = fake_index(length_s=60, every_s=60)

    record = farm.until_settled(farm.submit())

    assert record.state is JobState.DONE
    assert farm.encoder.calls.count("encode") == 1
    assert "encode_chunk" not in farm.encoder.calls


def test_a_join_that_comes_before_its_chunks_waits_for_the_one_they_send(farm):
    source = farm.split()
    held = [farm.receive() for _ in range(CHUNKS)]
    farm.queue.send([farm.task(source, None)])

    assert isinstance(farm.handle().verdict, Done)
    assert "join" not in farm.encoder.calls
    for delivery in held:
        farm.do(delivery)

    assert farm.until_settled(source).state is JobState.DONE
    assert farm.encoder.calls.count("join") == 1


def test_a_second_task_of_the_job_while_it_is_split_sends_nothing(farm):
    source = farm.split()
    before = farm.queue.depth().ready
    farm.queue.send([farm.task(source, 0).as_whole_job()])
    deliveries = [farm.receive() for _ in range(before + 1)]

    handled = farm.do(deliveries[-1])

    assert handled.verdict == Done()
    assert farm.queue.depth().ready == 0
    assert farm.encoder.calls.count("keyframes") == 1


SOURCE = Source(bucket="library", key="TODO/all/a.mp4", version="v", size=9)
SPLIT = Split(name="digest-1", chunks=2, frames=400, seconds=100.0, plan_sha256="0" * 64)


def record(name: str, state: JobState, **facts) -> JobRecord:
    return JobRecord(
        job_id=name,
        source=SOURCE,
        profile="hevc",
        state=state,
        created_at=0.0,
        updated_at=0.0,
        **facts,
    )


def part(chunk: int | None, frames: int, state: JobState, progress: Progress | None = None):
    about = SubjobOf(job_id="job", split=SPLIT.name, chunk=chunk, frames=frames)
    return record(subjob_id("job", SPLIT.name, chunk), state, subjob=about, progress=progress)


def encoding(percent: float, speed: float | None = None) -> Progress:
    return Progress(phase=Phase.ENCODE, percent=percent, speed=speed)


JOB = record("job", JobState.SPLIT, split=SPLIT)
WAITING = part(None, 0, JobState.QUEUED)


def test_chunks_weigh_as_many_frames_as_they_have():
    found = split_progress(
        JOB, [part(0, 100, JobState.DONE), part(1, 300, JobState.QUEUED), WAITING]
    )

    assert (found.chunks, found.done, found.running) == (2, 1, 0)
    assert found.progress == Progress(phase=Phase.ENCODE, percent=25.0)


def test_speeds_add_up_and_tell_what_is_left():
    parts = [
        part(0, 100, JobState.RUNNING, encoding(50, 2.0)),
        part(1, 300, JobState.RUNNING, encoding(50, 3.0)),
        WAITING,
    ]

    found = split_progress(JOB, parts)

    assert (found.running, found.progress.percent, found.progress.speed) == (2, 50.0, 5.0)
    assert found.progress.eta_s == pytest.approx(10.0), "half of 100 s at five times"


@pytest.mark.parametrize("phase", [Phase.FETCH, Phase.PUBLISH])
def test_a_chunk_that_is_fetched_or_published_does_not_count_its_bytes_as_frames(phase):
    fetching = part(0, 100, JobState.RUNNING, Progress(phase=phase, percent=90.0))

    found = split_progress(JOB, [fetching, part(1, 300, JobState.QUEUED), WAITING])

    assert found.progress.percent == 0.0


def test_once_all_chunks_are_done_the_video_is_as_far_as_its_join():
    done = [part(0, 100, JobState.DONE), part(1, 300, JobState.DONE)]
    checking = Progress(phase=Phase.VERIFY, percent=40.0)

    assert split_progress(JOB, [*done, WAITING]).progress.phase is Phase.JOIN
    assert (
        split_progress(JOB, [*done, part(None, 0, JobState.RUNNING, checking)]).progress == checking
    )
