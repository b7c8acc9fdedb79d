"""Model the sections of a profile: picture, sound, subtitles, policies, gates, bounds, ladder, chunks."""

import re
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hevcq.domain.formats import SOFTWARE, VideoCodec, language_code
from hevcq.domain.model import Frozen

Rate = tuple[Annotated[float, Field(ge=0, le=51)], Annotated[int, Field(ge=50, le=200_000)]]
"""The constant rate factor of a rung, and the largest rate in kbit/s of up to 30 frames a second."""
Rungs = dict[Annotated[int, Field(ge=64, le=4320, multiple_of=2)], Rate]
H264_RUNGS: Rungs = {
    1080: (22, 7800), 720: (22, 4500), 480: (23, 2000), 360: (23, 1100), 240: (24, 400),
    144: (30, 80),
}  # fmt: skip
"""Caps in the range of Apple's table for H.264
(https://developer.apple.com/documentation/http-live-streaming/hls-authoring-specification-for-apple-devices)."""
HEVC_RUNGS: Rungs = {
    2160: (24, 16800), 1440: (24, 8100), 1080: (24, 5800), 720: (24, 3400), 480: (25, 1600),
    360: (25, 600), 240: (26, 300),
}  # fmt: skip
Languages = tuple[Annotated[str, BeforeValidator(language_code)], ...]


class PixelFormatPolicy(StrEnum):
    """Keep the source's chroma and bit depth, or make 4:2:0 of 8 bits for every player, or of 10."""

    KEEP = "keep"
    YUV420P = "yuv420p"
    YUV420P10 = "yuv420p10"


KeepOrDrop = Literal["keep", "drop"]


class DeinterlaceRate(StrEnum):
    """Make a frame of each field (50i becomes 50p), which keeps all motion, or one of each pair."""

    FIELD = "field"
    FRAME = "frame"


class AudioPolicy(StrEnum):
    """Copy audio the container holds, copy only what every browser plays, or encode it always."""

    COPY = "copy"
    PLAYABLE = "playable"
    ENCODE = "encode"


class Preflight(StrEnum):
    """Check the source before the encode by a full decode, by a demux pass and its sound, or not at all."""

    DECODE = "decode"
    DEMUX = "demux"
    OFF = "off"


