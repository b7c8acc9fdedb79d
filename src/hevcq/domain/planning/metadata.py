"""Decide which tags and metadata a rendition keeps, and mark renditions by a tag.

hevcq copies the boxes of an MP4 or MOV that ffmpeg drops into a rendition of the same family. Tags
without a place in plain MP4 become iTunes free-form entries. Metadata without a place in the rendition
is a loss, which `policies.metadata` accepts or refuses.

The provenance tag names profile and revision, so that hevcq recognises its own files. Matroska and MOV
hold a tag named `hevcq`. Plain MP4 keeps only the tags that iTunes defines, so its mark is the
"encoding tool", which ffprobe reports as `encoder`. AVI uses `encoded_by`; Ogg stores tags by stream.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hevcq.domain.formats import in_brackets
from hevcq.domain.media.containers import (
    CHAPTERED,
    FLAGS,
    LABELLED,
    MARKS,
    MP4,
    OGG,
    SAME_MARK,
    SEAMLESS,
    TAGS,
    TELETEXT,
    is_matroska_family,
    is_mp4_family,
)
from hevcq.domain.media.facts import (
    CREDENTIALS,
    KEYED,
    RECORDINGS,
    MediaInfo,
    MetadataItem,
    Stream,
    StreamKind,
)
from hevcq.domain.planning.encode_plan import StreamPlan
from hevcq.util.text import counted

ACCEPT_LOSS = "set policies.metadata (for tracks policies.tracks) of the profile to drop"
"""The advice on how to let a rendition with losses replace its original."""
PROVENANCE_KEY = "hevcq"
"""The tag that names profile and revision of a rendition."""
MAX_CARRIED = 100_000
"""Most bytes of metadata reserved in a rendition's index. One argument of ffmpeg's command reserves
them, and Linux allows 131,072 bytes in an argument (MAX_ARG_STRLEN)."""
UNCREDITED = (
    f"{CREDENTIALS} are left out: they vouch for the original's bytes, and beside others a verifier "
    "would report tampering."
)
LIST = "movie list"
"""The `MetadataItem.place` of iTunes' tags."""
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
"""Keys that are stored elsewhere or rewritten."""
_IMPERSONAL = _NO_LOSS | {
    "title", "album", "genre", "track", "disc", "date", "show", "season_number", "episode_id",
    "episode_sort", "network", "compilation", "gapless_playback", "media_type", "hd_video",
    "language", "handler_name", "vendor_id", "duration", "bps", "number_of_frames",
    "number_of_bytes", "_statistics_writing_app", "_statistics_writing_date_utc",
    "_statistics_tags", "source_id", "rotate", "alpha_mode", "stereo_mode", "mimetype",
    "service_name", "service_provider",
}  # fmt: skip
"""Tags that reveal nothing about people, places or devices."""
FREE_FORM_BYTES = 8 + 28 + 12 + 16
"""Size of a free-form entry without its key and value."""
_SHOWN = 5
_MAX_NAMED = 50
"""Most names in a certificate; a video editor may write hundreds."""

Streams = Sequence[StreamPlan]
"""The plans of all streams of the source."""


def has_covers(streams: Streams) -> bool:
    return any(s.kind is StreamKind.PICTURE and s.position is not None for s in streams)


def uses_quicktime_keys(muxer: str, info: MediaInfo, *, covers: bool) -> bool:
    """Return whether to store tags in QuickTime's metadata table, which takes any key but no cover.

    An MP4 uses it if the source has keys of that table, or has neither an iTunes list nor any key
    that players look for there.
    """
    if muxer != MP4:
        return is_mp4_family(muxer)
    if covers:
        return False
    names = {name.partition("-")[0].lower() for name in info.tags} - _NO_LOSS
    odd = names - _ITUNES
    if any(_QUICKTIME.match(name) for name in names):
        return True
    return bool(odd) and odd == names and not _itunes_list(info)


def _is_quicktime_entry(item: MetadataItem) -> bool:
    """Return whether it is an entry of QuickTime's table, which is meaningless without that table's keys."""
    return item.name.startswith(KEYED)


