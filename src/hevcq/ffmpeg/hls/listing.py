"""List the files of a set: all that its playlists declare is read from the encoded files. Pure.

The encode writes them; gates H1 and H4 make them anew of the stored files, and compare.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hevcq.domain.keys import MASTER
from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
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
from hevcq.ffmpeg.hls.playlists import (
    Master,
    Rendition,
    Variant,
    chapters_json,
    master_playlist,
    media_playlist,
    text_playlist,
)
from hevcq.ffmpeg.hls.segments import (
    Segment,
    frame_rate,
    key_frames,
    rates,
    sound_segments,
    video_segments,
)

START_BPS = 2_500_000
"""The variant listed first, with which some players begin, is the highest of at most this peak rate."""


@dataclass(frozen=True, slots=True)
class SetContents:
    """The encoded files of a set: its rungs, the highest first, and its sounds by their names."""

    rungs: Sequence[tuple[Rung, FragmentedFile]]
    sounds: Mapping[str, FragmentedFile]


def set_playlists(
    plan: EncodePlan, info: MediaInfo, version: str, contents: SetContents
) -> dict[str, str]:
    """Return the playlists of a set and its chapters by their names in it; the master is the last."""
    listing = _Listing(plan, info, version, contents)
    master = listing.master()
    return {**listing.written, MASTER: master}


@dataclass(frozen=True, slots=True)
class _Listing:
    """What is to be listed, and what was written of it."""

    plan: EncodePlan
    info: MediaInfo
    version: str
    contents: SetContents
    written: dict[str, str] = field(default_factory=dict)

    def master(self) -> str:
        """Return the master playlist; write the others."""
        groups = sound_groups(self.plan)
        sounds = {name: self._sound(name, track) for name, track in sounds_of(self.plan).items()}
        texts = enumerate(of_kind(self.plan, StreamKind.SUBTITLE), 1)
        variants = [self._variant(rung, content) for rung, content in self.contents.rungs]
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
        content, source = self.contents.sounds[name], self._source(track)
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
        source, length = self._source(track), max(c.seconds for _, c in self.contents.rungs)
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

    def _source(self, track: StreamPlan) -> Stream:
        return next(s for s in self.info.streams if s.index == track.source_index)


def _first_to_play(variants: list[Variant]) -> list[Variant]:
    """Put the variant first with which a player on an unknown connection should begin."""
    first = next((v for v in variants if v.rates.peak <= START_BPS), variants[-1])
    return [first, *(v for v in variants if v is not first)]
