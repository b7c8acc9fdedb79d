"""A server that answers a range with other bytes, or says 403 of what is absent: asked again, then an error."""

import hashlib
import io
import random

import pytest
from botocore.exceptions import ClientError

from backends.aws.s3.test_publish import publication
from backends.aws.s3.test_store import accept, fetch
from hevcq.backends.aws.s3 import transfer
from hevcq.domain.verdict import FailureClass, classify
from hevcq.errors import SourceGone, Unavailable
from support.aws.breaking import refusal

pytestmark = pytest.mark.aws
CONTENT = random.Random(12).randbytes(1_200_001)
KEY = "DONE/hevc/a.mp4"
LIES = {
    "other-range": lambda answer: {"ContentRange": "bytes 7-8/9"},
    "no-range": lambda answer: {"ContentRange": None},
    "other-size": lambda answer: {"ContentRange": answer["ContentRange"] + "0"},
    "other-etag": lambda answer: {"ETag": '"other"'},
    "other-version": lambda answer: {"VersionId": "other"},
    "other-length": lambda answer: {"ContentLength": answer["ContentLength"] - 1},
    "short-body": lambda answer: {"Body": io.BytesIO(answer["Body"].read()[:-1])},
}


def lie(name: str):
    def lied(real, **asked):
        answer = real(**asked)
        return {**answer, **LIES[name](answer)}

    return lied


def without_ranges(real, **asked):
    return real(**{name: value for name, value in asked.items() if name != "Range"})


@pytest.fixture
def source(store, monkeypatch, tmp_path):
    monkeypatch.setattr(transfer, "PART_BYTES", 1024 * 1024)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    video = tmp_path / "in.mp4"
    video.write_bytes(CONTENT)
    return accept(store, video)


@pytest.mark.parametrize("name", [*LIES, "ignores-range"])
def test_other_bytes_are_asked_for_again_and_in_the_end_a_network_error(
    store, source, tmp_path, name
):
    lied = without_ranges if name == "ignores-range" else lie(name)
    store._s3.plan["get_object"] = [lied] * 2
    assert fetch(store, source, tmp_path) == CONTENT

    store._s3.plan["get_object"] = [lied] * 99
    with pytest.raises(Unavailable, match=r"TODO/all/a\.mp4") as failed:
        fetch(store, source, tmp_path)
    assert classify(failed.value) is FailureClass.NETWORK
    assert [path.name for path in tmp_path.glob("*.mp4")] == ["in.mp4"]


def say_403(store, *, always: bool = False, listing: bool = True) -> None:
    """Let the store's S3 answer 403 for what is absent, or for everything, and perhaps list nothing."""

    def head(real, **asked):
        try:
            if not always:
                return real(**asked)
        except ClientError:
            pass
        raise refusal("403", 403)

    store._s3.plan["head_object"] = [head] * 99
    store._s3.plan["list_objects_v2"] = [] if listing else [refusal("AccessDenied", 403)] * 99


@pytest.mark.parametrize("listing", [True, False])
def test_what_is_absent_is_published_where_s3_says_403_of_absence(store, tmp_path, listing):
    say_403(store, listing=listing)

    assert store.stat(KEY) is None
    assert store.delete(KEY) is False
    with pytest.raises(SourceGone):
        store.open(KEY)
    assert store.publish(publication(tmp_path)).sha256 == hashlib.sha256(b"clip").hexdigest()


@pytest.mark.parametrize("listing", [True, False])
def test_what_is_there_but_may_not_be_read_is_never_overwritten(farm, store, tmp_path, listing):
    farm.clients.s3.put_object(Bucket="out", Key=KEY, Body=b"another's")
    say_403(store, always=True, listing=listing)

    with pytest.raises(Unavailable):
        store.publish(publication(tmp_path))

    assert farm.clients.s3.get_object(Bucket="out", Key=KEY)["Body"].read() == b"another's"


def test_a_key_that_only_begins_like_it_is_not_it(store):
    store.put(f"{KEY}.mp4", b"x", metadata={})
    say_403(store)

    assert store.stat(KEY) is None


def test_an_upload_is_gone_only_where_that_is_known(farm, store, source):
    say_403(store, always=True)
    with pytest.raises(Unavailable, match="access is denied"):
        store.check(source)

    farm.clients.s3.delete_object(Bucket="uploads", Key=source.key)
    with pytest.raises(SourceGone):
        store.check(source)
    say_403(store, listing=False)
    with pytest.raises(Unavailable, match="access is denied"):
        store.check(source)
