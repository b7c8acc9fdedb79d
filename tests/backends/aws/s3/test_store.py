"""What S3 alone can do to a store: parts, lost replies, conflicts, broken streams, archives."""

import errno
import io
import os
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from hevcq.backends.aws.s3 import metadata as object_metadata
from hevcq.backends.aws.s3 import range_reader, transfer
from hevcq.domain.job import Source
from hevcq.errors import (
    DiskFull,
    SourceChanged,
    SourceUnreadable,
    Unavailable,
)
from support.aws.values import accept, open_parts

pytestmark = pytest.mark.aws
MIB = 1024 * 1024


def fetch(store, source, scratch: Path) -> bytes:
    with store.fetch(source, scratch, moved=lambda _n: None, stop=threading.Event()) as given:
        return given.path.read_bytes()


def test_a_large_file_goes_in_parts_and_comes_back_whole(farm, store, large, tmp_path):
    told: list[int] = []

    source = accept(store, large, moved=told.append)

    assert store._s3.count("upload_part") == 3
    assert told == sorted(told)
    assert told[-1] == source.size == large.stat().st_size
    assert fetch(store, source, tmp_path) == large.read_bytes()
    assert open_parts(farm) == []
    assert all(c["ChecksumSHA256"] for name, c in store._s3.calls if name == "upload_part")


@pytest.mark.parametrize("version", ["6714bf62b3d59c26d0981371cd86bd19", "0" * 64])
def test_a_source_is_known_by_its_version_id_whatever_its_form(version):
    """Given a server whose version ids look like ETags, as those of SeaweedFS do."""
    head = {"VersionId": version, "ETag": '"5d41402abc4b2a76b9719d911017c592"', "ContentLength": 3}
    source = Source(bucket="uploads", key="TODO/x.mp4", version=version, size=3)

    object_metadata.require_source(head, source)
    with pytest.raises(SourceChanged):
        object_metadata.require_source({**head, "VersionId": "f" * 32}, source)


def test_other_bytes_of_the_same_size_are_another_source(store, tmp_path):
    path, found = tmp_path / "a.mp4", []
    for content in (b"a clip", b"b clip"):
        path.write_bytes(content)
        found.append(accept(store, path))

    assert found[0].version != found[1].version
    assert fetch(store, found[1], tmp_path) == b"b clip"


@pytest.mark.parametrize(("size", "known"), [(1_000, False), (6 * MIB, False), (1_000, True)])
def test_a_file_that_grows_while_it_is_uploaded_is_refused(farm, store, tmp_path, size, known):
    path = tmp_path / "growing.mp4"
    path.write_bytes(b"x" * size)
    if known:
        accept(store, path)

    def grow(_total: int) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    look = store._s3.client.head_object

    def looked(_real, **asked):
        grow(0)
        return look(**asked)

    store._s3.plan["head_object"] = [looked]
    with pytest.raises(SourceChanged, match="changed while it was read"):
        accept(store, path)

    assert ("Contents" in farm.clients.s3.list_objects_v2(Bucket="uploads")) == known
    assert open_parts(farm) == []


class Tearing(io.BytesIO):
    """A body that breaks once, after `good` bytes."""

    def __init__(self, content: bytes, good: int) -> None:
        super().__init__(content[:good])
        self.torn = False

    def read(self, *wanted):
        found = super().read(*wanted)
        if not found:
            raise ReadTimeoutError(endpoint_url="http://test")
        return found


def tear(good: int):
    def torn(real, **asked):
        answer = real(**asked)
        return {**answer, "Body": Tearing(answer["Body"].read(), good)}

    return torn


def test_a_download_that_breaks_off_goes_on_where_it_was(store, large, tmp_path):
    source = accept(store, large)
    store._s3.plan["get_object"] = [tear(2 * MIB + 7)]

    assert fetch(store, source, tmp_path) == large.read_bytes()

    assert store._s3.count("get_object") == 4
    starts = [int(c["Range"][6:].split("-")[0]) for n, c in store._s3.calls if n == "get_object"]
    assert any(start % (5 * MIB) == 2 * MIB + 7 for start in starts), starts


