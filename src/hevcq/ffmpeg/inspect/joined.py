"""Put a recording whose clock jumps on one clock: by ffmpeg's own correction, checked packet by packet.

The clock of joined recordings (`cat one.ts two.ts`) jumps in the middle. ffmpeg shifts the timestamps behind a
jump while it copies. The copy is encoded if it has every packet of the recording in order, with rising
timestamps, and with sound and pictures shifted alike; the encode and its gates find what does not decode.
Otherwise the recording is refused.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
from hevcq.errors import DiskFull, MediaRefused
from hevcq.ffmpeg.inputs import (
    KEYED,
    FfmpegTools,
    access_to,
    display_name,
    input_options,
    is_url,
)
from hevcq.ffmpeg.inspect.measure import LIMITS, NO_TIME, PacketReader, Packets, read_packets
from hevcq.ffmpeg.inspect.recording import transport_damage, trim_recording
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.run.messages import FfmpegExit, exit_error, message_text
from hevcq.ffmpeg.run.runner import create_output
from hevcq.ports.encoder import COPIED_AS, TrimmedSource
from hevcq.util.text import timecode

CLOCK_HZ = 90_000
FORWARD = 10 * CLOCK_HZ
"""Ticks from which a step forward is a jump, as for ffmpeg and players (dts_delta_threshold). A shorter step is a
gap in reception of that length."""
BACK = CLOCK_HZ // 2
"""Ticks by which times may go backwards: ffprobe computes decoding times that a stream does not have."""
SETTLED = CLOCK_HZ
"""Ticks from a part's start in which ffmpeg may still correct: sound and pictures do not reach a jump together."""
UNSETTLED_TOLERANCE, TOLERANCE = CLOCK_HZ // 2, 90
"""Ticks by which a packet's shift may differ from its part's: until the part has settled, and from then on."""
MAX_NAMED_JUMPS = 5
SPLIT = "Encode the recordings that it was joined from, or split it there and encode each part."
_PICTURES_PER_TURN = 4
"""Where recordings of several channels were joined, each channel has on average more pictures than this between two
turns; the demuxer returns its last picture late. Programmes beside each other take turns all the time."""
_PLAYED = frozenset({StreamKind.VIDEO, StreamKind.AUDIO})

Streams = dict[int, Packets]
"""The packets of a recording by stream."""


def read_recording(
    tools: FfmpegTools, location: str, videos: Sequence[int], stop: threading.Event
) -> tuple[Streams, int, bool]:
    """Read all packets; return them, the number of turns between the `videos`, and whether counters jump.

    A turn is where the pictures go on in another stream. Packet counters jump between segments that were put
    together, and -xerror would end an encode there. Raises SourceUnreadable, SourceGone, Unavailable and Stopped.
    """
    reader, order = PacketReader(), list[int]()

    def on_line(text: str) -> None:
        reader.line(text)
        if reader.index in videos and order[-1:] != [reader.index]:
            order.append(reader.index)

    show = ["-v", "warning", "-show_entries", "packet=stream_index,pts,dts,size,pos,flags,data_hash",
            "-show_data_hash", "crc32", "-of", KEYED]  # fmt: skip
    lines = read_packets(tools, location, show, on_line, stop, packets_seen=lambda: reader.tracks)
    has_jumps = any("Packet corrupt" in line for line in lines)
    return reader.tracks, max(0, len(order) - 1), has_jumps


