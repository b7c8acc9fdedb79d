"""Probe a file by its content, whatever its name, and reject a file that is no media with a reason.

Also reads frames midstream, and metadata that ffprobe does not report. Starting a program costs as much as reading
a short video, so one ffprobe reads all of a small one.
"""

import json
import os
import re
import signal
import stat
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hevcq.domain.media.facts import (
    RECORDINGS,
    MediaInfo,
    Stream,
    StreamKind,
)
from hevcq.domain.planning.metadata import tracks_of
from hevcq.errors import (
    EncoderFailed,
    LimitExceeded,
    SourceGone,
    SourceUnreadable,
    Unavailable,
)
from hevcq.ffmpeg.containers import matroska, mp4
from hevcq.ffmpeg.inputs import (
    LATE_PROBE_S,
    NETWORK_PREFIXES,
    PROBE_DEADLINE_S,
    PROBE_LIMITS,
    UNOPENED_PLAYLIST,
    FfmpegTools,
    display_name,
    ffmpeg_url,
    input_options,
    is_url,
    late_stream_options,
    strip_name,
    with_read_access,
)
from hevcq.ffmpeg.probe.interlacing import with_fields_seen
from hevcq.ffmpeg.probe.parse import media_info
from hevcq.ffmpeg.process.child import Finished, ending, run_child, stream_child
from hevcq.util.text import printable, reason_of

PROBE_PACKETS = 24
"""Packets decoded to find captions, fields and HDR10+, which headers do not contain."""
MAIN_VIDEO_PACKETS = 12
FRAME_ENTRIES = (
    "frame=media_type,stream_index,interlaced_frame,top_field_first,width,height,pix_fmt,"
    "sample_aspect_ratio,color_range,color_space,color_transfer,color_primaries,chroma_location:"
    "frame_side_data"
)
"""The facts of each frame that ffprobe prints."""
_ENTRIES = (
    "format:format_tags:stream:stream_tags:stream_disposition:stream_side_data:"
    f"chapter:chapter_tags:program_tags:{FRAME_ENTRIES}"
)
_PACKETS = "packet=stream_index,pts,dts,duration,size,flags,data_hash"
AT_ONCE_BYTES, AT_ONCE_TEXT = 16 << 20, 8 << 20
"""Largest file that one ffprobe reads whole, with all key frames decoded, and its largest output: twenty minutes."""
_KEYS_ONLY = ("-skip_frame", "nokey")
_NOT_LISTED = re.compile(r"^\[(\S+) @ \S+\] Format not on whitelist")
_PLAYLISTS = frozenset(
    {"hls", "applehttp", "concat", "dash", "imf", "sdp", "rtsp", "vobsub", "kux"}
)


def probe(
    tools: FfmpegTools,
    location: str,
    stop: threading.Event,
    *,
    midstream: bool = True,
    quick: bool = False,
) -> MediaInfo:
    """Probe the file or URL `location` and return its typed facts.

    `midstream` also reads pictures spread over the video; an encoder's output does not need that, because it is
    alike all over. `quick` skips them in an MP4 or MOV, which is no recording. Raises SourceUnreadable if it is not
    media or has nothing readable, SourceGone if it does not exist, and Unavailable if a URL does not answer; their
    messages name the file.
    """
    keys_only = _starts_with_key_frame(_head(location))
    first = [*(_KEYS_ONLY if keys_only else ()), "-read_intervals", f"%+#{PROBE_PACKETS}"]
    info = _probe_pictures(tools, location, stop, first, midstream=midstream, quick=quick)
    return _with_further_facts(tools, location, info, stop, midstream=midstream)


def _with_further_facts(
    tools: FfmpegTools, location: str, info: MediaInfo, stop: threading.Event, *, midstream: bool
) -> MediaInfo:
    """Add facts that ffprobe does not report: whether pictures are interlaced, and metadata of the container."""
    if midstream and any(stream.may_be_interlaced for stream in info.streams):
        info = with_fields_seen(tools, location, info, stop)
    return info if is_url(location) else _with_structure(location, info)


