"""Read the elements of Matroska files: metadata that ffmpeg does not copy, and an index with missing clusters.

Element ids and layouts: RFC 9559 and RFC 8794. Reading stops at a damaged element without an error: ffprobe decides
whether a file can be read.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import BinaryIO

from hevcq.domain.media.facts import MetadataItem
from hevcq.ffmpeg.containers.mp4 import LANGUAGE_TAG
from hevcq.util.file_io import sha256_bytes

MAX_BYTES = 1 << 24
"""Largest content that is read, in bytes; typical tables have some kilobytes."""
_MAX_ELEMENTS = 20_000
SEGMENT, CLUSTER, SEEK_HEAD, INFO = 0x18538067, 0x1F43B675, 0x114D9B74, 0x1549A966
_SEEK, _SEEK_ID, _SEEK_POSITION = 0x4DBB, 0x53AB, 0x53AC
TRACKS, TRACK, VIDEO, LANGUAGE = 0x1654AE6B, 0xAE, 0xE0, 0x22B59D
_TRACK_TYPE = 0x83
_READ_TYPES = (1, 2, 0x11, 0x21)
"""Track types for which ffmpeg has a stream: video, audio, subtitles, metadata."""
_ENABLED = 0xB9
_CROPS = frozenset({0x54CC, 0x54BB, 0x54DD, 0x54AA})
CHAPTERS, _EDITION, _ORDERED, _HIDDEN_EDITION = 0x1043A770, 0x45B9, 0x45DD, 0x45BD
_ATOM, _HIDDEN, _CHAPTER_DISPLAY, _SEGMENT_LINK = 0xB6, 0x98, 0x80, 0x6E67
TAGS, TAG, TARGETS, SIMPLE = 0x1254C367, 0x7373, 0x63C0, 0x67C8
_LEVEL, LEVEL_NAME, _TAG_NAME, _TAG_LANGUAGE, _BINARY = 0x68CA, 0x63CA, 0x45A3, 0x447B, 0x4485
_TAGGED_EDITION, _TAGGED_CHAPTER = 0x63C9, 0x63C4
_USUAL_LEVEL, _USUAL_NAMES = 50, {"", "MOVIE"}
"""Level and level name of a tag of the whole video; mkvmerge also gives them to each track's statistics."""
_SHOWN_NAMES, _MAX_NAME = 5, 40
"""How many part names of a structured tag a notice shows, and characters of each."""
_TABLES = (INFO, TRACKS, CHAPTERS, TAGS)
_CUES, _POINT, _TIME, _PLACES, _AT, _SCALE = 0x1C53BB6B, 0xBB, 0xB3, 0xB7, 0xF1, 0x2AD7B1
_MS = 1_000_000
"""Nanoseconds of a tick, unless the file states another number."""
_LATE_S = 1.0
"""Seconds by which a cue may be later than the last packet: some muxers round to their clusters."""
_LINKING = {0x3CB923, 0x3C83AB, 0x3EB923, 0x3E83BB, 0x4444, 0x6924}
"""Elements that link files: ids and names of the file before and after, the family, translations of chapters."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its id, and the places of its content's start and end in the file, in bytes."""

    number: int
    start: int
    end: int


def elements(file: BinaryIO, start: int, end: int) -> Iterator[Element]:
    return takewhile(lambda element: element.end <= end, headers(file, start, end))


def headers(file: BinaryIO, start: int, end: int) -> Iterator[Element]:
    """Yield the elements that begin between two places, wherever they claim to end.

    An element of unknown size, as in live recordings, ends at `end`.
    """
    for _ in range(_MAX_ELEMENTS):
        if start >= end:
            return
        file.seek(start)
        head = file.read(12)
        number, taken = _number(head, keep_marker=True)
        size, more = _number(head[taken:], keep_marker=False)
        if not taken or not more:
            return
        data = start + taken + more
        last = end if size == (1 << 7 * more) - 1 else data + size  # all ones: unknown size
        yield Element(number, data, last)
        start = last


