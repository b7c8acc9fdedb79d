"""Write HLS playlists (RFC 8216 and its successor draft-pantos-hls-rfc8216bis). Pure.

ffmpeg 5.1 writes playlists too, but with CRF it gives all variants the sound's BANDWIDTH, and HEVC
always the same CODECS.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from hevcq.domain.formats import bcp47
from hevcq.domain.keys import MASTER
from hevcq.domain.media.facts import Chapter, MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan, Rung, StreamPlan
from hevcq.ffmpeg.containers.fragments import FragmentedFile
from hevcq.ffmpeg.hls.command import (
    audio_only_group,
    groups_of_rung,
    kept_tracks,
    ladder_in,
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
SUBTITLE_GROUP = "text"
"""Group id of the subtitles."""
VIDEO_RANGES = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
"""VIDEO-RANGE by transfer function, as ffprobe names it."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A rung in the master playlist. The URIs `playlist` and `key_frames` are relative to the master.

    `groups` are the sound groups with which the rung is listed.
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
    """A sound or subtitle track in the master playlist. `language` is an ISO 639-2 code or a BCP 47 tag."""

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
    """The content of a master playlist.

    `sounds` are the sound groups by name. All have the same members in the same order (RFC 8216,
    4.3.4.1.1). The default sound of `audio_only_group` is also a variant without video. `data` are
    session data: id, attribute (VALUE or URI) and value.
    """

    variants: Sequence[Variant]
    sounds: Mapping[str, Sequence[Rendition]]
    texts: Sequence[Rendition]
    data: Sequence[tuple[str, str, str]] = ()
    captions: bool = False
    audio_only_group: str | None = None


def media_playlist(uri: str, head: int, segments: Sequence[Segment], *, keys: bool = False) -> str:
    """Return the playlist of one file's byte ranges; with `keys` it is an I-frame playlist.

    `head` is the size of the file's initialisation section in bytes.
    """
    lines = _header(target_duration(segments))
    lines += ["#EXT-X-I-FRAMES-ONLY"] if keys else []
    place = quote(uri)
    lines.append(f'#EXT-X-MAP:URI="{place}",BYTERANGE="{head}@0"')
    for segment in segments:
        lines.append(f"#EXTINF:{float(segment.seconds):.6f},")
        lines.append(f"#EXT-X-BYTERANGE:{segment.end - segment.start}@{segment.start}")
        lines.append(place)
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


def text_playlist(uri: str, seconds: float) -> str:
    """Return the playlist of one WebVTT file, which lasts as long as the video."""
    lines = _header(max(1, int(seconds + 0.5)))
    return "\n".join([*lines, f"#EXTINF:{seconds:.6f},", quote(uri), "#EXT-X-ENDLIST", ""])


