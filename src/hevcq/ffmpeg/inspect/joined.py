"""Give a recording whose clock jumps one clock: ffmpeg's own correction, proven packet by packet.

Recordings that were joined (`cat one.ts two.ts`) have a clock that jumps in the middle. ffmpeg moves the
times behind a jump while it copies. The copy is encoded if it has every packet of the recording in order,
at rising times, with sound and pictures moved alike, and decodes without an error. Otherwise the recording
is refused, with the commands that split it.
"""

from __future__ import annotations

import os
import re
import threading
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from zlib import crc32

from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
from hevcq.errors import DiskFull, MediaRefused
from hevcq.ffmpeg.inputs import (
    FINE_TICK,
    KEYED,
    FfmpegTools,
    access_to,
    display_name,
    input_options,
    is_url,
    reading,
)
from hevcq.ffmpeg.inspect.measure import LIMITS, read_packets
from hevcq.ffmpeg.inspect.recording import (
    packet_layout,
    pid_of,
    transport_damage,
    trim_recording,
)
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.run.messages import FfmpegExit, decode_errors, exit_error, message_text
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
_NEAR_BYTES = 1 << 20
"""Bytes before the last packet with the old clock in which packets of all streams are."""
_TURNS = 10
"""Pictures that each channel has at least between two turns, on average."""
_NULL = 0x1FFF
"""The PID of packets that fill up the rate: their counters mean nothing."""
_UNKNOWN = -(1 << 62)
_FIELD = re.compile(r"(?:^|\|)(stream_index|pts|dts|pos|data_hash)=([^|\n]+)")
_SHOWN = frozenset({StreamKind.VIDEO, StreamKind.AUDIO})


@dataclass(slots=True)
class Packets:
    """The packets of one stream: times in ticks, places in bytes, a digest, and the jumps of their clock.

    Each jump has the number of the first packet with the new clock, and the places, in bytes, of the packet
    before it and of itself.
    """

    pts: array[int] = field(default_factory=lambda: array("q"))
    dts: array[int] = field(default_factory=lambda: array("q"))
    digest: int = 0
    places: array[int] = field(default_factory=lambda: array("q"))
    jumps: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, pts: int, dts: int, place: int) -> None:
        """Add a packet."""
        last = self.dts[-1] if self.dts else _UNKNOWN
        if _UNKNOWN not in {dts, last} and not -BACK <= dts - last < FORWARD:
            self.jumps.append((len(self.dts), self.places[-1] if self.places else 0, place))
        if place >= 0:
            self.places.append(place)
        self.pts.append(pts)
        self.dts.append(last if dts == _UNKNOWN else dts)

    def parts(self) -> Iterator[slice]:
        """Yield the packets between jumps."""
        borders = [0, *(jump[0] for jump in self.jumps), len(self.dts)]
        return (slice(one, other) for one, other in pairwise(borders))

    def lengths(self) -> list[float]:
        """Return how long each part lasts, in seconds."""
        parts = [self.dts[part] for part in self.parts()]
        return [(part[-1] - part[0]) / CLOCK_HZ for part in parts]


class Recording:
    """The packets of a recording by stream, as ffprobe prints them, a line of KEYED output each."""

    def __init__(self) -> None:
        """Begin without packets."""
        self.streams: dict[int, Packets] = {}
        self.corrupt = False
        self._last = Packets()

    def channels(self, videos: Collection[int]) -> list[tuple[int, int]]:
        """Return where pictures go on in another stream: the places, in bytes, of the last and the first one.

        Those of programmes beside each other take turns all the time, and count as none.
        """
        shown = {index: each.places for index, each in self.streams.items() if index in videos}
        order = sorted((place, index) for index, each in shown.items() for place in each)
        turns = [(one[0], two[0]) for one, two in pairwise(order) if one[1] != two[1]]
        return turns if len(turns) * _TURNS < min(map(len, shown.values()), default=0) else []

    def line(self, text: str) -> None:
        """Add a packet; the hash of one with side data is on a line of its own in ffmpeg 5.1."""
        fields = dict(_FIELD.findall(text))
        if "stream_index" in fields:
            self._last = self.streams.setdefault(int(fields["stream_index"]), Packets())
            values = [fields.get(name, "N/A") for name in ("pts", "dts", "pos")]
            self._last.add(*(_UNKNOWN if value == "N/A" else int(value) for value in values))
        self._last.digest = crc32(fields.get("data_hash", "").encode(), self._last.digest)


def read_recording(tools: FfmpegTools, location: str, stop: threading.Event) -> Recording:
    """Read all packets. Raises SourceUnreadable, SourceGone, Unavailable, and Stopped."""
    found = Recording()
    show = ["-v", "warning", "-show_entries", "packet=stream_index,pts,dts,pos,data_hash",
            "-show_data_hash", "crc32", "-of", KEYED]  # fmt: skip
    said = read_packets(tools, location, show, found.line, stop, packets_seen=lambda: found.streams)
    # Its counter does not go on, as between segments that were put together: -xerror would end an encode.
    found.corrupt = any("Packet corrupt" in line for line in said)
    return found


