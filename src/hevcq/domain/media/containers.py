"""List the containers that are read, choose a rendition's, and state the codecs each can hold.

Each table was tested with ffmpeg 5.1 by copying a stream of the codec into the container with
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
"""Demuxers that read exactly one file: no playlist, pattern, device or filter."""

MP4 = "mp4"
MOV = "mov"
MATROSKA = "matroska"
EXTENSIONS = {MP4: "mp4", MOV: "mov", MATROSKA: "mkv"}

_PCM = frozenset(
    f"pcm_{kind}"
    for kind in ("s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f64le", "u8")
)
AUDIO: dict[str, frozenset[str]] = {
    MP4: frozenset({"aac", "ac3", "eac3", "alac", "opus", "mp3", "mp2", "dts", "flac"}),
    MOV: frozenset({"aac", "ac3", "eac3", "alac", "mp3", "mp2"}) | (_PCM - {"pcm_f64le"}),
    MATROSKA: frozenset(
        {"aac", "ac3", "eac3", "alac", "opus", "mp3", "mp2", "dts", "flac", "vorbis", "truehd"}
        | {"mlp", "tta", "wavpack"}
        | (_PCM - {"pcm_s24be", "pcm_s32be"})
    ),
}
"""Audio codecs that are copied; not TrueHD in MP4, which is experimental in ffmpeg 5.1."""
EXPERIMENTAL = frozenset({(MP4, "flac")})
"""Codecs that ffmpeg 5.1 writes only when experiments are allowed; version 6.0 calls this one stable."""
READ_AS = {(MP4, "mp2"): "mp3"}
"""Codecs that a container records under another's name: MP4 has one object type for MPEG-1 audio of
layers 2 and 3, and every decoder of layer 3 decodes layer 2 (ISO/IEC 14496-1, object type 0x6B)."""

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
"""Target codec of converted text subtitles, as ffprobe names it, and the ffmpeg encoder for it."""

PICTURES: dict[str, frozenset[str]] = {
    MP4: frozenset({"mjpeg", "png"}),
    MOV: frozenset(),
    MATROSKA: frozenset({"mjpeg", "png", "gif", "bmp", "webp", "tiff"}),
}
"""Codecs of cover art. ffmpeg writes none in MOV; in Matroska it is an attached file."""

DATA_TAGS: dict[str, frozenset[str]] = {
    MP4: frozenset({"gpmd"}),
    MOV: frozenset({"gpmd"}),
    MATROSKA: frozenset(),
}
"""Data tracks that the muxer can copy, by codec tag (GoPro's telemetry)."""

REMADE_TAGS = frozenset({"tmcd", "text"})
"""Data tracks that the MP4 muxer itself writes again: the time code and the chapter titles."""


def demuxers(info: MediaInfo) -> frozenset[str]:
    """Return the names of the file's demuxer."""
    return frozenset(name for name in info.format_name.split(",") if name)


def readable(info: MediaInfo) -> bool:
    """Return whether the file's demuxer can read only the file itself."""
    names = demuxers(info)
    return bool(names) and names <= READABLE


def target_container(wanted: Container, info: MediaInfo) -> str:
    """Return the muxer of the rendition: mp4, mov or matroska.

    `source` keeps MP4 and MOV (distinguished by the brand, because they share a demuxer) and gives
    Matroska for everything else. A file without a brand is QuickTime: it had no brand before MP4
    (https://developer.apple.com/documentation/quicktime-file-format/file_type_compatibility_atom).
    """
    if wanted is Container.MP4:
        return MP4
    if wanted is Container.SOURCE and "mp4" in demuxers(info):
        return MOV if info.tags.get("major_brand", "").strip() in {"", "qt"} else MP4
    return MATROSKA


def is_mp4_family(muxer: str) -> bool:
    """Return whether the muxer is of the MP4 family, which needs codec tags and an index."""
    return muxer in {MP4, MOV}
