"""Model the facts of a media file: the results of a probe and of a demux pass.

No fact depends on a file name's extension. Fractions stay exact as `num/den` strings; times are
float seconds for display, and integer ticks of the stream's time base where exactness matters.
The docstrings of MediaInfo and its parts are in the schema that `facts_version` digests: a changed
one makes every catalog probe its files again.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise

from pydantic import Field

from hevcq.domain.model import Frozen

UNMARKED_LINES, UNMARKED_RATES = frozenset({480, 486, 576}), (25.0, 30000 / 1001, 30.0)
"""Lines and frames per second of a video that may be interlaced without a mark: television's."""
MAX_OFF = 0.005
"""Share by which a frame rate may differ from television's."""
PROGRESSIVE_CODECS = frozenset({"hevc", "vp8", "vp9", "av1", "theora"})
"""Codecs that nobody records interlaced video in."""
RECORDINGS, LATE_S = frozenset({"mpegts", "mpeg"}), 2.0
"""Demuxers without a list of streams, and the seconds after which ffmpeg may know nothing of a sound in them."""
WRITTEN_DOLBY = frozenset({"8.1", "8.4"})
"""Profiles of Dolby Vision that ffmpeg 7.1 and later write."""
SERVICE_TAGS = ("service_name", "service_provider")
"""What a broadcast says of the programme: the station."""
STILL_S = 0.5
"""Seconds by which a picture stays longer than most do, if the passage is a still one."""
DISCONTINUOUS = frozenset({"mpegts", "mpeg", "ogg", "flv"})
"""Demuxers of which ffmpeg moves to 0 the first of the streams it maps, else of all (AVFMT_TS_DISCONT)."""


def ratio(text: str) -> Fraction:
    """Return the value of `num/den` or `num:den`; 0 if it is unknown."""
    num, _, den = text.replace(":", "/").partition("/")
    known = num.isdigit() and (den or "1").isdigit() and int(den or 1)
    return Fraction(int(num), int(den or 1)) if known else Fraction(0)


class StreamKind(StrEnum):
    """What a stream carries. A picture is cover art: one image, not a video."""

    VIDEO = "video"
    AUDIO = "audio"
    SUBTITLE = "subtitle"
    PICTURE = "picture"
    ATTACHMENT = "attachment"
    DATA = "data"


class Colour(Frozen):
    """Colour tags as ffprobe names them; empty means unspecified."""

    range: str = ""
    space: str = ""
    transfer: str = ""
    primaries: str = ""
    chroma_location: str = ""


class MasteringDisplay(Frozen):
    """HDR10 static mastering display colour volume (SMPTE ST 2086), each value as `num/den`."""

    red_x: str
    red_y: str
    green_x: str
    green_y: str
    blue_x: str
    blue_y: str
    white_x: str
    white_y: str
    min_luminance: str
    max_luminance: str


class LightLevel(Frozen):
    """HDR10 content light level (CTA-861.3), in cd/m²."""

    max_content: int
    max_average: int