def test_a_source_replaced_during_its_download_is_changed(farm, store, large, tmp_path):
    farm.clients.s3.put_bucket_versioning(
        Bucket="uploads", VersioningConfiguration={"Status": "Suspended"}
    )
    source = accept(store, large)

    def replaced(real, **asked):
        farm.clients.s3.put_object(Bucket="uploads", Key=source.key, Body=b"other" * 10)
        return real(**asked)

    store._s3.plan["get_object"] = [replaced]
    with pytest.raises(SourceChanged):
        fetch(store, source, tmp_path)


def test_a_file_whose_bytes_are_not_those_uploaded_is_not_taken(farm, store, tmp_path):
    answer = farm.clients.s3.put_object(
        Bucket="uploads", Key="TODO/x.mp4", Body=b"abc", Metadata={"hevcq-sha256": "0" * 64}
    )
    source = Source(bucket="uploads", key="TODO/x.mp4", version=answer["VersionId"], size=3)

    with pytest.raises(Unavailable, match="another SHA-256"):
        fetch(store, source, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archived_source_is_unreadable_with_the_remedy(farm, store):
    answer = farm.clients.s3.put_object(
        Bucket="uploads", Key="TODO/x.mp4", Body=b"abc", StorageClass="DEEP_ARCHIVE"
    )
    source = Source(bucket="uploads", key="TODO/x.mp4", version=answer["VersionId"], size=3)

    with pytest.raises(SourceUnreadable, match="archived in DEEP_ARCHIVE"):
        store.check(source)


def test_a_full_disk_is_named_and_leaves_no_file(store, large, tmp_path, monkeypatch):
    source = accept(store, large)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    monkeypatch.setattr(
        range_reader.os,
        "posix_fallocate",
        Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")),
    )

    with pytest.raises(DiskFull):
        fetch(store, source, scratch)
    assert list(scratch.iterdir()) == []


def test_without_versions_a_stream_whose_object_was_replaced_meanwhile_is_not_mixed(
    farm, store, monkeypatch
):
    monkeypatch.setattr("hevcq.backends.aws.s3.store.OPEN_BYTES", 1_000)
    farm.clients.s3.put_bucket_versioning(
        Bucket="out", VersioningConfiguration={"Status": "Suspended"}
    )
    content = os.urandom(3 * MIB)
    store.put("work/x", content, metadata={})
    with store.open("work/x") as file:
        assert file.read(1_000) == content[:1_000]
        store.put("work/x", b"other" * MIB, metadata={})

        with pytest.raises(SourceChanged):
            file.read()


def test_a_collected_file_that_arrives_damaged_does_not_appear(farm, store, tmp_path):
    metadata = {object_metadata.SHA256: "0" * 64}
    farm.clients.s3.put_object(Bucket="out", Key="DONE/x.mp4", Body=b"abc", Metadata=metadata)

    with pytest.raises(Unavailable, match="another SHA-256"):
        store.collect("DONE/x.mp4", tmp_path / "x", stop=threading.Event())

    assert list(tmp_path.iterdir()) == []


def test_parts_grow_so_that_no_file_has_too_many():
    for size in (1, 16 * MIB, 160_000 * MIB, 5 * 1024 * 1024 * MIB):
        step = transfer.part_bytes(size)
        assert -(-size // step) <= transfer.MAX_PARTS
        assert step >= transfer.PART_BYTES


@given(st.dictionaries(st.sampled_from(["job", "certificate"]), st.text()))
def test_any_metadata_survives_the_headers(metadata):
    packed = object_metadata.pack(metadata)

    assert object_metadata.unpack(packed) == metadata
    assert all(value.isascii() and value.isprintable() for value in packed.values())


def test_of_an_upload_that_was_replaced_only_the_newest_version_is_listed(farm, store):
    for key, body in (("a.mp4", b"old"), ("a.mp4", b"newer"), ("folder/", b"")):
        farm.clients.s3.put_object(Bucket="uploads", Key=f"TODO/all/{key}", Body=body)

    (source,) = store.sources("TODO/")

    assert (source.key, source.size) == ("TODO/all/a.mp4", len(b"newer"))
