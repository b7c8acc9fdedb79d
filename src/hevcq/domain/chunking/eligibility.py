"""Decide whether a video must be encoded in one piece, and name the reason. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from hevcq.domain.chunking.model import KeyIndex, WholeFile
from hevcq.domain.formats.hardware import SOFTWARE
from hevcq.domain.media.facts import MediaInfo, StreamKind, VideoFacts
from hevcq.domain.planning.encode_plan import Action, EncodePlan
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import ChunkMode

FINEST_TICK = Fraction(1, 1_000_000)
"""Finest usable time base in seconds: ffmpeg's concat demuxer places parts in microseconds."""
_REPEATING = frozenset({"mpeg1video", "mpeg2video", "vc1", "wmv3"})
"""Codecs whose frames may repeat a field, which shifts the times of later frames."""
_UNSEEKABLE = frozenset({"avi", "asf", "rm", "flv", "ogg", "mpeg", "wtv", "dv", "nsv", "swf"})
"""Demuxers that cannot seek to a key frame by its presentation time, or have no such time."""


def whole_file_reason(
    profile: Profile, info: MediaInfo, plan: EncodePlan, index: KeyIndex
) -> WholeFile | None:
    """Return the first reason not to split the video, or None."""
    main = next((s for s in info.streams if s.index == index.stream_index), None)
    if main is None or main.video is None or plan.main_video.source_index != index.stream_index:
        return WholeFile(reason="no_video", detail="The packets seen are not those of the video.")
    found = [
        *_by_choice(profile, index),
        *_by_picture(main.codec, main.video, plan),
        *_by_container(info),
        *_by_times(index),
    ]
    return found[0] if found else None


def _by_choice(profile: Profile, index: KeyIndex) -> Iterator[WholeFile]:
    chunking = profile.chunking
    if chunking.mode is ChunkMode.OFF:
        yield WholeFile(reason="mode_off", detail="The profile's chunking.mode is off.")
    if profile.video.encoder != (SOFTWARE,):
        yield WholeFile(
            reason="hardware",
            detail="Its profile allows hardware encoders (video.encoder), and one video has one encoder.",
        )
    if not index.keys or not index.frames:
        yield WholeFile(reason="no_frames", detail="No frame with a time was found.")
        return
    length = float((index.end_pts - index.keys[0].pts) * index.tick)
    if chunking.mode is ChunkMode.AUTO and length < chunking.least_video_s:
        yield WholeFile(
            reason="too_short",
            detail=f"It lasts {length:.0f} s; videos from {chunking.least_video_s:.0f} s on are "
            "split (chunking.least_video_s).",
        )
    elif length < 2 * chunking.min_s:
        yield WholeFile(
            reason="too_short",
            detail=f"It lasts {length:.0f} s, less than two chunks of {chunking.min_s:g} s "
            "(chunking.min_s).",
        )


def _by_picture(codec: str, video: VideoFacts, plan: EncodePlan) -> Iterator[WholeFile]:
    if video.dolby_vision or video.hdr10_plus:
        yield WholeFile(
            reason="dynamic_hdr",
            detail="Its Dolby Vision or HDR10+ metadata runs through the video as a whole.",
        )
    if video.marked_interlaced or plan.video.deinterlace or plan.video.field_order != "progressive":
        yield WholeFile(
            reason="interlaced", detail="It is interlaced: a cut could part a pair of fields."
        )
    if plan.video.fit:
        yield WholeFile(
            reason="size_changes", detail="The size or aspect of its picture changes on the way."
        )
    if codec in _REPEATING:
        yield WholeFile(
            reason="repeated_fields",
            detail=f"Its codec {codec} may repeat fields, which moves the frames after them.",
        )
    if plan.video.retimed:
        yield WholeFile(
            reason="wrong_times",
            detail="Its decoder gives pictures wrong times, which are mended by counting from its start.",
        )
    if plan.video.rate:
        yield WholeFile(
            reason="one_rate",
            detail="Its frames are put at one rate, which is counted from its start.",
        )
    encoded = [
        stream
        for stream in plan.kept
        if stream.kind is StreamKind.VIDEO and stream.action is not Action.COPY
    ]
    if len(encoded) > 1:
        yield WholeFile(
            reason="more_videos", detail=f"{len(encoded)} video streams are encoded, not one."
        )


def _by_container(info: MediaInfo) -> Iterator[WholeFile]:
    names = info.format_name.split(",")
    if _UNSEEKABLE.intersection(names):
        yield WholeFile(
            reason="container",
            detail=f"A {names[0]} file has no presentation times or index to cut by.",
        )


def _by_times(index: KeyIndex) -> Iterator[WholeFile]:
    if index.missing_pts:
        yield WholeFile(
            reason="missing_times",
            detail=f"{index.missing_pts} of its frames have no presentation time.",
        )
    if index.notes:
        yield WholeFile(
            reason="broken_times", detail=f"Reading its packets complains: {index.notes[0]}."
        )
    if not index.monotonic:
        yield WholeFile(
            reason="broken_times",
            detail="Its decoding times go backwards, or two frames share one time.",
        )
    if not index.starts_with_key:
        yield WholeFile(
            reason="no_first_key", detail="It begins with frames that no key frame comes before."
        )
    if index.tick < FINEST_TICK:
        yield WholeFile(
            reason="fine_time_base",
            detail=f"Its time base {index.time_base} is finer than the microseconds of a join.",
        )
