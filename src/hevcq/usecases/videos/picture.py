"""The picture of a video: of its HLS set, else one taken from the uploaded file or a job's source."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from hevcq.domain.job import JobState, Source
from hevcq.domain.videos.record import Video
from hevcq.domain.videos.rules import output_prefix
from hevcq.errors import HevcqError
from hevcq.ports.encoder import Encoder
from hevcq.ports.store import Store
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.playback import part_of_set
from hevcq.util.log import get_logger

POSTER = "poster.jpg"
PLAYLIST = ".m3u8"
WIDTH, SMALL = 640, 192
"""Pixels: of a picture that a player shows, and of one beside a running job."""
MAX_KEPT = 1000
"""Pictures of jobs' sources that are kept: some 5 MiB."""
MAX_BYTES = 4 << 20


class Pictures:
    """Finds and takes pictures. `scratch` is a folder for what must be fetched first, and for what
    is kept of jobs' sources, which are nobody's uploads.

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

    def make(self, farm: VideoFarm, video: Video) -> bytes:
        """Make a picture of the uploaded file, keep it and return it, or b""; see `_once`."""
        source, store = video.source, farm.backend.store
        if source is None or not video.raw_kept or video.raw_leaving:
            return b""
        return self._once(
            video.video_id,
            find=lambda: self.find(farm, video),
            make=lambda: self._still(store, source, WIDTH),
            keep=lambda made: store.put(picture_key(video), made, metadata={}),
        )

    def find_of_source(self, source: Source) -> bytes:
        """Return the small picture that is kept of a job's source, or b""."""
        try:
            return self._place(source).read_bytes()
        except OSError:
            return b""

    def make_of_source(self, store: Store, source: Source) -> bytes:
        """Make a small picture of a job's source, keep it in the data folder; see `_once`."""
        return self._once(
            source.source_id,
            find=lambda: self.find_of_source(source),
            make=lambda: self._still(store, source, SMALL),
            keep=lambda made: self._keep(source, made),
        )

    def _once(
        self,
        name: str,
        *,
        find: Callable[[], bytes],
        make: Callable[[], bytes],
        keep: Callable[[bytes], object],
    ) -> bytes:
        """Return the picture that another call made meanwhile, or make and keep it; b"" for none.

        What failed once is not tried again. Raises nothing of hevcq's own.
        """
        if name in self._failed:
            return b""
        if found := find():
            return found
        made = b""
        try:
            if made := make():
                keep(made)
                return made
        except (HevcqError, OSError) as error:
            get_logger().info("no_picture", of=name, reason=str(error))
        self._failed.add(name)
        return made

    def _still(self, store: Store, source: Source, width: int) -> bytes:
        stop = threading.Event()
        self._scratch.mkdir(parents=True, exist_ok=True)
        with store.stream(source, self._scratch, moved=lambda _n: None, stop=stop) as there:
            return self._encoder.still(there.location, width=width, stop=stop)

    def _place(self, source: Source) -> Path:
        return self._scratch / "sources" / f"{source.source_id}.jpg"

    def _keep(self, source: Source, picture: bytes) -> None:
        """Write the picture, and delete the oldest of too many."""
        place = self._place(source)
        place.parent.mkdir(exist_ok=True)
        temp = place.with_suffix(".tmp")
        temp.write_bytes(picture)
        temp.replace(place)
        with os.scandir(place.parent) as entries:
            kept = sorted((each.stat().st_mtime_ns, each.path) for each in entries)
        for _, path in kept[:-MAX_KEPT]:
            Path(path).unlink(missing_ok=True)


def picture_key(video: Video) -> str:
    """Return where the picture is kept: beside the first profile's files, and deleted with them."""
    return f"{output_prefix(video, video.profiles[0])}.{POSTER}"


def _read(farm: VideoFarm, key: str) -> bytes:
    try:
        with farm.backend.store.open(key) as stream:
            found = stream.read(MAX_BYTES + 1)
    except HevcqError:
        return b""
    return found if len(found) <= MAX_BYTES else b""
