"""A video that is shared out is one bar: its chunks added up by their frames, then its join."""

import pytest

from hevcq.domain.job import (
    JobRecord,
    JobState,
    Phase,
    Progress,
    Source,
    Split,
    SubjobOf,
    split_progress,
    subjob_id,
)

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


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.DONE])
def test_a_job_that_is_not_shared_out_has_no_standing(state):
    assert split_progress(record("job", state), []) is None
    assert split_progress(record("job", state, split=SPLIT), []) is None, "its split is over"