class VideoFacts(Frozen):
    width: int
    height: int
    pixel_format: str
    bit_depth: int
    sample_aspect: str = Field(default="1:1", description="num:den; 0:1 and unknown become 1:1")
    field_order: str = Field(
        default="progressive", description="as marked: progressive, tt, bb, tb or bt"
    )
    progressive_pictures: bool = Field(
        default=False, description="whether its pictures are progressive, though marked interlaced"
    )
    interlaced_pictures: bool = Field(
        default=False, description="whether its pictures are interlaced, though not marked so"
    )
    seen_order: str = Field(
        default="", description="the field order that its pictures clearly show: tt, bb or empty"
    )
    telecined: bool = Field(
        default=False, description="whether its fields repeat as those of a telecine, in samples"
    )
    retimed: tuple[tuple[int, int], ...] = Field(
        default=(),
        description="pictures, counted from 0, that a decoder gives a wrong time, once it is measured, "
        "each with the right one in ticks from the first's",
    )
    bars: tuple[int, int] = Field(
        default=(0, 0),
        description="columns at the left and right, and rows at the top and bottom of the upright picture, "
        "that are black throughout and to be cropped, once measured",
    )
    rotation: int = Field(default=0, description="degrees clockwise to turn for display: 0..359")
    mirrored: bool = False
    turned_by_pictures: bool = Field(
        default=False, description="whether pictures carry another rotation than the file does"
    )
    average_rate: str = Field(default="0/0", description="frames per second, num/den")
    nominal_rate: str = Field(default="0/0", description="frames per second, num/den")
    colour: Colour = Colour()
    recoloured: bool = Field(default=False, description="whether later pictures have other ones")
    mastering_display: MasteringDisplay | None = None
    light_level: LightLevel | None = None
    dolby_vision: bool = False
    dolby_profile: str = Field(default="", description="such as 5 or 8.4; empty: unknown")
    dolby_base: str = Field(
        default="",
        description="what a player without Dolby Vision shows: hdr10, hlg, sdr, or empty: nothing true",
    )
    dolby_writable: bool = Field(
        default=False,
        description="Dolby Vision 8.1 or 8.4 in HEVC, which this build of ffmpeg writes as well",
    )
    hdr10_plus: bool = False
    closed_captions: bool = False
    stereo_3d: bool = False
    becomes: str = Field(
        default="",
        description="size, sample aspect and pixels of pictures unlike those that the other facts describe",
    )
    one_aspect: bool = Field(
        default=False,
        description="this build of ffmpeg gives every picture its track's aspect, though they differ",
    )
    spherical: bool = Field(default=False, description="360 or 180 degrees: mapped onto a sphere")
    cropped: bool = Field(
        default=False,
        description="Matroska hides a part of it, and ffmpeg takes the shape of the rest for the whole's",
    )
    crop_is_applied: bool = Field(
        default=False, description="this build of ffmpeg decodes only what the crop leaves"
    )

    @property
    def marked_interlaced(self) -> bool:
        """Whether the file calls the video interlaced: its frames may then come in two packets."""
        return self.field_order not in {"", "progressive", "unknown"}

    @property
    def interlaced(self) -> bool:
        """Whether the video is interlaced: it is marked so or not, unless its pictures were seen to differ."""
        return self.interlaced_pictures or (
            self.marked_interlaced and not self.progressive_pictures
        )

    @property
    def top_field_first(self) -> bool:
        """Whether the top field of an interlaced picture is shown first, by sight before mark."""
        return (self.seen_order or self.field_order)[-1:] == "t"

    @property
    def has_wrong_field_order(self) -> bool:
        seen = self.seen_order if self.marked_interlaced else ""
        return bool(seen) and seen[-1] != self.field_order[-1:]

    @property
    def shapes(self) -> tuple[str, ...]:
        """The sizes and sample aspects that were seen of its pictures, the lasting one first."""
        others = (" ".join(shape.split()[:2]) for shape in self.becomes.split(", ") if shape)
        return (f"{self.width}x{self.height} {self.sample_aspect}", *others)

    @property
    def display_size(self) -> tuple[int, int]:
        """Display width and height in square pixels, after rotation."""
        wide = round(self.width * (ratio(self.sample_aspect) or 1))
        return (self.height, wide) if self.rotation % 180 == 90 else (wide, self.height)


class AudioFacts(Frozen):
    channels: int
    layout: str = ""
    sample_rate: int
    loudness: float | None = Field(
        default=None, description="LUFS (EBU R 128) as it is mixed for the rendition, once measured"
    )
    true_peak: float | None = Field(default=None, description="dBTP, once measured")
    changes: bool = Field(default=False, description="parts of it have fewer channels")


