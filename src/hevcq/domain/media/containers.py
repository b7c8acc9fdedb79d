"""Which containers are read, which one a rendition gets, and what each can hold.

Each table was tried with ffmpeg 5.1 by copying a stream of the codec into the container under
`-xerror`; see https://ffmpeg.org/ffmpeg-formats.html for the muxers.
"""

from __future__ import annotations

from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.profile import Container

READABLE = frozenset(
    {
        "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg",
        "flv", "asf", "mxf", "ogg", "dv", "gxf", "nut", "wtv", "rm", "ivf", "aac", "mp3", "flac",
        "wav", "nsv", "roq", "3dostr", "bink", "swf",
    }
)  # fmt: skip
"""Demuxers that read one file and nothing else: no playlist, no pattern, no device, no filter."""

MP4 = "mp4"
MOV = "mov"
MATROSKA = "matroska"
EXTENSIONS = {MP4: "mp4", MOV: "mov", MATROSKA: "mkv"}

_PCM = frozenset(
    f"pcm_{kind}"
    for kind in ("s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f64le", "u8")
)
AUDIO: dict[str, frozenset[str]] = {
    MP4: frozenset({"aac", "ac3", "eac3", "alac", "opus", "mp3", "mp2", "dts"}),
    MOV: frozenset({"aac", "ac3", "eac3", "alac", "mp3", "mp2"}) | (_PCM - {"pcm_f64le"}),
    MATROSKA: frozenset(
        {"aac", "ac3", "eac3", "alac", "opus", "mp3", "mp2", "dts", "flac", "vorbis", "truehd"}
        | {"mlp", "tta", "wavpack"}
        | (_PCM - {"pcm_s24be", "pcm_s32be"})
    ),
}
"""Audio that is copied. FLAC and TrueHD in MP4 are experimental in ffmpeg 5.1, so they are not."""

TEXT_SUBTITLES = frozenset(
    {"subrip", "ass", "ssa", "webvtt", "mov_text", "text", "srt", "eia_608", "microdvd", "sami"}
)
PICTURE_SUBTITLES = frozenset(
    {"hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle", "xsub", "dvb_teletext"}
)
SUBTITLES: dict[str, frozenset[str]] = {
    MP4: frozenset({"mov_text"}),
    MOV: frozenset({"mov_text"}),
    MATROSKA: frozenset(
        {"subrip", "ass", "ssa", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"}
    ),
}
SUBTITLE_ENCODERS = {MP4: ("mov_text", "mov_text"), MOV: ("mov_text", "mov_text"),
                     MATROSKA: ("subrip", "srt")}  # fmt: skip
"""What text is converted to, as ffprobe names the codec, and the ffmpeg encoder that makes it."""

PICTURES: dict[str, frozenset[str]] = {
    MP4: frozenset({"mjpeg", "png"}),
    MOV: frozenset(),
    MATROSKA: frozenset({"mjpeg", "png", "gif", "bmp", "webp", "tiff"}),
}
"""Cover art. In MOV ffmpeg writes none; in Matroska it is an attached file."""

DATA_TAGS: dict[str, frozenset[str]] = {
    MP4: frozenset({"gpmd"}),
    MOV: frozenset({"gpmd"}),
    MATROSKA: frozenset(),
}
"""Data tracks that the muxer can copy, by codec tag (GoPro's telemetry)."""

REMADE_TAGS = frozenset({"tmcd", "text"})
"""Data tracks that the MP4 muxer writes anew itself: the time code, and the chapter titles."""


def demuxers(info: MediaInfo) -> frozenset[str]:
    """Return the names of the demuxer that reads the file."""
    return frozenset(name for name in info.format_name.split(",") if name)


def readable(info: MediaInfo) -> bool:
    """Whether the demuxer is one that can only read the file itself."""
    names = demuxers(info)
    return bool(names) and names <= READABLE


def target_container(wanted: Container, info: MediaInfo) -> str:
    """Return the muxer of the rendition: mp4, mov or matroska.

    `source` keeps MP4 and MOV (told apart by the brand, for they share a demuxer) and makes
    Matroska of everything else. A file without a brand is QuickTime's: it had none before MP4
    (https://developer.apple.com/documentation/quicktime-file-format/file_type_compatibility_atom).
    """
    if wanted is Container.MP4:
        return MP4
    if wanted is Container.SOURCE and "mp4" in demuxers(info):
        return MOV if info.tags.get("major_brand", "").strip() in {"", "qt"} else MP4
    return MATROSKA


def is_mp4_family(muxer: str) -> bool:
    """Whether the muxer is of the MP4 family, which needs codec tags and an index."""
    return muxer in {MP4, MOV}
