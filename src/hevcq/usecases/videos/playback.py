"""Serve a video to a player: its published files, chapters, subtitles and picture."""

import hashlib
import json
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hevcq.domain.job import JobState, RenditionRef, Source, job_id
from hevcq.domain.media.facts import Chapter
from hevcq.domain.model import Frozen
from hevcq.domain.videos import OCTETS, Video, download_name, media_type, output_prefix
from hevcq.errors import HevcqError, NoSuchVideo
from hevcq.ports.encoder import Encoder, TextTrack
from hevcq.ports.store import Store
from hevcq.usecases.videos.manage import VideoFarm
from hevcq.util.log import get_logger

PLAYLIST = media_type("a.m3u8")
ORIGINAL = "original"
"""The name of the uploaded file among a video's formats; a profile of that name takes precedence."""
PLAYABLE = frozenset({"video/mp4", "video/webm", "video/quicktime"})
"""Media types that a browser may play; an uploaded file of another type is downloaded."""
MAX_CHAPTERS_BYTES = 1 << 20
MAX_CHAPTERS = 500


@dataclass(frozen=True, slots=True)
class PlayFile:
    """A published file; `tag` changes when its bytes change.

    `at` is its path, a signed URL of the store, or its bytes (of a playlist).
    """

    key: str
    tag: str
    media_type: str
    name: str
    at: Path | str | bytes
    attachment: bool = False


def play_file(
    farm: VideoFarm, video: Video, profile: str, name: str, *, attachment: bool = False
) -> PlayFile:
    """Return a profile's rendition, or a file of its set, by its name below the rendition's folder.

    A playlist is returned as bytes: relative names in it would resolve to unsigned URLs beside a signed
    one. Raises NoSuchVideo if the video has no such file.
    """
    if profile == ORIGINAL and profile not in farm.profiles:
        return _original(farm, video, name, attachment=attachment)
    ref = rendition(farm, video, profile)
    folder, _, own = ref.key.rpartition("/")
    if name != own and name not in _members(farm, ref):
        raise NoSuchVideo("There is no such file.")
    key = f"{folder}/{name}"
    stored = farm.backend.store.stat(key)
    if stored is None:
        raise NoSuchVideo("There is no such file.")
    kind, shown = media_type(key), download_name(video, profile, key)
    at: Path | str | bytes
    if kind == PLAYLIST:
        with farm.backend.store.open(key) as stream:
            at = stream.read()
    else:
        at = farm.files.published(key, name=shown, media_type=kind, attachment=attachment)
    return PlayFile(key, stored.sha256 or stored.version, kind, shown, at, attachment)


def _original(farm: VideoFarm, video: Video, name: str, *, attachment: bool) -> PlayFile:
    """Return the uploaded file while it is kept, with the media type of its suffix.

    Its content is not trusted, so a browser shows it only if it has a PLAYABLE type.
    """
    source = video.source
    kept = video.raw_deleted_at is None and not video.raw_leaving
    if source is None or not kept or name != source.key.rpartition("/")[2]:
        raise NoSuchVideo("There is no such file.")
    kind, shown = media_type(source.key), download_name(video, ORIGINAL, source.key)
    if kind not in PLAYABLE:
        kind, attachment = OCTETS, True
    at = farm.files.raw(video, name=shown, media_type=kind, attachment=attachment)
    tag = hashlib.sha256(source.version.encode()).hexdigest()
    return PlayFile(source.key, tag, kind, shown, at, attachment)


def rendition(farm: VideoFarm, video: Video, profile: str) -> RenditionRef:
    """Return a profile's rendition from the ledger, else from the record. Raises NoSuchVideo.

    While a job is being repeated, the record still has its earlier rendition.
    """
    if video.source is not None and profile in video.profiles:
        job = farm.backend.ledger.get(job_id(video.source, profile))
        if job is not None and job.state is JobState.DONE and job.rendition is not None:
            return job.rendition
    for each in video.renditions:
        if each.profile == profile and each.key:
            return RenditionRef(
                key=each.key,
                size=each.size,
                sha256=each.sha256,
                certificate_key=each.certificate_key,
            )
    raise NoSuchVideo("There is no such format of this video yet.")


def require_shared(farm: VideoFarm, video: Video, profile: str) -> None:
    """Raise NoSuchVideo unless this format, as it is now, is shared with everybody who knows the slug."""
    if profile == ORIGINAL and profile not in farm.profiles:
        shared = video.public_original
    else:
        sha256 = rendition(farm, video, profile).sha256
        entries = (
            each for each in video.published if (each.profile, each.sha256) == (profile, sha256)
        )
        shared = any(map(video.shares, entries))
    if not shared:
        raise NoSuchVideo("There is no such file.")