UNDECODED = frozenset({"", "unknown", "ac4", "apple_apac", "mpegh_3d_audio"})
"""Codecs without a decoder up to ffmpeg 9 (`ffmpeg -codecs`); older versions know some by their tag only."""


class Stream(Frozen):
    index: int
    kind: StreamKind
    codec: str = Field(description="ffprobe's codec_name, or 'unknown'")
    codec_tag: str = ""
    profile: str = ""
    time_base: str = "1/1000"
    start_s: float | None = None
    duration_s: float | None = Field(default=None, description="as the header claims: never proof")
    frames: int | None = Field(default=None, description="as the header claims: never proof")
    bit_rate: int | None = None
    language: str = ""
    language_tag: str = Field(
        default="",
        description="the language by BCP 47, where the container says it; of local files",
    )
    title: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    dispositions: tuple[str, ...] = ()
    video: VideoFacts | None = None
    audio: AudioFacts | None = None
    digest: str = Field(default="", description="of an attachment's bytes; empty for other kinds")

    @property
    def decodable(self) -> bool:
        """Whether any ffmpeg decodes the codec."""
        return self.codec not in UNDECODED

    @property
    def has_no_picture(self) -> bool:
        """Whether it is a video track of which no picture could be found, and none is counted."""
        return (
            self.kind is StreamKind.VIDEO
            and not self.frames
            and not (self.video is not None and self.video.pixel_format)
        )

    @property
    def may_be_interlaced(self) -> bool:
        """Whether its pictures decide if it is interlaced: it is marked so, or of television's size."""
        video = self.video
        if video is None or self.has_no_picture or self.kind is not StreamKind.VIDEO:
            return False
        if video.marked_interlaced:
            return True
        shown = ratio(video.average_rate)
        usual = any(abs(shown / rate - 1) < MAX_OFF for rate in UNMARKED_RATES)
        return usual and video.height in UNMARKED_LINES and self.codec not in PROGRESSIVE_CODECS

    @property
    def tick(self) -> Fraction:
        """The time base as an exact fraction of a second."""
        return Fraction(self.time_base)


class Chapter(Frozen):
    """One chapter; times in seconds."""

    start_s: float
    end_s: float
    title: str = ""


CREDENTIALS = "Content Credentials (C2PA)"
"""The name of a piece of metadata that proves by its hash where the bytes of its own file are from."""
KEYED = "QuickTime tag "
"""How the name of an entry of QuickTime's table begins, before its key."""


class MetadataItem(Frozen):
    """A piece of metadata that ffmpeg does not copy as it is."""

    place: str = Field(description="where in the file: file, movie, movie list, track 0, …")
    name: str
    size: int = Field(description="bytes, with its header")
    digest: str
    reported: bool = Field(default=False, description="whether a tag of ffprobe holds its value")
    readable: bool = Field(default=True, description="false if it is too large to be carried")


class MediaInfo(Frozen):
    """Everything a probe learns of a file."""

    format_name: str = Field(description="ffprobe's format_name, e.g. 'mov,mp4,m4a,3gp,3g2,mj2'")
    duration_s: float | None = Field(default=None, description="as the header claims")
    start_s: float | None = None
    size: int = 0
    bit_rate: int | None = None
    streams: tuple[Stream, ...] = ()
    chapters: tuple[Chapter, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)
    index_first: bool = Field(
        default=False, description="whether an MP4's index (moov) comes before its media"
    )
    metadata: tuple[MetadataItem, ...] = Field(
        default=(), description="beside the tags; read of local files only"
    )

    def of_kind(self, kind: StreamKind) -> tuple[Stream, ...]:
        return tuple(stream for stream in self.streams if stream.kind is kind)

    def stream(self, index: int) -> Stream:
        """Return the stream with a number that a plan or a measurement of this file names."""
        return next(stream for stream in self.streams if stream.index == index)

    def is_unsent(self, stream: Stream) -> bool:
        """Whether a broadcast announces the stream, and nothing of it was found.

        ffprobe gives such a stream the times of the file.
        """
        if stream.audio is not None:
            return not stream.audio.sample_rate and not stream.frames
        same = (stream.start_s, stream.duration_s) == (self.start_s, self.duration_s)
        return stream.kind is StreamKind.SUBTITLE and same and not stream.frames

    @property
    def late_s(self) -> float:
        """Seconds into a recording after which its last sound begins, if ffmpeg has to look for it; else 0."""
        begins = [
            s.start_s - (self.start_s or 0.0) for s in self.of_kind(StreamKind.AUDIO) if s.start_s
        ]
        last = max(begins, default=0.0)
        return last if self.format_name in RECORDINGS and last >= LATE_S else 0.0

    def origin_s(self, mapped: Collection[int]) -> float:
        """Return the time that ffmpeg moves to 0 when it maps the streams with these indexes."""
        begins = [s.start_s for s in self.streams if s.index in mapped and s.start_s is not None]
        start = self.start_s or 0.0
        return max(start, min(begins)) if begins and self.format_name in DISCONTINUOUS else start


