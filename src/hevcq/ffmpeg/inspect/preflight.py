"""Check a source for damage before it is encoded.

A damaged source may encode without an error, and every comparison of the output with it passes, so
damage must be found here. The default check demuxes and decodes the sound, which is cheap, and which
the encode only copies; `decode` also decodes the picture. By default corrupt bytes inside intact
packets of the picture are found by the encode itself, which runs with -xerror, and by gate G1 in its
error lines.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from hevcq.domain.media.facts import Measurement, MediaInfo, Stream, StreamKind
from hevcq.domain.planning.encode_plan import Refuse
from hevcq.domain.planning.video import evened
from hevcq.domain.profile import Preflight, Profile
from hevcq.errors import MediaRefused, SourceDamaged, Unavailable
from hevcq.ffmpeg.inputs import NETWORK, FfmpegTools, display_name, input_options, is_url, reading
from hevcq.ffmpeg.inspect.edit_lists import hidden_media
from hevcq.ffmpeg.inspect.indexes import index_damage
from hevcq.ffmpeg.inspect.measure import measure
from hevcq.ffmpeg.inspect.transport_stream import transport_damage
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import limits_of
from hevcq.ffmpeg.run.known_messages import decode_errors, message_text

TAIL_S = 0.5
TAIL_SHARE = 0.005
"""A track may end this much before its header says: the larger of TAIL_S seconds and 0.5 %.

On intact sample clips the largest difference is 0.09 s (an AAC track's padding)."""
INDEXED = frozenset({"mov", "matroska", "avi", "asf", "mxf", "flv"})
"""Containers whose header states a duration; for others ffprobe estimates it."""

RAGGED = frozenset({"mpegts", "mpeg"})
"""Containers of recordings, which begin and end inside a unit: their sound is decoded with the result."""


def preflight(
    tools: FfmpegTools, location: str, info: MediaInfo, profile: Profile, stop: threading.Event
) -> Measurement:
    """Check the source as the profile asks, and return its measurement.

    Its notices say what will be left out or changed. Raises SourceDamaged with the evidence,
    MediaRefused if the profile refuses what an edit list hides or uneven times, or Unavailable if the
    network failed.
    """
    measured = measure(tools, location, info, stop)
    if profile.gates.preflight is not Preflight.OFF:
        _judge(tools, location, info, profile, measured, stop)
    notices = (
        *hidden_media(tools, location, info, measured, profile, stop),
        *_evened(location, info, measured, profile),
    )
    return measured.model_copy(update={"notices": (*measured.notices, *notices)})


def _evened(
    location: str, info: MediaInfo, measured: Measurement, profile: Profile
) -> Iterator[str]:
    """Yield what is said of a video whose times are uneven, where the container has one frame rate."""
    for stream in info.of_kind(StreamKind.VIDEO):
        track = measured.track(stream.index)
        found = evened(profile, stream, track) if track is not None else ""
        if isinstance(found, Refuse):
            raise MediaRefused(f"{display_name(location)}: {found.detail} ({found.policy})")
        if found:
            yield found


def _judge(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    profile: Profile,
    measured: Measurement,
    stop: threading.Event,
) -> None:
    _judge_lines(location, measured.errors)
    complaint = (
        shortfall(info, measured)
        or index_damage(location, info, measured)
        or transport_damage(location, info, stop)
    )
    if complaint:
        raise SourceDamaged(f"{display_name(location)} is damaged: {complaint}.")
    if profile.gates.preflight is Preflight.DECODE:
        _decode(tools, location, profile, stop, ("-map", "0:v?", "-map", "0:a?"))
    elif info.of_kind(StreamKind.AUDIO) and not RAGGED.intersection(info.format_name.split(",")):
        _decode(tools, location, profile, stop, ("-map", "0:a"))


def _judge_lines(location: str, lines: tuple[str, ...]) -> None:
    if not lines:
        return
    if is_url(location) and any(line.startswith(NETWORK) for line in lines):
        raise Unavailable(
            f"{display_name(location)} could not be read to its end: {message_text(lines[0])}."
        )
    more = f" (and {len(lines) - 1} more errors)" if len(lines) > 1 else ""
    raise SourceDamaged(
        f"{display_name(location)} is damaged: {message_text(lines[0])}{more}.",
        remedy="Replace the file with an intact copy; the original was not touched.",
    )


def shortfall(info: MediaInfo, measured: Measurement) -> str:
    """Return what is missing compared with the header, as a clause, or ""."""
    if info.format_name.partition(",")[0] not in INDEXED:
        return ""
    for stream in info.streams:
        if stream.kind in {StreamKind.VIDEO, StreamKind.AUDIO}:
            missing = _track_shortfall(info, stream, measured)
            if missing:
                return missing
    ends = [track.end_s for track in measured.tracks if track.end_s is not None]
    if info.duration_s is None or not ends:
        return ""
    claimed = info.duration_s + min(0.0, info.start_s or 0.0)
    return _late(claimed, max(ends), "the file")


def _track_shortfall(info: MediaInfo, stream: Stream, measured: Measurement) -> str:
    name = f"{stream.kind.value} stream {stream.index}"
    track = measured.track(stream.index)
    if track is None or track.packets == 0:
        # A track without samples and without a duration is odd, but misses nothing.
        claims = stream.frames or (stream.duration_s and not stream.pictureless)
        return f"{name} has no packets" if claims else ""
    if stream.duration_s is None or track.end_s is None:
        return ""
    # Matroska's DURATION tag is the end of the track; elsewhere a duration counts from its start.
    from_zero = info.format_name.startswith("matroska")
    start = 0.0 if from_zero else (track.first_pts_s or 0.0)
    return _late(stream.duration_s, track.end_s - start, name)


def _late(claimed: float, found: float, name: str) -> str:
    if claimed - found <= max(TAIL_S, TAIL_SHARE * claimed):
        return ""
    return f"{name} claims {claimed:.2f} s but ends after {found:.2f} s"


def _decode(
    tools: FfmpegTools,
    location: str,
    profile: Profile,
    stop: threading.Event,
    maps: tuple[str, ...],
) -> None:
    lines = decode_complaints(tools, location, profile, stop, maps)
    _judge_lines(location, lines)


def decode_complaints(
    tools: FfmpegTools,
    location: str,
    profile: Profile,
    stop: threading.Event,
    maps: tuple[str, ...],
) -> tuple[str, ...]:
    """Decode the mapped streams of a source; return the error lines that are not known as harmless."""
    argv = [
        tools.ffmpeg, "-v", "error", "-nostdin", *input_options(location),
        *maps, "-fps_mode", "passthrough", "-enc_time_base", "-1",
        "-f", "null", "-",
    ]  # fmt: skip
    limits = reading(limits_of(profile.bounds), tools, location)
    done = run_child(argv, stop=stop, limits=limits, deadline_s=profile.queue.max_job_s)
    return decode_errors(done.stderr, done.returncode)
