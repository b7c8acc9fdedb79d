"""Find the published files of a video that may be played or saved: a rendition, or the files of a set."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hevcq.domain.job import JobState, RenditionRef, job_id
from hevcq.domain.model import Frozen
from hevcq.domain.videos.record import Video
from hevcq.domain.videos.rules import OCTETS, download_name, media_type
from hevcq.errors import HevcqError, NoSuchVideo
from hevcq.usecases.videos.context import VideoFarm

PLAYLIST = media_type("a.m3u8")
ORIGINAL = "original"
"""The name of the uploaded file among a video's formats; a profile of that name comes first."""
PLAYABLE = frozenset({"video/mp4", "video/webm", "video/quicktime"})
"""Types of files that a browser may play; an uploaded file of any other is saved to disk."""


MAX_CHAPTERS_BYTES = 1 << 20
MAX_CHAPTERS = 500


class PlayerChapter(Frozen):
    """Where a chapter begins, in seconds of the video, and its title."""

    start_s: float
    title: str


@dataclass(frozen=True, slots=True)
class PlayFile:
    """A published file; `tag` is the same as long as its bytes are.

    `at` is its path, a signed address of the store that serves it, or its bytes (of a playlist).
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

    A playlist has no address: its relative names would be resolved beside the signed one, where
    nothing is signed. Raises NoSuchVideo if the video has no such file.
    """
    if profile == ORIGINAL and profile not in farm.profiles:
        return _original(farm, video, name, attachment=attachment)
    made = rendition(farm, video, profile)
    folder, _, own = made.key.rpartition("/")
    if name != own and name not in _others(farm, made):
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
    """Return the uploaded file while it is kept, under the type of its suffix.

    What it holds is its uploader's, so only a video's type is ever shown by a browser.
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
    """Return what a profile published, by the ledger, else by the record. Raises NoSuchVideo.

    A job that is being made again still has its earlier rendition in the record.
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
    """Raise NoSuchVideo unless whoever knows the slug may have this format, as it is now."""
    if profile == ORIGINAL and profile not in farm.profiles:
        shared = video.public_original
    else:
        sha256 = rendition(farm, video, profile).sha256
        mine = (each for each in video.made if (each.profile, each.sha256) == (profile, sha256))
        shared = any(map(video.shares, mine))
    if not shared:
        raise NoSuchVideo("There is no such file.")


def part_of_set(farm: VideoFarm, master: str, certificate: str, name: str) -> str:
    """Return the key of a set's file of this name, e.g. its storyboard, or "" if it has none.

    A set keeps its files in a folder of its version, which its certificate names.
    """
    proof, folder = farm.certificate(certificate), master.rpartition("/")[0]
    files = proof.files if proof else ()
    found = (each.name for each in files if each.name.rpartition("/")[2] == name)
    return next((f"{folder}/{each}" for each in found), "")


def chapters_of_set(farm: VideoFarm, master: str, certificate: str) -> tuple[PlayerChapter, ...]:
    """Return the chapters of a set in their order; none if it has none, or they cannot be read."""
    key = part_of_set(farm, master, certificate, "chapters.json")
    if not key:
        return ()
    try:
        with farm.backend.store.open(key) as stream:
            found = json.loads(stream.read(MAX_CHAPTERS_BYTES))
        marks = [_mark(each) for each in found[:MAX_CHAPTERS]]
    except (HevcqError, OSError, ValueError, KeyError, TypeError, IndexError):
        return ()
    return tuple(sorted(marks, key=lambda mark: mark.start_s))


def _mark(entry: dict[str, Any]) -> PlayerChapter:
    start_s = float(entry["start-time"])
    if not math.isfinite(start_s):
        raise ValueError("no time")
    return PlayerChapter(start_s=max(0.0, start_s), title=str(entry["titles"][0]["title"]))


def _others(farm: VideoFarm, made: RenditionRef) -> frozenset[str]:
    """Return the names of the other files of a set; its certificate lists them."""
    if media_type(made.key) != PLAYLIST:
        return frozenset()
    proof = farm.certificate(made.certificate_key)
    return frozenset(each.name for each in proof.files) if proof else frozenset()
