"""Write and read HLS playlists. Pure (RFC 8216, and its successor draft-pantos-hls-rfc8216bis).

ffmpeg 5.1 writes them as well, but with CRF all its variants claim one and the same BANDWIDTH, that
of the sound, and HEVC always gets the same CODECS. For the gates they are read as they are stored: what
hevcq writes and no more; any other line that matters to players raises ValueError.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from urllib.parse import quote, unquote

from hevcq.domain.formats import bcp47
from hevcq.domain.media.facts import Chapter
from hevcq.ffmpeg.hls.segments import NO_RATES, Rates, Segment, target_duration

VERSION = 7
TEXTS = "text"
"""Name of the group of subtitles."""
RANGES = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
"""VIDEO-RANGE by transfer function, as ffprobe names it."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A rung in the master playlist; `playlist` and `key_frames` are relative to it.

    `groups` are the groups of sounds that it is listed with.
    """

    playlist: str
    key_frames: str
    codec: str
    width: int
    height: int
    rate: float
    range: str
    rates: Rates
    key_rates: Rates
    groups: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Rendition:
    """A sound or a text in the master playlist; `language` is an ISO 639-2 code or a BCP 47 tag."""

    playlist: str
    title: str
    language: str
    default: bool = False
    forced: bool = False
    channels: int = 0
    codec: str = ""
    rates: Rates = NO_RATES


@dataclass(frozen=True, slots=True)
class Master:
    """All that a master playlist lists; `data` are session data: an id, and a value or (with `:`) a URI.

    `sounds` are the groups of sounds by their name. They have the same members in the same order
    (RFC 8216, 4.3.4.1.1). The default sound of the group `alone` is a variant without a picture.
    """

    variants: Sequence[Variant]
    sounds: Mapping[str, Sequence[Rendition]]
    texts: Sequence[Rendition]
    data: Sequence[tuple[str, str, str]] = ()
    captions: bool = False
    alone: str | None = None


def media_playlist(uri: str, head: int, segments: Sequence[Segment], *, keys: bool = False) -> str:
    """Return the playlist of one file by byte ranges; with `keys` an I-frame playlist.

    `head` is the bytes of its initialisation section.
    """
    lines = _head(target_duration(segments))
    lines += ["#EXT-X-I-FRAMES-ONLY"] if keys else []
    place = quote(uri)
    lines.append(f'#EXT-X-MAP:URI="{place}",BYTERANGE="{head}@0"')
    for segment in segments:
        lines.append(f"#EXTINF:{_decimal(segment.seconds)},")
        lines.append(f"#EXT-X-BYTERANGE:{segment.end - segment.start}@{segment.start}")
        lines.append(place)
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


def text_playlist(uri: str, seconds: float) -> str:
    """Return the playlist of subtitles in one WebVTT file, as long as the video."""
    length = Fraction(seconds)
    lines = _head(max(1, int(length + Fraction(1, 2))))
    lines += [f"#EXTINF:{_decimal(length)},", quote(uri), "#EXT-X-ENDLIST", ""]
    return "\n".join(lines)


def _head(target: int) -> list[str]:
    return [
        "#EXTM3U",
        f"#EXT-X-VERSION:{VERSION}",
        f"#EXT-X-TARGETDURATION:{target}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]


def _decimal(seconds: Fraction) -> str:
    return f"{float(seconds):.6f}"


def master_playlist(master: Master) -> str:
    """Return the master playlist. The first variant is what players begin with: the lowest of them."""
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for name, key, value in master.data:
        lines.append(f"#EXT-X-SESSION-DATA:DATA-ID={_quoted(name)},{key}={_quoted(value)}")
    for group, sounds in master.sounds.items():
        lines += _renditions("AUDIO", group, sounds)
    lines += _renditions("SUBTITLES", TEXTS, master.texts)
    for group in master.sounds or [""]:
        for variant in master.variants:
            if not group or group in variant.groups:
                lines += _stream(master, variant, group)
    if master.alone is not None:
        lines += _sound_stream(master, master.alone)
    lines += [_key_stream(variant) for variant in master.variants]
    return "\n".join([*lines, ""])


def _renditions(kind: str, group: str, found: Sequence[Rendition]) -> Iterator[str]:
    taken: set[str] = set()
    for number, each in enumerate(found, 1):
        language = bcp47(each.language)
        kind_name = "Subtitles" if kind == "SUBTITLES" else "Sound"
        # Players of web pages write names as HTML.
        title = each.title.replace("<", "‹")
        name = unique_name(title or language or f"{kind_name} {number}", taken)
        words = [f"TYPE={kind}", f'GROUP-ID="{group}"', f"NAME={_quoted(name)}"]
        words += [f"LANGUAGE={_quoted(language)}"] if language else []
        words += [f"DEFAULT={_yes(each.default)}", "AUTOSELECT=YES"]
        words += [f"FORCED={_yes(each.forced)}"] if kind == "SUBTITLES" else []
        words += [f'CHANNELS="{each.channels}"'] if each.channels else []
        yield f"#EXT-X-MEDIA:{','.join(words)},URI={_quoted(quote(each.playlist))}"


def unique_name(wanted: str, taken: set[str]) -> str:
    """Return a name that no other rendition of the group has, and note it as taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted} ({number})"
    taken.add(name)
    return name