def prepare_recording(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    folder: Path,
    stop: threading.Event,
) -> TrimmedSource | None:
    """Write the whole pictures of a recording, on one clock, to `folder`; None if no copy is needed.

    Raises MediaRefused if its clock jumps and ffmpeg cannot correct it, SourceDamaged, Stopped, DiskFull and
    OSError.
    """
    if is_url(location):
        return None
    videos = [stream.index for stream in info.of_kind(StreamKind.VIDEO)]
    tracks, turns, has_jumps = read_recording(tools, location, videos, stop)
    videos = [index for index in videos if index in tracks]
    name = display_name(location)
    pictures = min((len(tracks[index].pts) for index in videos), default=0)
    if 0 < turns * _PICTURES_PER_TURN < pictures:
        why = "on the way its pictures go on in another stream, as where the channel was changed"
        raise MediaRefused(f"{name}: {why}.", remedy=SPLIT)
    trimmed = trim_recording(location, info, tracks, folder, stop)
    parts = list(_parts(tracks[videos[0]])) if videos else []
    if len(parts) < 2 and not (videos and has_jumps):
        return trimmed
    source = location if trimmed is None else str(trimmed.path)
    before = tracks if trimmed is None else read_recording(tools, source, videos, stop)[0]
    jumps = _jump_times([_length_s(tracks[videos[0]].dts[part]) for part in parts])
    path = folder / f"joined{Path(location).suffix}"
    create_output(path)
    if why := _copy_problem(tools, source, info, before, path, stop):
        path.unlink()
        if len(parts) < 2:
            return trimmed  # the pre-flight or the encode names the problem
        joint = f"it was joined from {len(parts)} recordings, as its clock jumps {jumps}"
        raise MediaRefused(f"{name}: {joint}, and {why}.", remedy=SPLIT)
    copy = folder / (COPIED_AS + (".ts" if info.format_name == "mpegts" else ".mpg"))
    kept = _copied_streams(info, before)
    notices = [
        f"Stream {stream.index} is left out: a data track ({stream.codec_tag or stream.codec})."
        for stream in info.streams
        if stream.index in before and stream not in kept
    ]
    if jumps:
        words = f"The recording was joined from {len(parts)} parts: its clock jumps {jumps}."
        notices.insert(0, words)
    return TrimmedSource(
        path.replace(copy), (*notices, *(trimmed.notices if trimmed is not None else ()))
    )


def _copied_streams(info: MediaInfo, before: Streams) -> list[Stream]:
    kinds = _PLAYED | {StreamKind.SUBTITLE}
    return [stream for stream in info.streams if stream.kind in kinds and stream.index in before]


def _copy_problem(
    tools: FfmpegTools,
    source: str,
    info: MediaInfo,
    before: Streams,
    path: Path,
    stop: threading.Event,
) -> str:
    """Copy a recording to `path`; return why the copy is not all of it on one clock, or ""."""
    streams = _copied_streams(info, before)
    videos = sum(stream.kind is StreamKind.VIDEO for stream in streams)
    damage = transport_damage(source, videos, stop) if info.format_name == "mpegts" else ""
    if why := damage or _copy_streams(tools, source, (info, streams), path, stop):
        return why
    tracks = read_recording(tools, str(path), (), stop)[0]
    copies = [tracks.get(number, Packets()) for number in range(len(streams))]
    originals = [before[stream.index] for stream in streams]
    return copy_difference(list(zip(streams, originals, copies, strict=True)))


def _copy_streams(
    tools: FfmpegTools,
    source: str,
    selected: tuple[MediaInfo, Sequence[Stream]],
    path: Path,
    stop: threading.Event,
) -> str:
    """Copy some streams of a recording to `path`; return ffmpeg's error, or ""."""
    info, streams = selected
    maps = [word for stream in streams for word in ("-map", f"0:{stream.index}")]
    argv = [
        tools.ffmpeg, "-v", "error", "-nostdin", "-y", *input_options(source), *maps, "-c", "copy",
        "-copyinkf", "-f", "mpegts" if info.format_name == "mpegts" else "vob", f"file:{path}",
    ]  # fmt: skip
    most = 2 * os.stat(source).st_size + (1 << 26)  # noqa: PTH116 - any bytes
    limits = replace(LIMITS, output_bytes=most, access=access_to(tools, source, writes=[path]))
    done = run_child(argv, stop=stop, limits=limits)
    error = exit_error(FfmpegExit(argv, source, info, done.returncode, done.stderr))
    if isinstance(error, DiskFull):
        raise error
    lines = done.stderr or ((error.message,) if error is not None else ())
    return f"ffmpeg cannot copy it ({message_text(lines[0])})" if lines else ""


