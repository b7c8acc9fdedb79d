"""Model the facts of a media file: the results of a probe and of a demux pass.

No fact depends on a file name's extension. Fractions stay exact as `num/den` strings; times are
float seconds for display, and integer ticks of the stream's time base where exactness matters.
`facts_version` digests the schema of MediaInfo with its docstrings: a changed docstring makes every
catalog probe its files again.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise

from pydantic import Field

from hevcq.domain.model import Frozen

UNMARKED_LINES, UNMARKED_RATES = frozenset({480, 486, 576}), (25.0, 30000 / 1001, 30.0)
"""Television's lines and frames per second: such a video may be interlaced without a mark."""
MAX_OFF = 0.005
"""Relative tolerance for television's frame rates."""
PROGRESSIVE_CODECS = frozenset({"hevc", "vp8", "vp9", "av1", "theora"})
"""Codecs in which interlaced video is never recorded."""
RECORDINGS, LATE_S = frozenset({"mpegts", "mpeg"}), 2.0
"""Demuxers of files without a list of streams. ffmpeg may miss a sound there that begins after LATE_S."""
WRITTEN_DOLBY = frozenset({"8.1", "8.4"})
"""Profiles of Dolby Vision that ffmpeg 7.1 and later write."""
SERVICE_TAGS = ("service_name", "service_provider")
"""Tags of a broadcast that name its station."""
STILL_S = 0.5
"""A picture shown this many seconds longer than the median makes a still passage."""
DISCONTINUOUS = frozenset({"mpegts", "mpeg", "ogg", "flv"})
"""Demuxers (AVFMT_TS_DISCONT) for which ffmpeg shifts the first mapped stream to 0; for others it shifts
the first of all streams."""


def ratio(text: str) -> Fraction:
    """Return the value of `num/den` or `num:den`; 0 if it is unknown."""
    num, _, den = text.replace(":", "/").partition("/")
    is_known = num.isdigit() and (den or "1").isdigit() and int(den or 1)
    return Fraction(int(num), int(den or 1)) if is_known else Fraction(0)


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
        default="", description="field order seen in its pictures: tt, bb or empty if unclear"
    )
    telecined: bool = Field(
        default=False, description="whether fields of sampled pictures repeat as in a telecine"
    )
    retimed: tuple[tuple[int, int], ...] = Field(
        default=(),
        description="once measured: pictures, counted from 0, whose decoded timestamp is wrong, each with "
        "the right one in ticks after the first picture",
    )
    bars: tuple[int, int] = Field(
        default=(0, 0),
        description="once measured: black columns on each side, and black rows at top and bottom, to crop "
        "from the upright picture",
    )
    rotation: int = Field(default=0, description="degrees clockwise to turn for display: 0..359")
    mirrored: bool = False
    turned_by_pictures: bool = Field(
        default=False, description="whether pictures state another rotation than the file"
    )
    average_rate: str = Field(default="0/0", description="frames per second, num/den")
    nominal_rate: str = Field(default="0/0", description="frames per second, num/den")
    colour: Colour = Colour()
    recoloured: bool = Field(default=False, description="whether the colour tags change later")
    mastering_display: MasteringDisplay | None = None
    light_level: LightLevel | None = None
    dolby_vision: bool = False
    dolby_profile: str = Field(default="", description="such as 5 or 8.4; empty: unknown")
    dolby_base: str = Field(
        default="",
        description="what a player without Dolby Vision shows: hdr10, hlg, sdr; empty: wrong colours",
    )
    dolby_writable: bool = Field(
        default=False,
        description="whether this build of ffmpeg writes its Dolby Vision (8.1 or 8.4 in HEVC)",
    )
    hdr10_plus: bool = False
    closed_captions: bool = False
    stereo_3d: bool = False
    becomes: str = Field(
        default="",
        description="size, sample aspect and pixel format of pictures that the other facts do not describe",
    )
    one_aspect: bool = Field(
        default=False,
        description="whether this build of ffmpeg reports the track's aspect for every picture",
    )
    spherical: bool = Field(default=False, description="360 or 180 degrees: mapped onto a sphere")
    cropped: bool = Field(
        default=False,
        description="whether Matroska hides a part of it, so that ffmpeg misreads the picture's shape",
    )
    crop_is_applied: bool = Field(
        default=False, description="whether this build of ffmpeg applies the crop when it decodes"
    )

    @property
    def marked_interlaced(self) -> bool:
        """Whether the file marks the video as interlaced; a frame may then come in two packets."""
        return self.field_order not in {"", "progressive", "unknown"}

    @property
    def interlaced(self) -> bool:
        """Whether the video is interlaced: by its pictures if they were examined, else by its mark."""
        return self.interlaced_pictures or (
            self.marked_interlaced and not self.progressive_pictures
        )

    @property
    def top_field_first(self) -> bool:
        """Whether the top field comes first: as seen in the pictures, else as marked."""
        return (self.seen_order or self.field_order)[-1:] == "t"

    @property
    def has_wrong_field_order(self) -> bool:
        pictures_order = self.seen_order if self.marked_interlaced else ""
        return bool(pictures_order) and pictures_order[-1] != self.field_order[-1:]

    @property
    def shapes(self) -> tuple[str, ...]:
        """The sizes and sample aspects of its pictures, those of the other facts first."""
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
        default=None,
        description="once measured: LUFS (EBU R 128) in the rendition's channel layout",
    )
    true_peak: float | None = Field(default=None, description="once measured: dBTP")
    changes: bool = Field(default=False, description="whether parts of it have fewer channels")


