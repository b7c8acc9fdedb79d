"""Model the plan for a source, which `domain.planning.planner.make_plan` makes: skip, refuse or encode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from fractions import Fraction

from pydantic import Field

from hevcq.domain.certificate import Sidecar
from hevcq.domain.media.facts import (
    Colour,
    Gaps,
    LightLevel,
    MasteringDisplay,
    Measurement,
    MediaInfo,
    Stream,
    StreamKind,
    TrackMeasure,
)
from hevcq.domain.model import Frozen
from hevcq.domain.profile import Profile
from hevcq.domain.quality import Aim
from hevcq.errors import MediaRefused
from hevcq.util.text import counted, timecode


class SkipReason(StrEnum):
    """The reason to skip a source; stable codes, displayed and recorded."""

    ALREADY_TARGET = "already_target"
    SMALLER_THAN_BOX = "smaller_than_box"
    NO_VIDEO = "no_video"
    OWN_RENDITION = "own_rendition"
    NOT_SMALLER = "not_smaller"
    REMEMBERED = "remembered"


def too_large_sentence(share: float, saving: float, *, about: str = "", quality: str = "") -> str:
    """Return why a rendition with this `share` of the original's size misses the required `saving`.

    `about` stands before the size if it is a forecast, `quality` after it if a quality requires it.
    """
    size = f"{about}{100 * share:.0f} % of the original{quality}"
    if share >= 1:
        return f"Would be larger ({size})."
    return f"Would save too little ({size}, limit {100 * (1 - saving):.0f} %)."


def skip_in_words(reason: str) -> tuple[SkipReason | None, str]:
    """Return code and sentence of a skipped job's reason as the ledger records it (`code: detail`)."""
    code, colon, detail = reason.partition(": ")
    if not colon or code not in set(SkipReason):
        return None, reason
    why = SkipReason(code)
    before = "Original kept, as these bytes were tried before: "
    words = f"{before}{detail}" if why is SkipReason.REMEMBERED else detail
    return why, words if words.endswith(".") else f"{words}."


class Skip(Frozen):
    """Skip the source: there is nothing to do."""

    reason: SkipReason
    detail: str = Field(description="one sentence for people")


class Refuse(Frozen):
    """Refuse the source: a named policy forbids encoding it."""

    policy: str = Field(description="the profile key that forbids it, e.g. 'policies.dynamic_hdr'")
    detail: str = Field(description="sentences on the cause and the remedy")

    @classmethod
    def combine(cls, refusals: Iterable[Refuse]) -> Refuse | None:
        """Return one refusal with the details of all, the first of each policy; None without refusals."""
        details: dict[str, str] = {}
        for refusal in refusals:
            details.setdefault(refusal.policy, refusal.detail)
        if not details:
            return None
        return cls(policy=next(iter(details)), detail=" ".join(details.values()))


class Action(StrEnum):
    COPY = "copy"
    ENCODE = "encode"
    CONVERT = "convert"
    DROP = "drop"


FILM_TICK = Fraction(1, 120_000)
"""Time base in seconds in which timestamps at 24 and at 24000/1001 frames a second are whole."""
SOUNDS, SURROUND, LOW = "sound", "surround", "low"
"""Groups of an HLS ladder's sounds. SURROUND has 5.1 instead of its stereo mix. LOW is for rungs of at
most LOW_RUNG_KBPS and for sound without a picture."""
LOW_RUNG_KBPS = 100
"""Largest video rate of a low rung. With LOW's sound and the container's overhead it stays within the
192 kbit/s that Apple requires of one variant."""
LADDER_RATE = 60.5
"""Largest frame rate of a rung: Apple's players take 60, and a measured rate is rarely exact."""