def _itunes_list(info: MediaInfo) -> tuple[MetadataItem, ...]:
    """Return the entries of an MP4's iTunes list, if it has no other table of tags."""
    items = tuple(item for item in info.metadata if item.place == LIST)
    mixed = any(_is_quicktime_entry(item) or not item.readable for item in items)
    small = sum(item.size for item in items) <= MAX_CARRIED // 2
    mp4 = MP4 in info.format_name.split(",")
    return items if mp4 and small and not mixed else ()


def replaced_list(muxer: str, info: MediaInfo, *, covers: bool) -> tuple[MetadataItem, ...]:
    """Return the iTunes entries to copy in place of ffmpeg's own.

    ffmpeg keeps only one value of an entry, and changes the type of some.
    """
    if muxer != MP4 or uses_quicktime_keys(muxer, info, covers=covers):
        return ()
    return _itunes_list(info)


def free_form(muxer: str, info: MediaInfo, *, covers: bool) -> dict[str, str]:
    """Return the tags that become free-form entries because MP4 has no other place for them."""
    if muxer != MP4 or uses_quicktime_keys(muxer, info, covers=covers) or _itunes_list(info):
        return {}
    return {
        name: value
        for name, value in info.tags.items()
        if name.partition("-")[0].lower() not in _NO_LOSS | _ITUNES
    }


def carried_metadata(muxer: str, info: MediaInfo, streams: Streams) -> tuple[MetadataItem, ...]:
    """Return the metadata to copy unchanged into a rendition of this muxer."""
    family = info.format_name.split(",")
    if not is_mp4_family(muxer) or MP4 not in family:
        return ()
    places = {"movie", "index"}
    if not uses_quicktime_keys(muxer, info, covers=has_covers(streams)):
        places.add(LIST)
    kept, room = [], MAX_CARRIED - _own_bytes(muxer, info, streams)
    # The list comes first: it is carried whole or not at all.
    for item in sorted(info.metadata, key=lambda item: item.place != LIST):
        # A nested box is carried by its meaning (`kept_language`), or not at all.
        is_top_level = item.place.removesuffix(" itself").count(" ") == 1
        if item.name == CREDENTIALS:
            continue
        fits = item.place in places or (is_top_level and bool(_track_of(item, info, streams)))
        if fits and item.readable and item.size <= room and not _is_quicktime_entry(item):
            kept.append(item)
            room -= item.size
        elif item.place == "file" and item.readable:
            kept.append(item)
    return tuple(kept)


def _is_of_track(item: MetadataItem) -> bool:
    return item.place.startswith("track ")


def _track_of(item: MetadataItem, info: MediaInfo, streams: Streams) -> StreamPlan | None:
    """Return the plan of the kept track that a piece of metadata belongs to."""
    if not _is_of_track(item):
        return None
    number = int(item.place.split()[1])
    tracks = tracks_of(info)
    index = tracks[number].index if number < len(tracks) else None
    kept = (s for s in streams if s.source_index == index and s.position is not None)
    return next(kept, None)


def tracks_of(info: MediaInfo) -> list[Stream]:
    """Return the streams that are tracks, in file order, without covers and attachments."""
    other = {StreamKind.PICTURE, StreamKind.ATTACHMENT}
    return [stream for stream in info.streams if stream.kind not in other]


def index_room(muxer: str, info: MediaInfo, streams: Streams) -> int:
    """Return how many bytes the index needs for carried metadata."""
    if not is_mp4_family(muxer):
        return 0
    items = carried_metadata(muxer, info, streams)
    bytes_needed = sum(item.size for item in items if item.place != "file")
    # A track without a user data box gets one.
    bytes_needed += 8 * sum(map(_is_of_track, items))
    bytes_needed += _own_bytes(muxer, info, streams)
    return min(bytes_needed, MAX_CARRIED)


def needs_carrying(muxer: str, info: MediaInfo, streams: Streams) -> bool:
    """Return whether hevcq must add metadata to the rendition that ffmpeg does not write."""
    at_end = (item.place == "file" for item in carried_metadata(muxer, info, streams))
    return index_room(muxer, info, streams) > 0 or any(at_end)


