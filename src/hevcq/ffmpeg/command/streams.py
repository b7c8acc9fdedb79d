"""Build the options of one output stream: its encoding and its tags."""

from __future__ import annotations

import re
from fractions import Fraction

from hevcq.domain.formats.hardware import HARDWARE
from hevcq.domain.formats.video import encoder_preset
from hevcq.domain.media.containers import AVI, OGG, SEAMLESS, is_mp4_family
from hevcq.domain.media.facts import Stream, StreamKind
from hevcq.domain.planning.encode_plan import Action, StreamPlan, VideoTarget
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.command.codecs import (
    coded_pixel_format,
    encoder_params,
    marks_range,
    of_encoder,
    picture_filter,
)

VORBIS_QUALITY = "5"
"""About 80 kbit/s for each channel at 44.1 kHz; a fixed bit rate fails at rates that do not suit it."""
LEAST_RATE = 32_000
"""Samples per second below which MP3 has frames of half the length, which AVI's readers count as whole."""
XVID = "XVID"
"""The tag by which every old player knows MPEG-4 Part 2 in AVI."""
DISPOSITIONS = frozenset(
    {
        "default", "dub", "original", "comment", "lyrics", "karaoke", "forced", "hearing_impaired",
        "visual_impaired", "clean_effects", "attached_pic", "timed_thumbnails", "captions",
        "descriptions", "metadata", "dependent", "still_image",
    }
)  # fmt: skip
"""Values of `-disposition` in ffmpeg 5.1; names that only newer versions report are omitted."""
_STATISTICS = re.compile(
    r"^((BPS|DURATION|NUMBER_OF_FRAMES|NUMBER_OF_BYTES)(-|$)|_STATISTICS_)", re.IGNORECASE
)
"""mkvmerge's statistics tags: valid for the source's stream, wrong for an encoded one."""
_LAYOUTS = {
    "5.1(side)": "5.1",
    "5.0(side)": "5.0",
    "quad(side)": "quad",
    "4.1": "5.1",
    "6.1": "7.1",
    "6.1(back)": "7.1",
    "7.1(wide)": "7.1",
}
"""Replacements of layouts that libopus rejects and that few players decode in AAC."""

Options = list[tuple[str, str]]


def track_options(
    track: StreamPlan, source: Stream, profile: Profile, *, muxer: str, threads: int
) -> Options:
    """Return the options of one output stream; the caller appends the stream's number to each name.

    `threads` is the encoder's number of threads; 0 leaves it to the encoder.
    """
    if track.action is Action.COPY:
        made: Options = [("-c", "copy")]
    elif track.video is not None:
        made = _picture(track.video, profile, threads)
        if track.video.field_rate and not track.video.rate:
            # The second field of a frame is shown between two ticks of the source.
            tick = source.tick / 2
            made = [(n, f"{tick.numerator}:{tick.denominator}" if n == "-enc_time_base" else v)
                    for n, v in made]  # fmt: skip
        if is_mp4_family(muxer):
            made.append(("-tag", track.video.tag))
        elif muxer == AVI:
            made.append(("-tag", XVID))
    else:
        made = _converted(track, source, muxer)
    return [*made, _disposition(source)]


def joined_options(track: StreamPlan, source: Stream, *, muxer: str) -> Options:
    """Return the options of a video stream that is copied from its encoded chunks."""
    made: Options = [("-c", "copy")]
    if track.video is not None and is_mp4_family(muxer):
        made.append(("-tag", track.video.tag))
    return [*made, _disposition(source)]


def chunk_options(target: VideoTarget, profile: Profile, *, threads: int, trim: str) -> Options:
    """Return the options of one chunk's video: those of a whole encode, after a trim filter.

    `threads` is the encoder's number of threads; 0 leaves it to the encoder.
    """
    options = [(name, value) for name, value in _picture(target, profile, threads)]
    filters = dict(options).get("-filter")
    chain = f"{trim},{filters}" if filters else trim
    options = [pair for pair in options if pair[0] != "-filter"]
    return [*options, ("-filter", chain), ("-tag", target.tag)]


