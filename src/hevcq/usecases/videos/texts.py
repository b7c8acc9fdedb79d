"""Subtitles and chapters of a rendition that is one file: read from it once, and kept beside it."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pydantic import Field, ValidationError

from hevcq.domain.job import RenditionRef
from hevcq.domain.model import Frozen
from hevcq.domain.videos.record import Video
from hevcq.domain.videos.rules import output_prefix
from hevcq.errors import HevcqError, NoSuchVideo
from hevcq.ports.encoder import Encoder, TextTrack
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.playback import MAX_CHAPTERS, PlayerChapter, rendition
from hevcq.util.log import get_logger

WAIT_S = 3.0
"""Seconds that a page waits for subtitles that nobody asked for before; the next one finds them."""
MAX_BYTES = 64 << 20
DEAF = "hearing_impaired"


class Spoken(Frozen):
    """A subtitle track as a browser gets it: `content` is WebVTT, `language` a tag of BCP 47 or ""."""

    content: str
    language: str = ""
    title: str = ""
    forced: bool = False
    captions: bool = Field(default=False, description="for the deaf: also names sounds")


class Texts(Frozen):
    """What one rendition holds."""

    tracks: tuple[Spoken, ...] = ()
    chapters: tuple[PlayerChapter, ...] = ()


NONE = Texts()


class TextReader:
    """Reads renditions one after the other, in a thread of its own; close it at the end.

    `scratch` is a folder for what must be fetched first.
    """

    def __init__(self, encoder: Encoder, scratch: Path) -> None:
        self._encoder, self._scratch = encoder, scratch
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hevcq-web-texts")
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._under_way: dict[str, Future[Texts]] = {}
        self._failed: set[str] = set()

    def texts(self, farm: VideoFarm, video: Video, profile: str) -> Texts:
        """Return what the profile's rendition holds; nothing if that takes long or cannot be read.

        What failed once is not tried again by this process. Raises nothing of hevcq's own.
        """
        try:
            made = rendition(farm, video, profile)
            key = texts_key(video, profile, made)
            if (found := _kept(farm, key)) is not None:
                return found
        except HevcqError:
            return NONE
        with self._lock:
            if key in self._failed or self._stop.is_set():
                return NONE
            future = self._under_way.get(key)
            if future is None:
                future = self._pool.submit(self._read, farm, made, key)
                self._under_way[key] = future
        try:
            return future.result(WAIT_S)
        except TimeoutError:
            return NONE

    def close(self) -> None:
        """End what is being read, and read nothing more."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _read(self, farm: VideoFarm, made: RenditionRef, key: str) -> Texts:
        found = None
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            store = farm.backend.store
            with store.stream_published(made.key, self._scratch, stop=self._stop) as there:
                tracks, chapters = self._encoder.texts(there.location, stop=self._stop)
            found = Texts(
                tracks=tuple(map(_spoken, tracks)),
                chapters=tuple(
                    PlayerChapter(
                        start_s=max(0.0, each.start_s), title=each.title or f"Chapter {number}"
                    )
                    for number, each in enumerate(chapters[:MAX_CHAPTERS], 1)
                ),
            )
            farm.backend.store.put(key, found.model_dump_json().encode(), metadata={})
        except (HevcqError, OSError) as error:
            get_logger().info("no_subtitles", key=made.key, reason=str(error))
        with self._lock:
            self._under_way.pop(key, None)
            if found is None:
                self._failed.add(key)
        return found or NONE


def track(farm: VideoFarm, video: Video, profile: str, number: int) -> str:
    """Return a track as WebVTT, if it was read before. Raises NoSuchVideo if there is none."""
    found = _kept(farm, texts_key(video, profile, rendition(farm, video, profile)))
    if found is None or number >= len(found.tracks):
        raise NoSuchVideo("There are no such subtitles.")
    return found.tracks[number].content


def texts_key(video: Video, profile: str, made: RenditionRef) -> str:
    """Return where the texts of these bytes are kept: beside the profile's files, and deleted with them."""
    return f"{output_prefix(video, profile)}.{made.sha256[:32]}.texts.json"


def _kept(farm: VideoFarm, key: str) -> Texts | None:
    try:
        with farm.backend.store.open(key) as stream:
            return Texts.model_validate_json(stream.read(MAX_BYTES))
    except (HevcqError, ValidationError):
        return None


def _spoken(found: TextTrack) -> Spoken:
    return Spoken(
        content=found.content,
        language=found.language,
        title=found.title,
        forced="forced" in found.dispositions,
        captions=DEAF in found.dispositions,
    )