class VideoTarget(Frozen):
    """The target of the main video stream: its required properties and the way to encode it."""

    encoder: str = Field(description="the ffmpeg encoder, e.g. libx265")
    node: str = Field(
        default="", description="the render node of a hardware encoder; empty: the first"
    )
    codec: str = Field(description="as ffprobe says, e.g. hevc")
    crf: float | None = Field(
        default=None, description="the CRF that a search chose; null: the profile's"
    )
    width: int
    height: int
    pixel_format: str
    bit_depth: int
    sample_aspect: str
    rotation: int = Field(description="what the output's rotation must read: 0 when turned upright")
    fit: str = Field(
        default="",
        description="WxH num:den to fit each picture into, if size or aspect change in the source; then "
        "the other shapes, if ffmpeg does not report each picture's aspect",
    )
    crop: str = Field(
        default="", description="width:height:x:y of the picture without its black bars; empty: all"
    )
    scale: bool = False
    pad_right: int = Field(default=0, description="columns to repeat: 4:2:0 holds even sizes only")
    pad_bottom: int = Field(default=0, description="rows to repeat: 4:2:0 holds even sizes only")
    deinterlace: bool = False
    field_rate: bool = Field(
        default=False, description="deinterlaced to full rate: each field becomes a frame"
    )
    top_field_first: bool | None = Field(
        default=None,
        description="field order for deinterlacing; null: as each frame is marked",
    )
    every: int = Field(
        default=1, description="HLS ladders: encode the first of every so many pictures"
    )
    telecine: str = Field(
        default="",
        description="frames per second to restore from a telecine, num/den; empty: not inverted",
    )
    unmark_fields: bool = Field(
        default=False, description="remove the source's interlaced mark, since its pictures are not"
    )
    captions: bool | None = Field(
        default=None,
        description="whether to carry captions in the video; null: the source has none",
    )
    rate: str = Field(
        default="",
        description="constant frame rate of the output, num/den; empty: timestamps are kept",
    )
    retimed: tuple[tuple[int, int], ...] = Field(
        default=(), description="pictures whose decoder's timestamp is corrected; see VideoFacts"
    )
    matrix: str = Field(
        default="", description="matrix that converts RGB to limited-range luma and chroma"
    )
    limit_range: bool = Field(
        default=False,
        description="convert full-range samples to limited range: the codec cannot mark full range",
    )
    tone_map: str = Field(
        default="",
        description="ffprobe's name of the source's HDR transfer, if it is mapped to SDR",
    )
    colour: Colour = Colour()
    mastering_display: MasteringDisplay | None = None
    light_level: LightLevel | None = None
    dolby_vision: bool = Field(
        default=False, description="keep each picture's Dolby Vision metadata"
    )
    unmark_hdr: bool = Field(
        default=False,
        description="remove HDR10 marks from SDR pictures, since the codec would not keep them",
    )
    tag: str = Field(default="", description="codec tag for MP4 and MOV, e.g. hvc1")

    @property
    def frames_per_frame(self) -> int:
        """Frames that the encode makes of each source frame, unless it inverts a telecine."""
        return 2 if self.field_rate else 1

    def tick(self, source: Stream) -> Fraction:
        """Return the time base, in seconds, in which the encoded timestamps are whole."""
        if self.telecine:
            return FILM_TICK
        # A frame's second field is shown between two ticks of the source.
        return source.tick / self.frames_per_frame


class StreamPlan(Frozen):
    """The plan for one source stream.

    `position` is its index in the output (None if dropped); `codec` is ffprobe's name of the
    output's required codec, and `encoder` the ffmpeg encoder ("copy" to copy).
    """

    source_index: int
    kind: StreamKind
    action: Action
    position: int | None = None
    codec: str = ""
    encoder: str = ""
    bit_rate: int | None = None
    channels: int | None = None
    gain_db: float = Field(default=0.0, description="gain applied to a sound; negative: quieter")
    video: VideoTarget | None = Field(default=None, description="target of an encoded video")
    also: Mapping[str, StreamPlan] = Field(
        default={}, description="HLS ladders: further encodes of this sound, by group of sounds"
    )
    notice: str = Field(default="", description="sentence for people on what is lost or changed")


class Rung(Frozen):
    """One picture size and codec of an HLS ladder; its file is `<name>.mp4`."""

    name: str = Field(description="v or hevc, and the shorter side in pixels: v720, hevc1080")
    target: VideoTarget
    crf: float
    max_kbps: int = Field(description="largest rate, over two seconds")

    @property
    def is_low(self) -> bool:
        """Whether the rung is for a connection too slow for the usual sound; see LOW."""
        return self.max_kbps <= LOW_RUNG_KBPS