def _own_bytes(muxer: str, info: MediaInfo, streams: Streams) -> int:
    """Return the size of the entries that hevcq creates: free-form tags and languages."""
    needed = 0
    for name, value in free_form(muxer, info, covers=has_covers(streams)).items():
        needed += FREE_FORM_BYTES + len(f"{name}{value}".encode("utf-8", "surrogateescape"))
    for stream in streams:
        source = info.stream(stream.source_index)
        language = kept_language(muxer, stream, source)
        needed += 13 + len(language) if language else 0
    return needed


def kept_language(muxer: str, stream: StreamPlan, source: Stream) -> str:
    """Return the BCP 47 language that an MP4 or MOV track gets beside its three-letter one, or ""."""
    tracks = {StreamKind.VIDEO, StreamKind.AUDIO, StreamKind.SUBTITLE}
    held = is_mp4_family(muxer) and stream.position is not None and stream.kind in tracks
    return source.language_tag if held else ""


def plain_language(muxer: str, source: Stream) -> str:
    """Return the language for ffmpeg to write: Matroska gets the BCP 47 tag if it names a region."""
    regional = "-" in source.language_tag and is_matroska_family(muxer)
    return source.language_tag if regional else source.language


def losses(muxer: str, info: MediaInfo, streams: Streams) -> tuple[str, ...]:
    """Return the names, with places, of the metadata that a rendition of this muxer cannot hold."""
    kept = set(carried_metadata(muxer, info, streams))
    lost = (
        item
        for item in info.metadata
        if not item.reported
        and item.name != CREDENTIALS
        and item not in kept
        # The tags of a track that is left out go with it.
        and (not _is_of_track(item) or _track_of(item, info, streams) is not None)
    )
    pieces = (f"{item.name} of the {item.place}" for item in lost)
    every = (*pieces, *_unstorable(muxer, info), *_lost_languages(muxer, info, streams))
    return tuple(dict.fromkeys(every))


def left_behind(info: MediaInfo) -> Iterator[str]:
    """Yield the streams of a broadcast that no rendition holds but a person may miss.

    A private stream with a language is a sound that ffmpeg does not know, such as Dolby AC-4. In other
    files such a stream is data, for example chapter titles, which a rendition keeps as chapters.
    """
    if info.format_name not in RECORDINGS:
        return
    for stream in info.streams:
        if stream.codec == TELETEXT and not info.is_unsent(stream):
            yield f"teletext of stream {stream.index}{in_brackets(stream.language)}"
        elif stream.kind is StreamKind.DATA and stream.codec == "bin_data" and stream.language:
            yield f"stream {stream.index}{in_brackets(stream.language)}, which ffmpeg cannot read"


def personal_names(muxer: str, info: MediaInfo, streams: Streams) -> tuple[str, ...]:
    """Return the names of the rendition's metadata that may reveal people, places or devices.

    Everything counts that is not known to be impersonal.
    """
    kept = {track.source_index for track in streams if track.position is not None}
    held = [stream for stream in info.streams if stream.index in kept]
    tags = [name.lower() for each in (info.tags, *(s.tags for s in held)) for name in each]
    names = [_short_name(name) for name in tags if name.partition("-")[0] not in _IMPERSONAL]
    names += ["recorded data" for stream in held if stream.kind is StreamKind.DATA]
    items = (item for item in carried_metadata(muxer, info, streams) if not item.reported)
    return tuple(dict.fromkeys([*sorted(names), *(item.name for item in items)]))[:_MAX_NAMED]


def _short_name(name: str) -> str:
    """Return a key's short name: `location` for `com.apple.quicktime.location.iso6709`."""
    return re.sub(r"^com\.(apple\.quicktime|android)\.", "", name).partition(".")[0]


def _lost_languages(muxer: str, info: MediaInfo, streams: Streams) -> Iterator[str]:
    """Yield the BCP 47 languages that the rendition does not keep."""
    for stream in streams:
        source = info.stream(stream.source_index)
        if stream.position is None:
            continue
        if "-" in source.language_tag and not (
            is_matroska_family(muxer) or kept_language(muxer, stream, source)
        ):
            yield f"language {source.language_tag} of stream {stream.source_index}"


