"""Write HLS playlists, and list the files of a set. Pure (RFC 8216, and its successor draft-pantos-hls-rfc8216bis).

ffmpeg 5.1 writes them as well, but with CRF all its variants claim one and the same BANDWIDTH, that
of the sound, and HEVC always gets the same CODECS.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from urllib.parse import quote

from hevcq.domain.formats import bcp47
from hevcq.domain.keys import MASTER
from hevcq.domain.media.facts import Chapter, MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan, Rung, StreamPlan
from hevcq.ffmpeg.containers.fragments import FragmentedFile
from hevcq.ffmpeg.hls.command import (
    alone,
    groups_beside,
    ladder_in,
    of_kind,
    sound_groups,
    sounds_of,
)
from hevcq.ffmpeg.hls.segments import (
    NO_RATES,
    Rates,
    Segment,
    frame_rate,
    key_frames,
    rates,
    sound_segments,
    target_duration,
    video_segments,
)

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


def _stream(master: Master, variant: Variant, group: str) -> list[str]:
    sounds = master.sounds.get(group, ())
    together = variant.rates.plus(loudest(sounds))
    words = _rate_words(together, _codecs(variant.codec, sounds), variant)
    words.insert(4, f"FRAME-RATE={variant.rate:.3f}")  # RFC 8216, 4.3.4.2
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


START_BPS = 2_500_000
"""The variant listed first, with which some players begin, is the highest of at most this peak rate."""


Rungs = Sequence[tuple[Rung, FragmentedFile]]
"""The encoded rungs of a set, the highest first."""


def set_playlists(
    plan: EncodePlan,
    info: MediaInfo,
    version: str,
    rungs: Rungs,
    sounds: Mapping[str, FragmentedFile],
) -> dict[str, str]:
    """Return the playlists of a set and its chapters by their names in it; the master is the last."""
    listing = _Listing(plan, info, version, rungs, sounds)
    master = listing.master()
    return {**listing.written, MASTER: master}


@dataclass(frozen=True, slots=True)
class _Listing:
    """What is to be listed, and what was written of it."""

    plan: EncodePlan
    info: MediaInfo
    version: str
    rungs: Rungs
    sounds: Mapping[str, FragmentedFile]
    written: dict[str, str] = field(default_factory=dict)

    def master(self) -> str:
        """Return the master playlist; write the others."""
        groups = sound_groups(self.plan)
        sounds = {name: self._sound(name, track) for name, track in sounds_of(self.plan).items()}
        texts = enumerate(of_kind(self.plan, StreamKind.SUBTITLE), 1)
        variants = [self._variant(rung, content) for rung, content in self.rungs]
        return master_playlist(
            Master(
                variants=_first_to_play(variants),
                alone=alone(groups),
                sounds={group: [sounds[n] for n in names] for group, names in groups.items()},
                texts=[self._text(number, track) for number, track in texts],
                data=self._session_data(),
                captions=bool(self.plan.video.captions),
            )
        )

    def _variant(self, rung: Rung, content: FragmentedFile) -> Variant:
        segments = video_segments(content, ladder_in(self.plan).segment_s)
        keys = key_frames(content)
        return Variant(
            playlist=self._playlist(rung.name, content, segments),
            key_frames=self._playlist(rung.name, content, keys, suffix="-keys"),
            codec=content.codec,
            width=content.width,
            height=content.height,
            rate=frame_rate(segments),
            range=rung.target.colour.transfer,
            rates=rates(segments),
            key_rates=rates(keys),
            groups=groups_beside(rung, sound_groups(self.plan)),
        )

    def _sound(self, name: str, track: StreamPlan) -> Rendition:
        content, source = self.sounds[name], self.info.stream(track.source_index)
        segments = sound_segments(content)
        return Rendition(
            playlist=self._playlist(name, content, segments),
            title=source.title,
            language=source.language,
            default=track.source_index == of_kind(self.plan, StreamKind.AUDIO)[0].source_index,
            channels=content.channels,
            codec=content.codec,
            rates=rates(segments),
        )

    def _text(self, number: int, track: StreamPlan) -> Rendition:
        source, length = self.info.stream(track.source_index), max(c.seconds for _, c in self.rungs)
        return Rendition(
            playlist=self._named(f"text{number}.m3u8", text_playlist(f"text{number}.vtt", length)),
            title=source.title,
            language=source.language,
            forced="forced" in source.dispositions,
        )

    def _playlist(
        self, stem: str, content: FragmentedFile, segments: Sequence[Segment], suffix: str = ""
    ) -> str:
        text = media_playlist(f"{stem}.mp4", content.head, segments, keys=bool(suffix))
        return self._named(f"{stem}{suffix}.m3u8", text)

    def _named(self, name: str, text: str) -> str:
        """Write a file of the set; return its name relative to the master."""
        self.written[f"{self.version}/{name}"] = text
        return f"{self.version}/{name}"

    def _session_data(self) -> list[tuple[str, str, str]]:
        info, version = self.info, self.version
        data = [
            ("org.hevcq.poster", "VALUE", f"{version}/poster.jpg"),
            ("org.hevcq.storyboard", "VALUE", f"{version}/storyboard.vtt"),
        ]
        if info.tags.get("title", "").strip():
            data.append(("com.apple.hls.title", "VALUE", info.tags["title"].strip()))
        if info.chapters:
            text = chapters_json(info.chapters, info.origin_s(self.plan.mapped))
            data.append(("com.apple.hls.chapters", "URI", self._named("chapters.json", text)))
        return data


def _first_to_play(variants: list[Variant]) -> list[Variant]:
    """Put the variant first with which a player on an unknown connection should begin."""
    first = next((v for v in variants if v.rates.peak <= START_BPS), variants[-1])
    return [first, *(v for v in variants if v is not first)]
