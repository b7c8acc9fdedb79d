"""List file suffixes and readable containers, choose a rendition's container, and state what each can hold.

Each table of codecs was tested with ffmpeg 5.1 by copying a stream of the codec into the container with
`-xerror`; see https://ffmpeg.org/ffmpeg-formats.html for the muxers.
"""

from hevcq.domain.formats import Container
from hevcq.domain.media.facts import MediaInfo

READABLE = frozenset(
    {
        "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg",
        "flv", "asf", "mxf", "ogg", "dv", "gxf", "nut", "wtv", "rm", "ivf", "aac", "mp3", "flac",
        "wav", "nsv", "roq", "3dostr", "bink", "swf",
    }
)  # fmt: skip
"""Demuxers that read exactly one file: no playlist, pattern, device or filter."""

_VIDEO_SUFFIXES = (
    "360 3g2 3gp amv asf avi divx dv dvr-ms evo f4v flv gxf h264 h265 hevc insv ivf lrv m1v m2p m2t "
    "m2ts m2v m4v mjpeg mjpg mkv mod mov mp4 mp4v mpe mpeg mpg mpv mts mxf nsv nut nuv obu ogm ogv "
    "pmp qt rm rmvb rv tod tp trp ts vob vro webm wm wmv wtv xvid y4m"
)
VIDEO_SUFFIXES = frozenset(_VIDEO_SUFFIXES.split())
"""File suffixes that a scan probes: those of ffmpeg's video demuxers
(https://ffmpeg.org/ffmpeg-formats.html) and of cameras and recorders."""
_OTHERS = (
    "7z aac ac3 ape ass aup bak bif bmp bz2 cbr cbz cr2 cr3 csv db dmg dng doc docx dts epub exe flac "
    "gif gz heic htm html idx jar jpeg jpg json log lrf m3u m3u8 m4a m4b mka mks mobi mp2 mp3 msi nef "
    "nfo odt oga ogg opus par2 pdf png pptx psd rar raw sqlite srt ssf ssa sub sup tar tgz thm tif "
    "tiff torrent txt vtt wav webp wma wv xlsx xml xz zip"
)
OTHER_SUFFIXES = frozenset(_OTHERS.split())
"""File suffixes that never belong to videos; a scan ignores them silently."""
_UNFINISHED = (
    "!qb !ut aria2 bc! crdownload download fdmdownload filepart opdownload part partial td tmp"
    " unfinished ytdl"
)
UNFINISHED_SUFFIXES = frozenset(_UNFINISHED.split())
"""Suffixes that browsers, torrent and file-transfer programs append to a file until it is complete."""

MP4 = "mp4"
MOV = "mov"
MATROSKA = "matroska"
WEBM = "webm"
OGG = "ogg"
AVI = "avi"
HLS = "hls"
"""Not a muxer but a key of the subtitle tables: a set holds subtitles as WebVTT files."""
EXTENSIONS = {MP4: "mp4", MOV: "mov", MATROSKA: "mkv", WEBM: "webm", OGG: "ogv", AVI: "avi"}
NAMES = {
    MP4: "MP4",
    MOV: "MOV",
    MATROSKA: "Matroska",
    WEBM: "WebM",
    OGG: "Ogg",
    AVI: "AVI",
    HLS: "HLS",
}
DEMUXERS = {MP4: "mov", MOV: "mov", MATROSKA: "matroska", WEBM: "matroska", OGG: "ogg", AVI: "avi"}
"""First name of the demuxer that reads what a muxer wrote."""

_PCM = frozenset(
    f"pcm_{kind}"
    for kind in ("s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f64le", "u8")
)
VIDEO: dict[str, frozenset[str]] = {
    MP4: frozenset({"hevc", "h264", "av1", "vp9", "mpeg4"}),
    MOV: frozenset({"hevc", "h264", "mpeg4"}),
    MATROSKA: frozenset({"hevc", "h264", "av1", "vp9", "vp8", "mpeg4", "theora", "mpeg2video"}),
    WEBM: frozenset({"av1", "vp9", "vp8"}),
    OGG: frozenset({"theora"}),
    AVI: frozenset({"mpeg4"}),
}
"""Video codecs to encode or copy into a container; ffmpeg does not write AV1 or VP9 into MOV."""
AUDIO: dict[str, frozenset[str]] = {
    MP4: frozenset({"aac", "ac3", "eac3", "alac", "opus", "mp3", "mp2", "dts", "flac"}),
    MOV: frozenset({"aac", "ac3", "eac3", "alac", "mp3", "mp2"}) | (_PCM - {"pcm_f64le"}),
    MATROSKA: frozenset(
        {"aac", "ac3", "eac3", "alac", "opus", "mp3", "mp2", "dts", "flac", "vorbis", "truehd"}
        | {"mlp", "tta", "wavpack"}
        | (_PCM - {"pcm_s24be", "pcm_s32be"})
    ),
    WEBM: frozenset({"opus", "vorbis"}),
    OGG: frozenset({"vorbis"}),
    AVI: frozenset({"mp3"}),
}
"""Audio codecs to copy into a container. Not TrueHD in MP4, which is experimental in ffmpeg 5.1, nor
AC-3 in AVI, whose packets `-xerror` refuses ("Non-monotonous DTS")."""
EXPERIMENTAL = frozenset({(MP4, "flac")})
"""Codecs that ffmpeg 5.1 writes only with `-strict experimental`; for 6.0 this one is stable."""
READ_AS = {(MP4, "mp2"): "mp3", (MATROSKA, "mp3"): "mp2"}
"""Codecs that a container stores under another codec's name. MP4 has one object type for MPEG-1 audio
layers 2 and 3, and every layer 3 decoder decodes layer 2 (ISO/IEC 14496-1, object type 0x6B). Copied
from MP4 to Matroska it is labelled layer 3, and ffmpeg's reader detects the actual layer."""

