"""Read HLS playlists as they are stored, for the gates: what was written is not believed. Pure.

Reads what hevcq writes and no more: any other line that matters to players raises ValueError.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from urllib.parse import unquote

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)(?:,|$)')
_RANGE = re.compile(r"(\d+)@(\d+)")
_PLAIN = frozenset({"#EXT-X-INDEPENDENT-SEGMENTS", "#EXT-X-MEDIA-SEQUENCE:0", "#EXT-X-VERSION:7"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One segment of a media playlist: [start, end) in bytes, or a whole file (end is None)."""

    seconds: Fraction
    uri: str
    start: int = 0
    end: int | None = None


@dataclass(slots=True)
class MediaPlaylist:
    """A media playlist; `head` is the initialization: its file, and the end of its range from 0."""

    target: int = 0
    head: tuple[str, int] | None = None
    keys_only: bool = False
    ended: bool = False
    entries: list[Entry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of a master playlist: its attributes without quotes, and its URI."""

    attributes: dict[str, str]
    uri: str

    def number(self, name: str) -> float:
        """Return an attribute as a number; -1 if it is missing or none."""
        try:
            return float(self.attributes.get(name, ""))
        except ValueError:
            return -1.0


@dataclass(slots=True)
class MasterPlaylist:
    """A master playlist."""

    independent: bool = False
    variants: list[Listed] = field(default_factory=list)
    key_frames: list[Listed] = field(default_factory=list)
    renditions: list[Listed] = field(default_factory=list)


def attributes(text: str) -> dict[str, str]:
    """Return the attributes of a tag. Raises ValueError if they are not an attribute list."""
    found = {}
    at = 0
    while at < len(text):
        match = _ATTRIBUTE.match(text, at)
        if match is None:
            raise ValueError(f"{text!r} is no list of attributes")
        found[match[1]] = match[2].strip('"')
        at = match.end()
    return found


def read_media(text: str) -> MediaPlaylist:
    """Read a media playlist. Raises ValueError if it is none of hevcq's."""
    lines = _lines(text)
    found = MediaPlaylist()
    seconds: Fraction | None = None
    place: tuple[int, int] | None = None
    for line in lines:
        tag, _, value = line.partition(":")
        if not line.startswith("#"):
            if seconds is None:
                raise ValueError(f"{line!r} has no EXTINF")
            start, end = place or (0, None)
            found.entries.append(Entry(seconds, unquote(line), start, end))
            seconds = place = None
        elif tag == "#EXTINF":
            seconds = Fraction(value.partition(",")[0])
        elif tag == "#EXT-X-BYTERANGE":
            place = _byte_range(value)
        else:
            _read_header(found, line, tag, value)
    if seconds is not None or not found.entries:
        raise ValueError("it ends without a segment")
    return found


def _read_header(found: MediaPlaylist, line: str, tag: str, value: str) -> None:
    if tag == "#EXT-X-TARGETDURATION":
        found.target = int(value)
    elif tag == "#EXT-X-MAP":
        words = attributes(value)
        start, end = _byte_range(words.get("BYTERANGE", ""))
        if start or found.head is not None:
            raise ValueError("its initialization is not one range from the file's start")
        found.head = unquote(words.get("URI", "")), end
    elif line == "#EXT-X-I-FRAMES-ONLY":
        found.keys_only = True
    elif line == "#EXT-X-ENDLIST":
        found.ended = True
    elif line not in _PLAIN and line != "#EXT-X-PLAYLIST-TYPE:VOD":
        raise ValueError(f"{line!r} is not expected")


def read_master(text: str) -> MasterPlaylist:
    """Read a master playlist. Raises ValueError if it is none of hevcq's."""
    found = MasterPlaylist()
    stream: dict[str, str] | None = None
    for line in _lines(text):
        tag, _, value = line.partition(":")
        if not line.startswith("#"):
            if stream is None:
                raise ValueError(f"{line!r} has no EXT-X-STREAM-INF")
            found.variants.append(Listed(stream, unquote(line)))
            stream = None
        elif tag == "#EXT-X-STREAM-INF":
            stream = attributes(value)
        elif tag in _LISTS:
            words = attributes(value)
            getattr(found, _LISTS[tag]).append(Listed(words, unquote(words.get("URI", ""))))
        elif line == "#EXT-X-INDEPENDENT-SEGMENTS":
            found.independent = True
        elif line not in _PLAIN and tag != "#EXT-X-SESSION-DATA":
            raise ValueError(f"{line!r} is not expected")
    if not found.variants or stream is not None:
        raise ValueError("it lists no variants")
    return found


_LISTS = {
    "#EXT-X-MEDIA": "renditions",
    "#EXT-X-I-FRAME-STREAM-INF": "key_frames",
}


def _lines(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    if lines[:1] != ["#EXTM3U"]:
        raise ValueError("it does not begin with #EXTM3U")
    return lines[1:]


def _byte_range(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no byte range")
    return int(match[2]), int(match[1]) + int(match[2])
