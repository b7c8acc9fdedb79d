"""Rules of uploaded videos: keys, names, the state that follows from jobs, and what to do about failures."""

import mimetypes
import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import quote

from hevcq.domain.job import JobState
from hevcq.domain.keys import OUTBOX, UPLOADS
from hevcq.domain.verdict import FailureClass
from hevcq.domain.videos.record import Video, VideoRendition, VideoStatus, one_line

SAFE_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
VIDEO_TYPE = re.compile(r"video/[A-Za-z0-9.+-]{1,80}")
UNKNOWN_TYPE = "video/unknown"
TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4s": "video/iso.segment",
    ".vtt": "text/vtt; charset=utf-8",
    ".jpg": "image/jpeg",
    ".json": "application/json",
}
"""Media types of what hevcq itself makes; anything else is bytes."""
OCTETS = "application/octet-stream"

REMEDIES: dict[FailureClass, str] = {
    FailureClass.DAMAGED: "Upload an intact copy of the video.",
    FailureClass.UNREADABLE: "Upload a file that is a video; this one is not, or cannot be opened.",
    FailureClass.UNSUPPORTED: "Choose another format, or upload the video in another form.",
    FailureClass.GONE: "Upload the video again.",
    FailureClass.CHANGED: "Upload the video again, and leave it alone until it is done.",
    FailureClass.REVIEW: "Ask an operator to look at it.",
    FailureClass.CANCELLED: "Retry it if you want it after all.",
    FailureClass.LIMIT: "Retry it, or upload a shorter or smaller version.",
    FailureClass.DISK: "Ask an operator for free disk space, then retry.",
    FailureClass.NETWORK: "Retry it.",
}
"""What the owner of a video can do about a failure, by its class."""
OTHERWISE = "Retry it; if it fails again, tell an operator."


def remedy_of(failure_class: FailureClass | None) -> str:
    return "" if failure_class is None else REMEDIES.get(failure_class, OTHERWISE)


def suffix_of(name: str) -> str:
    """Return a file name's suffix in lower case, or "" if it is none that a key should have."""
    suffix = PurePosixPath(name).suffix
    return suffix.lower() if SAFE_SUFFIX.fullmatch(suffix) else ""


def raw_key(video: Video) -> str:
    """Return the key of the uploaded file: nothing in it but a suffix comes from the uploader."""
    return f"{UPLOADS}/{video.video_id}{suffix_of(video.upload.name)}"


def output_prefix(video: Video, profile: str) -> str:
    """Return what the keys of everything that a profile published of the video begin with."""
    return f"{OUTBOX}/{profile}/{UPLOADS}/{video.video_id}"


def own_name(video: Video, words: str) -> str:
    """Return a sentence about the uploaded file with its name on its owner's machine.

    Workers know it by a path of the server, which says nothing to whoever uploaded it.
    """
    name = one_line(video.upload.name, 100)
    path = rf"(?:(?<!\S)/[^:]*?)?\S*{video.video_id}(?:\.[A-Za-z0-9]{{1,8}})?"
    return re.sub(path, lambda _found: name, words)


def claimed_type(claim: str, name: str) -> str:
    """Return the media type to sign an upload for: the claimed or guessed one if it is a video's."""
    for each in (claim, mimetypes.guess_type(name)[0] or ""):
        if VIDEO_TYPE.fullmatch(each):
            return each.lower()
    return UNKNOWN_TYPE


def media_type(key: str) -> str:
    """Return the type that a published file is served as, by the suffix that hevcq gave it."""
    return TYPES.get(PurePosixPath(key).suffix.lower(), OCTETS)


def download_name(video: Video, profile: str, key: str) -> str:
    """Return the name under which a rendition is saved: its title, its profile and its suffix."""
    stem = re.sub(r'[/\\:*?"<>|]+', "_", one_line(video.title, 120)).strip(". ") or "video"
    return f"{stem} ({profile}){suffix_of(key)}"


def disposition(name: str, *, attachment: bool) -> str:
    """Return the value of Content-Disposition for a file name of any characters (RFC 6266, RFC 5987)."""
    plain = "".join(
        c if c.isascii() and c.isprintable() and c not in '"\\%;' else "_" for c in name
    )
    kind = "attachment" if attachment else "inline"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def make_slug(title: str, chance: bytes) -> str:
    """Return the address of a public video: words of its title and 80 random bits."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-")
    digits = int.from_bytes(chance[:10].rjust(10, b"\0"))
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    tail = "".join(alphabet[digits >> shift & 31] for shift in range(75, -1, -5))
    return f"{words}-{tail}" if words else tail


def standing(
    profiles: Sequence[str], settled: Sequence[VideoRendition]
) -> tuple[VideoStatus, VideoRendition | None]:
    """Return the state that a checked video has, and the rendition that explains it.

    It is processing until every profile's job settled, then failed if any failed. A video that
    every profile skipped is done, and explained by the first skip.
    """
    if {each.profile for each in settled} != set(profiles):
        return VideoStatus.PROCESSING, None
    failed = [each for each in settled if each.state is JobState.DEAD]
    if failed:
        return VideoStatus.FAILED, failed[0]
    made = any(each.state is JobState.DONE for each in settled)
    return VideoStatus.DONE, None if made else settled[0]