UNDECODED = frozenset({"", "unknown", "ac4", "apple_apac", "mpegh_3d_audio"})
"""Codecs that no ffmpeg up to version 9 decodes (`ffmpeg -codecs`); older ones know some only by tag."""


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
        description="BCP 47 language, if the container states one; local files only",
    )
    title: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    dispositions: tuple[str, ...] = ()
    video: VideoFacts | None = None
    audio: AudioFacts | None = None
    digest: str = Field(default="", description="of an attachment's bytes; empty for other kinds")

    @property
    def is_decodable(self) -> bool:
        """Whether a version of ffmpeg decodes the codec."""
        return self.codec not in UNDECODED

    @property
    def has_no_picture(self) -> bool:
        """Whether this video track contains no decodable picture."""
        return (
            self.kind is StreamKind.VIDEO
            and not self.frames
            and not (self.video is not None and self.video.pixel_format)
        )

    @property
    def may_be_interlaced(self) -> bool:
        """Whether its pictures must be examined: it is marked interlaced, or has television's format."""
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
"""The name of metadata that vouches for its own file's bytes by their hash."""
KEYED = "QuickTime tag "
"""Prefix of the name of an entry in QuickTime's metadata table, before its key."""


class MetadataItem(Frozen):
    """A piece of metadata that ffmpeg does not copy unchanged."""

    place: str = Field(description="where in the file: file, movie, movie list, track 0, …")
    name: str
    size: int = Field(description="bytes, with its header")
    digest: str
    reported: bool = Field(default=False, description="whether ffprobe reports its value as a tag")
    readable: bool = Field(default=True, description="false if it is too large to be copied")


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
        default=(), description="metadata other than tags; local files only"
    )

    def of_kind(self, kind: StreamKind) -> tuple[Stream, ...]:
        return tuple(stream for stream in self.streams if stream.kind is kind)

    def stream(self, index: int) -> Stream:
        """Return the stream with this index, which must exist."""
        return next(stream for stream in self.streams if stream.index == index)

    def is_unsent(self, stream: Stream) -> bool:
        """Return whether a broadcast announces the stream but none of its packets was found.

        ffprobe reports the file's times for such a stream.
        """
        if stream.audio is not None:
            return not stream.audio.sample_rate and not stream.frames
        has_file_times = (stream.start_s, stream.duration_s) == (self.start_s, self.duration_s)
        return stream.kind is StreamKind.SUBTITLE and has_file_times and not stream.frames

    @property
    def late_s(self) -> float:
        """Seconds into a recording at which its last sound begins, if so late that ffmpeg must search; else 0."""
        begins = [
            s.start_s - (self.start_s or 0.0) for s in self.of_kind(StreamKind.AUDIO) if s.start_s
        ]
        last = max(begins, default=0.0)
        return last if self.format_name in RECORDINGS and last >= LATE_S else 0.0

    def origin_s(self, mapped: Collection[int]) -> float:
        """Return the timestamp, in seconds, that ffmpeg shifts to 0 when it maps these stream indexes."""
        begins = [s.start_s for s in self.streams if s.index in mapped and s.start_s is not None]
        start = self.start_s or 0.0
        return max(start, min(begins)) if begins and self.format_name in DISCONTINUOUS else start


