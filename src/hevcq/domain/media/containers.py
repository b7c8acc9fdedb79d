"""List the containers that are read, choose a rendition's, and state what each can hold.

Codecs: each table was tested with ffmpeg 5.1 by copying a stream of the codec into the container with
`-xerror`; see https://ffmpeg.org/ffmpeg-formats.html for the muxers.

Tags and other metadata: boxes of an MP4 or MOV are carried into a rendition of the same family as they
are, and tags that plain MP4 has no place for become iTunes' free-form entries. What has no place in the
rendition is a loss, which `policies.metadata` names, accepts or refuses.

The provenance tag names profile and revision, so that hevcq recognises its own files. Matroska and MOV
hold a tag named `hevcq`. Plain MP4 keeps only the tags that iTunes defines, so its mark is the "encoding
tool", which ffprobe reports as `encoder`. AVI's is `encoded_by`, and Ogg's tags are those of its streams.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hevcq.domain.formats.video import Container
from hevcq.domain.media.facts import MediaInfo, MetadataItem
from hevcq.util.text import counted

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
WEBM = "webm"
OGG = "ogg"
AVI = "avi"
EXTENSIONS = {MP4: "mp4", MOV: "mov", MATROSKA: "mkv", WEBM: "webm", OGG: "ogv", AVI: "avi"}
NAMES = {MP4: "MP4", MOV: "MOV", MATROSKA: "Matroska", WEBM: "WebM", OGG: "Ogg", AVI: "AVI"}
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
"""Video codecs that are made or copied into a container; ffmpeg writes AV1 and VP9 into no MOV."""
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
"""Audio codecs that are copied; not TrueHD in MP4, which is experimental in ffmpeg 5.1, nor AC-3 in
AVI, whose packets `-xerror` refuses ("Non-monotonous DTS")."""
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
    WEBM: frozenset({"webvtt"}),
    OGG: frozenset(),
    AVI: frozenset(),
}
SUBTITLE_ENCODERS = {MP4: ("mov_text", "mov_text"), MOV: ("mov_text", "mov_text"),
                     MATROSKA: ("subrip", "srt"), WEBM: ("webvtt", "webvtt")}  # fmt: skip
"""Target codec of converted text subtitles, as ffprobe names it, and the ffmpeg encoder for it."""

PICTURES: dict[str, frozenset[str]] = {
    MP4: frozenset({"mjpeg", "png"}),
    MOV: frozenset(),
    MATROSKA: frozenset({"mjpeg", "png", "gif", "bmp", "webp", "tiff"}),
    WEBM: frozenset(),
    OGG: frozenset(),
    AVI: frozenset(),
}
"""Codecs of cover art. ffmpeg writes none in MOV; in Matroska it is an attached file."""

CHAPTERED = frozenset({MP4, MOV, MATROSKA, WEBM})
"""Muxers that write chapters which demuxers read again."""
LABELLED = frozenset({MP4, MOV, MATROSKA, WEBM, OGG})
"""Muxers that write the language of a track."""
MARKS = frozenset({"forced", "comment", "hearing_impaired", "visual_impaired"})
FLAGS: dict[str, frozenset[str]] = {
    MATROSKA: MARKS | {"default"},
    WEBM: frozenset({"default", "forced"}),
    MP4: MARKS | {"default"},
    MOV: frozenset({"default"}),
}
"""Dispositions that a container can store (tested with ffmpeg 5.1)."""
SEAMLESS = frozenset({OGG, AVI})
"""Muxers that count samples instead of recording times: sound that begins late is led in by silence, and
gaps within it are filled."""
TAGS: dict[str, frozenset[str]] = {
    AVI: frozenset({"title", "artist", "comment", "copyright", "date", "genre", "album"})
}
"""The only tags that a container stores; one that is not listed stores any."""
LATE_SOUND_S = {AVI: 0.03}
"""Seconds by which encoded sound lies late, because a container cannot say what its encoder put in front
(LAME: 1,105 samples)."""

DATA_TAGS: dict[str, frozenset[str]] = {
    MP4: frozenset({"gpmd"}),
    MOV: frozenset({"gpmd"}),
    MATROSKA: frozenset(),
    WEBM: frozenset(),
    OGG: frozenset(),
    AVI: frozenset(),
}
"""Data tracks that the muxer can copy, by codec tag (GoPro's telemetry)."""

REMADE_TAGS = frozenset({"tmcd", "text"})
"""Data tracks that the MP4 muxer itself writes again: the time code and the chapter titles."""

PROVENANCE_KEY = "hevcq"
"""The tag that names profile and revision of a rendition."""
MOST_CARRIED = 100_000
"""Bytes of metadata that a rendition's index gets room for: the room is made by one argument of
ffmpeg's command, and Linux allows 131,072 bytes in an argument (MAX_ARG_STRLEN)."""
BRANDS = frozenset({"major_brand", "minor_version", "compatible_brands"})
_QUICKTIME = re.compile(r"^com\.(apple|android)\.")
"""Keys that exist only in QuickTime's own metadata table."""
_ITUNES = frozenset(
    {
        "title", "artist", "album_artist", "composer", "album", "date", "comment", "genre",
        "copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id",
        "network", "keywords", "location", "track", "disc", "compilation",
    }
)  # fmt: skip
"""Descriptive keys that a plain MP4 stores where players look for them."""
_NO_LOSS = frozenset(
    {"creation_time", "timecode", "encoder", "encoding_tool", PROVENANCE_KEY, *BRANDS}
)
"""Keys that are stored elsewhere or written anew."""
FREE_FORM_BYTES = 8 + 28 + 12 + 16
"""Bytes of a free-form entry without its key and value."""
_SHOWN = 5
_TOOL_KEYS = frozenset({"encoder", "encoding_tool", "encoded_by"})


def demuxers(info: MediaInfo) -> frozenset[str]:
    """Return the names of the file's demuxer."""
    return frozenset(name for name in info.format_name.split(",") if name)


def readable(info: MediaInfo) -> bool:
    """Return whether the file's demuxer can read only the file itself."""
    names = demuxers(info)
    return bool(names) and names <= READABLE


def target_container(wanted: Container, info: MediaInfo) -> str:
    """Return the muxer of the rendition.

    `source` keeps MP4 and MOV (distinguished by the brand, because they share a demuxer) and gives
    Matroska for everything else. A file without a brand is QuickTime: it had no brand before MP4
    (https://developer.apple.com/documentation/quicktime-file-format/file_type_compatibility_atom).
    """
    if wanted not in {Container.SOURCE, Container.MKV}:
        return wanted.value
    if wanted is Container.SOURCE and "mp4" in demuxers(info):
        return MOV if info.tags.get("major_brand", "").strip() in {"", "qt"} else MP4
    return MATROSKA


def is_matroska_family(muxer: str) -> bool:
    """Return whether the muxer is of the Matroska family, whose times are milliseconds."""
    return muxer in {MATROSKA, WEBM}


def is_mp4_family(muxer: str) -> bool:
    """Return whether the muxer is of the MP4 family, which needs codec tags and an index."""
    return muxer in {MP4, MOV}


def uses_quicktime_keys(muxer: str, tags: Mapping[str, str], *, covers: bool) -> bool:
    """Whether tags go into QuickTime's metadata table, which stores any key but no cover.

    For MP4 that is so if the source has keys of that table, or none that players look for in the
    usual place.
    """
    if muxer != MP4:
        return is_mp4_family(muxer)
    if covers:
        return False
    names = {name.partition("-")[0].lower() for name in tags} - _NO_LOSS
    odd = names - _ITUNES
    return any(_QUICKTIME.match(name) for name in names) or (bool(odd) and odd == names)


def free_form(muxer: str, info: MediaInfo, *, covers: bool) -> dict[str, str]:
    """Return the tags that the rendition holds as free-form entries, because MP4 has no other place."""
    if muxer != MP4 or uses_quicktime_keys(muxer, info.tags, covers=covers):
        return {}
    return {
        name: value
        for name, value in info.tags.items()
        if name.partition("-")[0].lower() not in _NO_LOSS | _ITUNES
    }


def carried(muxer: str, info: MediaInfo, *, covers: bool) -> tuple[MetadataItem, ...]:
    """Return the metadata that a rendition of this muxer gets as the source holds it."""
    if not is_mp4_family(muxer):
        return ()
    places = {"movie"}
    if not uses_quicktime_keys(muxer, info.tags, covers=covers):
        places.add("movie list")
    kept, room = [], MOST_CARRIED
    for item in info.metadata:
        # An entry of QuickTime's table means something only with its table of keys.
        numbered = item.name.startswith("00")
        if item.place in places and item.size <= room and not numbered:
            kept.append(item)
            room -= item.size
        elif item.place == "file" and item.readable:
            kept.append(item)
    return tuple(kept)


def room_for(muxer: str, info: MediaInfo, *, covers: bool) -> int:
    """Return how many bytes the index needs for what is carried into it; 0 for nothing."""
    items = carried(muxer, info, covers=covers)
    bytes_needed = sum(item.size for item in items if item.place != "file")
    for name, value in free_form(muxer, info, covers=covers).items():
        bytes_needed += FREE_FORM_BYTES + len(f"{name}{value}".encode("utf-8", "surrogateescape"))
    return min(bytes_needed, MOST_CARRIED)


def losses(muxer: str, info: MediaInfo, *, covers: bool) -> tuple[str, ...]:
    """Return what a rendition of this muxer cannot hold, each as a name with its place."""
    kept = carried(muxer, info, covers=covers)
    lost = (item for item in info.metadata if not item.reported and item not in kept)
    return (*(f"{item.name} of the {item.place}" for item in lost), *_unstored(muxer, info))


def _unstored(muxer: str, info: MediaInfo) -> Iterable[str]:
    """Yield the times, tags, languages and chapters that the container has no place for."""
    if muxer in SEAMLESS:
        yield "the times of frames"
    if muxer in TAGS:
        names = {name.lower() for name in info.tags} - (_NO_LOSS - {"creation_time"}) - TAGS[muxer]
        yield from (f"the tag {name}" for name in sorted(names))
    if info.chapters and muxer not in CHAPTERED:
        yield counted(len(info.chapters), "chapter")
    for stream in info.streams:
        if stream.language not in {"", "und"} and muxer not in LABELLED:
            yield f"language ({stream.language}) of stream {stream.index}"
        held = FLAGS.get(muxer, frozenset())
        for mark in sorted(MARKS.intersection(stream.dispositions) - held):
            yield f"the mark {mark} of stream {stream.index}"
        if stream.title and muxer not in CHAPTERED:
            yield f"title of stream {stream.index}"


def in_words(lost: Iterable[str]) -> str:
    """Return losses as one sentence, the first five of them by name."""
    names = list(lost)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"Metadata that the rendition cannot hold: {', '.join(names[:_SHOWN])}{more}."


def file_tags(muxer: str, info: MediaInfo) -> Mapping[str, str]:
    """Return the tags of a rendition as a whole; Ogg has them with each of its streams."""
    if muxer != OGG:
        return info.tags
    return {name: value for stream in info.streams[:1] for name, value in stream.tags.items()}


def missing(muxer: str, source: MediaInfo, output: MediaInfo, *, covers: bool) -> list[str]:
    """Return the tags and metadata that the rendition should hold as the source does, and lacks."""
    there = {item.digest for item in output.metadata}
    gone = [
        f"{item.name} of the {item.place}"
        for item in carried(muxer, source, covers=covers)
        if not item.reported and item.digest not in there
    ]
    found = {name.lower() for name in file_tags(muxer, output)}
    names = {name.lower() for name in source.tags} - _NO_LOSS
    names &= TAGS.get(muxer, names)
    return gone + [f"the tag {name}" for name in sorted(names - found)]


def mark(profile: str, revision: str) -> str:
    """Return the value of the `hevcq` tag."""
    return f"{profile}/{revision}"


def tool_mark(profile: str, revision: str) -> str:
    """Return the value of the "encoding tool" tag of an MP4."""
    return f"{PROVENANCE_KEY} {mark(profile, revision)}"


def found_mark(info: MediaInfo) -> str | None:
    """Return `profile/revision` if the file is a rendition made by hevcq, else None."""
    for tags in (info.tags, *(stream.tags for stream in info.streams)):
        for name, value in tags.items():
            if name.lower() == PROVENANCE_KEY:
                return value
            if name.lower() in _TOOL_KEYS and value.startswith(f"{PROVENANCE_KEY} "):
                return value.removeprefix(f"{PROVENANCE_KEY} ")
    return None
