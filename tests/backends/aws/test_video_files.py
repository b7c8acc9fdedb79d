"""Uploads straight to S3: what is signed, what is looked at again, what is left behind.

moto enforces no signed lengths, and S3 itself was not asked: the signed values are asserted.
"""

import itertools
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from contracts.backends import PROFILES
from hevcq.backends.aws.clients import make_clients
from hevcq.backends.aws.factory import buckets_of
from hevcq.backends.aws.s3.store import Buckets
from hevcq.backends.aws.videos import files as s3_files
from hevcq.backends.aws.videos.records import DynamoVideoRecords
from hevcq.domain.job import JobState, Task
from hevcq.domain.videos import Upload, Video, VideoStatus, raw_key
from hevcq.errors import BadUpload, NoSuchVideo, SourceChanged
from hevcq.settings.model import AwsSettings
from hevcq.usecases.videos.manage import VideoFarm, delete
from hevcq.usecases.videos.playback import play_file
from hevcq.usecases.videos.uploads import (
    UploadRequest,
    complete_upload,
    delete_raw,
    process_due,
    request_upload,
)
from support.aws.emulator import KEYS
from support.aws.moto_server import Farm, make_farm
from support.videos import VideoBench

pytestmark = pytest.mark.aws
CLIP = b"a video's bytes"
MIB = 1 << 20
OWNER = "https://idp.example/ümlaut|42"


@pytest.fixture
def aws() -> Iterator[Farm]:
    farm = make_farm(PROFILES)
    yield farm
    farm.backend.close()


@pytest.fixture
def farm(aws: Farm) -> VideoFarm:
    numbers = itertools.count(1)
    return VideoFarm(
        videos=DynamoVideoRecords(aws.clients.dynamodb, aws.settings.aws.videos),
        files=s3_files.S3VideoFiles(aws.clients.s3, buckets_of(aws.settings.aws)),
        backend=aws.backend,
        profiles=PROFILES,
        limits=aws.settings.uploads,
        clock=aws.clock,
        chance=lambda count: next(numbers).to_bytes(count),
    )


def request(farm: VideoFarm, size: int = len(CLIP), **facts: Any) -> Video:
    given: dict[str, Any] = {"name": "a b.mov", "media_type": "video/quicktime", **facts}
    return request_upload(farm, UploadRequest(owner=OWNER, size=size, **given))


def send(farm: VideoFarm, video: Video, content: bytes = CLIP) -> None:
    httpx2.put(farm.files.part_url(video, 1), content=content).raise_for_status()


def waiting(aws: Farm) -> int:
    return sum(queue.depth().ready for queue in aws.backend.queues.values())


def test_a_sent_video_is_queued_only_once_it_was_checked(aws, farm):
    video = request(farm, profiles=("hevc",))
    with pytest.raises(BadUpload, match="0 of 15"):
        complete_upload(farm, video)
    send(farm, video)
    assert waiting(aws) == 0

    video = complete_upload(farm, video)
    assert waiting(aws) == 1
    assert video.status is VideoStatus.PROCESSING
    assert video.source is not None
    head = aws.clients.s3.head_object(Bucket="uploads", Key=f"UPLOAD/{video.video_id}.mov")
    assert video.source.version == head["VersionId"]
    assert (video.source.size, head["ContentType"]) == (15, "video/quicktime")
    assert complete_upload(farm, video) == video
    late = httpx2.put(farm.files.part_url(video, 1), content=CLIP)
    assert not late.is_success, "an address is worth nothing once the upload is complete"
    (delivery,) = aws.backend.queues["hevc"].receive(1, wait_s=0, stop=threading.Event())
    assert delivery.tasks == (Task(source=video.source, profile="hevc"),)


def test_another_size_or_owner_than_declared_ends_the_upload(aws, farm):
    """What S3 would refuse, were it to let it through."""
    longer, other = request(farm), request(farm)
    for video, content, owner in ((longer, CLIP + b"x", None), (other, CLIP, "bob")):
        place = {"Bucket": "uploads", "Key": raw_key(video)}
        aws.clients.s3.abort_multipart_upload(**place, UploadId=video.upload.multipart_id)
        named = {"owner": owner or s3_files.owner_value(video)}
        aws.clients.s3.put_object(**place, Body=content, Metadata=named)
        with pytest.raises(BadUpload, match=r"16 bytes came|not uploaded by the owner"):
            complete_upload(farm, video)
        after = farm.videos.get(video.video_id)
        assert after.status is VideoStatus.FAILED
    assert waiting(aws) == 0
    versions = aws.clients.s3.list_object_versions(Bucket="uploads")
    assert versions.get("Versions", []) == []
    assert versions.get("DeleteMarkers", []) == []


def test_a_large_video_comes_in_parts_of_signed_lengths(aws, farm, monkeypatch):
    monkeypatch.setattr(s3_files, "PART_BYTES", 5 * MIB)
    video = request(farm, size=6 * MIB, profiles=("hevc",))
    way = farm.files.way(video)
    assert (way.kind, way.part_size, way.parts) == ("parts", 5 * MIB, 2)
    urls = {number: farm.files.part_url(video, number) for number in (1, 2)}
    for url in urls.values():
        query = parse_qs(urlsplit(url).query)
        assert query["X-Amz-SignedHeaders"] == ["content-length;host"]
        assert query["uploadId"] == [video.upload.multipart_id]
    for number in (0, 3):
        with pytest.raises(BadUpload, match="1 to 2"):
            farm.files.part_url(video, number)

    httpx2.put(urls[1], content=b"1" * 5 * MIB).raise_for_status()
    assert farm.files.received_parts(video) == {1: 5 * MIB}
    assert farm.files.received_bytes(video) == 5 * MIB
    with pytest.raises(BadUpload, match="5,242,880 of 6,291,456"):
        complete_upload(farm, video)
    httpx2.put(urls[2], content=b"2" * MIB).raise_for_status()
    video = complete_upload(farm, video)
    assert video.status is VideoStatus.PROCESSING
    head = aws.clients.s3.head_object(Bucket="uploads", Key=raw_key(video))
    assert head["ContentLength"] == 6 * MIB
    assert waiting(aws) == 1


