"""Uploads: checked before anything is queued, repeated without harm, ended in time.

The picture of a video: taken once, kept with its files, and never in the way.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from hevcq.domain.job import JobState
from hevcq.domain.videos import VideoStatus, is_video_id
from hevcq.errors import BadUpload, Conflict, DiskFull, HevcqError, QuotaExceeded, Unavailable
from hevcq.ports.ledger import JobFilter
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.playback import Pictures, picture_key
from hevcq.usecases.videos.uploads import ABANDONED_AFTER_S, complete_upload, process_due, prolong
from support.fakes.encoder import FakeEncoder
from support.videos import CLIP, VideoBench


def jobs(bench: VideoBench) -> list[str]:
    return [job.profile for job in bench.backend.ledger.jobs(JobFilter())]


def test_an_upload_becomes_a_job_for_each_subscribed_profile(bench):
    video = bench.request(title=" My\x00 holiday\n", description="One\r\nTwo\x07")
    assert is_video_id(video.video_id)
    assert (video.title, video.description) == ("My holiday", "One\nTwo")
    assert video.status is VideoStatus.UPLOADING
    assert jobs(bench) == []

    bench.send(video, CLIP[:5])
    with pytest.raises(BadUpload, match="5 of 15 bytes came"):
        complete_upload(bench.farm, video)
    assert jobs(bench) == []

    bench.send(video, CLIP[5:])
    video = complete_upload(bench.farm, video)
    assert video.status is VideoStatus.PROCESSING
    assert video.source.key == f"UPLOAD/{video.video_id}.mov"
    assert sorted(jobs(bench)) == ["720p", "hevc"]
    assert complete_upload(bench.farm, video) == video


def test_a_kill_after_the_jobs_were_queued_is_mended(bench):
    video = bench.request()
    bench.send(video)

    def killed(_video: object) -> None:
        raise HevcqError("killed")

    records = bench.farm.videos
    update, records.update = records.update, killed  # type: ignore[assignment,method-assign]
    with pytest.raises(HevcqError, match="killed"):
        complete_upload(bench.farm, video)
    records.update = update  # type: ignore[method-assign]
    assert bench.now(video).status is VideoStatus.UPLOADING

    complete_upload(bench.farm, bench.now(video))
    assert sorted(jobs(bench)) == ["720p", "hevc"]
    assert bench.now(video).status is VideoStatus.PROCESSING


def test_more_bytes_than_declared_end_the_upload(bench):
    video = bench.request(size=5)
    bench.send(video)
    with pytest.raises(BadUpload, match="15 bytes came where 5 were declared"):
        complete_upload(bench.farm, video)
    after = bench.now(video)
    assert after.status is VideoStatus.FAILED
    assert after.remedy
    assert not bench.raw(video).exists()
    assert jobs(bench) == []
    with pytest.raises(BadUpload):
        complete_upload(bench.farm, after)
    assert bench.farm.videos.usage("ann").size == 0


def test_open_uploads_are_bounded_for_one_and_for_all(bench, monkeypatch):
    monkeypatch.setattr(manage, "OWNER_OPEN", 1)
    monkeypatch.setattr(manage, "FARM_OPEN", 2)
    bench.request()
    with pytest.raises(QuotaExceeded, match="1 unfinished"):
        bench.request()
    bench.request("bob")
    with pytest.raises(QuotaExceeded, match="Too many"):
        bench.request("cem")


def test_a_video_that_would_fill_the_disk_is_refused(bench):
    bench.limit(max_gib=40_000)
    with pytest.raises(DiskFull):
        bench.request(size=2**45)


@pytest.mark.parametrize(
    ("name", "key_end"),
    [
        ("../../etc/passwd", ""),
        ("a.mp4/../../x", ""),
        ("x.\n\r\0mp4", ""),
        ("ä 'q\" .MP4", ".mp4"),
        (".mov", ""),
        ("a." + "x" * 60, ""),
        ("C:\\videos\\a.mkv", ".mkv"),
    ],
)
def test_a_file_name_never_becomes_a_path(bench, name, key_end):
    video = bench.upload(name=name)
    assert video.source.key == f"UPLOAD/{video.video_id}{key_end}"
    assert bench.raw(video).parent == bench.folder / "data" / "videos"
    assert video.upload.name.isprintable()
    assert video.title.isprintable()


def test_an_unfinished_upload_expires_and_gives_its_room_back(bench):
    video = bench.request()
    bench.send(video, CLIP[:5])
    bench.clock.advance(ABANDONED_AFTER_S - 1)
    process_due(bench.farm)
    assert bench.now(video).status is VideoStatus.UPLOADING
    later = prolong(bench.farm, bench.now(video))  # bytes came
    assert later.upload.expires_at == bench.clock.now() + ABANDONED_AFTER_S

    bench.clock.advance(ABANDONED_AFTER_S)
    assert process_due(bench.farm) == 1
    after = bench.now(video)
    assert after.status is VideoStatus.FAILED
    assert after.reason == "The upload was not finished in time."
    assert not bench.raw(video).exists()
    assert bench.farm.videos.usage("ann").size == 0
    assert process_due(bench.farm) == 0


def test_an_upload_without_a_place_for_its_bytes_leaves_no_record(bench):
    prepare = bench.farm.files.prepare

    def unanswered(_video: object) -> str:
        raise Unavailable("no answer")

    bench.farm.files.prepare = unanswered  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="no answer"):
        bench.request()
    assert bench.farm.videos.usage("ann").videos == 0

    bench.farm.files.prepare = prepare  # type: ignore[method-assign]
    video = bench.request()
    bench.send(video)
    assert complete_upload(bench.farm, video).source is not None


def meanwhile(bench: VideoBench, act: Callable[[], object]) -> None:
    """Let another process act just before the next change of a record, once."""
    update = bench.farm.videos.update

    def later(video):
        bench.farm.videos.update = update  # type: ignore[method-assign]
        act()
        return update(video)

    bench.farm.videos.update = later  # type: ignore[method-assign]


def test_an_upload_that_is_deleted_while_it_is_queued_leaves_no_work(bench):
    video = bench.request()
    bench.send(video)
    meanwhile(bench, lambda: bench.farm.videos.delete(bench.now(video)))

    with pytest.raises(Conflict):
        complete_upload(bench.farm, video)

    states = {job.state for job in bench.backend.ledger.jobs(JobFilter())}
    assert states == {JobState.DEAD}
    assert bench.farm.videos.get(video.video_id) is None
    assert not bench.raw(video).exists()


def test_two_that_complete_an_upload_at_once_queue_it_once(bench):
    video = bench.request()
    bench.send(video)
    meanwhile(bench, lambda: complete_upload(bench.farm, video))

    done = complete_upload(bench.farm, video)

    assert done == bench.now(video)
    assert done.status is VideoStatus.PROCESSING
    assert sorted(jobs(bench)) == ["720p", "hevc"]


JPEG = b"\xff\xd8 a picture"


class Camera(FakeEncoder):
    """Takes a picture of the file it is given."""

    taken = 0

    def still(self, location: str, **_named: object) -> bytes:
        self.taken += 1
        return JPEG + Path(location).read_bytes()[:1]


@pytest.fixture
def camera() -> Camera:
    return Camera()


@pytest.fixture
def pictures(camera: Camera, tmp_path: Path) -> Pictures:
    return Pictures(camera, tmp_path / "pictures")


def test_a_picture_is_taken_of_the_upload_once_and_deleted_with_the_video(bench, pictures, camera):
    video = bench.upload()
    assert pictures.find(bench.farm, video) == b""

    taken = pictures.make(bench.farm, video)

    assert taken.startswith(JPEG)
    assert pictures.find(bench.farm, video) == pictures.make(bench.farm, video) == taken
    assert camera.taken == 1
    manage.delete(bench.farm, video, "ann")
    assert bench.backend.store.stat(picture_key(video)) is None