def _header(target: int) -> list[str]:
    return [
        "#EXTM3U",
        f"#EXT-X-VERSION:{VERSION}",
        f"#EXT-X-TARGETDURATION:{target}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]


def master_playlist(master: Master) -> str:
    """Return the master playlist; players may begin with the first variant."""
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for name, key, value in master.data:
        lines.append(f"#EXT-X-SESSION-DATA:DATA-ID={_quoted(name)},{key}={_quoted(value)}")
    for group, sounds in master.sounds.items():
        lines += _renditions("AUDIO", group, sounds)
    lines += _renditions("SUBTITLES", SUBTITLE_GROUP, master.texts)
    for group in master.sounds or [""]:
        for variant in master.variants:
            if not group or group in variant.groups:
                lines += _variant_lines(master, variant, group)
    if master.audio_only_group is not None:
        lines += _audio_only_lines(master, master.audio_only_group)
    for variant in master.variants:
        words = ",".join(_common_attributes(variant.key_rates, variant.codec, variant))
        uri = _quoted(quote(variant.key_frames))
        lines.append(f"#EXT-X-I-FRAME-STREAM-INF:{words},URI={uri}")
    return "\n".join([*lines, ""])


def _renditions(kind: str, group: str, renditions: Sequence[Rendition]) -> Iterator[str]:
    taken: set[str] = set()
    for number, each in enumerate(renditions, 1):
        language = bcp47(each.language)
        kind_name = "Subtitles" if kind == "SUBTITLES" else "Sound"
        # Web players insert names as HTML.
        title = each.title.replace("<", "‹")
        name = unique_name(title or language or f"{kind_name} {number}", taken)
        words = [f"TYPE={kind}", f'GROUP-ID="{group}"', f"NAME={_quoted(name)}"]
        words += [f"LANGUAGE={_quoted(language)}"] if language else []
        words += [f"DEFAULT={'YES' if each.default else 'NO'}", "AUTOSELECT=YES"]
        words += [f"FORCED={'YES' if each.forced else 'NO'}"] if kind == "SUBTITLES" else []
        words += [f'CHANNELS="{each.channels}"'] if each.channels else []
        yield f"#EXT-X-MEDIA:{','.join(words)},URI={_quoted(quote(each.playlist))}"


def unique_name(wanted: str, taken: set[str]) -> str:
    """Return a name that no other rendition of the group has, and add it to `taken`."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted} ({number})"
    taken.add(name)
    return name


def _variant_lines(master: Master, variant: Variant, group: str) -> list[str]:
    sounds = master.sounds.get(group, ())
    together = variant.rates.plus(max_rates(sounds))
    words = _common_attributes(together, _codecs(variant.codec, sounds), variant)
    words.insert(4, f"FRAME-RATE={variant.rate:.3f}")  # RFC 8216, 4.3.4.2
    return _stream_inf_lines(master, words, group if sounds else "", variant.playlist)


def _audio_only_lines(master: Master, group: str) -> list[str]:
    """Return the lines of the variant without video, for connections too slow for any other."""
    sounds = master.sounds[group]
    rates, default = max_rates(sounds), next(sound for sound in sounds if sound.default)
    words = [f"BANDWIDTH={rates.peak}", f"AVERAGE-BANDWIDTH={rates.average}"]
    words.append(f"CODECS={_quoted(_codecs(default.codec, sounds))}")
    return _stream_inf_lines(master, words, group, default.playlist)


def _stream_inf_lines(master: Master, words: list[str], group: str, playlist: str) -> list[str]:
    words += [f'AUDIO="{group}"'] if group else []
    words += [f'SUBTITLES="{SUBTITLE_GROUP}"'] if master.texts else []
    words += [] if master.captions else ["CLOSED-CAPTIONS=NONE"]
    return [f"#EXT-X-STREAM-INF:{','.join(words)}", quote(playlist)]


def _common_attributes(rates: Rates, codecs: str, variant: Variant) -> list[str]:
    return [
        f"BANDWIDTH={rates.peak}",
        f"AVERAGE-BANDWIDTH={rates.average}",
        f"CODECS={_quoted(codecs)}",
        f"RESOLUTION={variant.width}x{variant.height}",
        f"VIDEO-RANGE={VIDEO_RANGES.get(variant.range, 'SDR')}",
    ]


def max_rates(sounds: Sequence[Rendition]) -> Rates:
    """Return the largest bit rates among the sounds: a player plays one of them with the video."""
    return Rates(
        max((sound.rates.peak for sound in sounds), default=0),
        max((sound.rates.average for sound in sounds), default=0),
    )


def _codecs(codec: str, sounds: Sequence[Rendition]) -> str:
    return ",".join(dict.fromkeys([codec, *(sound.codec for sound in sounds)]))


def _quoted(text: str) -> str:
    """Quote a string, without the quotation marks and line breaks that it may not contain."""
    plain = "".join(" " if mark in "\r\n\t" else "'" if mark == '"' else mark for mark in text)
    return f'"{plain}"'


def chapters_json(chapters: Sequence[Chapter], start_s: float) -> str:
    """Return chapters in Apple's format of session data (com.apple.hls.chapters)."""
    rows = [
        {
            "chapter": number,
            "start-time": round(max(0.0, chapter.start_s - start_s), 3),
            "duration": round(max(0.0, chapter.end_s - chapter.start_s), 3),
            "titles": [{"language": "und", "title": chapter.title or f"Chapter {number}"}],
        }
        for number, chapter in enumerate(chapters, 1)
    ]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


START_BPS = 2_500_000
"""Some players begin with the first variant, so the highest one of at most this peak rate is listed first."""


Rungs = Sequence[tuple[Rung, FragmentedFile]]
"""The encoded rungs of a set, the highest first."""


def set_playlists(
    plan: EncodePlan,
    info: MediaInfo,
    version: str,
    rungs: Rungs,
    sounds: Mapping[str, FragmentedFile],
) -> dict[str, str]:
    """Return the texts of a set's playlists and chapters by file name; the master playlist is the last."""
    playlists = _PlaylistSet(plan, info, version, rungs, sounds)
    master = playlists.master()
    return {**playlists.texts, MASTER: master}


@dataclass(frozen=True, slots=True)
class _PlaylistSet:
    """The content of a set, and the `texts` written so far, by file name."""

    plan: EncodePlan
    info: MediaInfo
    version: str
    rungs: Rungs
    sounds: Mapping[str, FragmentedFile]
    texts: dict[str, str] = field(default_factory=dict)

    def master(self) -> str:
        """Write all other playlists; return the master playlist."""
        groups = sound_groups(self.plan)
        sounds = {name: self._sound(name, track) for name, track in sounds_of(self.plan).items()}
        texts = enumerate(kept_tracks(self.plan, StreamKind.SUBTITLE), 1)
        variants = [self._variant(rung, content) for rung, content in self.rungs]
        start = next((v for v in variants if v.rates.peak <= START_BPS), variants[-1])
        return master_playlist(
            Master(
                variants=[start, *(v for v in variants if v is not start)],
                audio_only_group=audio_only_group(groups),
                sounds={group: [sounds[n] for n in names] for group, names in groups.items()},
                texts=[self._subtitle(number, track) for number, track in texts],
                data=self._session_data(),
                captions=bool(self.plan.video.captions),
            )
        )

    def _variant(self, rung: Rung, content: FragmentedFile) -> Variant:
        segments = video_segments(content, ladder_in(self.plan).segment_s)
        keys = key_frames(content)
        return Variant(
            playlist=self._add_playlist(rung.name, content, segments),
            key_frames=self._add_playlist(rung.name, content, keys, suffix="-keys"),
            codec=content.codec,
            width=content.width,
            height=content.height,
            rate=frame_rate(segments),
            range=rung.target.colour.transfer,
            rates=rates(segments),
            key_rates=rates(keys),
            groups=groups_of_rung(rung, sound_groups(self.plan)),
        )

    def _sound(self, name: str, track: StreamPlan) -> Rendition:
        content, source = self.sounds[name], self.info.stream(track.source_index)
        segments = sound_segments(content)
        return Rendition(
            playlist=self._add_playlist(name, content, segments),
            title=source.title,
            language=source.language,
            default=track.source_index == kept_tracks(self.plan, StreamKind.AUDIO)[0].source_index,
            channels=content.channels,
            codec=content.codec,
            rates=rates(segments),
        )

    def _subtitle(self, number: int, track: StreamPlan) -> Rendition:
        source, length = self.info.stream(track.source_index), max(c.seconds for _, c in self.rungs)
        return Rendition(
            playlist=self._add_file(
                f"text{number}.m3u8", text_playlist(f"text{number}.vtt", length)
            ),
            title=source.title,
            language=source.language,
            forced="forced" in source.dispositions,
        )

    def _add_playlist(
        self, stem: str, content: FragmentedFile, segments: Sequence[Segment], suffix: str = ""
    ) -> str:
        text = media_playlist(f"{stem}.mp4", content.head, segments, keys=bool(suffix))
        return self._add_file(f"{stem}{suffix}.m3u8", text)

    def _add_file(self, name: str, text: str) -> str:
        """Add a text file to the set; return its name relative to the master playlist."""
        self.texts[f"{self.version}/{name}"] = text
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
            data.append(("com.apple.hls.chapters", "URI", self._add_file("chapters.json", text)))
        return data