def _unstorable(muxer: str, info: MediaInfo) -> Iterable[str]:
    """Yield the times, tags, languages and chapters that the container cannot store."""
    if muxer in SEAMLESS:
        yield "the times of frames"
    if muxer in TAGS:
        names = {name.lower() for name in info.tags} - (_NO_LOSS - {"creation_time"}) - TAGS[muxer]
        yield from (f"the tag {name}" for name in sorted(names))
    if info.chapters and muxer not in CHAPTERED:
        yield counted(len(info.chapters), "chapter")
    for stream in info.streams:
        if stream.tags.get("reel_name") and not is_mp4_family(muxer):
            yield f"reel name of stream {stream.index}"
        if stream.language not in {"", "und"} and muxer not in LABELLED:
            yield f"language ({stream.language}) of stream {stream.index}"
        held = FLAGS.get(muxer, frozenset())
        marks = MARKS.intersection(stream.dispositions)
        same = {mark for mark in marks if SAME_MARK.get(mark) in marks & held}
        for mark in sorted(marks - held - same):
            yield f"the mark {mark} of stream {stream.index}"
        if stream.title and muxer not in CHAPTERED:
            yield f"title of stream {stream.index}"


def first_names(every: Iterable[str]) -> str:
    """Return the first five names, and how many more there are."""
    names = list(every)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def file_tags(muxer: str, info: MediaInfo) -> Mapping[str, str]:
    """Return the tags of a whole rendition; Ogg stores them with each stream."""
    if muxer != OGG:
        return info.tags
    return {name: value for stream in info.streams[:1] for name, value in stream.tags.items()}


def missing_metadata(
    muxer: str, source: MediaInfo, output: MediaInfo, streams: Streams
) -> list[str]:
    """Return the names of tags and metadata that the rendition should keep but lacks."""
    held = {item.digest for item in output.metadata}
    gone = [
        f"{item.name} of the {item.place}"
        for item in carried_metadata(muxer, source, streams)
        if not item.reported and item.digest not in held
    ]
    gone += [
        name for name in itunes_differences(muxer, source, output, streams)[0] if name not in gone
    ]
    output_names = {name.lower() for name in file_tags(muxer, output)}
    names = {name.lower() for name in source.tags} - _NO_LOSS
    names &= TAGS.get(muxer, names)
    return gone + [f"the tag {name}" for name in sorted(names - output_names)]


def itunes_differences(
    muxer: str, source: MediaInfo, output: MediaInfo, streams: Streams
) -> tuple[list[str], list[str]]:
    """Return the iTunes entries that the rendition lacks, and those that it has in excess.

    Repeated entries count: a duplicate is an excess.
    """
    expected = replaced_list(muxer, source, covers=has_covers(streams))
    actual = [item for item in output.metadata if item.place == LIST] if expected else []
    counts = [Counter(item.digest for item in items) for items in (expected, actual)]
    names = {item.digest: f"{item.name} of the {LIST}" for item in (*actual, *expected)}
    lost, added = counts[0] - counts[1], counts[1] - counts[0]
    return [names[digest] for digest in lost], [names[digest] for digest in added]


_TOOL_KEYS = frozenset({"encoder", "encoding_tool", "encoded_by"})


def provenance(profile: str, revision: str) -> str:
    return f"{profile}/{revision}"


def tool_mark(profile: str, revision: str) -> str:
    """Return the value of the "encoding tool" tag of an MP4."""
    return f"{PROVENANCE_KEY} {provenance(profile, revision)}"


def found_mark(info: MediaInfo) -> str | None:
    """Return `profile/revision` if the file is a rendition made by hevcq, else None."""
    for tags in (info.tags, *(stream.tags for stream in info.streams)):
        for name, value in tags.items():
            if name.lower() == PROVENANCE_KEY:
                return value
            if name.lower() in _TOOL_KEYS and value.startswith(f"{PROVENANCE_KEY} "):
                return value.removeprefix(f"{PROVENANCE_KEY} ")
    return None