class VideoRecipe(Frozen):
    """How the picture is encoded."""

    codec: VideoCodec = Field(
        description="hevc (libx265), h264 (libx264), vp9 (libvpx), av1 (SVT-AV1), theora or mpeg4 "
        "(MPEG-4 Part 2, as DivX and Xvid)"
    )
    preset: str = Field(
        default="medium",
        pattern=r"^([a-z]+|1?[0-9])$",
        description="of the encoder: a name (hevc, h264), or a number, higher is faster (vp9: 0 to 8, "
        "av1: 0 to 13); medium suits each",
    )
    encoder: tuple[str, ...] = Field(
        default=(SOFTWARE,),
        description="software, auto (any hardware encoder that works on the worker), or a list of "
        "hardware encoders in order, e.g. [hevc_nvenc, hevc_qsv]; software where none can; see Hardware "
        "encoders below",
    )
    crf: float = Field(
        ge=0,
        le=63,
        description="constant quality. hevc, h264: rate factor 0 to 51; vp9, av1: 0 to 63; mpeg4: "
        "quantiser 1 to 31; lower is better and larger. theora: 0 to 10, where higher is better",
    )
    quality: float | None = Field(
        default=None,
        ge=70,
        le=99,
        description="VMAF that the worst twentieth of the frames must reach: the CRF is searched by "
        "encoding samples, starting at `crf`; 95 is hard to tell from the source, 93 good, 90 small; "
        "empty: use `crf`",
    )
    pixel_format: PixelFormatPolicy = Field(
        default=PixelFormatPolicy.KEEP,
        description="keep the source's depth and chroma, or make yuv420p, or yuv420p10: 10 bits band less "
        "than 8 at the same size (hevc, av1, vp9)",
    )
    max_width: int | None = Field(
        default=None,
        ge=16,
        le=16384,
        multiple_of=2,
        description="displayed width to fit inside, with square pixels (landscape; swapped for portrait); "
        "empty: no scaling",
    )
    max_height: int | None = Field(
        default=None,
        ge=16,
        le=16384,
        multiple_of=2,
        description="displayed height to fit inside (landscape; swapped for portrait)",
    )
    deinterlace: DeinterlaceRate = Field(
        default=DeinterlaceRate.FIELD,
        description="for truly interlaced video: a frame of each field (50i becomes 50p), or one of each "
        "pair of fields (25p), which halves the motion",
    )
    invert_telecine: bool = Field(
        default=False, description="restore the 24 frames a second of a telecine; see below"
    )
    crop: Literal["none", "auto"] = Field(
        default="none",
        description="auto: crop black bars that stay in place throughout the video and are equal on both "
        "sides, which takes one more pass over every picture; none: keep them",
    )
    skip_codecs: tuple[str, ...] = Field(
        default=(), description="sources in these codecs are skipped: nothing to gain"
    )
    encoder_params: dict[str, str | int | float] = Field(
        default_factory=dict,
        description="more x265-params, x264-params or svtav1-params, as name: value",
    )
    keyframe_s: float | None = Field(
        default=None, gt=0, description="longest distance between key frames in seconds"
    )

    @field_validator("encoder_params", mode="after")
    @classmethod
    def _no_files(cls, value: dict[str, str | int | float]) -> dict[str, str | int | float]:
        """Refuse what an encoder or ffmpeg would write to or read: a path could name an original."""
        for name, text in value.items():
            apart = {":"} if name == "zones" else {"/", "\\"}
            if not re.fullmatch(r"[A-Za-z][\w-]*", name) or apart & set(str(text)):
                raise ValueError(f"{name} names a file, or is no parameter")
        return value

    @field_validator("encoder", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @property
    def scales(self) -> bool:
        """Whether the recipe scales the picture into a box."""
        return self.max_width is not None and self.max_height is not None


class Audio(Frozen):
    """How audio is carried."""

    policy: AudioPolicy = Field(
        default=AudioPolicy.COPY,
        description="copy what the container holds, copy what every browser plays (playable: AAC and "
        "MP3), or encode always; what is not copied, or not held by the container, is encoded",
    )
    codec: str = Field(
        default="aac",
        pattern=r"^(aac|libopus|flac|libvorbis|libmp3lame)$",
        description="encoder when encoding",
    )
    kbps_per_channel: int = Field(default=64, ge=16, le=320, description="bit rate when encoding")
    loudness: float | None = Field(
        default=None,
        ge=-36,
        le=-9,
        description="loudness in LUFS (EBU R 128) to which one gain brings each sound, as near as its "
        "peaks allow (-1 dBTP), and encodes it; under half a dB off it stays; -16 suits phones, -23 "
        "broadcasts; empty: unchanged",
    )
    languages: Languages = Field(
        default=(),
        description="keep sounds in these languages (en, eng), in the original language (of the sound "
        "marked original, else of the default or the first), and without a language; name the others and "
        "leave them out. Empty: keep all",
    )


class Policies(Frozen):
    """What happens to everything beside picture and sound; each loss is named here."""

    subtitles: Literal["convert", "drop"] = Field(
        default="convert", description="text the container cannot hold"
    )
    picture_subtitles: Literal["refuse", "drop"] = Field(
        default="refuse", description="picture subtitles (PGS, DVD) the container cannot hold"
    )
    attachments: Literal["refuse", "drop"] = Field(
        default="refuse", description="fonts the container cannot hold"
    )
    cover_art: KeepOrDrop = Field(
        default="keep",
        description="attached pictures: keep (refused where they have no place), drop",
    )
    extra_video: KeepOrDrop = Field(default="keep", description="further video streams")
    dynamic_hdr: KeepOrDrop = Field(
        default="keep",
        description="Dolby Vision and HDR10+: keep (Dolby Vision 8.1 and 8.4 of HEVC in HEVC or AV1, "
        "with ffmpeg 7.1 or later; the rest is refused), or drop their metadata and keep the base layer "
        "(HDR10, HLG or SDR); Dolby Vision without such a layer is always refused",
    )
    hdr: Literal["keep", "convert"] = Field(
        default="keep",
        description="PQ and HLG sources: keep (H.264 in PQ is refused), or convert (tone map to SDR; needs "
        "ffmpeg's zscale)",
    )
    closed_captions: Literal["convert", "drop"] = Field(
        default="convert",
        description="captions inside the video (CEA-608 and 708): convert (carry them if libx264 encodes "
        "it, else make a text track of each channel), or drop",
    )
    metadata: KeepOrDrop = Field(
        default="keep",
        description="metadata that the container cannot hold, which is always named: never let the "
        "rendition replace an original (keep), or let it (drop)",
    )
    tracks: KeepOrDrop = Field(
        default="keep",
        description="tracks that audio.languages and subtitles.languages leave out: never let the "
        "rendition replace an original (keep), or let it (drop)",
    )


class Gates(Frozen):
    """How hard the rendition is checked; gates G0 to G5 and G9 to G11 cannot be turned off."""

    preflight: Preflight = Field(
        default=Preflight.DEMUX,
        description="check of the source before the encode: decode everything, demux (and decode the "
        "sound), or off",
    )
    minimum_saving: float | None = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="G6: share that must be saved, else the original is kept; empty: any size",
    )