def _number(head: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """Return a variable-size integer and its length in bytes; (0, 0) if it is cut off."""
    length = 9 - head[0].bit_length() if head and head[0] else 0
    if not length or len(head) < length:
        return 0, 0
    value = int.from_bytes(head[:length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length


def metadata(file: BinaryIO, size: int) -> Iterator[MetadataItem]:
    """Yield metadata that ffmpeg does not copy, so that no rendition has it.

    Collectors use it: links to other files, editions and nested chapters, structured tags.
    """
    tables = _tables_of(file, size)
    chapters = [table for table in tables if table.number == CHAPTERS]
    editions = [e for table in chapters for e in _parts(file, table, _EDITION)]
    atoms = [a for edition in editions for a in _parts(file, edition, _ATOM)]
    for table in tables:
        # Linked files are played together (RFC 9559, 17).
        if table.number == INFO and (
            any(e.number in _LINKING for e in elements(file, table.start, table.end))
            or any(_parts(file, atom, _SEGMENT_LINK) for atom in atoms)
        ):
            yield _item(file, table, "segment", "links to other files")
        elif table.number == TRACKS:
            entries = (e for t in _parts(file, table, TRACK) for e in _parts(file, t, _ENABLED))
            for entry in entries:
                if not any(_bytes(file, entry)):
                    name = "the mark of a track that is not to be played"
                    yield _item(file, entry, "tracks", name)
        elif table.number == TAGS:
            for tag in _parts(file, table, TAG):
                if _is_structured(file, tag):
                    yield _item(file, tag, "file", f"structured tags ({_tag_names(file, tag)})")
    marked = (value_of(file, e, each) for e in editions for each in (_ORDERED, _HIDDEN_EDITION))
    if len(editions) > 1 or any(marked) or any(_is_rich(file, atom) for atom in atoms):
        yield _item(file, chapters[0], "chapters", "editions, order or nesting")


def _parts(file: BinaryIO, parent: Element, number: int) -> list[Element]:
    return [e for e in elements(file, parent.start, parent.end) if e.number == number]


def _is_rich(file: BinaryIO, atom: Element) -> bool:
    """Whether a chapter has more than its times and one title, which ffmpeg copies."""
    titles = len(_parts(file, atom, _CHAPTER_DISPLAY))
    return bool(_parts(file, atom, _ATOM)) or bool(value_of(file, atom, _HIDDEN)) or titles > 1


def tracks(file: BinaryIO, size: int) -> list[dict[str, str]]:
    """Return `language_tag` (BCP 47) and `cropped` of each track for which ffmpeg has a stream, if it has them."""
    return [
        _track_facts(file, track)
        for table in _tables_of(file, size)
        if table.number == TRACKS
        for track in _parts(file, table, TRACK)
        if value_of(file, track, _TRACK_TYPE) in _READ_TYPES
    ]


def _track_facts(file: BinaryIO, track: Element) -> dict[str, str]:
    facts = {}
    for language in _parts(file, track, LANGUAGE):
        text = _bytes(file, language).rstrip(b"\0").decode("ascii", "replace")
        if LANGUAGE_TAG.fullmatch(text):
            facts["language_tag"] = text
    for video in _parts(file, track, VIDEO):
        parts = elements(file, video.start, video.end)
        if any(e.number in _CROPS and any(_bytes(file, e)) for e in parts):
            facts["cropped"] = "yes"
    return facts


def _item(file: BinaryIO, element: Element, place: str, name: str) -> MetadataItem:
    content = _bytes(file, element)
    digest = sha256_bytes(content)
    return MetadataItem(place=place, name=name, size=len(content), digest=digest, readable=False)


def _tables_of(file: BinaryIO, size: int) -> list[Element]:
    segment = next((e for e in elements(file, 0, size) if e.number == SEGMENT), None)
    return _tables(file, segment, segment.end, _TABLES) if segment is not None else []


def _tables(file: BinaryIO, segment: Element, end: int, numbers: Collection[int]) -> list[Element]:
    """Return the tables before the first cluster, and those to which the seek heads point."""
    tables: dict[int, Element] = {}
    positions: list[int] = []
    for element in elements(file, segment.start, end):
        if element.number == CLUSTER:
            break
        if element.number == SEEK_HEAD:
            positions += [
                value_of(file, seek, _SEEK_POSITION)
                for seek in _parts(file, element, _SEEK)
                if value_of(file, seek, _SEEK_ID) in numbers
            ]
        elif element.number in numbers:
            tables[element.start] = element
    for position in positions:
        table = next(elements(file, segment.start + position, end), None)
        if table is not None and table.number in numbers:
            tables[table.start] = table
    return [table for table in tables.values() if table.end - table.start <= 64 * MAX_BYTES]


def _is_structured(file: BinaryIO, tag: Element) -> bool:
    """Whether a tag belongs to a level, an edition or a chapter, or has parts.

    ffmpeg copies it as a plain tag. Into an MP4 it copies only the title of a chapter.
    """
    simple = _parts(file, tag, SIMPLE)
    targets = _parts(file, tag, TARGETS)
    odd = any(
        value_of(file, each, _LEVEL) not in {0, _USUAL_LEVEL}
        or any(text_of(file, name) not in _USUAL_NAMES for name in _parts(file, each, LEVEL_NAME))
        or value_of(file, each, _TAGGED_EDITION)
        or value_of(file, each, _TAGGED_CHAPTER)
        for each in targets
    )
    return bool(simple) and (odd or any(_is_nested(file, each) for each in simple))


def _tag_names(file: BinaryIO, tag: Element) -> str:
    """Return the names of a tag's parts for a notice; they may be any text."""
    parts = (p for simple in _parts(file, tag, SIMPLE) for p in _parts(file, simple, _TAG_NAME))
    names = dict.fromkeys(text_of(file, each)[:_MAX_NAME] for each in parts)
    return ", ".join([*names][:_SHOWN_NAMES] + ["…"] * (len(names) > _SHOWN_NAMES))


def _is_nested(file: BinaryIO, simple: Element) -> bool:
    """Whether a tag has parts, a binary value, or a value in a regional language."""
    parts = list(elements(file, simple.start, simple.end))
    return any(e.number in {SIMPLE, _BINARY} for e in parts) or any(
        e.number == _TAG_LANGUAGE and b"-" in _bytes(file, e) for e in parts
    )


def value_of(file: BinaryIO, parent: Element, number: int) -> int:
    """Return the number in the first part of this id, 0 if there is none."""
    parts = (e for e in elements(file, parent.start, parent.end) if e.number == number)
    return next((_number_of(_bytes(file, e)) for e in parts), 0)


def text_of(file: BinaryIO, element: Element) -> str:
    return _bytes(file, element).rstrip(b"\0").decode("utf-8", "replace")


def _number_of(content: bytes) -> int:
    return int.from_bytes(content[:8], "big")


def _bytes(file: BinaryIO, element: Element) -> bytes:
    file.seek(element.start)
    return file.read(min(element.end - element.start, MAX_BYTES))


def broken_cues(file: BinaryIO, size: int, end_s: float | None) -> str:
    """Return what the index (Cues) of a file names and the file lacks, as a clause, or "".

    `end_s` is when the last packet ends that the demuxer found. If a cluster is missing, a demuxer looks for the
    next one and may print nothing. Cues are optional, some muxers write wrong ones, and tools that change a file's
    head leave them stale: they prove damage only if some of them are right (RFC 9559, 5.1.5).
    """
    segment = next((top for top in headers(file, 0, size) if top.number == SEGMENT), None)
    if segment is None:
        return ""
    tables = _tables(file, segment, min(segment.end, size), (INFO, _CUES))
    cues = next((table for table in tables if table.number == _CUES), None)
    if cues is None or cues.end - cues.start > MAX_BYTES:
        return ""
    scales = (value_of(file, table, _SCALE) for table in tables if table.number == INFO)
    scale = next(filter(None, scales), _MS)
    points = list(_points(file, cues))
    last_s = max((time for time, _ in points), default=0) * scale / 1e9
    places = sorted({segment.start + place for _, place in points})
    wrong = [place for place in places if not _is_cluster(file, place)]
    if wrong and len(wrong) < len(places):
        beyond = ", behind its end" if wrong[-1] >= size else ""
        return f"its index names {len(places)} clusters, and {len(wrong)} of them are not there{beyond}"
    if not wrong and end_s is not None and last_s > end_s + _LATE_S:
        return f"its index names a picture at {last_s:.2f} s, but it ends after {end_s:.2f} s"
    return ""


def _points(file: BinaryIO, cues: Element) -> Iterator[tuple[int, int]]:
    """Yield each cue's time in ticks, and its cluster's place in the segment."""
    for point in _parts(file, cues, _POINT):
        time = value_of(file, point, _TIME)
        for places in _parts(file, point, _PLACES):
            for place in _parts(file, places, _AT):
                yield time, _number_of(_bytes(file, place))


def _is_cluster(file: BinaryIO, place: int) -> bool:
    file.seek(place)
    return file.read(4) == CLUSTER.to_bytes(4, "big")