def _disposition(source: Stream) -> tuple[str, str]:
    flags = [name for name in source.dispositions if name in DISPOSITIONS]
    return "-disposition", "+".join(flags) or "0"


def label_options(
    track: StreamPlan, source: Stream, *, muxer: str, timecode: str = ""
) -> list[str]:
    """Return the tags of one output stream as `key=value`; an empty value removes the tag."""
    tags = {}
    if source.title and is_mp4_family(muxer):
        # ffmpeg writes an MP4 track's title but does not read it; players show the handler name.
        tags["handler_name"] = source.title
    if source.language:
        tags["language"] = source.language
    if muxer == OGG:
        # A stream's title would take the place of the file's: Ogg has one list of comments for both.
        tags["title"] = ""
    if timecode:
        tags["timecode"] = timecode
    if track.action is not Action.COPY:
        tags |= {name: "" for name in source.tags if _STATISTICS.match(name)}
    return [f"{name}={value}" for name, value in tags.items()]


def _picture(target: VideoTarget, profile: Profile, threads: int) -> Options:
    video, codec = profile.video, of_encoder(target.encoder)
    options = [
        ("-c", target.encoder),
        *codec.quality(encoder_preset(video.codec, video.preset), f"{video.crf:g}"),
        *hardware_format(target),
        # Keep frame times, in the source's time base: none is duplicated or dropped.
        ("-fps_mode", "passthrough"),
        ("-enc_time_base", str(1 / Fraction(target.rate)) if target.rate else "-1"),
    ]
    if marks_range(target):
        options.append(("-color_range", "pc"))
    filters = ",".join(filter(None, [picture_filter(target), upload_filter(target)]))
    if filters:
        options.append(("-filter", filters))
    if video.keyframe_s is not None:
        options.append(("-force_key_frames", f"expr:gte(t,n_forced*{video.keyframe_s:g})"))
    if target.field_order != "progressive":
        options += [("-flags", word) for word in codec.interlaced]
    if target.captions is not None and target.encoder == "libx264":
        options.append(("-a53cc", "1" if target.captions else "0"))
    if threads:
        options += codec.threads(threads)[1]
    params = encoder_params(target, video.encoder_params, threads)
    if params and not codec.option:
        # An encoder without a list of its own parameters has them as options of ffmpeg.
        options += [(f"-{name}", value) for name, value in params.items()]
    elif params:
        words = ":".join(f"{name}={value}" for name, value in params.items())
        options.append((codec.option, words))
    return options


def hardware_format(target: VideoTarget) -> Options:
    """Return the pixel format to hand to the encoder; hardware surfaces get theirs by the upload."""
    if target.encoder not in HARDWARE:
        return [("-pix_fmt", coded_pixel_format(target))]
    name = HARDWARE[target.encoder][0].pixel_formats[target.bit_depth]
    return [("-pix_fmt", name)] if name else []


def upload_filter(target: VideoTarget) -> str:
    """Return the filter that brings pictures to the device, or ""."""
    if target.encoder not in HARDWARE:
        return ""
    return HARDWARE[target.encoder][0].upload.get(target.bit_depth, "")


def _converted(track: StreamPlan, source: Stream, muxer: str) -> Options:
    options = [("-c", track.encoder)]
    if track.bit_rate is not None:
        options.append(("-b", str(track.bit_rate)))
    elif track.encoder == "libvorbis":
        options.append(("-q", VORBIS_QUALITY))
    if muxer == AVI and source.audio is not None and source.audio.sample_rate < LEAST_RATE:
        options.append(("-ar", str(LEAST_RATE)))
    layout = _LAYOUTS.get(source.audio.layout) if source.audio is not None else None
    if source.audio is not None and track.channels == 2 < source.audio.channels:
        layout = "stereo"
    filters = [] if layout is None else [f"aformat=channel_layouts={layout}"]
    if muxer in SEAMLESS and track.kind is StreamKind.AUDIO:
        filters.append("aresample=async=1:first_pts=0")
    if filters:
        options.append(("-filter", ",".join(filters)))
    return options