def part_of_set(farm: VideoFarm, master: str, certificate: str, name: str) -> str:
    """Return the key of a set's file with this name, e.g. its storyboard, or "" if there is none.

    The certificate names the files, which are in a folder of the set's version.
    """
    proof, folder = farm.certificate(certificate), master.rpartition("/")[0]
    files = proof.files if proof else ()
    paths = (each.name for each in files if each.name.rpartition("/")[2] == name)
    return next((f"{folder}/{path}" for path in paths), "")


def chapters_of_set(farm: VideoFarm, master: str, certificate: str) -> tuple[Chapter, ...]:
    """Return the chapters of a set in order; none if there are none or they cannot be read."""
    key = part_of_set(farm, master, certificate, "chapters.json")
    if not key:
        return ()
    try:
        with farm.backend.store.open(key) as stream:
            entries = json.loads(stream.read(MAX_CHAPTERS_BYTES))
        chapters = [_chapter(each) for each in entries[:MAX_CHAPTERS]]
    except (HevcqError, OSError, ValueError, KeyError, TypeError, IndexError):
        return ()
    return tuple(sorted(chapters, key=lambda chapter: chapter.start_s))


def _chapter(entry: dict[str, Any]) -> Chapter:
    start_s = float(entry["start-time"])
    if not math.isfinite(start_s):
        raise ValueError("no time")
    return Chapter(start_s=start_s, end_s=start_s, title=str(entry["titles"][0]["title"]))


def _members(farm: VideoFarm, ref: RenditionRef) -> frozenset[str]:
    """Return the names of a set's files except its master playlist; none for a single file."""
    if media_type(ref.key) != PLAYLIST:
        return frozenset()
    proof = farm.certificate(ref.certificate_key)
    return frozenset(each.name for each in proof.files) if proof else frozenset()


POSTER = "poster.jpg"
SET_SUFFIX = ".m3u8"
WIDTH, SMALL = 640, 192
"""Width in pixels of a player's picture, and of one beside a running job."""
MAX_KEPT = 1000
"""Pictures of jobs' sources that are kept, some 5 MiB."""
MAX_PICTURE_BYTES = 4 << 20


class Pictures:
    """Finds and makes pictures. `scratch` is a folder for fetched files and for pictures of jobs' sources.

    Make one at a time, because a page of new videos asks for dozens at once.
    """

    def __init__(self, encoder: Encoder, scratch: Path) -> None:
        self._encoder, self._scratch = encoder, scratch
        self._failed: set[str] = set()

    def find(self, farm: VideoFarm, video: Video) -> bytes:
        """Return a video's existing picture as JPEG, or b""."""
        for made in video.renditions:
            if made.state is JobState.DONE and made.key.endswith(SET_SUFFIX):
                key = part_of_set(farm, made.key, made.certificate_key, POSTER)
                if key and (picture := _read(farm, key)):
                    return picture
        return _read(farm, picture_key(video))

    def make(self, farm: VideoFarm, video: Video) -> bytes:
        """Make and keep a picture of the uploaded file; see `_once`."""
        source, store = video.source, farm.backend.store
        if source is None or not video.raw_kept or video.raw_leaving:
            return b""
        return self._once(
            video.video_id,
            find=lambda: self.find(farm, video),
            make=lambda: self._still(store, source, WIDTH),
            keep=lambda picture: store.put(picture_key(video), picture, metadata={}),
        )

    def find_of_source(self, source: Source) -> bytes:
        """Return the kept small picture of a job's source, or b""."""
        try:
            return self._place(source).read_bytes()
        except OSError:
            return b""

    def make_of_source(self, store: Store, source: Source) -> bytes:
        """Make and keep a small picture of a job's source; see `_once`."""
        return self._once(
            source.source_id,
            find=lambda: self.find_of_source(source),
            make=lambda: self._still(store, source, SMALL),
            keep=lambda picture: self._keep(source, picture),
        )

    def _once(
        self,
        name: str,
        *,
        find: Callable[[], bytes],
        make: Callable[[], bytes],
        keep: Callable[[bytes], object],
    ) -> bytes:
        """Return the existing picture, or make and keep it; b"" if that fails.

        A failed picture is not tried again. Raises no HevcqError.
        """
        if name in self._failed:
            return b""
        if picture := find():
            return picture
        try:
            if picture := make():
                keep(picture)
                return picture
        except (HevcqError, OSError) as error:
            get_logger().info("no_picture", of=name, reason=str(error))
        self._failed.add(name)
        return picture

    def _still(self, store: Store, source: Source, width: int) -> bytes:
        stop = threading.Event()
        self._scratch.mkdir(parents=True, exist_ok=True)
        with store.stream(source, self._scratch, moved=lambda _n: None, stop=stop) as opened:
            return self._encoder.still(opened.location, width=width, stop=stop)

    def _place(self, source: Source) -> Path:
        return self._scratch / "sources" / f"{source.source_id}.jpg"

    def _keep(self, source: Source, picture: bytes) -> None:
        """Write the picture, and delete the oldest ones beyond MAX_KEPT."""
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
    """Return the key of a video's picture: beside the first profile's files, and deleted with them."""
    return f"{output_prefix(video, video.profiles[0])}.{POSTER}"