def whole_recording(
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
    found = read_recording(tools, location, stop)
    if turns := found.channels(videos):
        raise MediaRefused(
            f"{display_name(location)}: on the way its pictures go on in another stream, as where the"
            " channel was changed.",
            remedy=_split(location, info, turns),
        )
    trimmed = trim_recording(tools, location, info, folder, stop)
    shown = [index for index in videos if index in found.streams]
    if not shown or not (found.streams[shown[0]].jumps or found.corrupt):
        return trimmed
    source = location if trimmed is None else str(trimmed.path)
    before = found if trimmed is None else read_recording(tools, source, stop)
    job = Joining(tools, source, info, before, shown, stop)
    path = folder / f"joined{Path(location).suffix}"
    create_output(path)
    if why := job.complaint(path):
        path.unlink()
        if found.streams[shown[0]].jumps:
            raise _refused(location, info, found, shown[0], why)
        return trimmed  # the pre-flight or the encode says so
    said = () if trimmed is None else trimmed.notices
    suffix = ".ts" if info.format_name == "mpegts" else ".mpg"
    copy = path.replace(folder / f"{COPIED_AS}{suffix}")
    return TrimmedSource(copy, (*job.notices(), *said))


@dataclass(frozen=True, slots=True)
class Joining:
    """One recording to be copied; `shown` are the indexes of the streams with pictures."""

    tools: FfmpegTools
    source: str
    info: MediaInfo
    before: Recording
    shown: list[int]
    stop: threading.Event

    @property
    def main(self) -> int:
        """The index of the stream whose clock counts."""
        return self.shown[0]

    def kept(self) -> list[Stream]:
        """Return the streams that are copied."""
        kinds = _SHOWN | {StreamKind.SUBTITLE}
        return [s for s in self.info.streams if s.kind in kinds and s.index in self.before.streams]

    def notices(self) -> Iterator[str]:
        """Yield where the clock jumps, and which streams are not copied."""
        lengths = self.before.streams[self.main].lengths()
        if len(lengths) > 1:
            jumps = _times_words(lengths)
            yield f"The recording was joined from {len(lengths)} parts: its clock jumps {jumps}."
        kept = self.kept()
        for stream in self.info.streams:
            if stream not in kept and stream.index in self.before.streams:
                name = stream.codec_tag or stream.codec
                yield f"Stream {stream.index} is left out: a data track ({name})."

    def complaint(self, path: Path) -> str:
        """Copy to `path`; return why that is not the whole recording on one clock, or ""."""
        jumped = bool(self.before.streams[self.main].jumps)
        why = ""
        if self.info.format_name == "mpegts":
            why = transport_damage(self.source, len(self.shown), self.stop)
        why = why or self._copied(path) or self._unlike(path)
        return why or (self._decoded(path) if jumped else "")

    def _copied(self, path: Path) -> str:
        maps = [word for stream in self.kept() for word in ("-map", f"0:{stream.index}")]
        muxer = "mpegts" if self.info.format_name == "mpegts" else "vob"
        argv = [
            self.tools.ffmpeg, "-v", "error", "-nostdin", "-y", *input_options(self.source), *maps,
            "-c", "copy", "-copyinkf", "-f", muxer, f"file:{path}",
        ]  # fmt: skip
        most = 2 * os.stat(self.source).st_size + (1 << 26)  # noqa: PTH116 - any bytes
        access = access_to(self.tools, self.source, writes=[path])
        limits = replace(LIMITS, output_bytes=most, access=access)
        done = run_child(argv, stop=self.stop, limits=limits)
        ended = FfmpegExit(argv, self.source, self.info, done.returncode, done.stderr)
        if isinstance(error := exit_error(ended), DiskFull):
            raise error
        said = done.stderr or ((error.message,) if error is not None else ())
        return f"ffmpeg cannot copy it ({message_text(said[0])})" if said else ""

    def _unlike(self, path: Path) -> str:
        """Compare the copy with the recording: every packet, in order, moved as its part is."""
        made = read_recording(self.tools, str(path), self.stop).streams
        main = self._moves(self.main, made.get(self._number(self.main), Packets()))
        for stream in self.kept():
            own, copy = self.before.streams[stream.index], made.get(self._number(stream.index))
            if copy is None or (len(copy.pts), copy.digest) != (len(own.pts), own.digest):
                return f"ffmpeg copies stream {stream.index} incompletely"
            if stream.kind not in _SHOWN:
                if not all(_beside(*pair, main) for pair in zip(own.pts, copy.pts, strict=True)):
                    return f"the texts of stream {stream.index} would be shown at other times"
                continue
            moves = self._moves(stream.index, copy)
            if len(moves) != len(main) or not moves:
                return f"the clock of stream {stream.index} jumps at other places than its picture"
            together = all(abs(a - b) <= EXACT for a, b in zip(moves, main, strict=True))
            if not together or not _rises(copy, own, stream):
                return "ffmpeg cannot give its streams one clock on which they stay in step"
        return ""

    def _number(self, index: int) -> int:
        """Return the index of a stream in the copy."""
        return [stream.index for stream in self.kept()].index(index)

    def _moves(self, index: int, copy: Packets) -> list[int]:
        """Return by how many ticks each part was moved; nothing if some packets are too far from theirs."""
        own, moves = self.before.streams[index], list[int]()
        if len(own.pts) != len(copy.pts):
            return []
        for part in own.parts():
            pairs = [
                (one, other - one)
                for one, other in zip(own.pts[part], copy.pts[part], strict=True)
                if _UNKNOWN not in {one, other}
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

    def _decoded(self, path: Path) -> str:
        """Decode the copy: a part that begins between key frames needs pictures that are not there."""
        argv = [
            self.tools.ffmpeg, "-v", "error", "-nostdin", "-progress", "pipe:1",
            *input_options(str(path)), "-map", "0:v", "-map", "0:a?", "-fps_mode", "passthrough",
            "-enc_time_base:v", FINE_TICK, "-f", "null", "-",
        ]  # fmt: skip
        done = run_child(argv, stop=self.stop, limits=reading(LIMITS, self.tools, str(path)))
        if errors := decode_errors(done.stderr, done.returncode):
            return f"not all of it can be decoded ({message_text(errors[0])})"
        frames = re.findall(rb"^frame=(\d+)", done.stdout, re.MULTILINE)
        held, shown = len(self.before.streams[self.main].pts), int(frames[-1]) if frames else 0
        # Fields may be packets of their own.
        whole = shown in {held, (held + 1) // 2}
        return "" if whole else f"ffmpeg can decode {shown} of its {held} pictures only"


def _beside(time: int, copied: int, moves: list[int]) -> bool:
    """Return whether a text moved about as far as the pictures of some part did."""
    if _UNKNOWN in {time, copied}:
        return time == copied
    return any(abs(copied - time - move) <= ASTRAY for move in moves)


def _rises(copy: Packets, own: Packets, stream: Stream) -> bool:
    """Whether decoding times rise, and no picture of a part is shown before one of the part before."""
    if any(other <= one for one, other in pairwise(copy.dts)):
        return False
    parts = [[time for time in copy.pts[part] if time != _UNKNOWN] for part in own.parts()]
    return stream.kind is not StreamKind.VIDEO or all(
        max(one) < min(other) for one, other in pairwise(parts)
    )


def _times_words(lengths: Sequence[float]) -> str:
    """Return when the parts after the first begin, as `at 0:00:02 and 0:00:05`."""
    times = [sum(lengths[:number]) for number in range(1, len(lengths))]
    words = [timecode(time, 0) for time in times[:NAMED]]
    more = len(times) - len(words)
    last = f"{more} more times" if more else words.pop()
    return f"at {', '.join(words)} and {last}" if words else f"at {last}"


def _refused(
    location: str, info: MediaInfo, found: Recording, index: int, why: str
) -> MediaRefused:
    """Return the refusal of a recording whose clock jumps."""
    main = found.streams[index]
    alike = [each for each in found.streams.values() if len(each.jumps) == len(main.jumps)]
    spans = [
        (max(jump[1] for jump in jumps), min(jump[2] for jump in jumps))
        for jumps in zip(*(each.jumps for each in alike), strict=True)
    ]
    return MediaRefused(
        f"{display_name(location)}: it was joined from {len(spans) + 1} recordings, as its clock"
        f" jumps {_times_words(main.lengths())}, and {why}.",
        remedy=_split(location, info, spans),
    )


def _split(location: str, info: MediaInfo, spans: Sequence[tuple[int, int]]) -> str:
    """Return the commands that split a recording; a part begins in each span, in bytes."""
    places, commands = [0, *(_border(location, info, *span) for span in spans[:NAMED])], []
    for number, (begin, end) in enumerate(pairwise([*places, 0]), 1):
        cut = f" | head -c {end - begin}" if end else ""
        commands.append(f"tail -c +{begin + 1} FILE{cut} > {number}{Path(location).suffix}")
    return f"Split it, and encode each part by itself: {'; '.join(commands)}."


def _border(location: str, info: MediaInfo, before: int, place: int) -> int:
    """Return where a part begins whose first timed packet is at `place`, and the last before it at `before`.

    That is where the counters of packets do not go on, else at the last table or pack.
    """
    begin = max(0, before - _NEAR_BYTES)
    with open(location, "rb") as file:
        file.seek(begin)
        data = file.read(max(0, place - begin))
    layout = packet_layout(location) if info.format_name == "mpegts" else None
    if layout is None:
        at = data.rfind(b"\x00\x00\x01\xba", before - begin)
        return begin + at if at >= 0 else place
    (offset, length), counters, table = layout, dict[int, int](), place
    for at in range(-begin % length, len(data) - length + 1, length):
        packet = data[at + offset : at + offset + 4]
        pid, counter = pid_of(packet), packet[3] & 0x0F
        if not packet[3] & 0x10 or pid == _NULL:
            continue
        if begin + at > before and (counter - counters.get(pid, counter)) % 16 > 1:
            return begin + at
        counters[pid] = counter
        table = begin + at if begin + at > before and pid == 0 else table
    return table
