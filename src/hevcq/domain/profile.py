"""Model a profile: a recipe plus its queue numbers, in one file `workers/<name>.yaml`.

Python validates the file with this model; Terraform reads the same file (`yamldecode`), so a
queue's visibility and its worker's heartbeat cannot disagree.
"""

import hashlib
import json
import re
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from hevcq.domain.formats import (
    SOFTWARE,
    VIDEO_HELD,
    Fallback,
    depth_problem,
    encoder_problem,
    preset_problem,
    quality_problem,
)
from hevcq.domain.formats import Container as Container  # noqa: PLC0414 - asked of the profile by many
from hevcq.domain.formats import VideoCodec as VideoCodec  # noqa: PLC0414
from hevcq.domain.model import Frozen
from hevcq.domain.profile_sections import (
    Chunking,
    Fleet,
    Hls,
    Languages,
    QueueNumbers,
    Subtitles,
)
from hevcq.domain.quality import SCALES, Asked

_TAKES_PARAMS = frozenset({VideoCodec.HEVC, VideoCodec.H264, VideoCodec.AV1})
"""Codecs whose parameters an encoder reads from one word; of others they would be options of ffmpeg itself."""


class PixelFormatPolicy(StrEnum):
    """Keep the source's chroma and bit depth, or make 4:2:0 of 8 bits for every player, or of 10."""

    KEEP = "keep"
    YUV420P = "yuv420p"
    YUV420P10 = "yuv420p10"


class LossPolicy(StrEnum):
    """Handle a feature that the target cannot hold unchanged; decided before encoding."""

    KEEP = "keep"
    CONVERT = "convert"
    DROP = "drop"
    REFUSE = "refuse"


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
        "hardware encoders in order, e.g. [hevc_nvenc, hevc_qsv]; see Hardware encoders below",
    )
    fallback: Fallback = Field(
        default=Fallback.SOFTWARE,
        description="without a hardware encoder that can: software, or wait for a worker (refuse)",
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
        description="VMAF that the worst twentieth of the frames must have: the CRF is searched for it "
        "with encodes of some seconds, from `crf` on; 95 is hard to tell from the source, 93 good, 90 "
        "small; empty: `crf`",
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
        description="displayed width to fit inside (landscape; swapped for portrait); empty: no scaling",
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
        description="with policies.interlaced: convert: a frame of each field (50i becomes 50p), or "
        "one frame of each pair of fields (25p), which halves the motion",
    )
    invert_telecine: bool = Field(
        default=False, description="restore the 24 frames a second of a telecine; see below"
    )
    crop: Literal["none", "auto"] = Field(
        default="none",
        description="auto: cut off black bars that stay in place over the whole video, as high or wide on "
        "both sides; every picture is read for it once; none: keep them",
    )
    square_pixels: bool = Field(default=False, description="scale to a sample aspect ratio of 1:1")
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
        "MP3), or encode always; what is not copied is encoded",
    )
    codec: str = Field(
        default="aac",
        pattern=r"^(aac|libopus|flac|libvorbis|libmp3lame)$",
        description="encoder when encoding",
    )
    kbps_per_channel: int = Field(default=64, ge=16, le=320, description="bit rate when encoding")
    unsupported: LossPolicy = Field(
        default=LossPolicy.CONVERT,
        description="a codec the container cannot hold: convert, drop, refuse",
    )
    loudness: float | None = Field(
        default=None,
        ge=-36,
        le=-9,
        description="LUFS (EBU R 128) that each sound gets by one gain, which encodes it: as near as its "
        "peaks allow (-1 dBTP), and half a dB off stays as it is; -16 for phones, -23 for broadcasts; "
        "empty: as loud as it is",
    )
    languages: Languages = Field(
        default=(),
        description="keep sound in these languages (en, eng), in the original language (that of the sound "
        "marked original, else of the default or first one), and what has no mark; name the others and "
        "leave them out. Empty: keep all",
    )


