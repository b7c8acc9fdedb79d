"""A bucket beside PostgreSQL: servers that would lose a rendition silently are refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from hevcq.backends.aws.factory import MARK, CompatibleStore
from hevcq.errors import ConfigError
from hevcq.settings.model import Settings
from support.aws.moto_server import clients, endpoint, reset
from support.clips import ManualClock

IGNORED = {
    "GetObject": ("If-Match", "If-Match when reading"),
    "PutObject": ("If-None-Match", "If-None-Match when writing"),
    "CompleteMultipartUpload": ("If-None-Match", "If-None-Match when joining parts"),
}


@pytest.fixture
def bucket(tmp_path: Path) -> CompatibleStore:
    reset()
    clients().s3.create_bucket(
        Bucket="farm", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    return CompatibleStore(settings(tmp_path), ManualClock(), clients())


def settings(folder: Path, name: str = "farm") -> Settings:
    s3 = {"endpoint_url": endpoint(), "bucket": name}
    return Settings(backend="postgres", data_dir=folder, s3=s3)


def test_a_server_that_keeps_every_condition_is_used(bucket):
    bucket.write_mark("ours")

    bucket.require_conditions()

    assert bucket.read_mark() == "ours"
    assert not clients().s3.list_multipart_uploads(Bucket="farm").get("Uploads")


@pytest.mark.parametrize("operation", IGNORED)
def test_a_server_that_ignores_a_condition_is_refused_by_its_name(bucket, operation):
    header, words = IGNORED[operation]
    bucket.write_mark("ours")
    events, name = clients().s3.meta.events, f"before-sign.s3.{operation}"

    def drop(request, **_more: object) -> None:
        del request.headers[header]

    events.register(name, drop)
    try:
        with pytest.raises(ConfigError, match=words):
            bucket.require_conditions()
    finally:
        events.unregister(name, drop)

    assert bucket.read_mark() == "ours", "what was there is there, whatever the server ignores"


def test_the_mark_of_another_farm_stays(bucket):
    bucket.write_mark("theirs")

    bucket.write_mark("ours")

    assert bucket.read_mark() == "theirs"
    assert bucket.stat(MARK) is not None


def test_a_bucket_that_is_not_there_is_named(bucket, tmp_path):
    other = CompatibleStore(settings(tmp_path, "typo"), ManualClock(), clients())

    with pytest.raises(ConfigError, match="typo"):
        other.read_mark()


@pytest.mark.parametrize(
    "wrong",
    [
        {"backend": "embedded", "s3": {"endpoint_url": "http://nas", "bucket": "a"}},
        {"backend": "postgres", "s3": {"bucket": "a"}},
        {
            "backend": "postgres",
            "postgres": {"files_dir": "/srv/a"},
            "s3": {"endpoint_url": "http://nas", "bucket": "a"},
        },
    ],
)
def test_a_bucket_that_has_no_server_or_no_use_is_refused(wrong):
    with pytest.raises(ValidationError, match=r"s3\.endpoint_url|postgres"):
        Settings.model_validate(wrong)