class Ladder(Frozen):
    """The rungs of an HLS rendition, highest first and H.264 before HEVC. Times in seconds."""

    rungs: tuple[Rung, ...]
    segment_s: float
    keyframe_s: float
    b_frames: bool = Field(
        default=True,
        description="False for still passages, which would last longer in decoding order than when shown",
    )

    @property
    def every(self) -> int:
        """See `VideoTarget.every`; the same for all rungs."""
        return next((rung.target.every for rung in self.rungs), 1)

    def with_measurement(self, video: TrackMeasure, *, every: int) -> Ladder:
        """Return the ladder with this `every`, and without B-frames if the video has still passages."""
        rungs = tuple(
            rung.model_copy(update={"target": rung.target.model_copy(update={"every": every})})
            for rung in self.rungs
        )
        b_frames = self.b_frames and not video.has_still_passages
        return self.model_copy(update={"rungs": rungs, "b_frames": b_frames})


class EncodePlan(Frozen):
    profile: str
    revision: str
    muxer: str = Field(description="ffmpeg's muxer, e.g. mp4 or matroska")
    extension: str = Field(description="e.g. mp4 or mkv; m3u8 for a ladder")
    ladder: Ladder | None = Field(
        default=None, description="the rungs, if the rendition is a set of files for HLS"
    )
    streams: tuple[StreamPlan, ...] = Field(description="every source stream, in source order")
    captions: tuple[str, ...] = Field(
        default=(),
        description="channels of closed captions that become text tracks, after the other tracks",
    )
    chapters: int = Field(default=0, description="chapters the output must have")
    notices: tuple[str, ...] = Field(
        default=(), description="sentences for people on what is changed or dropped"
    )
    personal: tuple[str, ...] | None = Field(
        default=None, description="names of metadata about people, places and devices it contains"
    )
    losses: tuple[str, ...] = Field(
        default=(), description="lost metadata that forbids the rendition to replace the source"
    )
    aim: Aim | None = Field(
        default=None, description="the quality that was searched for; null: the profile's CRF"
    )
    sidecars: tuple[Sidecar, ...] = Field(
        default=(), description="subtitles for files beside the rendition"
    )

    def with_encoder(self, device: str) -> EncodePlan:
        """Return the plan with another encoder for the main video, `name` or `name@render node`."""
        name, _, node = device.partition("@")
        return self._update_video({"encoder": name, "node": node}, {"encoder": name})

    def with_crf(self, crf: float) -> EncodePlan:
        """Return the plan with another CRF for the main video."""
        return self._update_video({"crf": crf}, {})

    def with_aim(self, aim: Aim) -> EncodePlan:
        """Return the plan with the CRF that a search chose for the main video."""
        return self.with_crf(aim.crf).model_copy(update={"aim": aim})

    def with_verified_quality(self, quality: float | None) -> EncodePlan:
        """Return the plan with the rendition's measured quality and a notice about it."""
        assert self.aim is not None
        aim = self.aim.model_copy(update={"verified": quality})
        return self.model_copy(update={"aim": aim}).with_notices(aim.in_words())

    def _update_video(self, target: dict[str, object], stream: dict[str, object]) -> EncodePlan:
        main = self.main_video
        new = main.model_copy(update={"video": self.video.model_copy(update=target), **stream})
        streams = tuple(new if each == main else each for each in self.streams)
        return self.model_copy(update={"streams": streams})

    def with_notices(self, *notices: str) -> EncodePlan:
        """Return the plan with further notices, each once."""
        combined = tuple(dict.fromkeys((*self.notices, *notices)))
        return self.model_copy(update={"notices": combined})

    def without_late_streams(self, late: Sequence[int], profile: Profile) -> EncodePlan:
        """Return the plan with notices and losses for the streams at `late`.

        They begin after the probed part of the recording, so the rendition leaves them out.
        """
        lost = tuple(f"stream {index}, which begins later in the recording" for index in late)
        kept = lost if profile.policies.metadata == "keep" else ()
        noted = self.with_notices(*(f"{name[0].upper()}{name[1:]}, is left out." for name in lost))
        return noted.model_copy(update={"losses": (*self.losses, *kept)})

    def with_measurement(self, measured: Measurement, profile: Profile) -> EncodePlan:
        """Return the plan updated by a measurement: caption channels, still passages, frame rate and gaps.

        A certain gap in the source counts as a loss, because an intact copy of it may exist.
        """
        plan = self
        changes: dict[str, object] = {}
        if self.captions and measured.captions is not None:
            changes["captions"] = measured.captions
        video = measured.track(self.main_video.source_index)
        if self.ladder is not None and video is not None:
            every = 1 if self.video.deinterlace else max(1, math.ceil(video.rate / LADDER_RATE))
            changes["ladder"] = self.ladder.with_measurement(video, every=every)
            if every > 1:
                plan = self._update_video({"every": every}, {}).with_notices(
                    f"Of {video.rate:.4g} pictures a second {video.rate / every:.4g} are encoded: "
                    "players of HLS take at most 60."
                )
        kept = [track for track in measured.tracks if track.index in self.mapped]
        lacking = [
            (_missing_in_words(track.kind, gaps), gaps) for track in kept if (gaps := track.gaps)
        ]
        if profile.policies.metadata == "keep":
            lost = (f"{what}, missing in the original" for what, gaps in lacking if gaps.certain)
            changes["losses"] = (*self.losses, *lost)
        notices = (
            f"The original lacks {what}, and so does what is made of it." for what, _ in lacking
        )
        return plan.model_copy(update=changes).with_notices(*measured.notices, *notices)

    @property
    def kept(self) -> tuple[StreamPlan, ...]:
        """The plans of the output's streams, in output order."""
        live = [stream for stream in self.streams if stream.position is not None]
        return tuple(sorted(live, key=lambda stream: stream.position or 0))

    def encoded(self, kind: StreamKind) -> tuple[StreamPlan, ...]:
        """Return the kept tracks of a kind that are encoded rather than copied."""
        tracks = (stream for stream in self.kept if stream.kind is kind)
        return tuple(track for track in tracks if track.action is not Action.COPY)

    @property
    def mapped(self) -> frozenset[int]:
        """The indexes of the source's streams that the output holds."""
        return frozenset(stream.source_index for stream in self.kept)

    @property
    def has_covers(self) -> bool:
        return any(stream.kind is StreamKind.PICTURE for stream in self.kept)

    @property
    def main_video(self) -> StreamPlan:
        return next(s for s in self.kept if s.kind is StreamKind.VIDEO)

    @property
    def video(self) -> VideoTarget:
        """The target of the main video; for a ladder, of its highest rung."""
        target = self.main_video.video
        assert target is not None  # it is always encoded
        return target


