"""An upload that was cut off goes on part by part, of the same bytes or not at all."""

import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from hevcq.backends.aws.factory import open_aws
from hevcq.backends.aws.s3 import transfer
from hevcq.errors import SourceChanged, Stopped, Unavailable
from support.aws.breaking import Breaking, broken, refusal
from support.aws.values import accept, open_parts
from support.processes import Killed

pytestmark = pytest.mark.aws
KEY = "TODO/all/a.mp4"
PARTS = 6
PART = 1024 * 1024
"""The least that hevcq cuts; the emulator is told to take it, S3 itself wants 5 MiB."""


@pytest.fixture(autouse=True)
def small_parts(store, monkeypatch):
    monkeypatch.setattr(transfer, "PART_BYTES", PART)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", PART)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    path.write_bytes(os.urandom((PARTS - 1) * PART + 12_345))
    return path


@pytest.fixture
def process(farm, store):
    """Open the store as a new process does: nothing is shared but the data folder and S3."""

    def start():
        found = open_aws(farm.settings, {}, farm.clock, farm.clients).store
        found._s3 = Breaking(farm.clients.s3)
        return found

    return start


def kill_at(store, number: int) -> None:
    """Let the process die when part `number` is about to be sent."""

    def maybe(real, **asked):
        if asked["PartNumber"] >= number:
            raise Killed
        return real(**asked)

    store._s3.plan["upload_part"] = [maybe] * 100


def killed(process, video: Path, number: int = 4):
    """Upload with a process that dies at part `number`, and return its store."""
    store = process()
    kill_at(store, number)
    with pytest.raises(Killed):
        accept(store, video)
    return store


def sent(store) -> list[int]:
    return sorted(c["PartNumber"] for name, c in store._s3.calls if name == "upload_part")


def content_of(farm, source) -> bytes:
    answer = farm.clients.s3.get_object(
        Bucket=source.bucket, Key=source.key, VersionId=source.version
    )
    return answer["Body"].read()


def notes(farm) -> list[Path]:
    return list((farm.settings.data_dir / "uploads").glob("*"))


def test_a_new_process_sends_only_the_parts_that_are_missing(farm, process, video):
    killed(process, video)
    assert open_parts(farm) == [KEY]

    second, told = process(), []
    source = accept(second, video, moved=told.append)

    assert sent(second) == [4, 5, 6]
    assert second._s3.count("create_multipart_upload") == 0
    assert content_of(farm, source) == video.read_bytes()
    assert told == sorted(told)
    assert told[-1] == video.stat().st_size
    assert (open_parts(farm), notes(farm)) == ([], [])


@pytest.mark.parametrize("error", [Stopped(), broken()])
def test_a_stop_or_an_outage_keeps_the_parts_for_the_next_time(farm, process, video, error):
    store = process()
    store._s3.plan["upload_part"] = [None, error, error, error, error]
    with pytest.raises((Stopped, Unavailable)):
        accept(store, video)
    assert open_parts(farm) == [KEY]
    assert "Contents" not in farm.clients.s3.list_objects_v2(Bucket="uploads")

    again = process()
    source = accept(again, video)

    assert len(sent(again)) < PARTS
    assert content_of(farm, source) == video.read_bytes()


def test_of_a_file_that_changed_between_every_part_is_sent(farm, process, video):
    killed(process, video)
    changed, before = bytearray(video.read_bytes()), video.stat().st_mtime_ns
    changed[10] ^= 1
    video.write_bytes(changed)
    os.utime(video, ns=(before, before))

    second = process()
    source = accept(second, video)

    assert sent(second) == list(range(1, PARTS + 1))
    assert content_of(farm, source) == bytes(changed)


def test_a_file_that_changes_while_it_is_uploaded_leaves_nothing_open(farm, process, video):
    store = process()

    def grow(real, **asked):
        with video.open("ab") as file:
            file.write(b"more")
        return real(**asked)

    store._s3.plan["upload_part"] = [grow]
    with pytest.raises(SourceChanged):
        accept(store, video)

    assert (open_parts(farm), notes(farm)) == ([], [])


def test_a_part_that_is_not_what_is_in_the_file_is_sent_again(farm, process, video):
    killed(process, video)
    (upload,) = farm.clients.s3.list_multipart_uploads(Bucket="uploads")["Uploads"]
    farm.clients.s3.upload_part(
        Bucket="uploads",
        Key=KEY,
        UploadId=upload["UploadId"],
        PartNumber=2,
        Body=b"x" * PART,
        ChecksumAlgorithm="SHA256",
    )

    second = process()
    source = accept(second, video)

    assert sent(second) == [2, 4, 5, 6]
    assert content_of(farm, source) == video.read_bytes()


def test_a_part_whose_sha_256_is_another_is_sent_again_whatever_its_etag(farm, process, video):
    killed(process, video)

    def listed(real, name):
        (page,) = real(name).paginate(
            Bucket="uploads",
            Key=KEY,
            UploadId=farm.clients.s3.list_multipart_uploads(Bucket="uploads")["Uploads"][0][
                "UploadId"
            ],
        )
        page["Parts"][1]["ChecksumSHA256"] = "A" * 43 + "="
        return Mock(paginate=lambda **_asked: [page])

    second = process()
    second._s3.plan["get_paginator"] = [listed]
    source = accept(second, video)

    assert sent(second) == [2, 4, 5, 6]
    assert content_of(farm, source) == video.read_bytes()


def test_an_upload_that_the_buckets_rule_aborted_is_begun_anew(farm, process, video):
    killed(process, video)
    (upload,) = farm.clients.s3.list_multipart_uploads(Bucket="uploads")["Uploads"]
    farm.clients.s3.abort_multipart_upload(Bucket="uploads", Key=KEY, UploadId=upload["UploadId"])

    second = process()
    source = accept(second, video)

    assert sent(second) == list(range(1, PARTS + 1))
    assert content_of(farm, source) == video.read_bytes()


@pytest.mark.parametrize("code", ["InvalidPart", "NoSuchUpload"])
def test_parts_that_s3_refuses_in_the_end_are_not_taken_up_again(farm, process, video, code):
    store = process()
    store._s3.plan["complete_multipart_upload"] = [refusal(code)]
    with pytest.raises(Unavailable):
        accept(store, video)
    assert (open_parts(farm), notes(farm)) == ([], [])

    assert content_of(farm, accept(process(), video)) == video.read_bytes()


def test_a_video_of_whole_parts_has_no_empty_one_behind_them(process, tmp_path):
    video = tmp_path / "whole.mp4"
    video.write_bytes(os.urandom(2 * PART))
    store = process()

    accept(store, video)

    assert sent(store) == [1, 2]
