"""Model the plan for a source: skip it, refuse it, or encode it in exactly this way.

These are the values; the pure function `domain.planning.planner.make_plan` makes them.
"""

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


def too_large(share: float, saving: float, *, about: str = "", quality: str = "") -> str:
    """Return the sentence on a rendition of a `share` of the original's size, where `saving` is asked for.

    `about` stands before a size that is foretold, `quality` behind one that a quality needs.
    """
    found = f"{about}{100 * share:.0f} % of the original{quality}"
    if share >= 1:
        return f"Would be larger ({found})."
    return f"Would save too little ({found}, limit {100 * (1 - saving):.0f} %)."


def skip_in_words(reason: str) -> tuple[SkipReason | None, str]:
    """Return the code and the sentence of a skipped job's reason, given as the ledger records it."""
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

    policy: str = Field(description="the profile key that says so, e.g. 'policies.dynamic_hdr'")
    detail: str = Field(description="sentences: what was found and what to do")

    @classmethod
    def of_all(cls, refusals: Iterable[Refuse]) -> Refuse | None:
        """Return refusals as one that says all of them, each policy once; None if there are none."""
        found: dict[str, str] = {}
        for refusal in refusals:
            found.setdefault(refusal.policy, refusal.detail)
        return cls(policy=next(iter(found)), detail=" ".join(found.values())) if found else None


class Action(StrEnum):
    COPY = "copy"
    ENCODE = "encode"
    CONVERT = "convert"
    DROP = "drop"


FILM_TICK = Fraction(1, 120_000)
"""Seconds in which the times of 24 and of 24000/1001 frames a second are whole."""
SOUNDS, SURROUND, LOW = "sound", "surround", "low"
"""Groups of an HLS ladder's sounds; in the second 5.1 takes the place of its stereo mix, the third is
for rungs of at most LOW_RUNG_KBPS and for sound without a picture."""
LOW_RUNG_KBPS = 100
"""With the sound of LOW and what the container takes, at most the 192 kbit/s that Apple asks of one variant."""
LADDER_RATE = 60.5
"""Frames per second of a rung at most: Apple's players take 60, which is seldom measured exactly."""


class VideoTarget(Frozen):
    """The target of the main video stream: its required properties and the way to encode it."""

    encoder: str = Field(description="the ffmpeg encoder, e.g. libx265")
    node: str = Field(
        default="", description="the render node of a hardware encoder; empty: the first"
    )
    codec: str = Field(description="as ffprobe says, e.g. hevc")
    crf: float | None = Field(default=None, description="that a search chose; null: the profile's")
    width: int
    height: int
    pixel_format: str
    bit_depth: int
    sample_aspect: str
    rotation: int = Field(description="what the output's rotation must read: 0 when turned upright")
    fit: str = Field(
        default="",
        description="WxH num:den into which each picture is fitted, as its size or aspect changes; "
        "then those of the others, where ffmpeg does not know the aspect of each",
    )
    crop: str = Field(
        default="", description="width:height:x:y that is kept between black bars; empty: all"
    )
    scale: bool = False
    pad_right: int = Field(default=0, description="columns repeated: 4:2:0 holds even sizes only")
    pad_bottom: int = Field(default=0, description="rows repeated: 4:2:0 holds even sizes only")
    deinterlace: bool = False
    field_rate: bool = Field(
        default=False, description="deinterlaced to full rate: each field becomes a frame"
    )
    top_field_first: bool | None = Field(
        default=None,
        description="the field order to deinterlace by; empty: as each frame is marked",
    )
    every: int = Field(
        default=1, description="of so many pictures the first alone is encoded: of an HLS ladder"
    )
    telecine: str = Field(
        default="",
        description="frames per second that are restored of a telecine, num/den; empty: none is inverted",
    )
    unmark_fields: bool = Field(
        default=False, description="progressive pictures lose the source's mark of interlaced ones"
    )
    captions: bool | None = Field(
        default=None,
        description="whether to carry captions in the video; empty: the source has none",
    )
    rate: str = Field(
        default="",
        description="the one frame rate that frames are put at, num/den; empty: times are kept",
    )
    retimed: tuple[tuple[int, int], ...] = Field(
        default=(), description="pictures that get another time than the decoder's; see VideoFacts"
    )
    matrix: str = Field(
        default="", description="RGB becomes luma and chroma in limited range by this matrix"
    )
    limit_range: bool = Field(
        default=False,
        description="full-range samples become limited-range ones: the codec has no mark for them",
    )
    tone_map: str = Field(
        default="",
        description="transfer of the HDR source that is mapped to SDR, as ffprobe names it",
    )
    colour: Colour = Colour()
    mastering_display: MasteringDisplay | None = None
    light_level: LightLevel | None = None
    dolby_vision: bool = Field(
        default=False, description="each picture keeps its Dolby Vision metadata"
    )
    unmark_hdr: bool = Field(
        default=False,
        description="SDR pictures lose marks of HDR10, which the codec would not keep",
    )
    tag: str = Field(default="", description="codec tag for MP4 and MOV, e.g. hvc1")

    @property
    def frames_per_frame(self) -> int:
        """Frames that the encode makes of each frame of the source, a telecine apart."""
        return 2 if self.field_rate else 1

    def tick(self, source: Stream) -> Fraction:
        """Return the seconds in which the times of the encoded frames are whole."""
        if self.telecine:
            return FILM_TICK
        # The second field of a frame is shown between two ticks of the source.
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
    gain_db: float = Field(default=0.0, description="by which a sound is made louder")
    video: VideoTarget | None = Field(default=None, description="what an encoded picture must be")
    also: Mapping[str, StreamPlan] = Field(
        default={}, description="how an HLS ladder also holds this sound, by the group of sounds"
    )
    notice: str = Field(
        default="", description="the sentence shown when something is lost or changed"
    )