Plan = Skip | Refuse | EncodePlan

Planner = Callable[[Profile, MediaInfo], Plan]
"""Makes the plan for a source from a profile and its facts: `domain.planning.planner.make_plan`."""


def _missing_in_words(kind: StreamKind, gaps: Gaps) -> str:
    name = "picture" if kind is StreamKind.VIDEO else "packet"
    of = "" if kind is StreamKind.VIDEO else " of sound"
    return f"{counted(gaps.count, name)}{of} (at {timecode(gaps.at_s)})"


def revise_plan(
    planner: Planner, profile: Profile, decided: tuple[MediaInfo, EncodePlan], measured: Measurement
) -> tuple[MediaInfo, EncodePlan]:
    """Return facts and plan updated by a measurement.

    If the measurement changes facts, such as wrong timestamps or a stream that begins late, the plan is
    made anew, and notices added to it meanwhile are kept. Raises MediaRefused if a policy refuses then.
    """
    probed, plan = decided
    info = measured.add_to(probed)
    if info is not probed:
        first, revised = planner(profile, probed), planner(profile, info)
        if isinstance(revised, Refuse):
            raise MediaRefused(f"{revised.detail} ({revised.policy})")
        if isinstance(first, EncodePlan) and isinstance(revised, EncodePlan):
            added = (notice for notice in plan.notices if notice not in first.notices)
            plan = revised.with_notices(*added)
    return info, plan.without_late_streams(measured.late_streams(info), profile).with_measurement(
        measured, profile
    )


class Work(Frozen):
    """The facts and the plan of one source, for encode, gates and publication alike.

    It is made after the probe; the measurement adds `measured` and a more exact `duration_s` (seconds).
    """

    recipe: Profile
    source_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    info: MediaInfo
    plan: EncodePlan
    measured: Measurement = Measurement(tracks=())
    duration_s: float | None
