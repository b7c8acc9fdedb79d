"""A server that answers a range with other bytes: asked again, then a network error, never damage."""

import hashlib
import io
import random
import threading

import pytest

from backends.aws.s3.test_local_proxy import get, streamed
from backends.aws.s3.test_store import fetch
from hevcq.backends.aws.s3 import transfer
from hevcq.backends.aws.s3.resumable_upload import UploadJournal
from hevcq.backends.aws.s3.store import Buckets, S3Store
from hevcq.domain.job import Source
from hevcq.domain.verdict import FailureClass, classify
from hevcq.errors import SourceDamaged, SourceGone, Unavailable
from hevcq.ports.store import Publication
from hevcq.settings.model import AwsSettings
from support.aws.breaking import Breaking
from support.aws.emulator import REGION, emulated_clients
from support.aws.lying_s3 import LIES, lying_s3
from support.clips import ManualClock

pytestmark = pytest.mark.aws
CONTENT = random.Random(12).randbytes(1_200_001)
KEY = "TODO/all/good.mp4"


@pytest.fixture(scope="module")
def server():
    with lying_s3() as world:
        world.clients = emulated_clients(AwsSettings(region=REGION, endpoint_url=world.endpoint))
        yield world
        world.clients.close()


@pytest.fixture
def world(server, monkeypatch, tmp_path):
    monkeypatch.setattr(transfer, "PART_BYTES", 1024 * 1024)
    server.lies, server.always, server.missing, server.listing = [], "", 404, True
    server.reading = True
    server.objects, server.asked = {f"in/{KEY}": (CONTENT, {})}, []
    clock = ManualClock()
    clock.auto = True
    server.store = S3Store(
        server.clients.s3, Buckets("in", "out"), clock, UploadJournal(tmp_path / "uploads")
    )
    return server


def the_source(world) -> Source:
    head = world.clients.s3.head_object(Bucket="in", Key=KEY)
    return Source(bucket="in", key=KEY, version=head["ETag"].strip('"'), size=len(CONTENT))


@pytest.mark.parametrize("lie", LIES)
def test_a_download_asks_again_and_has_the_right_bytes(world, tmp_path, lie) -> None:
    source = the_source(world)
    world.lies = [lie, lie]

    assert fetch(world.store, source, tmp_path) == CONTENT


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_never_does_better_is_a_network_error(world, tmp_path, lie) -> None:
    source = the_source(world)
    world.always = lie

    with pytest.raises(Unavailable, match=r"'TODO/all/good\.mp4'") as failed:
        fetch(world.store, source, tmp_path)

    assert classify(failed.value) is FailureClass.NETWORK
    assert list(tmp_path.glob("*.mp4")) == []


@pytest.mark.parametrize("lie", LIES)
def test_what_ffmpeg_reads_through_the_proxy_is_right_or_an_error(world, tmp_path, lie) -> None:
    source = the_source(world)
    world.lies = [lie]
    with streamed(world.store, source, tmp_path / "scratch") as location:
        assert get(location, "400000-400099") == CONTENT[400_000:400_100]

    def read() -> None:
        with streamed(world.store, source, tmp_path / "scratch") as location:
            world.always = lie
            with pytest.raises(OSError, match=r"IncompleteRead|Remote end|bytes read"):
                get(location, "600000-600099")

    with pytest.raises(Unavailable):
        read()


@pytest.mark.parametrize("lie", LIES)
def test_a_broken_stream_goes_on_with_the_right_bytes_or_not_at_all(world, lie) -> None:
    world.objects["out/DONE/hevc/a.mp4"] = (CONTENT, {})
    world.lies = ["short-body", lie]
    with world.store.open("DONE/hevc/a.mp4") as stream:
        assert stream.read() == CONTENT

    world.lies, world.always = ["short-body"], lie
    with (
        world.store.open("DONE/hevc/a.mp4") as stream,
        pytest.raises(Unavailable),
    ):
        stream.read()