class Bounds(Frozen):
    """What a child process may use."""

    threads: int = Field(default=0, ge=0, description="encoder threads; 0: all the worker's cores")
    memory_mib: int = Field(default=8192, ge=256, description="address space of ffmpeg")
    stall_s: float = Field(
        default=300,
        gt=0,
        description="no output-time progress, or no CPU time used, for this long is a stall",
    )


class Subtitles(Frozen):
    """Which subtitles are carried; what becomes of each is in `policies`."""

    languages: Languages = Field(
        default=(),
        description="keep subtitles in these languages, in the original sound's, and without a language; "
        "name the others and leave them out. Empty: keep all",
    )
    beside: bool = Field(
        default=False,
        description="also write text subtitles beside the video, as NAME.en.srt, NAME.en.forced.srt or "
        "NAME.en.sdh.srt, which Jellyfin and Plex read; for media folders only",
    )


class Surround(StrEnum):
    """The second group of sounds, of 5.1 channels: none, or the codec of its sounds."""

    OFF = "off"
    AAC = "aac"
    AC3 = "ac3"
    EAC3 = "eac3"


class Hls(Frozen):
    """The ladder of `container: hls`. Times in seconds; a rung is named by its shorter side in pixels."""

    hevc: bool = Field(
        default=False, description="also write an HEVC ladder beside the H.264 one; HDR needs it"
    )
    segment_s: float = Field(
        default=4.0, ge=1, le=12, description="length of a segment, with two key frames"
    )
    surround: Surround = Field(
        default=Surround.OFF,
        description="5.1 as a second group of sounds, in this codec; a source's AC-3 or E-AC-3 in this codec "
        "is copied",
    )
    h264_rungs: Rungs = Field(
        default=H264_RUNGS,
        description="H.264 rungs, shorter side: crf, largest rate in kbit/s (half as much again above "
        "30 frames a second); one of at most 100 has a sound of 48 kbit/s",
    )
    hevc_rungs: Rungs = Field(default=HEVC_RUNGS, description="HEVC rungs, likewise")

    @property
    def keyframe_s(self) -> float:
        """Seconds between key frames, the same in all rungs: two in each segment."""
        return self.segment_s / 2

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.h264_rungs or (self.hevc and not self.hevc_rungs):
            raise ValueError("hls needs at least one rung")
        return self


class ChunkMode(StrEnum):
    """Split long videos (`auto`), every video that can be split exactly (`always`), or none (`off`)."""

    AUTO = "auto"
    OFF = "off"
    ALWAYS = "always"


class Chunking(Frozen):
    """How one video is shared out over many workers. Times in seconds of video.

    The number of chunks that one worker encodes at a time is not part of the recipe: the setting
    `workers` is the number of its slots, and a slot receives a chunk like any other task.
    """

    mode: ChunkMode = Field(
        default=ChunkMode.AUTO,
        description="auto: long videos (see target_s); always: all that can be split; or off",
    )
    target_s: float = Field(
        default=60.0,
        gt=0,
        description="approximate length of a chunk, which is at least a third of it; auto splits videos of "
        "at least ten times it",
    )

    @property
    def min_s(self) -> float:
        """Seconds of the shortest chunk."""
        return self.target_s / 3

    @property
    def least_video_s(self) -> float:
        """Seconds of the shortest video that `auto` splits."""
        return self.target_s * 10