def _read(farm: VideoFarm, key: str) -> bytes:
    try:
        with farm.backend.store.open(key) as stream:
            picture = stream.read(MAX_PICTURE_BYTES + 1)
    except HevcqError:
        return b""
    return picture if len(picture) <= MAX_PICTURE_BYTES else b""


TEXTS_WAIT_S = 3.0
"""Seconds that a page waits while subtitles are read for the first time; the next page has them."""
MAX_TEXTS_BYTES = 64 << 20


class Texts(Frozen):
    """The subtitles and chapters of one rendition."""

    tracks: tuple[TextTrack, ...] = ()
    chapters: tuple[Chapter, ...] = ()


NONE = Texts()


class TextReader:
    """Reads texts of renditions in a thread, one rendition at a time; close it at the end.

    `scratch` is a folder for fetched files.
    """

    def __init__(self, encoder: Encoder, scratch: Path) -> None:
        self._encoder, self._scratch = encoder, scratch
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hevcq-web-texts")
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._under_way: dict[str, Future[Texts]] = {}
        self._failed: set[str] = set()

    def texts(self, farm: VideoFarm, video: Video, profile: str) -> Texts:
        """Return the texts of the profile's rendition; none if reading takes long or fails.

        This process does not retry a failed rendition. Raises no HevcqError.
        """
        try:
            ref = rendition(farm, video, profile)
            key = texts_key(video, profile, ref)
            if (texts := _read_texts(farm, key)) is not None:
                return texts
        except HevcqError:
            return NONE
        with self._lock:
            if key in self._failed or self._stop.is_set():
                return NONE
            future = self._under_way.get(key)
            if future is None:
                future = self._pool.submit(self._extract, farm, ref, key)
                self._under_way[key] = future
        try:
            return future.result(TEXTS_WAIT_S)
        except TimeoutError:
            return NONE

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _extract(self, farm: VideoFarm, ref: RenditionRef, key: str) -> Texts:
        texts, store = None, farm.backend.store
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            with store.stream_published(ref.key, self._scratch, stop=self._stop) as opened:
                tracks, chapters = self._encoder.texts(opened.location, stop=self._stop)
            texts = Texts(tracks=tuple(tracks), chapters=tuple(chapters[:MAX_CHAPTERS]))
            store.put(key, texts.model_dump_json().encode(), metadata={})
        except (HevcqError, OSError) as error:
            get_logger().info("no_subtitles", key=ref.key, reason=str(error))
        with self._lock:
            self._under_way.pop(key, None)
            if texts is None:
                self._failed.add(key)
        return texts or NONE


def track(farm: VideoFarm, video: Video, profile: str, number: int) -> str:
    """Return a track as WebVTT, if `TextReader` has read it. Raises NoSuchVideo otherwise."""
    texts = _read_texts(farm, texts_key(video, profile, rendition(farm, video, profile)))
    if texts is None or number >= len(texts.tracks):
        raise NoSuchVideo("There are no such subtitles.")
    return texts.tracks[number].content


def texts_key(video: Video, profile: str, ref: RenditionRef) -> str:
    """Return the key of a rendition's texts: beside the profile's files, and deleted with them."""
    return f"{output_prefix(video, profile)}.{ref.sha256[:32]}.texts.json"


def _read_texts(farm: VideoFarm, key: str) -> Texts | None:
    try:
        with farm.backend.store.open(key) as stream:
            return Texts.model_validate_json(stream.read(MAX_TEXTS_BYTES))
    except (HevcqError, ValidationError):
        return None
