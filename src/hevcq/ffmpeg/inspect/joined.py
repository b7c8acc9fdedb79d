"""Give a recording whose clock jumps one clock: ffmpeg's own correction, proven packet by packet.

Recordings that were joined (`cat one.ts two.ts`) have a clock that jumps in the middle. ffmpeg moves the
times behind a jump while it copies. The copy is encoded if it has every packet of the recording in order,
at rising times, with sound and pictures moved alike; the encode and its gates find what does not decode.
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
"""Ticks forward from which a step is a jump, as ffmpeg and players take it (dts_delta_threshold): a
shorter one is a gap in reception, whose length is true."""
BACK = CLOCK_HZ // 2
"""Ticks by which times may go backwards: ffprobe computes decoding times that a stream does not have."""
SETTLED = CLOCK_HZ
"""Ticks of a part within which ffmpeg may still correct: sound and picture meet the jump one after the other."""
ASTRAY, EXACT = CLOCK_HZ // 2, 90
"""Ticks by which a packet may be moved unlike its part: until it has settled, and then."""
NAMED = 5
"""Jumps that are named in a sentence."""
SPLIT = "Encode the recordings that it was joined from, or split it there and encode each part."
_TURNS = 4
"""Pictures that each channel has at least between two turns, on average; a demuxer gives its last one late."""
_SHOWN = frozenset({StreamKind.VIDEO, StreamKind.AUDIO})

Streams = dict[int, Packets]
"""The packets of a recording by stream."""


def read_recording(
    tools: FfmpegTools, location: str, videos: Sequence[int], stop: threading.Event
) -> tuple[Streams, int, bool]:
    """Read all packets; return also how often pictures go on in another of the streams `videos`.

    And whether counters of packets do not go on, as between segments that were put together: -xerror
    would end an encode. Raises SourceUnreadable, SourceGone, Unavailable, and Stopped.
    """
    reader, order = PacketReader(), list[int]()

    def on_line(text: str) -> None:
        reader.line(text)
        if reader.index in videos and order[-1:] != [reader.index]:
            order.append(reader.index)

    show = ["-v", "warning", "-show_entries", "packet=stream_index,pts,dts,size,data_hash",
            "-show_data_hash", "crc32", "-of", KEYED]  # fmt: skip
    said = read_packets(tools, location, show, on_line, stop, packets_seen=lambda: reader.tracks)
    corrupt = any("Packet corrupt" in line for line in said)
    return reader.tracks, max(0, len(order) - 1), corrupt


def prepare_recording(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    folder: Path,
    stop: threading.Event,
) -> TrimmedSource | None:
    """Write the whole pictures of a recording, on one clock, to `folder`; None if it has both already.

    Raises MediaRefused if its clock jumps and ffmpeg cannot correct it, SourceDamaged, Stopped once
    `stop` is set, DiskFull, and OSError.
    """
    if is_url(location):
        return None
    videos = [stream.index for stream in info.of_kind(StreamKind.VIDEO)]
    found, turns, corrupt = read_recording(tools, location, videos, stop)
    shown = [index for index in videos if index in found]
    # Those of programmes beside each other take turns all the time.
    if 0 < turns * _TURNS < min((len(found[index].pts) for index in shown), default=0):
        raise MediaRefused(
            f"{display_name(location)}: on the way its pictures go on in another stream, as where the"
            " channel was changed.",
            remedy=SPLIT,
        )
    trimmed = trim_recording(tools, location, info, folder, stop)
    parts = list(_parts(found[shown[0]])) if shown else []
    if len(parts) < 2 and not (shown and corrupt):
        return trimmed
    source = location if trimmed is None else str(trimmed.path)
    before = found if trimmed is None else read_recording(tools, source, videos, stop)[0]
    jumps = _times_words([_length_s(found[shown[0]].dts[part]) for part in parts])
    path = folder / f"joined{Path(location).suffix}"
    create_output(path)
    if why := _complaint(tools, source, info, before, path, stop):
        path.unlink()
        if len(parts) < 2:
            return trimmed  # the pre-flight or the encode says so
        raise MediaRefused(
            f"{display_name(location)}: it was joined from {len(parts)} recordings, as its clock"
            f" jumps {jumps}, and {why}.",
            remedy=SPLIT,
        )
    suffix = ".ts" if info.format_name == "mpegts" else ".mpg"
    copy = path.replace(folder / f"{COPIED_AS}{suffix}")
    notices = [f"Stream {stream.index} is left out: a data track ({stream.codec_tag or stream.codec})."
               for stream in info.streams if stream.index in before and stream not in _kept(info, before)]  # fmt: skip
    if jumps:
        words = f"The recording was joined from {len(parts)} parts: its clock jumps {jumps}."
        notices.insert(0, words)
    return TrimmedSource(copy, (*notices, *(() if trimmed is None else trimmed.notices)))


def _kept(info: MediaInfo, before: Streams) -> list[Stream]:
    """Return the streams that are copied."""
    kinds = _SHOWN | {StreamKind.SUBTITLE}
    return [stream for stream in info.streams if stream.kind in kinds and stream.index in before]


def _complaint(
    tools: FfmpegTools,
    source: str,
    info: MediaInfo,
    before: Streams,
    path: Path,
    stop: threading.Event,
) -> str:
    """Copy a recording to `path`; return why that is not the whole of it on one clock, or ""."""
    kept = _kept(info, before)
    videos = sum(stream.kind is StreamKind.VIDEO for stream in kept)
    why = transport_damage(source, videos, stop) if info.format_name == "mpegts" else ""
    if why := why or _copied(tools, source, (info, kept), path, stop):
        return why
    made = read_recording(tools, str(path), (), stop)[0]
    copies = [made.get(number, Packets()) for number in range(len(kept))]
    own = [before[stream.index] for stream in kept]
    return copy_difference(list(zip(kept, own, copies, strict=True)))


def _copied(
    tools: FfmpegTools,
    source: str,
    what: tuple[MediaInfo, Sequence[Stream]],
    path: Path,
    stop: threading.Event,
) -> str:
    """Copy some streams of a recording to `path`; return what ffmpeg complains of, or ""."""
    info, kept = what
    maps = [word for stream in kept for word in ("-map", f"0:{stream.index}")]
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
    said = done.stderr or ((error.message,) if error is not None else ())
    return f"ffmpeg cannot copy it ({message_text(said[0])})" if said else ""


def copy_difference(tracks: Sequence[tuple[Stream, Packets, Packets]]) -> str:
    """Return why copies are not the whole tracks in order, each packet moved as its part is, or "".

    The clock of the first video counts.
    """
    for stream, own, copy in tracks:
        if (len(copy.pts), copy.digest) != (len(own.pts), own.digest):
            return f"ffmpeg copies stream {stream.index} incompletely"
    main = next(_moves(own, copy) for s, own, copy in tracks if s.kind is StreamKind.VIDEO)
    for stream, own, copy in tracks:
        if stream.kind not in _SHOWN:
            if not all(_beside(*pair, main) for pair in zip(own.pts, copy.pts, strict=True)):
                return f"the texts of stream {stream.index} would be shown at other times"
            continue
        moves = _moves(own, copy)
        if len(moves) != len(main) or not moves:
            return f"the clock of stream {stream.index} jumps at other places than its picture"
        together = all(abs(a - b) <= EXACT for a, b in zip(moves, main, strict=True))
        if not together or not _rises(copy, own, stream):
            return "ffmpeg cannot give its streams one clock on which they stay in step"
    return ""


def _parts(packets: Packets) -> Iterator[slice]:
    """Yield the packets between the jumps of their clock."""
    begin, last = 0, NO_TIME
    for number, time in enumerate(packets.dts):
        if NO_TIME not in {time, last} and not -BACK <= time - last < FORWARD:
            yield slice(begin, number)
            begin = number
        last = last if time == NO_TIME else time
    yield slice(begin, len(packets.dts))


def _moves(own: Packets, copy: Packets) -> list[int]:
    """Return by how many ticks each part was moved; nothing if some packets are too far from theirs."""
    moves = list[int]()
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
            abs(move - settled) > (ASTRAY if time - first < SETTLED else EXACT)
            for time, move in pairs
        ):
            return []
        moves.append(settled)
    return moves


def _beside(time: int, copied: int, moves: list[int]) -> bool:
    """Return whether a text moved about as far as the pictures of some part did."""
    if NO_TIME in {time, copied}:
        return time == copied
    return any(abs(copied - time - move) <= ASTRAY for move in moves)


def _rises(copy: Packets, own: Packets, stream: Stream) -> bool:
    """Whether decoding times rise, and no picture of a part is shown before one of the part before."""
    if NO_TIME in copy.dts or min(copy.steps(), default=1) <= 0:
        return False
    parts = [[time for time in copy.pts[part] if time != NO_TIME] for part in _parts(own)]
    return stream.kind is not StreamKind.VIDEO or all(
        max(one) < min(other) for one, other in pairwise(parts)
    )


def _length_s(dts: Sequence[int]) -> float:
    known = [time for time in dts if time != NO_TIME]
    return (known[-1] - known[0]) / CLOCK_HZ if known else 0.0


def _times_words(lengths: Sequence[float]) -> str:
    """Return when the parts after the first begin, as `at 0:00:02 and 0:00:05`; "" if there are none."""
    if len(lengths) < 2:
        return ""
    times = [sum(lengths[:number]) for number in range(1, len(lengths))]
    words = [timecode(time, 0) for time in times[:NAMED]]
    more = len(times) - len(words)
    last = f"{more} more times" if more else words.pop()
    return f"at {', '.join(words)} and {last}" if words else f"at {last}"