def written_rate(rate: float) -> str:
    """Return frames per second as FRAME-RATE has them: with three decimals (RFC 8216, 4.3.4.2)."""
    return f"{rate:.3f}"


def _stream(master: Master, variant: Variant, group: str) -> list[str]:
    sounds = master.sounds.get(group, ())
    together = variant.rates.plus(loudest(sounds))
    words = _rate_words(together, _codecs(variant.codec, sounds), variant)
    words.insert(4, f"FRAME-RATE={written_rate(variant.rate)}")
    return _listed(master, words, group if sounds else "", variant.playlist)


def _sound_stream(master: Master, group: str) -> list[str]:
    """Return the lines of the variant without a picture, for a connection that carries no other."""
    sounds = master.sounds[group]
    rates, default = loudest(sounds), next(sound for sound in sounds if sound.default)
    words = [f"BANDWIDTH={rates.peak}", f"AVERAGE-BANDWIDTH={rates.average}"]
    words.append(f"CODECS={_quoted(_codecs(default.codec, sounds))}")
    return _listed(master, words, group, default.playlist)


def _listed(master: Master, words: list[str], group: str, playlist: str) -> list[str]:
    words += [f'AUDIO="{group}"'] if group else []
    words += [f'SUBTITLES="{TEXTS}"'] if master.texts else []
    words += [] if master.captions else ["CLOSED-CAPTIONS=NONE"]
    return [f"#EXT-X-STREAM-INF:{','.join(words)}", quote(playlist)]


def _key_stream(variant: Variant) -> str:
    words = _rate_words(variant.key_rates, variant.codec, variant)
    return f"#EXT-X-I-FRAME-STREAM-INF:{','.join(words)},URI={_quoted(quote(variant.key_frames))}"


def _rate_words(rates: Rates, codecs: str, variant: Variant) -> list[str]:
    return [
        f"BANDWIDTH={rates.peak}",
        f"AVERAGE-BANDWIDTH={rates.average}",
        f"CODECS={_quoted(codecs)}",
        f"RESOLUTION={variant.width}x{variant.height}",
        f"VIDEO-RANGE={RANGES.get(variant.range, 'SDR')}",
    ]


def loudest(sounds: Sequence[Rendition]) -> Rates:
    """Return the largest rates among the sounds: a player plays one of them beside the picture."""
    return Rates(
        max((sound.rates.peak for sound in sounds), default=0),
        max((sound.rates.average for sound in sounds), default=0),
    )


def _codecs(codec: str, sounds: Sequence[Rendition]) -> str:
    return ",".join(dict.fromkeys([codec, *(sound.codec for sound in sounds)]))


def _quoted(text: str) -> str:
    """Quote a string; it may hold no quotation mark and no line break."""
    plain = "".join(" " if mark in "\r\n\t" else "'" if mark == '"' else mark for mark in text)
    return f'"{plain}"'


def _yes(word: bool) -> str:  # noqa: FBT001
    return "YES" if word else "NO"


def chapters_json(chapters: Sequence[Chapter], start_s: float) -> str:
    """Return chapters in Apple's format of session data (com.apple.hls.chapters)."""
    found = [
        {
            "chapter": number,
            "start-time": round(max(0.0, chapter.start_s - start_s), 3),
            "duration": round(max(0.0, chapter.end_s - chapter.start_s), 3),
            "titles": [{"language": "und", "title": chapter.title or f"Chapter {number}"}],
        }
        for number, chapter in enumerate(chapters, 1)
    ]
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


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
