"""Addresses of a video's files, and what a player may play of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from hevcq.domain.job import JobState
from hevcq.domain.profile import Profile, VideoCodec
from hevcq.domain.verdict import FailureClass
from hevcq.domain.videos.record import Video
from hevcq.domain.videos.rules import media_type
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.follow import ProfileRow
from hevcq.usecases.videos.picture import PLAYLIST
from hevcq.usecases.videos.playback import (
    ORIGINAL,
    PLAYABLE,
    PlayerChapter,
    chapters_of_set,
    part_of_set,
)
from hevcq.usecases.videos.texts import Texts
from hevcq.util.text import printable

CODECS = {VideoCodec.H264: "avc1.640028", VideoCodec.HEVC: "hvc1.1.6.L120.B0"}
"""What a `<source>` says it is, so that a browser leaves out what it cannot decode."""


@dataclass(frozen=True, slots=True)
class Track:
    """Subtitles that a player of a file may show; `kind` is HTML's."""

    address: str
    language: str
    name: str
    kind: str = "subtitles"


@dataclass(frozen=True, slots=True)
class Playing:
    """What a player gets: the playlist of an HLS set if there is one, and files, best first."""

    playlist: str
    files: Sequence[tuple[str, str]]
    storyboard: str = ""
    chapters: Sequence[PlayerChapter] = ()
    tracks: Sequence[Track] = ()
    profile: str = ""
    """Of the first file where no set is played: its subtitles and chapters are shown."""

    def __bool__(self) -> bool:
        """Return whether there is anything to play."""
        return bool(self.playlist or self.files)

    @property
    def kind(self) -> str:
        """Return `playlist`, `file` or `none`."""
        return "playlist" if self.playlist else "file" if self.files else "none"


def media_base(video: Video, *, public: bool = False) -> str:
    """Return the address below which a video's files are: by its slug where nobody signed in."""
    return f"/p/{video.slug}/media" if public else f"/media/{video.video_id}"


def file_address(base: str, profile: str, key: str, *, download: bool = False) -> str:
    """Return the address of a published file."""
    name = quote(key.rpartition("/")[2], safe="")
    return f"{base}/{profile}/{name}{'?download=1' if download else ''}"


def original_address(base: str, video: Video, *, download: bool = False) -> str:
    """Return the address of the uploaded file, or "" if it is not kept."""
    if video.source is None or not video.raw_kept or video.raw_leaving:
        return ""
    return file_address(base, ORIGINAL, video.source.key, download=download)


def playing(
    base: str, video: Video, rows: Sequence[ProfileRow], profiles: Mapping[str, Profile]
) -> Playing:
    """Return what can be played of a video by now: H.264 before HEVC, large before small.

    The uploaded file comes last: it may be all that a browser can play, where a profile skipped it
    because it is what the profile makes already.
    """
    done = [row for row in rows if row.state is JobState.DONE and row.key]
    lists = [row for row in done if row.key.endswith(PLAYLIST)]
    files = [row for row in done if media_type(row.key) in PLAYABLE]

    def rank(row: ProfileRow) -> tuple[bool, int]:
        profile = profiles.get(row.profile)
        codec = profile.video.codec if profile else None
        return codec is not VideoCodec.H264, -((profile and profile.video.max_height) or 10_000)

    found = [
        (file_address(base, row.profile, row.key), _type(row, profiles.get(row.profile)))
        for row in sorted(files, key=rank)
    ]
    shared = video.public_original or base == media_base(video)
    original = original_address(base, video) if shared and not _is_none(rows) else ""
    if original and video.source is not None and media_type(video.source.key) in PLAYABLE:
        found.append((original, media_type(video.source.key)))
    if not lists:
        best = min(files, key=rank, default=None)
        return Playing("", found, profile=best.profile if best else "")
    return Playing(file_address(base, lists[0].profile, lists[0].key), found)


def _is_none(rows: Sequence[ProfileRow]) -> bool:
    """Return whether no format found a video in the uploaded file."""
    return bool(rows) and all(row.failure_class is FailureClass.UNREADABLE for row in rows)


def with_set(what: Playing, base: str, rows: Sequence[ProfileRow], farm: VideoFarm) -> Playing:
    """Add storyboard and chapters of the set that is played; its certificate says where they are."""
    for row in rows:
        if what.playlist and what.playlist == file_address(base, row.profile, row.key):
            key = part_of_set(farm, row.key, row.certificate_key, "storyboard.vtt")
            within = key.removeprefix(row.key.rpartition("/")[0] + "/")
            board = f"{base}/{row.profile}/{quote(within)}" if key else ""
            chapters = chapters_of_set(farm, row.key, row.certificate_key)
            return replace(what, storyboard=board, chapters=chapters)
    return what


def with_texts(what: Playing, base: str, held: Texts) -> Playing:
    """Add subtitles and chapters of the file that is played."""
    tracks = []
    for number, each in enumerate(held.tracks):
        name = each.title or each.language or f"Subtitles {number + 1}"
        named = f"{name} (forced)" if each.forced and "forced" not in name.lower() else name
        kind = "captions" if each.captions else "subtitles"
        address = f"{base}/{what.profile}/texts/{number}.vtt"
        tracks.append(Track(address, each.language, printable(named), kind))
    return replace(what, tracks=tracks, chapters=held.chapters)


def _type(row: ProfileRow, profile: Profile | None) -> str:
    if row.key.lower().endswith(".webm"):
        return "video/webm"
    codec = CODECS.get(profile.video.codec) if profile else None
    return f'video/mp4; codecs="{codec}"' if codec else "video/mp4"
