"""Media facts, plans and scanned videos for the tests of the ingest."""

from pathlib import Path

from hevcq.domain.media.facts import AudioFacts, MediaInfo, Stream, StreamKind, VideoFacts
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.library.scanning.scan import FoundVideo
from hevcq.ports.catalog import Fingerprint
from support.fakes.encoder import plain_plan


def media_info(
    *,
    width: int = 640,
    height: int = 360,
    seconds: float | None = 10.0,
    rate: str = "25/1",
    codec: str = "h264",
    format_name: str = "mov,mp4,m4a,3gp,3g2,mj2",
) -> MediaInfo:
    """Return the facts of a plain video with one video and one audio stream."""
    picture = VideoFacts(
        width=width, height=height, pixel_format="yuv420p", bit_depth=8, average_rate=rate
    )
    sound = AudioFacts(channels=2, layout="stereo", sample_rate=48000)
    return MediaInfo(
        format_name=format_name,
        duration_s=seconds,
        start_s=0.0,
        size=1_000_000,
        streams=(
            Stream(index=0, kind=StreamKind.VIDEO, codec=codec, video=picture),
            Stream(index=1, kind=StreamKind.AUDIO, codec="aac", audio=sound),
        ),
    )


def encode_plan(
    *, profile: str = "hevc", width: int = 640, height: int = 360, extension: str = "mp4"
) -> EncodePlan:
    """Return a plan that encodes the video stream and copies the sound."""
    return plain_plan(profile, "0" * 12, width=width, height=height, extension=extension)


def video(path: Path, *, root: Path | None = None, info: MediaInfo | None = None) -> FoundVideo:
    """Return a scanned video; the fingerprint is the file's own where it exists."""
    try:
        facts = path.stat()
        mark = Fingerprint(facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_dev)
    except FileNotFoundError:
        mark = Fingerprint(size=1000, mtime_ns=1, inode=1, device=1)
    return FoundVideo(
        path=path, root=root or path.parent, fingerprint=mark, info=info or media_info()
    )