class Gaps(Frozen):
    """What is missing from the even rate of a track: how many packets, and when the first one, in seconds.

    `certain` where no other packet is off that rate; cameras that keep no exact time leave pictures out.
    """

    count: int
    at_s: float
    certain: bool


class TrackMeasure(Frozen):
    """The counts of a demux pass for one stream. Times are in seconds, from packet timestamps."""

    index: int
    kind: StreamKind
    packets: int = Field(description="without packets flagged discard")
    bytes: int = 0
    tiny: int = Field(
        default=0,
        exclude=True,
        description="packets of `packets` that may hold no picture at all, by their size; not stored",
    )
    first_pts_s: float | None = None
    last_pts_s: float | None = Field(default=None, description="start of the last-shown packet")
    end_s: float | None = Field(default=None, description="last pts plus its duration")
    first_stored_s: float | None = Field(
        default=None, description="earliest pts of all packets, with those flagged discard"
    )
    last_stored_s: float | None = Field(default=None, description="latest pts of all packets")
    times: tuple[int, ...] = Field(
        default=(),
        exclude=True,
        repr=False,
        description="of every frame of a video, in ticks and order; empty if any has none; not stored",
    )
    sizes: tuple[int, ...] = Field(
        default=(),
        exclude=True,
        repr=False,
        description="bytes of the frames of `times`, where a search reads them; not stored",
    )
    monotonic_dts: bool = True
    discarded: int = Field(default=0, description="packets flagged discard, not in `packets`")
    digest: str = Field(default="", description="of the packets' bytes in order; empty: unknown")
    content: str = Field(
        default="",
        description="of the same bytes wherever packets begin; PCM and PGS only, else empty",
    )
    retimed: tuple[tuple[int, int], ...] = Field(
        default=(), description="pictures that a decoder gives a wrong time; see VideoFacts"
    )
    gaps: Gaps | None = Field(default=None, exclude=True, description="None: no gap; not stored")
    keys_s: tuple[float, ...] = Field(
        default=(), exclude=True, description="times of key frames, a thousand at most; not stored"
    )

    @property
    def has_still_passages(self) -> bool:
        """Whether a picture stays much longer than most do, as in recordings of slides or a desktop.

        False if the times are unknown.
        """
        if len(self.times) < 3:
            return False
        lengths = sorted(after - before for before, after in pairwise(self.times))
        longer = lengths[-1] - lengths[len(lengths) // 2]
        return longer * self.tick_s >= STILL_S

    @property
    def shown_s(self) -> float:
        """Seconds from when the first picture is shown to when the last is; 0 if unknown."""
        return (self.last_pts_s or 0.0) - (self.first_pts_s or 0.0)

    @property
    def rate(self) -> float:
        """Pictures per second, in the mean; 0 if the times are unknown."""
        return (self.packets - 1) / self.shown_s if self.packets > 1 and self.shown_s > 0 else 0.0

    def keep_every(self, every: int) -> TrackMeasure:
        """Return the track with the first of each `every` pictures alone."""
        if every == 1 or self.first_pts_s is None or self.last_pts_s is None:
            return self
        kept, last_s = -(-self.packets // every), self.last_pts_s
        times = self.times[::every]
        if times:
            last_s -= (self.times[-1] - times[-1]) * self.tick_s
        elif self.rate:
            last_s -= (self.packets - 1) % every / self.rate
        found = {"packets": kept, "times": times, "sizes": (), "last_pts_s": last_s}
        return self.model_copy(update=found)

    @property
    def tick_s(self) -> float:
        """Seconds of one of the ticks of `times`; 1 where one frame says nothing of them."""
        return self.shown_s / (self.times[-1] - self.times[0] or 1) or 1.0


class Measurement(Frozen):
    """The result of a demux pass: the actual content of a whole file, not its header's claims."""

    tracks: tuple[TrackMeasure, ...]
    errors: tuple[str, ...] = Field(default=(), description="error-level lines of the pass")
    seconds: float = Field(default=0.0, description="wall time the pass took")
    notices: tuple[str, ...] = Field(
        default=(), description="what of the source is left out, found by measuring; for people"
    )
    bars: tuple[int, int, int] | None = Field(
        default=None, description="of a video: its index, columns and rows; see VideoFacts"
    )
    loudness: tuple[tuple[int, float, float], ...] = Field(
        default=(), description="of sounds: their index, LUFS and dBTP; see AudioFacts"
    )
    changing: tuple[tuple[int, int, str], ...] = Field(
        default=(),
        description="sounds whose channels change: index, the most of them, their layout",
    )
    captions: tuple[str, ...] | None = Field(
        default=None,
        description="channels of closed captions that hold text, such as CC1; empty: not looked for",
    )

    def track(self, index: int) -> TrackMeasure | None:
        return next((track for track in self.tracks if track.index == index), None)

    def late_streams(self, info: MediaInfo) -> tuple[int, ...]:
        """Return the indexes of the streams that the facts do not have: they begin after what was probed."""
        known = {stream.index for stream in info.streams}
        return tuple(t.index for t in self.tracks if t.index not in known and t.packets)

    def add_to(self, info: MediaInfo) -> MediaInfo:
        """Return the facts with what measuring alone shows; unchanged if it shows nothing."""
        found = {track.index: track for track in self.tracks if track.retimed}
        packets = {t.index: t.packets for t in self.tracks if t.packets}
        late = {s.index for s in info.streams if info.is_unsent(s)} & packets.keys()
        heard: dict[int, dict[str, object]] = {
            index: {"channels": channels, "layout": layout, "changes": True}
            for index, channels, layout in self.changing
        }
        for index, loudness, peak in self.loudness:
            heard.setdefault(index, {}).update(loudness=loudness, true_peak=peak)
        if not found and not late and not heard and self.bars is None:
            return info
        streams = []
        for stream in info.streams:
            if stream.index in late:
                stream = stream.model_copy(update={"frames": packets[stream.index]})  # noqa: PLW2901
            track, video = found.get(stream.index), stream.video
            if track is not None and video is not None:
                shown = video.model_copy(update={"retimed": track.retimed})
                stream = stream.model_copy(update={"video": shown})  # noqa: PLW2901
            if stream.video is not None and self.bars is not None and stream.index == self.bars[0]:
                cut = stream.video.model_copy(update={"bars": self.bars[1:]})
                stream = stream.model_copy(update={"video": cut})  # noqa: PLW2901
            if stream.audio is not None and stream.index in heard:
                audio = stream.audio.model_copy(update=heard[stream.index])
                stream = stream.model_copy(update={"audio": audio})  # noqa: PLW2901
            streams.append(stream)
        return info.model_copy(update={"streams": tuple(streams)})
