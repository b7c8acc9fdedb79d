"""Sources, jobs, tasks and states: identities that hold, bodies that cannot be forged into harm."""

import json
import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hevcq.domain.job import (
    ALLOWED,
    MAX_BODY_BYTES,
    SETTLED,
    JobState,
    Source,
    Task,
    TaskKind,
    is_same_version,
    is_subjob,
    job_id,
    share_version,
)
from hevcq.errors import BadMessage

SOURCE = Source(bucket="uploads", key="TODO/all/ü 1.mp4", version="v1", size=7)
TASK = Task(source=SOURCE, profile="hevc")


@pytest.mark.parametrize("change", [{"bucket": "b"}, {"key": "TODO/b"}, {"version": "v2"}])
def test_another_source_or_profile_is_another_job(change):
    other = SOURCE.model_copy(update=change)
    assert job_id(other, "hevc") != TASK.job_id
    assert other.source_id != SOURCE.source_id
    assert job_id(SOURCE, "720p") != TASK.job_id


def test_parts_of_an_identity_cannot_slide_into_each_other():
    one = Source(bucket="a", key="b/c", version="d", size=0)
    two = Source(bucket="a", key="b", version="c/d", size=0)
    assert one.source_id != two.source_id


def test_identities_are_the_same_on_every_machine_for_ever():
    assert TASK.job_id == "48b48ade74d3b3d8cfe6636f93b35e7d"


@pytest.mark.parametrize(
    "task",
    [
        TASK,
        Task(source=SOURCE, profile="720p", kind=TaskKind.CHUNK, chunk=3, group="video"),
        Task(source=SOURCE, profile="a-b-1", kind=TaskKind.JOIN),
    ],
)
def test_what_is_sent_is_what_is_received(task):
    assert Task.parse(task.body()) == task
    assert "\n" not in task.body()


def _body(**changes) -> str:
    whole = json.loads(TASK.body())
    source = changes.pop("source", {})
    return json.dumps({**whole, **changes, "source": {**whole["source"], **source}})


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        '{"hevcq": 1}',
        "\ud800",
        _body(hevcq=2),
        _body(kind="upload"),
        _body(profile="../x"),
        _body(profile="x" * 41),
        _body(chunk=-1),
        _body(surprise=1),
        _body(source={"key": "/etc/passwd"}),
        _body(source={"key": "a/../../b"}),
        _body(source={"version": ""}),
        _body(source={"extra": 1}),
        _body(group="x" * 129),
    ],
)
def test_a_body_that_is_no_task_is_refused_with_a_reason(body):
    with pytest.raises(BadMessage, match="not a hevcq task"):
        Task.parse(body)


def test_a_body_over_the_limit_is_refused_unread():
    with pytest.raises(BadMessage, match="over"):
        Task.parse(" " * (MAX_BODY_BYTES + 1))


@given(
    st.text(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda children: st.lists(children) | st.dictionaries(st.text(max_size=10), children),
    ).map(json.dumps)
)
def test_no_body_whatever_raises_anything_but_bad_message(body):
    with suppress(BadMessage):
        Task.parse(body)


def test_states_leave_their_ends_only_to_be_queued_again():
    assert set(ALLOWED) == set(JobState)
    assert frozenset({JobState.DONE, JobState.SKIPPED, JobState.DEAD}) == SETTLED
    for state in SETTLED:
        assert ALLOWED[state] == {JobState.QUEUED}
    assert JobState.DONE not in ALLOWED[JobState.QUEUED]
    assert ALLOWED[JobState.RUNNING] == set(JobState)


def test_a_part_has_an_identity_of_its_own_that_names_its_job():
    chunk = Task(source=SOURCE, profile="hevc", kind=TaskKind.CHUNK, chunk=3, split="s-1")
    join = Task(source=SOURCE, profile="hevc", kind=TaskKind.JOIN, split="s-1")

    assert chunk.unit_id == f"{TASK.job_id}.s-1.3"
    assert join.unit_id == f"{TASK.job_id}.s-1.join"
    assert TASK.unit_id == TASK.job_id
    assert [is_subjob(unit.unit_id) for unit in (chunk, join, TASK)] == [True, True, False]
    assert chunk.as_whole_job() == TASK


@pytest.mark.parametrize("seconds", [1_700_000_000, 0, -1, -2, -2_000_000_000])
def test_a_video_of_a_share_is_known_again_also_with_a_time_before_1970(tmp_path, seconds):
    video = tmp_path / "video.mp4"
    video.write_bytes(b"1234567")
    os.utime(video, ns=(0, seconds * 10**9))
    facts, ends, others = video.stat(), "ab" * 32, "cd" * 32

    known = share_version(facts.st_size, facts.st_mtime_ns, ends)

    assert is_same_version(known, facts, lambda: ends)
    assert not is_same_version(known, facts, lambda: others)
    os.utime(video, ns=(0, (seconds - 60) * 10**9))
    assert not is_same_version(known, video.stat(), lambda: ends)
