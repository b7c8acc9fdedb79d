"""The picture of a video: taken once, kept with its files, and never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hevcq.errors import Unavailable
from hevcq.usecases.videos import manage, picture
from hevcq.usecases.videos.picture import PLAYLIST, Pictures, picture_key
from support.fakes.encoder import FakeEncoder
from support.videos import VideoBench

JPEG = b"\xff\xd8 a picture"


class Camera(FakeEncoder):
    """Takes a picture of the file it is given, or fails."""

    def __init__(self, picture: bytes = JPEG) -> None:
        super().__init__()
        self.picture, self.taken = picture, 0

    def still(self, location: str, **_named: object) -> bytes:
        self.taken += 1
        if not self.picture:
            raise Unavailable("ffmpeg is busy.")
        return self.picture + Path(location).read_bytes()[:1]


@pytest.fixture
def camera() -> Camera:
    return Camera()


@pytest.fixture
def pictures(camera: Camera, tmp_path: Path) -> Pictures:
    return Pictures(camera, tmp_path / "pictures")


def test_a_picture_is_taken_of_the_upload_once_and_deleted_with_the_video(
    bench: VideoBench, pictures: Pictures, camera: Camera
) -> None:
    video = bench.upload()
    assert pictures.find(bench.farm, video) == b""

    taken = pictures.make(bench.farm, video)

    assert taken.startswith(JPEG)
    assert pictures.find(bench.farm, video) == pictures.make(bench.farm, video) == taken
    assert camera.taken == 1
    manage.delete(bench.farm, video, "ann")
    assert bench.backend.store.stat(picture_key(video)) is None


def test_what_cannot_be_pictured_is_not_tried_again(bench: VideoBench, tmp_path: Path) -> None:
    blind = Camera(b"")
    pictures = Pictures(blind, tmp_path)
    video = bench.upload()

    assert pictures.make(bench.farm, video) == b""
    assert pictures.make(bench.farm, video) == b""
    assert blind.taken == 1


def test_a_small_picture_of_a_library_file_is_taken_once_and_kept_in_the_data_folder(
    bench: VideoBench, pictures: Pictures, camera: Camera
) -> None:
    source = bench.upload().source
    assert source is not None
    assert pictures.find_of_source(source) == b""

    taken = pictures.make_of_source(bench.backend.store, source)

    assert taken.startswith(JPEG)
    assert pictures.make_of_source(bench.backend.store, source) == taken
    assert pictures.find_of_source(source) == taken
    assert camera.taken == 1
    changed = source.model_copy(update={"version": "other"})
    assert not pictures.find_of_source(changed), "another version has another picture"
    assert pictures.make_of_source(bench.backend.store, changed) == b""


def test_the_oldest_pictures_of_sources_make_room(
    bench: VideoBench, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "MAX_KEPT", 2)
    sources = [bench.upload().source for _ in range(3)]
    for number, source in enumerate(sources):
        pictures.make_of_source(bench.backend.store, source)
        for kept in (bench.folder / "pictures" / "sources").glob(f"{source.source_id}*"):
            os.utime(kept, (number, number))

    assert [bool(pictures.find_of_source(source)) for source in sources] == [False, True, True]


@pytest.mark.parametrize(("poster", "found"), [("a.hls/poster.jpg", JPEG), ("gone.jpg", b"")])
def test_the_poster_of_a_set_is_the_picture(
    bench: VideoBench,
    pictures: Pictures,
    monkeypatch: pytest.MonkeyPatch,
    poster: str,
    found: bytes,
) -> None:
    monkeypatch.setattr(picture, "part_of_set", lambda *_: poster)
    bench.backend.store.put("a.hls/poster.jpg", JPEG, metadata={})
    video = bench.done()
    file, other = video.renditions
    of_set = other.model_copy(update={"key": f"a.hls/{PLAYLIST}"})

    assert pictures.find(bench.farm, video) == b"", "one file has no poster"
    video = video.model_copy(update={"renditions": (file, of_set)})
    assert pictures.find(bench.farm, video) == found