def copy_difference(tracks: Sequence[tuple[Stream, Packets, Packets]]) -> str:
    """Return why copied tracks differ from the originals on one clock, or "".

    `tracks` are streams, each with the packets of original and copy. All packets must be there in order, and each
    shifted like its part of the first video.
    """
    for stream, own, copy in tracks:
        if (len(copy.pts), copy.digest) != (len(own.pts), own.digest):
            return f"ffmpeg copies stream {stream.index} incompletely"
    main = next(_part_shifts(own, copy) for s, own, copy in tracks if s.kind is StreamKind.VIDEO)
    for stream, own, copy in tracks:
        if stream.kind not in _PLAYED:
            if not all(_is_in_step(*pair, main) for pair in zip(own.pts, copy.pts, strict=True)):
                return f"the texts of stream {stream.index} would be shown at other times"
            continue
        shifts = _part_shifts(own, copy)
        if len(shifts) != len(main) or not shifts:
            return f"the clock of stream {stream.index} jumps at other places than its picture"
        together = all(abs(a - b) <= TOLERANCE for a, b in zip(shifts, main, strict=True))
        if not together or not _has_rising_times(copy, own, stream):
            return "ffmpeg cannot give its streams one clock on which they stay in step"
    return ""


def _parts(packets: Packets) -> Iterator[slice]:
    """Yield the parts between the jumps of the clock, as slices of the packets."""
    begin, last = 0, NO_TIME
    for number, time in enumerate(packets.dts):
        if NO_TIME not in {time, last} and not -BACK <= time - last < FORWARD:
            yield slice(begin, number)
            begin = number
        last = last if time == NO_TIME else time
    yield slice(begin, len(packets.dts))


def _part_shifts(own: Packets, copy: Packets) -> list[int]:
    """Return by how many ticks each part was shifted; [] if a packet's shift differs too much from its part's."""
    shifts = list[int]()
    for part in _parts(own):
        pairs = [
            (one, other - one)
            for one, other in zip(own.pts[part], copy.pts[part], strict=True)
            if NO_TIME not in {one, other}
        ]
        if not pairs:
            return []
        (first, _), (_, settled) = pairs[0], pairs[-1]
        if any(
            abs(shift - settled) > (UNSETTLED_TOLERANCE if time - first < SETTLED else TOLERANCE)
            for time, shift in pairs
        ):
            return []
        shifts.append(settled)
    return shifts


def _is_in_step(time: int, copied: int, shifts: list[int]) -> bool:
    """Whether a text was shifted about as far as the pictures of some part."""
    if NO_TIME in {time, copied}:
        return time == copied
    return any(abs(copied - time - shift) <= UNSETTLED_TOLERANCE for shift in shifts)


def _has_rising_times(copy: Packets, own: Packets, stream: Stream) -> bool:
    """Whether decoding times rise, and all pictures of a part are shown after those of the part before it."""
    if NO_TIME in copy.dts or min(copy.steps(), default=1) <= 0:
        return False
    parts = [[time for time in copy.pts[part] if time != NO_TIME] for part in _parts(own)]
    return stream.kind is not StreamKind.VIDEO or all(
        max(one) < min(other) for one, other in pairwise(parts)
    )


def _length_s(dts: Sequence[int]) -> float:
    times = [time for time in dts if time != NO_TIME]
    return (times[-1] - times[0]) / CLOCK_HZ if times else 0.0


def _jump_times(lengths: Sequence[float]) -> str:
    """Return when the parts after the first begin, as `at 0:00:02 and 0:00:05`; "" if there are none."""
    if len(lengths) < 2:
        return ""
    times = [sum(lengths[:number]) for number in range(1, len(lengths))]
    words = [timecode(time, 0) for time in times[:MAX_NAMED_JUMPS]]
    more = len(times) - len(words)
    last = f"{more} more times" if more else words.pop()
    return f"at {', '.join(words)} and {last}" if words else f"at {last}"
