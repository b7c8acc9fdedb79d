"""Items, messages, dead letters and objects that an earlier release left on AWS are gone on with."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.stored.stored_farm import STORED, StoredFarm, open_stored
from hevcq.domain.job import JobState, Source, Task, job_id

pytestmark = [pytest.mark.aws, pytest.mark.media]


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[StoredFarm]:
    made = open_stored(tmp_path)
    yield made
    made.farm.backend.close()


def upload(name: str) -> Source:
    (found,) = [each for each in STORED["uploads"] if each["key"].endswith(f"/{name}")]
    return Source(bucket="uploads", key=found["key"], version=found["version"], size=1)


@pytest.mark.parametrize("sent", STORED["tasks"], ids=["encode", "chunk", "join"])
def test_a_task_of_each_kind_asks_for_the_same_and_is_written_the_same(sent) -> None:
    task = Task.parse(sent["body"])
    assert (task.job_id, task.unit_id) == (sent["job_id"], sent["unit_id"])
    assert task.body() == sent["body"]


def test_an_upload_inside_an_envelope_of_sns_is_read(stored: StoredFarm) -> None:
    event = next(m["Body"] for m in STORED["messages"]["hevc"] if "waiting.mkv" in m["Body"])
    event = event.replace("TODO/hevc/", "TODO/chunked/")
    envelope = {"Type": "Notification", "TopicArn": "arn:aws:sns:x:1:uploads", "Message": event}
    stored.farm.put_body("chunked", json.dumps(envelope))
    queue = stored.farm.backend.queues["chunked"]
    deliveries = queue.receive(10, wait_s=0, stop=threading.Event())
    (delivery,) = [each for each in deliveries if "Notification" in each.body]
    (task,) = delivery.tasks
    key = upload("waiting.mkv").key.replace("hevc", "chunked")
    source = upload("waiting.mkv").model_copy(update={"key": key})
    assert task.job_id == job_id(source, "chunked")


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("done.mkv", JobState.DONE),
        ("larger.mkv", JobState.SKIPPED),
        ("damaged.mkv", JobState.DEAD),
        ("odd näme.mkv", JobState.QUEUED),
        ("mended.mkv", JobState.RUNNING),
    ],
)
def test_a_job_is_in_the_state_it_was_in(stored: StoredFarm, name: str, state: JobState) -> None:
    found = stored.farm.backend.ledger.get(job_id(upload(name), "hevc"))
    assert found is not None
    assert (found.state, found.source.version, found.fence) == (state, upload(name).version, 1)
    assert (found.rendition is not None) == (state is JobState.DONE)
    assert (found.progress is not None) == (state is JobState.RUNNING)
    assert (found.failure_class is not None) == (state is JobState.DEAD)


def test_status_counts_the_stored_jobs(stored: StoredFarm) -> None:
    assert stored.jobs("hevc") == dict.fromkeys(("queued", "running", "done", "skipped", "dead"), 1)
    assert stored.jobs("chunked") == {"split": 1}
    (status,) = stored.lines("status")
    chunks = [(each["chunks"], each["chunks_done"]) for each in status["running"]]
    assert (4, 1) in chunks


def test_the_dead_letters_have_their_reasons(stored: StoredFarm) -> None:
    letters = {each["failure_class"]: each for each in stored.lines("dead-letters", "list")}
    assert set(letters) == {"damaged", "message"}
    assert "is damaged: Invalid NAL unit size" in letters["damaged"]["reason"]
    assert letters["damaged"]["job_id"] == job_id(upload("damaged.mkv"), "hevc")
    shown = stored.run("dead-letters", "show", letters["message"]["letter_id"]).stdout
    assert 'message: {"forged": true}' in shown


def test_every_job_is_gone_on_with_and_none_is_done_again(stored: StoredFarm) -> None:
    stored.run("redrive", "--dlq", "--class", "damaged")
    (left,) = stored.lines("dead-letters", "list")
    assert left["failure_class"] == "message"
    # The same bytes as those of a job that was skipped: that they were not worth it is remembered.
    content = (stored.folder / "lib/larger.mkv").read_bytes()
    stored.farm.clients.s3.put_object(Bucket="uploads", Key="TODO/hevc/again.mkv", Body=content)

    log = stored.work("hevc")

    assert names(log, "job_started") == [
        "again.mkv",
        "damaged.mkv",
        "mended.mkv",
        "odd näme.mkv",
        "waiting.mkv",
    ]
    assert names(log, "job_skipped") == ["again.mkv"]
    assert stored.jobs("hevc") == {"done": 4, "skipped": 2, "dead": 1}
    finished = ("done", "mended", "odd näme", "waiting")
    assert stored.renditions() == [f"DONE/hevc/{name}.mkv.mkv" for name in finished]
    letters = sorted(each["failure_class"] for each in stored.lines("dead-letters", "list"))
    assert letters == ["damaged", "message"]


def names(log: list[dict[str, Any]], event: str) -> list[str]:
    return sorted(each["source"].rpartition("/")[2] for each in log if each["event"] == event)


def test_a_split_job_is_finished(stored: StoredFarm) -> None:
    stored.work("chunked")
    assert stored.jobs("chunked") == {"done": 1}
    assert "DONE/chunked/split.mkv.mkv" in stored.renditions()
    assert stored.farm.clients.s3.list_objects_v2(Bucket="out", Prefix="work/")["KeyCount"] == 0