TEXT_SUBTITLES = frozenset(
    {"subrip", "ass", "ssa", "webvtt", "mov_text", "text", "srt", "eia_608", "microdvd", "sami"}
)
TELETEXT = "dvb_teletext"
"""Pages of text and subtitles of a broadcast, which only transport streams hold."""
SUBTITLES: dict[str, frozenset[str]] = {
    MP4: frozenset({"mov_text"}),
    MOV: frozenset({"mov_text"}),
    MATROSKA: frozenset(
        {"subrip", "ass", "ssa", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"}
    ),
    WEBM: frozenset({"webvtt"}),
}
"""Subtitle codecs to copy into a container; one that is not listed holds none."""
SUBTITLE_ENCODERS = {MP4: ("mov_text", "mov_text"), MOV: ("mov_text", "mov_text"),
                     MATROSKA: ("subrip", "srt"), WEBM: ("webvtt", "webvtt"), HLS: ("webvtt", "webvtt")}  # fmt: skip
"""Target codec of converted text subtitles, as ffprobe names it, and the ffmpeg encoder for it."""

PICTURES: dict[str, frozenset[str]] = {
    MP4: frozenset({"mjpeg", "png"}),
    MATROSKA: frozenset({"mjpeg", "png", "gif", "bmp", "webp", "tiff"}),
}
"""Codecs of cover art. ffmpeg writes none in MOV; in Matroska it is an attached file."""

CHAPTERED = frozenset({MP4, MOV, MATROSKA, WEBM})
"""Muxers whose chapters a demuxer can read."""
LABELLED = frozenset({MP4, MOV, MATROSKA, WEBM, OGG})
"""Muxers that write the language of a track."""
MARKS = frozenset(
    {
        "forced", "comment", "hearing_impaired", "visual_impaired", "original", "dub", "captions",
        "descriptions",
    }
)  # fmt: skip
FLAGS: dict[str, frozenset[str]] = {
    MATROSKA: MARKS - {"captions", "descriptions"} | {"default"},
    WEBM: frozenset({"default", "forced"}),
    MP4: MARKS - {"original"} | {"default"},
    MOV: frozenset({"default"}),
}
"""Dispositions that a container can store (tested with ffmpeg 5.1)."""
SAME_MARK = {"captions": "hearing_impaired", "descriptions": "visual_impaired"}
"""Dispositions that MP4 stores as one mark: ffmpeg 5.1 reads a track written with either as both."""
SEAMLESS = frozenset({OGG, AVI})
"""Muxers that count samples instead of storing timestamps: a late sound needs leading silence, and its
gaps must be filled."""
TAGS: dict[str, frozenset[str]] = {
    AVI: frozenset({"title", "artist", "comment", "copyright", "date", "genre", "album"})
}
"""The only tags that a container stores; a container not listed stores any tag."""

DATA_TAGS: dict[str, frozenset[str]] = {MP4: frozenset({"gpmd"}), MOV: frozenset({"gpmd"})}
"""Data tracks that the muxer can copy, by codec tag (GoPro's telemetry)."""

REMADE_TAGS = frozenset({"tmcd", "text"})
"""Data tracks that the MP4 muxer recreates: the time code and the chapter titles."""


def demuxers(info: MediaInfo) -> frozenset[str]:
    return frozenset(name for name in info.format_name.split(",") if name)


def readable(info: MediaInfo) -> bool:
    names = demuxers(info)
    return bool(names) and names <= READABLE


def target_container(wanted: Container, info: MediaInfo) -> str:
    """Return the muxer of the rendition.

    `source` keeps MP4 and MOV and makes everything else Matroska. The brand tells MP4 from MOV, which
    share a demuxer. A file without a brand is QuickTime, which had no brand before MP4
    (https://developer.apple.com/documentation/quicktime-file-format/file_type_compatibility_atom).
    """
    if wanted not in {Container.SOURCE, Container.MKV}:
        return wanted.value
    if wanted is Container.SOURCE and "mp4" in demuxers(info):
        return MOV if info.tags.get("major_brand", "").strip() in {"", "qt"} else MP4
    return MATROSKA


def is_matroska_family(muxer: str) -> bool:
    return muxer in {MATROSKA, WEBM}


def is_mp4_family(muxer: str) -> bool:
    return muxer in {MP4, MOV}