class Rung(Frozen):
    """One picture size and codec of an HLS ladder; its file is `<name>.mp4`."""

    name: str = Field(description="v or hevc, and the shorter side in pixels: v720, hevc1080")
    target: VideoTarget
    crf: float
    max_kbps: int = Field(description="largest rate, over two seconds")

    @property
    def is_low(self) -> bool:
        """Whether the rung is for a connection that the usual sound would fill; see LOW."""
        return self.max_kbps <= LOW_RUNG_KBPS


class Ladder(Frozen):
    """The rungs of an HLS rendition, highest first and H.264 before HEVC. Times in seconds."""

    rungs: tuple[Rung, ...]
    segment_s: float
    keyframe_s: float
    b_frames: bool = Field(
        default=True,
        description="False for still passages: they would last longer in decoding than in presentation",
    )

    @property
    def every(self) -> int:
        """Of so many pictures of the source every rung has the first."""
        return next((rung.target.every for rung in self.rungs), 1)

    def measured(self, video: TrackMeasure, *, every: int) -> Ladder:
        """Return the ladder without B-frames where pictures stay long, and with one picture of `every`."""
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
        description="channels of the video's closed captions that become text tracks, after the others",
    )
    chapters: int = Field(default=0, description="chapters the output must have")
    notices: tuple[str, ...] = Field(
        default=(), description="what is changed or dropped, for people"
    )
    personal: tuple[str, ...] | None = Field(
        default=None, description="what the rendition tells of people, places and devices, by name"
    )
    losses: tuple[str, ...] = Field(
        default=(), description="metadata whose loss forbids that the rendition replaces the source"
    )
    aim: Aim | None = Field(
        default=None, description="the quality that was searched; null: the profile's CRF"
    )
    sidecars: tuple[Sidecar, ...] = Field(
        default=(), description="subtitles for files beside the rendition"
    )

    def with_encoder(self, device: str) -> EncodePlan:
        """Return the plan with another encoder for the main video, `name` or `name@render node`."""
        name, _, node = device.partition("@")
        return self._targeted({"encoder": name, "node": node}, {"encoder": name})

    def with_crf(self, crf: float) -> EncodePlan:
        """Return the plan with another CRF for the main video."""
        return self._targeted({"crf": crf}, {})

    def aimed(self, aim: Aim) -> EncodePlan:
        """Return the plan with the CRF that a search chose for the main video."""
        return self.with_crf(aim.crf).model_copy(update={"aim": aim})

    def verified(self, quality: float | None) -> EncodePlan:
        """Return the plan with the quality that was measured of the rendition, which a notice says."""
        assert self.aim is not None
        aim = self.aim.model_copy(update={"verified": quality})
        return self.model_copy(update={"aim": aim}).noting(aim.in_words())

    def _targeted(self, target: dict[str, object], stream: dict[str, object]) -> EncodePlan:
        main = self.main_video
        new = main.model_copy(update={"video": self.video.model_copy(update=target), **stream})
        streams = tuple(new if each == main else each for each in self.streams)
        return self.model_copy(update={"streams": streams})

    def noting(self, *notices: str) -> EncodePlan:
        """Return the plan with further notices, of what only measuring the source has shown."""
        every = tuple(dict.fromkeys((*self.notices, *notices)))
        return self.model_copy(update={"notices": every})

    def without(self, late: Sequence[int], profile: Profile) -> EncodePlan:
        """Return the plan where streams begin after what was probed: it holds none of them, and says so."""
        lost = tuple(f"stream {index}, which begins later in the recording" for index in late)
        kept = lost if profile.policies.metadata == "keep" else ()
        noted = self.noting(*(f"{name[0].upper()}{name[1:]}, is left out." for name in lost))
        return noted.model_copy(update={"losses": (*self.losses, *kept)})

    def after(self, measured: Measurement, profile: Profile) -> EncodePlan:
        """Return the plan with what measuring has shown: captions, still passages, and what is missing.

        What is surely missing in the source counts as a loss: an intact copy of it may turn up.
        """
        plan = self
        found: dict[str, object] = {}
        if self.captions and measured.captions is not None:
            found["captions"] = measured.captions
        video = measured.track(self.main_video.source_index)
        if self.ladder is not None and video is not None:
            every = 1 if self.video.deinterlace else max(1, math.ceil(video.rate / LADDER_RATE))
            found["ladder"] = self.ladder.measured(video, every=every)
            if every > 1:
                plan = self._targeted({"every": every}, {}).noting(
                    f"Of {video.rate:.4g} pictures a second {video.rate / every:.4g} are encoded: "
                    "players of HLS take at most 60."
                )
        kept = [track for track in measured.tracks if track.index in self.mapped]
        lacking = [(_lacking(track.kind, gaps), gaps) for track in kept if (gaps := track.gaps)]
        if profile.policies.metadata == "keep":
            lost = (f"{what}, missing in the original" for what, gaps in lacking if gaps.certain)
            found["losses"] = (*self.losses, *lost)
        said = (
            f"The original lacks {what}, and so does what is made of it." for what, _ in lacking
        )
        return plan.model_copy(update=found).noting(*measured.notices, *said)

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
        """The target of the main video; of a ladder that of its highest rung."""
        target = self.main_video.video
        assert target is not None  # it is always encoded
        return target