class Policies(Frozen):
    """What happens to everything beside picture and sound; each loss is named here."""

    subtitles: LossPolicy = Field(
        default=LossPolicy.CONVERT, description="text the container cannot hold"
    )
    picture_subtitles: LossPolicy = Field(
        default=LossPolicy.REFUSE,
        description="picture subtitles (PGS, DVD) the container cannot hold",
    )
    attachments: LossPolicy = Field(
        default=LossPolicy.REFUSE, description="fonts the container cannot hold"
    )
    data_streams: LossPolicy = Field(
        default=LossPolicy.DROP, description="timecode, camera data, teletext that has no place"
    )
    cover_art: LossPolicy = Field(default=LossPolicy.KEEP, description="attached pictures")
    extra_video: LossPolicy = Field(default=LossPolicy.KEEP, description="further video streams")
    dynamic_hdr: LossPolicy = Field(
        default=LossPolicy.KEEP,
        description="Dolby Vision and HDR10+: keep (Dolby Vision 8.1 and 8.4 of HEVC in HEVC or AV1, "
        "with ffmpeg 7.1 or later; the rest is refused), refuse, or drop their metadata and keep the base "
        "layer (HDR10, HLG or SDR); Dolby Vision without such a layer is always refused",
    )
    hdr: LossPolicy = Field(
        default=LossPolicy.KEEP,
        description="PQ and HLG sources: keep (H.264 in PQ is refused), convert (tone map to SDR; needs "
        "ffmpeg's zscale), or refuse",
    )
    interlaced: LossPolicy = Field(
        default=LossPolicy.KEEP,
        description="what is truly interlaced: keep fields (libx264 only), convert (deinterlace), or "
        "refuse; what is merely marked as interlaced is encoded as the progressive video it is",
    )
    closed_captions: LossPolicy = Field(
        default=LossPolicy.CONVERT,
        description="captions inside the video (CEA-608 and 708): convert (carry them if libx264 encodes "
        "it, else make a text track of each channel), keep (carry them, or refuse), drop, or refuse",
    )
    metadata: LossPolicy = Field(
        default=LossPolicy.KEEP,
        description="metadata that the container cannot hold: name it and never let the rendition "
        "replace an original (keep), name it (drop), or refuse",
    )
    tracks: Literal["keep", "drop"] = Field(
        default="keep",
        description="tracks that audio.languages and subtitles.languages leave out: never let the "
        "rendition replace an original (keep), or let it (drop)",
    )
    immersive: LossPolicy = Field(
        default=LossPolicy.REFUSE, description="stereoscopic and 360 degree sources"
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
    max_pixels: int = Field(
        default=8192 * 8192, gt=0, description="width x height above this is refused"
    )


class Profile(Frozen):
    """A recipe plus its queue numbers."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="the file's stem")
    description: str = Field(description="one line for people")
    subscribe: bool = Field(default=True, description="whether every upload wants this profile")
    container: Container = Field(
        default=Container.SOURCE, description="source, mp4, mkv, webm, ogg, avi or hls"
    )
    video: VideoRecipe
    hls: Hls = Hls()
    audio: Audio = Audio()
    subtitles: Subtitles = Subtitles()
    policies: Policies = Policies()
    gates: Gates = Gates()
    bounds: Bounds = Bounds()
    chunking: Chunking = Chunking()
    queue: QueueNumbers = QueueNumbers()
    fleet: Fleet = Fleet()

    @property
    def revision(self) -> str:
        """The recipe's digest of 12 digits; it excludes how the work is divided among workers."""
        left_out = {"chunking", "queue", "fleet", "description", "subscribe"}
        left_out |= set() if self.container is Container.HLS else {"hls"}
        recipe = self.model_dump(mode="json", exclude=left_out)
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]

    def asking(self, asked: Asked) -> Self:
        """Return the profile with the CRF or the quality that a command chose for its videos."""
        raw, (crf, quality) = self.model_dump(mode="json"), asked
        video = raw["video"] | {"crf": crf, "quality": quality}
        return self.model_validate({**raw, "video": video})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        video = self.video
        if (video.max_width is None) != (video.max_height is None):
            raise ValueError("video.max_width and video.max_height come together")
        if video.codec not in VIDEO_HELD[self.container]:
            held = ", ".join(sorted(VIDEO_HELD[self.container]))
            raise ValueError(f"the container {self.container} holds {held}, not {video.codec}")
        problem = preset_problem(video.codec, video.preset) or quality_problem(
            video.codec, video.crf
        )
        problem = problem or encoder_problem(video.encoder, video.codec)
        problem = problem or depth_problem(video.codec, video.pixel_format)
        if two_passes := {"pass", "stats"} & set(video.encoder_params):
            problem = f"video.encoder_params: {min(two_passes)} is for two passes; hevcq makes one"
        if video.encoder_params and video.codec not in _TAKES_PARAMS:
            problem = f"video.encoder_params: {video.codec} takes none, only hevc, h264 and av1 do"
        if video.quality is not None and (
            video.codec not in SCALES
            or self.container is Container.HLS
            or video.encoder != (SOFTWARE,)
        ):
            problem = "video.quality is for files that software encodes in hevc, h264, vp9 or av1"
        if problem:
            raise ValueError(problem)
        if self.container is Container.HLS:
            self._require_ladder()
        return self

    def _require_ladder(self) -> None:
        """Require that nothing contradicts the ladder, which has sizes and key frames of its own."""
        video = self.video
        if video.scales or video.keyframe_s is not None:
            raise ValueError(
                "container: hls takes sizes and key frames from the hls section, not from video"
            )
        if video.crop != "none":
            raise ValueError(
                "video.crop is for files: the sizes of a ladder are those of the whole picture"
            )
        if self.audio.loudness is not None:
            raise ValueError(
                "audio.loudness is for files: each group of sounds of a ladder is mixed anew"
            )
        if self.subtitles.beside:
            raise ValueError("subtitles.beside is for files: a ladder has its text in playlists")

    @property
    def contradiction(self) -> str:
        """Why this profile encodes nothing, though it can be read; or ""."""
        crf = self.hls.h264_rungs[max(self.hls.h264_rungs)][0]
        if self.container is not Container.HLS or self.video.crf == crf:
            return ""
        return (
            f"container: hls takes the crf of each rung from hls.h264_rungs; video.crf must be that "
            f"of the highest, {crf:g}, not {self.video.crf:g}"
        )