def test_an_unfinished_upload_expires_with_its_parts(aws, farm):
    video = request(farm)
    send(farm, video, CLIP[:3])
    aws.clock.advance(49 * 3600)
    process_due(farm)
    after = farm.videos.get(video.video_id)
    assert after.status is VideoStatus.FAILED
    assert aws.clients.s3.list_multipart_uploads(Bucket="uploads").get("Uploads", []) == []
    assert farm.videos.usage().size == 0


def test_a_link_has_the_name_and_type_that_hevcq_gives(farm, tmp_path):
    video = request(farm, title='Ä "x"', profiles=("hevc",))
    send(farm, video)
    video = complete_upload(farm, video)
    VideoBench(tmp_path, farm).work("hevc")
    process_due(farm)
    video = farm.find(video.video_id, OWNER)
    assert video.status is VideoStatus.DONE
    name = video.renditions[0].key.rpartition("/")[2]
    found = play_file(farm, video, "hevc", name, attachment=True)
    assert isinstance(found.at, str)
    answer = httpx2.get(found.at)
    with farm.backend.store.open(found.key) as stream:
        assert answer.content == stream.read()
    assert answer.headers["Content-Type"] == "video/mp4"
    query = parse_qs(urlsplit(found.at).query)
    assert query["response-content-type"] == ["video/mp4"]
    assert query["response-content-disposition"] == [
        "attachment; filename=\"_ _x_ (hevc).mp4\"; filename*=UTF-8''%C3%84%20_x_%20%28hevc%29.mp4"
    ]
    original = play_file(farm, video, "original", f"{video.video_id}.mov")
    assert isinstance(original.at, str)
    assert parse_qs(urlsplit(original.at).query)["versionId"] == [video.source.version]
    assert httpx2.get(original.at).content == CLIP
    with pytest.raises(NoSuchVideo):
        play_file(farm, video, "hevc", "x.mp4")


def test_the_raw_object_goes_with_every_version_and_only_if_it_is_the_source(aws, farm, tmp_path):
    video, other = request(farm, profiles=("hevc",)), request(farm, profiles=("hevc",))
    for each in (video, other):
        send(farm, each)
        complete_upload(farm, each)
    VideoBench(tmp_path, farm).work("hevc")
    process_due(farm)
    aws.clients.s3.put_object(Bucket="uploads", Key=raw_key(other), Body=CLIP[::-1])
    near = f"{raw_key(video)}.near"
    aws.clients.s3.put_object(Bucket="uploads", Key=near, Body=b"another's")
    aws.clock.advance(6 * 86_400)
    process_due(farm)
    assert aws.clients.s3.head_object(Bucket="uploads", Key=raw_key(video))
    aws.clock.advance(2 * 86_400)
    with pytest.raises(SourceChanged):
        delete_raw(farm, farm.find(other.video_id, None))
    process_due(farm)
    assert farm.find(video.video_id, None).raw_deleted_at is not None
    left = aws.clients.s3.list_object_versions(Bucket="uploads")
    assert {each["Key"] for each in left["Versions"]} == {raw_key(other), near}
    assert farm.find(other.video_id, None).raw_deleted_at is None

    delete(farm, farm.find(other.video_id, None), "ann")
    left = aws.clients.s3.list_object_versions(Bucket="uploads")
    assert [each["Key"] for each in left["Versions"]] == [near]
    assert not [s for s in farm.backend.store.list("DONE/") if other.video_id in s.key]
    job = farm.backend.ledger.get(farm.find(video.video_id, None).renditions[0].job_id)
    assert job.state is JobState.DONE


@pytest.mark.parametrize("region", ["eu-central-1", "us-east-1"])
@pytest.mark.parametrize("bucket", ["uploads", "our.uploads"])
def test_browsers_are_sent_where_the_pages_policy_lets_them_go(region, bucket, monkeypatch):
    """By the addresses of AWS itself: nothing is sent there."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    where = AwsSettings(region=region, input_bucket=bucket, output_bucket="out")
    made = make_clients(where)
    files = s3_files.S3VideoFiles(made.s3, Buckets(bucket, "out"))
    video = Video(
        video_id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
        owner=OWNER,
        title="a",
        created_at=0.0,
        updated_at=0.0,
        profiles=("hevc",),
        upload=Upload(name="a.mp4", size=9, expires_at=1.0, multipart_id="u"),
    )

    part = files.part_url(video, 1)
    links = [part, files.published("DONE/a", name="a", media_type="", attachment=False)]

    origins = files.origins()
    made.close()
    for link in links:
        assert "{0.scheme}://{0.netloc}".format(urlsplit(link)) in origins
        assert f".{region}.amazonaws.com/" in link
    assert "content-length" in parse_qs(urlsplit(part).query)["X-Amz-SignedHeaders"][0]