class Gaps(Frozen):
    """How many packets are missing from a track's even rate, and at which second the first one is.

    `certain` means that no other packet is off that rate. Cameras without exact timing skip pictures.
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
        description="packets so small that they may hold no picture, within `packets`; not stored",
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
        description="timestamps of all video frames in ticks, in order; empty if one has none; not stored",
    )
    sizes: tuple[int, ...] = Field(
        default=(),
        exclude=True,
        repr=False,
        description="bytes of the frames of `times`, if a quality search needs them; not stored",
    )
    monotonic_dts: bool = True
    discarded: int = Field(default=0, description="packets flagged discard, not in `packets`")
    digest: str = Field(default="", description="of the packets' bytes in order; empty: unknown")
    content: str = Field(
        default="",
        description="digest of the same bytes, independent of packet borders; PCM and PGS only",
    )
    retimed: tuple[tuple[int, int], ...] = Field(
        default=(), description="pictures whose decoded timestamp is wrong; see VideoFacts"
    )
    gaps: Gaps | None = Field(default=None, exclude=True, description="None: no gap; not stored")
    keys_s: tuple[float, ...] = Field(
        default=(), exclude=True, description="times of at most 1,000 key frames; not stored"
    )

    @property
    def has_still_passages(self) -> bool:
        """Whether a picture stays much longer than the median, as in recordings of slides or a desktop.

        False if the times are unknown.
        """
        if len(self.times) < 3:
            return False
        lengths = sorted(after - before for before, after in pairwise(self.times))
        longer = lengths[-1] - lengths[len(lengths) // 2]
        return longer * self.tick_s >= STILL_S

    @property
    def shown_s(self) -> float:
        """Seconds from the first picture's timestamp to the last one's; 0 if unknown."""
        return (self.last_pts_s or 0.0) - (self.first_pts_s or 0.0)

    @property
    def rate(self) -> float:
        """Mean pictures per second; 0 if the times are unknown."""
        return (self.packets - 1) / self.shown_s if self.packets > 1 and self.shown_s > 0 else 0.0

    def keep_every(self, every: int) -> TrackMeasure:
        """Return the track with only the first of each `every` pictures."""
        if every == 1 or self.first_pts_s is None or self.last_pts_s is None:
            return self
        kept, last_s = -(-self.packets // every), self.last_pts_s
        times = self.times[::every]
        if times:
            last_s -= (self.times[-1] - times[-1]) * self.tick_s
        elif self.rate:
            last_s -= (self.packets - 1) % every / self.rate
        changes = {"packets": kept, "times": times, "sizes": (), "last_pts_s": last_s}
        return self.model_copy(update=changes)

    @property
    def tick_s(self) -> float:
        """Duration in seconds of one tick of `times`; 1 if a single frame leaves it unknown."""
        return self.shown_s / (self.times[-1] - self.times[0] or 1) or 1.0


class Measurement(Frozen):
    """The result of a demux pass: the actual content of a whole file, not its header's claims."""

    tracks: tuple[TrackMeasure, ...]
    errors: tuple[str, ...] = Field(default=(), description="error-level lines of the pass")
    seconds: float = Field(default=0.0, description="wall time the pass took")
    notices: tuple[str, ...] = Field(
        default=(), description="sentences for people on what the measuring left out of the source"
    )
    bars: tuple[int, int, int] | None = Field(
        default=None, description="a video's index and its black columns and rows; see VideoFacts"
    )
    loudness: tuple[tuple[int, float, float], ...] = Field(
        default=(), description="index, LUFS and dBTP of each measured sound; see AudioFacts"
    )
    changing: tuple[tuple[int, int, str], ...] = Field(
        default=(),
        description="sounds whose channels change: index, largest channel count and its layout",
    )
    captions: tuple[str, ...] | None = Field(
        default=None,
        description="channels of closed captions that hold text, such as CC1; null: not looked for",
    )

    def track(self, index: int) -> TrackMeasure | None:
        return next((track for track in self.tracks if track.index == index), None)

    def late_streams(self, info: MediaInfo) -> tuple[int, ...]:
        """Return the indexes of streams that begin after the probed part, so that `info` lacks them."""
        probed = {stream.index for stream in info.streams}
        return tuple(t.index for t in self.tracks if t.index not in probed and t.packets)

    def add_to(self, info: MediaInfo) -> MediaInfo:
        """Return the facts with what only measuring shows; the same object if it shows nothing."""
        packets = {t.index: t.packets for t in self.tracks if t.packets}
        video_facts: dict[int, dict[str, object]] = {
            track.index: {"retimed": track.retimed} for track in self.tracks if track.retimed
        }
        if self.bars is not None:
            video_facts.setdefault(self.bars[0], {})["bars"] = self.bars[1:]
        audio_facts: dict[int, dict[str, object]] = {
            index: {"channels": channels, "layout": layout, "changes": True}
            for index, channels, layout in self.changing
        }
        for index, loudness, peak in self.loudness:
            audio_facts.setdefault(index, {}).update(loudness=loudness, true_peak=peak)
        changes: dict[int, dict[str, object]] = {}
        for stream in info.streams:
            change = changes.setdefault(stream.index, {})
            if info.is_unsent(stream) and stream.index in packets:
                change["frames"] = packets[stream.index]
            if stream.video is not None and stream.index in video_facts:
                change["video"] = stream.video.model_copy(update=video_facts[stream.index])
            if stream.audio is not None and stream.index in audio_facts:
                change["audio"] = stream.audio.model_copy(update=audio_facts[stream.index])
        if not any(changes.values()):
            return info
        streams = tuple(s.model_copy(update=changes[s.index]) for s in info.streams)
        return info.model_copy(update={"streams": streams})
