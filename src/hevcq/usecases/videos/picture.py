"""The picture of a video: of its HLS set, else one taken from the uploaded file, and kept."""

from __future__ import annotations

import threading
from pathlib import Path

from hevcq.domain.job import JobState
from hevcq.domain.videos.record import Video
from hevcq.domain.videos.rules import output_prefix
from hevcq.errors import HevcqError
from hevcq.ports.encoder import Encoder
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.playback import part_of_set
from hevcq.util.log import get_logger

POSTER = "poster.jpg"
PLAYLIST = ".m3u8"
WIDTH = 640
MOST_BYTES = 4 << 20
MOST_FAILED = 10_000


class Pictures:
    """Finds and takes pictures. `scratch` is a folder for what must be fetched first.

    Take one at a time: a page of new videos asks for dozens at once.
    """

    def __init__(self, encoder: Encoder, scratch: Path) -> None:
        self._encoder, self._scratch = encoder, scratch
        self._failed: set[str] = set()

    def find(self, farm: VideoFarm, video: Video) -> bytes:
        """Return the picture that there is as JPEG, or b""."""
        for made in video.renditions:
            if made.state is JobState.DONE and made.key.endswith(PLAYLIST):
                key = part_of_set(farm, made.key, made.certificate_key, POSTER)
                if key and (found := _read(farm, key)):
                    return found
        return _read(farm, picture_key(video))

    def take(self, farm: VideoFarm, video: Video) -> bytes:
        """Take a picture of the uploaded file, keep it and return it, or b"".

        What failed once is not tried again. Raises nothing of hevcq's own.
        """
        source = video.source
        if source is None or not video.raw_kept or video.raw_leaving:
            return b""
        if video.video_id in self._failed:
            return b""
        if found := self.find(farm, video):  # taken while this call waited for its turn
            return found
        stop = threading.Event()
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            with farm.backend.store.stream(
                source, self._scratch, moved=lambda _n: None, stop=stop
            ) as there:
                taken = self._encoder.still(there.location, width=WIDTH, stop=stop)
            if taken:
                farm.backend.store.put(picture_key(video), taken, metadata={})
        except (HevcqError, OSError) as error:
            get_logger().info("no_picture", video=video.video_id, reason=str(error))
            taken = b""
        if not taken and len(self._failed) < MOST_FAILED:
            self._failed.add(video.video_id)
        return taken


def picture_key(video: Video) -> str:
    """Return where the picture is kept: beside the first profile's files, and deleted with them."""
    return f"{output_prefix(video, video.profiles[0])}.{POSTER}"


def _read(farm: VideoFarm, key: str) -> bytes:
    try:
        with farm.backend.store.open(key) as stream:
            found = stream.read(MOST_BYTES + 1)
    except HevcqError:
        return b""
    return found if len(found) <= MOST_BYTES else b""