Plan = Skip | Refuse | EncodePlan

Planner = Callable[[Profile, MediaInfo], Plan]
"""Makes the plan for a source from a profile and its facts: `domain.planning.planner.make_plan`."""


def _lacking(kind: StreamKind, gaps: Gaps) -> str:
    name = "picture" if kind is StreamKind.VIDEO else "packet"
    of = "" if kind is StreamKind.VIDEO else " of sound"
    return f"{counted(gaps.count, name)}{of} (at {timecode(gaps.at_s)})"


def plan_measured(
    planner: Planner, profile: Profile, decided: tuple[MediaInfo, EncodePlan], measured: Measurement
) -> tuple[MediaInfo, EncodePlan]:
    """Return the facts and the plan of a source with what only measuring it has shown.

    Another plan follows where pictures have wrong times, or the beginning of the file has nothing of a
    stream; further notices stay. Raises MediaRefused if a
    policy refuses what was found.
    """
    known, plan = decided
    info = measured.seen_in(known)
    if info is not known:
        before, again = planner(profile, known), planner(profile, info)
        if isinstance(again, Refuse):
            raise MediaRefused(f"{again.detail} ({again.policy})")
        if isinstance(before, EncodePlan) and isinstance(again, EncodePlan):
            plan = again.noting(*(each for each in plan.notices if each not in before.notices))
    return info, plan.without(measured.unknown_in(info), profile).after(measured, profile)


class Work(Frozen):
    """The facts of one source and what is made of it, for encode, gates and publication alike.

    It is made when the source was probed; `measured` follows, with a more exact `duration_s` (seconds).
    """

    recipe: Profile
    source_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    info: MediaInfo
    plan: EncodePlan
    measured: Measurement = Measurement(tracks=())
    duration_s: float | None
