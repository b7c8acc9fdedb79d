"""Publishing on S3 against lost replies, conflicts and zombies."""

import hashlib
import threading
from pathlib import Path

import pytest

from contracts.backends import PROFILES
from hevcq.backends.aws.s3 import metadata as object_metadata
from hevcq.backends.aws.s3 import store as s3_store
from hevcq.domain.job import JobState, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence, Stopped, Unavailable, VerificationFailed
from hevcq.ports.store import Publication
from support.aws.breaking import broken, refusal
from support.aws.values import open_parts
from support.fakes.farm import FakeWorker

pytestmark = pytest.mark.aws


def publication(folder: Path, content: bytes = b"clip", *, fence: int = 1, job: str = "j"):
    file = folder / f"out-{fence}-{job}"
    file.write_bytes(content)
    return Publication("DONE/hevc/a.mp4", file, sha(content), job, fence, {"job": job})


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(farm, content: bytes, *, fence: str, job: str = "j") -> None:
    """Write an object behind the store's back, with what a publication of this fence says."""
    said = {
        object_metadata.JOB: job,
        object_metadata.FENCE: fence,
        object_metadata.SHA256: sha(content),
    }
    farm.clients.s3.put_object(Bucket="out", Key="DONE/hevc/a.mp4", Body=content, Metadata=said)


def test_a_publication_whose_answer_was_lost_is_found_and_not_made_twice(store, tmp_path):
    wanted = publication(tmp_path)
    store._s3.plan["put_object"] = [("after", refusal("ConditionalRequestConflict", 409))]

    made = store.publish(wanted)

    assert (made.sha256, store._s3.count("put_object")) == (wanted.sha256, 1)
    assert not wanted.file.exists()


def test_a_conflict_is_tried_again_under_the_new_condition(farm, store, tmp_path):
    def overtaken(real, **asked):
        assert asked["IfNoneMatch"] == "*"
        put(farm, b"other", fence="9", job="another job")
        return real(**asked)

    store._s3.plan["put_object"] = [overtaken]

    made = store.publish(publication(tmp_path))

    assert made.sha256 == sha(b"clip")
    assert "IfMatch" in store._s3.calls[-2][1]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_zombie_is_refused_when_a_later_attempt_comes_before_or_after_its_write(
    farm, store, tmp_path, moment
):
    def overtaken(real, **asked):
        answer = real(**asked) if moment == "after" else None
        put(farm, b"newer", fence="2")
        return answer or real(**asked)

    store._s3.plan["put_object"] = [overtaken]
    wanted = publication(tmp_path, fence=1)

    with pytest.raises(StaleFence):
        store.publish(wanted)

    assert wanted.file.exists()
    with store.open(wanted.key) as file:
        assert file.read() == b"newer"


@pytest.mark.parametrize("fence", ["9" * 20, "9" * 1500, "no number", "-1", "1.5", ""])
def test_a_fence_that_is_none_outranks_what_comes(farm, store, tmp_path, fence):
    put(farm, b"forged", fence=fence)
    wanted = publication(tmp_path, fence=3)

    with pytest.raises(StaleFence):
        store.publish(wanted)

    assert wanted.file.exists()


def test_conflicts_without_end_are_unavailable(store, tmp_path):
    store._s3.plan["put_object"] = [refusal("ConditionalRequestConflict", 409)] * 20

    with pytest.raises(Unavailable, match="being written by others"):
        store.publish(publication(tmp_path))


def test_a_file_that_is_not_the_verified_one_is_never_published(store, tmp_path):
    wanted = publication(tmp_path)
    wanted.file.write_bytes(b"something else")

    with pytest.raises(VerificationFailed):
        store.publish(wanted)

    assert store.stat(wanted.key) is None


def test_a_large_rendition_is_published_in_parts(farm, store, large):
    content = large.read_bytes()
    wanted = Publication("DONE/hevc/l.mp4", large, sha(content), "j", 1, {"job": "j"})

    made = store.publish(wanted)

    assert (made.size, made.sha256, dict(made.metadata)) == (
        len(content),
        wanted.sha256,
        {"job": "j"},
    )
    assert store._s3.count("upload_part") == 3
    assert open_parts(farm) == []


def test_a_part_that_fails_ends_a_publication_and_leaves_nothing_open(farm, store, large, tmp_path):
    content = large.read_bytes()
    store._s3.plan["upload_part"] = [None, broken(), broken()]

    with pytest.raises(Unavailable):
        store.publish(publication(tmp_path, content))

    assert open_parts(farm) == []
    assert store._s3.count("abort_multipart_upload") == 1


@pytest.mark.parametrize("call", ["upload_part", "complete_multipart_upload"])
def test_an_upload_that_another_attempt_aborts_is_made_anew(farm, store, large, tmp_path, call):
    """As a zombie may, that looks for what was left while the later attempt is sending."""
    wanted = publication(tmp_path, large.read_bytes(), fence=3)

    def aborted(_real, **asked):
        farm.clients.s3.abort_multipart_upload(
            Bucket="out", Key=wanted.key, UploadId=asked["UploadId"]
        )
        raise refusal("NoSuchUpload", 404)

    store._s3.plan[call] = [aborted]

    assert store.publish(wanted).sha256 == wanted.sha256
    assert store._s3.count("create_multipart_upload") == 2
    assert open_parts(farm) == []


def test_a_stop_ends_a_publication_between_two_parts(farm, store, large):
    stop = threading.Event()

    def reported(real, **asked):
        stop.set()
        return real(**asked)

    store._s3.plan["upload_part"] = [reported]
    wanted = Publication("DONE/hevc/l.mp4", large, sha(large.read_bytes()), "j", 1, stop=stop)

    with pytest.raises(Stopped):
        store.publish(wanted)

    assert store.stat(wanted.key) is None
    assert open_parts(farm) == []
    assert wanted.file.exists()


KEY, MADE = "TODO/hevc/a.mp4", "DONE/hevc/a.mp4.mp4"


def upload(farm, content: bytes):
    farm.clients.s3.put_object(Bucket="uploads", Key=KEY, Body=content)
    (source,) = farm.backend.store.sources(KEY)
    return source


@pytest.mark.parametrize("moment", ["before_the_look", "before_the_write"])
def test_a_late_publication_does_not_replace_that_of_a_later_upload(farm, tmp_path, moment):
    store, worker = farm.backend.store, FakeWorker(farm.backend, tmp_path, farm.clock)
    sources = [upload(farm, b"the first clip")]

    def overtaken(*asked):
        setattr(*place, whole)
        sources.append(upload(farm, b"the second clip"))
        worker.do(PROFILES["hevc"], name="quick:0")
        return whole(*asked)

    place = (store, "publish") if moment == "before_the_look" else (s3_store, "_upload")
    whole = getattr(*place)
    setattr(*place, overtaken)
    worker.do(PROFILES["hevc"], name="slow:0")

    first, second = (farm.backend.ledger.get(job_id(source, "hevc")) for source in sources)
    assert second.state is JobState.DONE
    assert store.stat(MADE).sha256 == second.rendition.sha256
    assert store.stat(MADE).metadata["job"] == second.job_id
    assert (first.state, first.failure_class) == (JobState.DEAD, FailureClass.CHANGED)