def probe_at_once(
    tools: FfmpegTools, location: str, stop: threading.Event, *, midstream: bool = True
) -> tuple[MediaInfo, list[dict[str, Any]]] | None:
    """Return the result of `probe`, and all packets, of a small MP4, MOV or Matroska file, by one ffprobe.

    It decodes all key frames and all of the sound. Returns None for any other file, and if ffprobe prints an
    error: `probe` then reports more.
    """
    try:
        size = os.path.getsize(location)  # noqa: PTH202 - any bytes
    except OSError:  # a URL, or a missing file, which `probe` reports
        return None
    if size > AT_ONCE_BYTES or not _starts_with_key_frame(_head(location)):
        return None
    output = bytearray()

    def keep(chunk: bytes) -> None:
        output.extend(chunk)
        if len(output) > AT_ONCE_TEXT:
            raise LimitExceeded(f"{display_name(location)} has many packets for its size.")

    entries = _ENTRIES.replace(":frame=", f":{_PACKETS}:frame=")
    argv = _command(tools, location, _KEYS_ONLY, entries, writer="json=c=1")
    limits = with_read_access(PROBE_LIMITS, tools, location)
    try:
        done = stream_child(
            argv, stop=stop, limits=limits, on_chunk=keep, deadline_s=PROBE_DEADLINE_S
        )
    except (EncoderFailed, LimitExceeded):
        return None
    if done.returncode or done.stderr:
        return None
    probed = _parse(replace(done, stdout=bytes(output)), location)
    items = probed.pop("packets_and_frames", [])
    frames = [each for each in items if each.get("media_type") == "video"]
    first = {frame.get("stream_index"): frame for frame in reversed(frames)}
    probed["frames"] = list(first.values())
    if midstream:
        probed["midstream_frames"] = [f for f in frames if f is not first[f.get("stream_index")]]
    info = media_info(probed)
    videos = info.of_kind(StreamKind.VIDEO)
    if not {s.index for s in videos} <= first.keys():
        return None
    packets = [each for each in items if each["type"] == "packet"]
    return _with_further_facts(tools, location, info, stop, midstream=midstream), packets


def _probe_pictures(
    tools: FfmpegTools,
    location: str,
    stop: threading.Event,
    first: Sequence[str],
    *,
    midstream: bool,
    quick: bool,
) -> MediaInfo:
    """Return the facts of headers, first frames and midstream frames; the options `first` select the first frames."""
    probed = _parse(_run_ffprobe(tools, location, first, stop), location)
    info = media_info(probed)
    if info.format_name in RECORDINGS and any(map(info.is_unsent, info.of_kind(StreamKind.AUDIO))):
        late = [*late_stream_options(LATE_PROBE_S), "-read_intervals", f"%+#{PROBE_PACKETS}"]
        probed = _parse(_run_ffprobe(tools, location, late, stop), location)
        info = media_info(probed)
    if not info.streams:
        raise SourceUnreadable(f"{display_name(location)} has no streams.")
    main = next((s for s in info.of_kind(StreamKind.VIDEO) if s.video and s.video.width), None)
    if main is None:
        if info.of_kind(StreamKind.VIDEO):
            raise SourceUnreadable(
                f"{display_name(location)} has a picture of unknown size: it is damaged."
            )
        return info
    if not any(f.get("stream_index") == main.index for f in probed.get("frames", ())):
        packets = ["-read_intervals", f"%+#{MAIN_VIDEO_PACKETS}"]  # they come later in the file
        options = ["-select_streams", str(main.index), *packets]
        of_main = _parse(_run_ffprobe(tools, location, options, stop), location)
        probed = {**probed, "frames": of_main.get("frames", [])}
        info = media_info(probed)
    midstream = midstream and not (quick and info.format_name.startswith("mov,"))
    later = midstream_frames(tools, location, info, main, stop) if midstream else []
    return media_info({**probed, "midstream_frames": later}) if later else info


def _with_structure(location: str, info: MediaInfo) -> MediaInfo:
    """Add metadata that ffprobe does not report, and whether an MP4's index comes first."""
    reported = {
        value for tags in (info.tags, *(s.tags for s in info.streams)) for value in tags.values()
    }
    index_first, described = False, list[dict[str, str]]()
    try:
        with open(location, "rb") as file:
            if "mp4" in info.format_name.split(","):
                index_first = mp4.has_index_first(file, info.size)
                described = mp4.tracks(file, info.size)
                items = [
                    piece.item.model_copy(update={"reported": mp4.is_reported(piece.box, reported)})
                    for piece in mp4.metadata(file, info.size)
                ]
            elif "matroska" in info.format_name.split(","):
                described = matroska.tracks(file, info.size)
                items = list(matroska.metadata(file, info.size))
            else:
                return info
    except OSError as error:
        raise SourceUnreadable(
            f"{display_name(location)} cannot be read: {reason_of(error)}."
        ) from error
    facts = {"metadata": tuple(items), "index_first": index_first}
    return _with_track_facts(info.model_copy(update=facts), described)


