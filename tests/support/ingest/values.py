"""Media facts, plans and scanned videos for the tests of the ingest."""

from pathlib import Path

from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.library.scanning.scan import FoundVideo
from hevcq.ports.catalog import Fingerprint
from support import media_facts as facts
from support.fakes.encoder import plain_plan


def media_info(
    *,
    width: int = 640,
    height: int = 360,
    seconds: float | None = 10.0,
    rate: str = "25/1",
) -> MediaInfo:
    """Return the facts of a plain video with one video and one audio stream."""
    picture = facts.video(width, height, average_rate=rate)
    own = {"duration_s": seconds, "start_s": 0.0, "size": 1_000_000}
    return facts.media(picture, facts.audio(layout="stereo"), **own)


def encode_plan(
    *, profile: str = "hevc", width: int = 640, height: int = 360, extension: str = "mp4"
) -> EncodePlan:
    """Return a plan that encodes the video stream and copies the sound."""
    return plain_plan(profile, "0" * 12, width=width, height=height, extension=extension)


def video(path: Path, *, root: Path | None = None, info: MediaInfo | None = None) -> FoundVideo:
    """Return a scanned video; the fingerprint is the file's own where it exists."""
    try:
        seen = path.stat()
        mark = Fingerprint(seen.st_size, seen.st_mtime_ns, seen.st_ino, seen.st_dev)
    except FileNotFoundError:
        mark = Fingerprint(size=1000, mtime_ns=1, inode=1, device=1)
    return FoundVideo(
        path=path, root=root or path.parent, fingerprint=mark, info=info or media_info()
    )
