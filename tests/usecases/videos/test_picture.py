"""The picture of a video: taken once, kept with its files, and never in the way."""

from pathlib import Path

import pytest

from hevcq.errors import Unavailable
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.playback import Pictures, picture_key
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