def _with_track_facts(info: MediaInfo, described: list[dict[str, str]]) -> MediaInfo:
    """Add the facts that the file states of its tracks, if it has as many tracks as ffprobe."""
    tracks = tracks_of(info)
    if not any(described) or len(described) != len(tracks):
        return info
    changed = dict[int, Stream]()
    for track, stated in zip(tracks, described, strict=True):
        facts: dict[str, object] = {n: stated[n] for n in stated if n in {"title", "language_tag"}}
        if track.video is not None and "cropped" in stated:
            facts["video"] = track.video.model_copy(update={"cropped": True})
        changed[track.index] = track.model_copy(update=facts)
    streams = tuple(changed.get(stream.index, stream) for stream in info.streams)
    return info.model_copy(update={"streams": streams})


def _starts_with_key_frame(head: bytes) -> bool:
    """Whether a file's first bytes are of an MP4, MOV or Matroska, whose videos start with a key frame.

    It tells what the pictures after it are like. Recordings start anywhere.
    """
    return head[4:8] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3"


def _head(location: str) -> bytes:
    """Return the first bytes of a file, b"" for a URL.

    Raises SourceGone, or SourceUnreadable for an empty file and for a device or pipe, which could block for ever.
    """
    if is_url(location):
        return b""
    name = display_name(location)
    try:
        status = os.stat(location)  # noqa: PTH116 - any bytes a name can hold
        head = b""
        if stat.S_ISREG(status.st_mode):
            descriptor = os.open(location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                head = file.read(12)
    except FileNotFoundError as error:
        raise SourceGone(f"{name} is not there.") from error
    except PermissionError as error:
        raise SourceUnreadable(
            f"{name} may not be read.", remedy="Give hevcq's user the right to read it."
        ) from error
    except (OSError, ValueError) as error:
        raise SourceUnreadable(f"{name} cannot be opened: {reason_of(error)}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise SourceUnreadable(f"{name} is a folder, not a video.")
    if not stat.S_ISREG(status.st_mode):
        raise SourceUnreadable(f"{name} is a device, pipe or socket, not a file.")
    if status.st_size == 0:
        raise SourceUnreadable(f"{name} is empty.")
    return head


def _run_ffprobe(
    tools: FfmpegTools,
    location: str,
    extra: Sequence[str],
    stop: threading.Event,
    entries: str = _ENTRIES,
) -> Finished:
    argv, limits = (
        _command(tools, location, extra, entries),
        with_read_access(PROBE_LIMITS, tools, location),
    )
    return run_child(argv, stop=stop, limits=limits, deadline_s=PROBE_DEADLINE_S)


def _command(
    tools: FfmpegTools, location: str, extra: Sequence[str], entries: str, writer: str = "json"
) -> list[str]:
    return [
        tools.ffprobe, "-v", "error", "-threads", "1", "-of", writer, "-show_entries", entries,
        "-show_data_hash", "crc32", *extra, *input_options(location),
    ]  # fmt: skip


def _parse(done: Finished, location: str) -> dict[str, Any]:
    """Return ffprobe's JSON. Raises what `probe` raises if ffprobe failed."""
    if done.returncode < 0:
        raise SourceUnreadable(
            f"{display_name(location)} cannot be read: ffprobe crashed"
            f" ({signal.Signals(-done.returncode).name})."
        )
    if done.returncode != 0:
        raise probe_error(location, done.stderr, done.returncode)
    try:
        probed = json.loads(done.stdout.decode("utf-8", "replace"))
    except ValueError as error:
        raise SourceUnreadable(
            f"{display_name(location)} cannot be read: ffprobe's output is incomplete."
        ) from error
    return probed if isinstance(probed, dict) else {}


def probe_error(
    location: str, stderr: Sequence[str], returncode: int = 1
) -> SourceUnreadable | SourceGone | Unavailable:
    """Return the error that ffprobe's lines explain, if it could not open a location."""
    name = display_name(location)
    text = strip_name(stderr, location)
    refused = [match[1] for line in stderr if (match := _NOT_LISTED.match(line))]
    if UNOPENED_PLAYLIST in text:
        refused.append("hls")
    if refused:
        demuxer = refused[0].partition(",")[0].removesuffix("_pipe")
        why = f"is no video that hevcq opens: its format is {demuxer}"
        if demuxer in _PLAYLISTS:
            why = f"is a playlist ({demuxer}) that refers to other files, not a video"
        return SourceUnreadable(f"{name} {why}.")
    if is_url(location):
        return _fetch_error(name, text, _last_line(stderr, location, returncode))
    if "No such file or directory" in text and not os.path.exists(location):  # noqa: PTH110 - bytes
        return SourceGone(f"{name} is not there.")
    if _is_text(location):
        return SourceUnreadable(f"{name} is a text file, not a video.")
    if "moov atom not found" in text:
        return SourceUnreadable(
            f"{name} is not a video or was truncated: an MP4 without its index (moov) cannot be read."
        )
    return SourceUnreadable(
        f"{name} cannot be read as a video: {_last_line(stderr, location, returncode)}."
    )


def _fetch_error(name: str, text: str, last: str) -> SourceUnreadable | SourceGone | Unavailable:
    if re.search(r"404 Not Found|HTTP error 404|410 Gone", text):
        return SourceGone(f"{name} is not there.")
    if re.search(r"Connection|timed out|Server returned|HTTP error|resolve|Input/output", text):
        return Unavailable(f"{name} cannot be fetched: {last}.")
    return SourceUnreadable(f"{name} cannot be read as a video: {last}.")


def _last_line(stderr: Sequence[str], location: str, returncode: int) -> str:
    """Return ffprobe's last line, or its signal if it crashed.

    The location is removed, because it may contain a signature or odd bytes.
    """
    if returncode < 0:
        return f"ffprobe crashed ({ending(returncode)})"
    line = stderr[-1] if stderr else "no reason given"
    shown = ffmpeg_url(location) if is_url(location) else f"file:{location}"
    return printable(line.removeprefix(os.fsencode(f"{shown}: ").decode("utf-8", "replace")))


def _is_text(location: str) -> bool:
    try:
        with open(location, "rb") as file:
            head = file.read(2048)
    except (OSError, ValueError):
        return False
    try:
        return all(c.isprintable() or c.isspace() for c in head.decode("utf-8"))
    except UnicodeDecodeError as error:
        cut = error.start >= len(head) - 3
        return cut and head[: error.start].decode("utf-8").isprintable()


PLACES = 5
"""Number of places probed midstream, spread evenly; each costs 20 to 40 ms at 1080p."""
MIN_MIDSTREAM_S = 2.0
"""A shorter video is not probed midstream: its first pictures are most of it."""
PLACE_PACKETS = 8
"""Packets read at each place: in most containers a seek leads to a key frame."""
UNINDEXED_PLACE_PACKETS = 300
"""The same in a container without an index, where a whole group of pictures may come first (x264: up to 250)."""
_UNINDEXED = frozenset({"mpegts", "mpeg"})


def midstream_frames(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    video: Stream,
    stop: threading.Event,
) -> list[Mapping[str, Any]]:
    """Return ffprobe's facts of key frames at places spread over the video; none if it is short.

    A place that cannot be read is skipped: the pre-flight reports damage. Raises Unavailable if the connection
    broke, because any number of places may then be missing.
    """
    length = info.duration_s or 0.0
    if length < MIN_MIDSTREAM_S:
        return []
    is_unindexed = _UNINDEXED.intersection(info.format_name.split(","))
    packets = UNINDEXED_PLACE_PACKETS if is_unindexed else PLACE_PACKETS
    start, share = max(0.0, info.start_s or 0.0), length / PLACES
    places = [f"{start + (place + 0.5) * share:.3f}" for place in range(PLACES)]
    intervals = ",".join(f"{place}%+#{packets}" for place in places)
    words = [*_KEYS_ONLY, "-select_streams", str(video.index), "-read_intervals", intervals]
    done = _run_ffprobe(tools, location, words, stop, FRAME_ENTRIES)
    if is_url(location) and any(line.startswith(NETWORK_PREFIXES) for line in done.stderr):
        raise Unavailable(
            f"{display_name(location)} could not be probed completely: the connection broke."
        )
    try:
        probed = json.loads(done.stdout.decode("utf-8", "replace"))
    except ValueError:
        return []
    frames = probed.get("frames") if isinstance(probed, dict) else None
    return [frame for frame in frames or () if isinstance(frame, dict)]