def test_a_whole_object_is_taken_from_a_server_without_ranges(world, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(transfer, "PART_BYTES", 16 * transfer.MIB)
    source = the_source(world)
    world.always = "ignores-range"

    assert fetch(world.store, source, tmp_path) == CONTENT


def test_a_collected_rendition_has_the_right_bytes(world, tmp_path) -> None:
    world.objects["out/DONE/hevc/a.mp4"] = (CONTENT, {})
    world.lies = ["ignores-range", "wrong-content-range"]

    target = tmp_path / "a.mp4"
    world.store.collect("DONE/hevc/a.mp4", target, moved=lambda _n: None, stop=threading.Event())

    assert target.read_bytes() == CONTENT


def test_bytes_that_differ_once_from_their_digest_are_read_again(world, tmp_path) -> None:
    right = hashlib.sha256(CONTENT).hexdigest()
    world.objects[f"in/{KEY}"] = (CONTENT, {"x-amz-meta-hevcq-sha256": right})
    source = the_source(world)

    def flipped(real, **asked):
        answer = real(**asked)
        content = answer["Body"].read()
        return {**answer, "Body": io.BytesIO(bytes([content[0] ^ 1]) + content[1:])}

    world.store._s3 = Breaking(world.clients.s3, plan={"get_object": [flipped]})
    assert fetch(world.store, source, tmp_path) == CONTENT

    world.objects[f"in/{KEY}"] = (CONTENT, {"x-amz-meta-hevcq-sha256": "0" * 64})
    with pytest.raises(SourceDamaged):
        fetch(world.store, source, tmp_path)


@pytest.mark.parametrize("listing", [True, False])
@pytest.mark.parametrize("missing", [403, 404])
def test_what_is_not_there_is_published_whatever_a_server_says_of_absence(
    world, tmp_path, missing, listing
) -> None:
    world.missing, world.listing = missing, listing

    assert world.store.stat("DONE/hevc/a.mp4") is None
    assert world.store.delete("DONE/hevc/a.mp4") is False
    with pytest.raises(SourceGone):
        world.store.open("DONE/hevc/a.mp4")
    assert published(world, tmp_path).sha256 == hashlib.sha256(b"made").hexdigest()

    assert world.objects["out/DONE/hevc/a.mp4"][0] == b"made"
    assert world.store.stat("DONE/hevc/a.mp4") is not None


@pytest.mark.parametrize("listing", [True, False])
def test_what_is_there_but_may_not_be_read_is_never_overwritten(world, tmp_path, listing) -> None:
    world.objects["out/DONE/hevc/a.mp4"] = (b"another's", {})
    world.reading, world.listing, world.missing = False, listing, 403

    with pytest.raises(Unavailable):
        published(world, tmp_path)

    assert world.objects["out/DONE/hevc/a.mp4"][0] == b"another's"


def test_a_key_that_only_begins_like_it_is_not_it(world) -> None:
    world.missing = 403
    world.objects["out/DONE/hevc/a.mp4.mp4"] = (CONTENT, {})

    assert world.store.stat("DONE/hevc/a.mp4") is None


def test_an_upload_is_gone_only_where_that_is_known(world) -> None:
    source = the_source(world)
    world.objects.clear()
    world.missing = 403
    with pytest.raises(SourceGone):
        world.store.check(source)

    world.listing = False
    with pytest.raises(Unavailable, match="access is denied"):
        world.store.check(source)

    world.listing, world.reading = True, False
    world.objects[f"in/{KEY}"] = (CONTENT, {})
    with pytest.raises(Unavailable, match="access is denied"):
        world.store.check(source)


def published(world, tmp_path):
    file = tmp_path / "made.mp4"
    file.write_bytes(b"made")
    return world.store.publish(
        Publication(
            key="DONE/hevc/a.mp4",
            file=file,
            sha256=hashlib.sha256(b"made").hexdigest(),
            job_id="1" * 32,
            fence=1,
            metadata={},
            recheck=lambda _there: None,
            stop=threading.Event(),
        )
    )
