"""Facts of imagined files, in one line each, and the profiles that come with hevcq."""

from typing import Any

from hevcq.domain.media.facts import AudioFacts, Chapter, MediaInfo, Stream, StreamKind, VideoFacts
from hevcq.domain.profile import Profile
from hevcq.settings.profile_files import installed_folder, load_profile

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
MKV = "matroska,webm"
SHIPPED = sorted(path.stem for path in installed_folder().glob("*.yaml"))
"""Names of the profiles that come with hevcq."""


def profile(name: str = "hevc", **parts: dict[str, Any] | Any) -> Profile:
    """Return an installed profile; a dict changes keys of a part, anything else a whole key."""
    raw = load_profile(installed_folder() / f"{name}.yaml").model_dump(mode="json")
    for part, change in parts.items():
        raw[part] = {**raw[part], **change} if isinstance(change, dict) else change
    return Profile.model_validate(raw)


def video(width: int = 1920, height: int = 1080, **facts: Any) -> Stream:
    """Return an H.264 picture; `codec`, `tags` and the like belong to the stream."""
    facts.setdefault("pixel_format", "yuv420p")
    facts.setdefault("bit_depth", 8)
    own = {name: facts.pop(name) for name in list(facts) if name in Stream.model_fields}
    own.setdefault("codec", "h264")
    own.setdefault("dispositions", ("default",))
    return Stream(
        index=0,
        kind=own.pop("kind", StreamKind.VIDEO),
        video=VideoFacts(width=width, height=height, **facts),
        **own,
    )


def audio(codec: str = "aac", channels: int = 2, layout: str = "", **own: Any) -> Stream:
    """Return an audio stream."""
    facts = AudioFacts(channels=channels, layout=layout, sample_rate=48000)
    return Stream(index=0, kind=StreamKind.AUDIO, codec=codec, audio=facts, **own)


def subtitle(codec: str, **own: Any) -> Stream:
    """Return a subtitle stream."""
    return Stream(index=0, kind=StreamKind.SUBTITLE, codec=codec, **own)


def cover(codec: str = "mjpeg", **own: Any) -> Stream:
    """Return cover art."""
    own.setdefault("dispositions", ("attached_pic",))
    return video(640, 360, codec=codec, kind=StreamKind.PICTURE, **own)


def data(tag: str, **own: Any) -> Stream:
    """Return a data track."""
    return Stream(index=0, kind=StreamKind.DATA, codec="bin_data", codec_tag=tag, **own)


def attachment(name: str = "font.ttf") -> Stream:
    """Return an attached file."""
    tags = {"filename": name, "mimetype": "application/x-truetype-font"}
    return Stream(index=0, kind=StreamKind.ATTACHMENT, codec="ttf", tags=tags)


def media(*streams: Stream, form: str = MP4, chapters: int = 0, **own: Any) -> MediaInfo:
    """Return a file of these streams, numbered in order."""
    numbered = tuple(s.model_copy(update={"index": i}) for i, s in enumerate(streams))
    marks = tuple(Chapter(start_s=i, end_s=i + 1.0, title=f"C{i}") for i in range(chapters))
    own.setdefault("duration_s", 60.0)
    if form == MP4:
        own["tags"] = {"major_brand": "isom"} | own.get("tags", {})
    return MediaInfo(format_name=form, streams=numbered, chapters=marks, **own)
