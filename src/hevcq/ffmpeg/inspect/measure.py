"""Measure the tracks of a file in one pass over every packet, in little memory.

ffprobe prints a short line for each packet, and its times and size are kept. A video of two hours takes about 3 s
of CPU.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any
from zlib import crc32

from hevcq.domain.media.facts import Gaps, Measurement, MediaInfo, Stream, StreamKind, TrackMeasure
from hevcq.errors import Unavailable
from hevcq.ffmpeg.inputs import (
    KEYED,
    REPEATING_CODECS,
    FfmpegTools,
    display_name,
    input_options,
    with_read_access,
)
from hevcq.ffmpeg.probe.probe import probe, probe_at_once, probe_error
from hevcq.ffmpeg.process.child import stream_child
from hevcq.ffmpeg.process.limits import ChildLimits, LineSplitter
from hevcq.ffmpeg.run.messages import Pass, unexpected_lines

MAX_KEYS = 1024
"""Most key-frame times kept per track; if there are more, every second, fourth and so on is kept."""
TINY_BYTES = 19
"""Largest MPEG-4 packet that may hold a "not coded" picture (libavcodec's MAX_NVOP_SIZE)."""
CUT_PACKETS = 16
"""Packets at either end that are no gap if some are missing: as many as a decoder reorders, so a cut may drop them."""
EVEN_AUDIO_CODECS = frozenset({"aac", "ac3", "eac3", "mp2", "mp3"})
"""Codecs whose packets last equally long and are also sent in silence."""
_FIELD = re.compile(
    r"(?:^|\|)(stream_index|pts|dts|duration|size|pos|flags|data_hash|has_b_frames)=([^|\n]+)"
)
NO_TIME = -(1 << 62)
"""Stands for a missing time or place."""


def measure(
    tools: FfmpegTools, location: str, info: MediaInfo, stop: threading.Event
) -> Measurement:
    """Read every packet of `location` once, and measure each track.

    The result's `errors` are ffprobe's error lines without the known harmless ones. Raises SourceUnreadable or
    SourceGone if the file cannot be opened, and Unavailable if it sends no more data.
    """
    started = tools.clock.monotonic()
    reader = _reader(info)
    show = [
        "-show_entries", "packet=stream_index,pts,dts,duration,size,flags,data_hash",
        "-show_data_hash", "crc32", "-of", KEYED,
    ]  # fmt: skip
    errors = read_packets(
        tools, location, show, reader.line, stop, packets_seen=lambda: reader.tracks
    )
    return _measured(reader, info, errors, tools.clock.monotonic() - started)


def probe_and_measure(
    tools: FfmpegTools, location: str, stop: threading.Event, *, midstream: bool = True
) -> tuple[MediaInfo, Measurement | None]:
    """Probe a file, and measure it in the same pass if it is small; otherwise the measurement is None.

    A file that was measured here has no errors, and its sound was decoded. Raises what `probe` raises.
    """
    started = tools.clock.monotonic()
    probed = probe_at_once(tools, location, stop, midstream=midstream)
    if probed is None:
        return probe(tools, location, stop, midstream=midstream), None
    info, packets = probed
    reader = _reader(info)
    for fields in packets:
        reader.add(fields)
    return info, _measured(reader, info, (), tools.clock.monotonic() - started)


def _reader(info: MediaInfo) -> PacketReader:
    # Muxers split or merge the packets of PCM, and MKV merges the segments of PGS.
    repacketed = frozenset(
        s.index for s in info.streams if s.codec.startswith(("pcm_", "hdmv_pgs_subtitle"))
    )
    return PacketReader(
        repacketed, frozenset(s.index for s in info.streams if s.codec in REPEATING_CODECS)
    )


def _measured(
    reader: PacketReader, info: MediaInfo, errors: tuple[str, ...], seconds: float
) -> Measurement:
    tracks = sorted(reader.tracks.items())
    return Measurement(
        tracks=tuple(track_measure(index, packets, info) for index, packets in tracks),
        errors=errors,
        seconds=seconds,
    )


@dataclass(slots=True)
class Packets:
    """The packets of one stream in file order: times in ticks or NO_TIME, sizes and places in bytes.

    `keys` and `hidden` are the numbers of the packets flagged key and discard. `end` is when the last packet that
    is not hidden ends. `digest` is of all packets, `content` of all bytes however they are split into packets.
    """

    pts: array[int] = field(default_factory=lambda: array("q"))
    dts: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("l"))
    places: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("l"))
    hidden: set[int] = field(default_factory=set)
    end: int | None = None
    digest: int = 0
    content: int = 0
    reordered: bool = False
    """Whether the header says that pictures are displayed in another order than stored."""

    @property
    def shown(self) -> Sequence[int]:
        """The numbers of the packets that are not hidden."""
        numbers = range(len(self.pts))
        return [n for n in numbers if n not in self.hidden] if self.hidden else numbers

    @property
    def times(self) -> Sequence[int]:
        """The presentation time of each packet; where it is missing, as in AVI, its decoding time."""
        if NO_TIME not in self.pts:
            return self.pts
        pairs = zip(self.pts, self.dts, strict=True)
        return array("q", (dts if pts == NO_TIME else pts for pts, dts in pairs))

    def steps(self) -> list[int]:
        """Return the ticks from each decoding time to the next."""
        times = [time for time in self.dts if time != NO_TIME]
        return [after - before for before, after in pairwise(times)]


class PacketReader:
    """Reads the packets of each stream from ffprobe's KEYED output, one line a packet.

    If a packet has side data, ffprobe 5.1 prints the hash on a line of its own; later versions print some side
    data behind it.
    """

    def __init__(
        self, repacketed: frozenset[int] = frozenset(), repeating: frozenset[int] = frozenset()
    ) -> None:
        """Prepare to read; the arguments are indexes of streams.

        The bytes of `repacketed` streams are also digested as a whole. In `repeating` streams an empty packet
        only repeats the picture before it, and does not count.
        """
        self.tracks: dict[int, Packets] = {}
        self.index = -1
        """The stream index of the last packet."""
        self._repacketed, self._repeating = repacketed, repeating

    def line(self, text: str) -> None:
        """Add a packet, the last packet's hash, or a header field of the last packet's stream."""
        self.add(dict(_FIELD.findall(text)))

    def add(self, fields: Mapping[str, Any]) -> None:
        """Add a line that is already split into ffprobe's fields; values are numbers or their text."""
        if "stream_index" in fields:
            size = max(0, _ticks(fields, "size"))
            index = int(fields["stream_index"])
            if not size and index in self._repeating:
                return
            self.index = index
            self._add_packet(self.tracks.setdefault(index, Packets()), fields, size)
        elif self.tracks and "has_b_frames" in fields:
            self.tracks[self.index].reordered = fields["has_b_frames"] != "0"
        if self.tracks and "data_hash" in fields:
            self._add_hash(self.tracks[self.index], fields["data_hash"])

    @staticmethod
    def _add_packet(track: Packets, fields: Mapping[str, Any], size: int) -> None:
        pts, dts = _ticks(fields, "pts"), _ticks(fields, "dts")
        number, flags = len(track.pts), fields.get("flags", "")
        track.pts.append(pts)
        track.dts.append(dts)
        track.sizes.append(size)
        if "pos" in fields:
            track.places.append(_ticks(fields, "pos"))
        if "D" in flags:
            track.hidden.add(number)
            return
        if "K" in flags:
            track.keys.append(number)
        time = dts if pts == NO_TIME else pts
        if time != NO_TIME:
            end = time + max(0, _ticks(fields, "duration"))
            if track.end is None or end > track.end:
                track.end = end

    def _add_hash(self, track: Packets, hashed: str) -> None:
        """Add the last packet's hash, as `CRC32:0123abcd`, to the digests of its track."""
        track.digest = crc32(hashed.encode(), track.digest)
        if self.index in self._repacketed:
            # CRC-32 is affine in its start value, so these bytes' part does not depend on the bytes before.
            zeros, own = bytes(track.sizes[-1]), int(hashed.rpartition(":")[2], 16)
            track.content = own ^ crc32(zeros, track.content) ^ crc32(zeros)


def _ticks(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name, "N/A")
    return NO_TIME if value == "N/A" else int(value)


def track_measure(index: int, packets: Packets, info: MediaInfo) -> TrackMeasure:
    stream = next((s for s in info.streams if s.index == index), None)
    tick = stream.tick if stream is not None else Fraction(1, 1000)
    is_video = stream is not None and stream.kind is StreamKind.VIDEO
    shown, times = packets.shown, packets.times
    timed = sorted((n for n in shown if times[n] != NO_TIME), key=times.__getitem__)
    moments = [times[n] for n in timed]
    frame_times = tuple(_frame_times(packets, moments, info)) if is_video else ()
    stored = [time for time in packets.pts if time != NO_TIME]
    keys = [n for n in packets.keys if times[n] != NO_TIME] if is_video else []
    while len(keys) > MAX_KEYS:
        keys = keys[::2]
    size = sum(packets.sizes)

    def seconds(ticks: int | None) -> float | None:
        return None if ticks is None else float(ticks * tick)

    return TrackMeasure(
        index=index,
        kind=stream.kind if stream is not None else StreamKind.DATA,
        packets=len(shown),
        tiny=sum(packets.sizes[n] <= TINY_BYTES for n in shown),
        bytes=size,
        first_pts_s=seconds(min(moments, default=None)),
        last_pts_s=seconds(max(moments, default=None)),
        end_s=seconds(packets.end),
        monotonic_dts=min(packets.steps(), default=0) >= 0,
        discarded=len(packets.hidden),
        first_stored_s=seconds(min(stored, default=None)),
        last_stored_s=seconds(max(stored, default=None)),
        times=frame_times,
        sizes=tuple(packets.sizes[n] for n in timed) if frame_times else (),
        digest=f"{packets.digest:08x}" if packets.digest else "",
        content=f"{packets.content:08x}:{size}" if packets.content else "",
        gaps=_gaps(info, stream, moments) if stream is not None else None,
        keys_s=tuple(float(times[n] * tick) for n in keys),
    )


def _frame_times(packets: Packets, times: Sequence[int], info: MediaInfo) -> Sequence[int]:
    """Return the presentation times of all frames in order, or () if some are unknown.

    A program stream stores a time only for the first frame that begins in each of its packets. The others are
    known if all stored times fit an even rate: ffprobe's decoding time of a frame without a time is the
    presentation time of an earlier frame.
    """
    shown = packets.shown
    if all(packets.pts[n] != NO_TIME for n in shown):
        return times
    stored = [time for time in packets.pts if time != NO_TIME]
    if info.format_name != "mpeg" or not stored or not times:
        return ()
    step = min((b - a for a, b in pairwise(times) if b > a), default=1)
    even = range(times[0], times[0] + len(times) * step, step)
    # The last displayed frame is the last packet whose presentation is later than its decoding.
    last = next((n for n in reversed(shown) if packets.pts[n] != packets.dts[n]), -1)
    ends_evenly = even[-1] - step * (packets.pts[last] == NO_TIME) == times[-1]
    return even if min(stored) == times[0] and ends_evenly and set(times) <= set(even) else ()


def _gaps(info: MediaInfo, stream: Stream, times: Sequence[int]) -> Gaps | None:
    """Return the packets missing from an even rate, or None.

    If more than one step in a hundred is uneven, as in recordings of a desktop, longer pictures are no gaps.
    Neither are missing pictures at the ends, which a cut without re-encoding drops. Pictures of AVI are not
    checked, because it stores an empty packet for a picture that stays.
    """
    is_picture = stream.kind is StreamKind.VIDEO and info.format_name != "avi"
    steps = [after - before for before, after in pairwise(times)]
    usual = sorted(steps)[len(steps) // 2] if steps else 0
    if usual <= 0 or not (is_picture or stream.codec in EVEN_AUDIO_CODECS):
        return None
    uneven = [place for place, step in enumerate(steps) if round(step / usual) != 1]
    inner = [place for place in uneven if CUT_PACKETS <= place < len(steps) - CUT_PACKETS]
    count = sum(round(steps[place] / usual) - 1 for place in inner)
    if len(uneven) * 100 > len(steps) or count <= 0:
        return None
    even = [step for step in steps[CUT_PACKETS:-CUT_PACKETS] if round(step / usual) == 1]
    tolerance = usual / 500 + info.format_name.startswith("matroska")
    exact = sum(even) / len(even) if even else usual
    # Where files were joined nothing is lost, and the step is no multiple of a picture.
    multiple = all(abs(steps[n] - round(steps[n] / exact) * exact) <= tolerance for n in inner)
    certain = multiple and max(even, default=0) - min(even, default=0) <= tolerance
    return Gaps(count=count, at_s=float(times[inner[0] + 1] * stream.tick), certain=certain)


SILENCE_S = 120.0
"""Seconds without output after which the file counts as unavailable: a dead network folder or disk."""
LIMITS = ChildLimits(nice=5, memory_mib=8192, output_bytes=0, cpu_s=7200)


def read_packets(
    tools: FfmpegTools,
    location: str,
    show: Sequence[str],
    on_line: Callable[[str], None],
    stop: threading.Event,
    *,
    packets_seen: Callable[[], object],
) -> tuple[str, ...]:
    """Run ffprobe with the options `show`, and pass each line of its output on; return its errors.

    Errors are its error lines without the known harmless ones, or else its exit code. `packets_seen` tells
    whether a packet was read: if ffprobe failed before that, SourceUnreadable or SourceGone is raised. Raises
    Unavailable if the file sends no more data.
    """
    lines, last_output = LineSplitter(on_line), tools.clock.monotonic()

    def feed(chunk: bytes) -> None:
        nonlocal last_output
        last_output = tools.clock.monotonic()
        lines.feed(chunk)

    def check() -> None:
        if tools.clock.monotonic() - last_output > SILENCE_S:
            raise Unavailable(f"{display_name(location)} sent no data for {SILENCE_S:.0f} s.")

    argv = [tools.ffprobe, "-v", "error", *show, *input_options(location)]
    done = stream_child(
        argv,
        stop=stop,
        on_chunk=feed,
        limits=with_read_access(LIMITS, tools, location),
        check=check,
    )
    lines.close()
    if done.returncode != 0 and not packets_seen():
        raise probe_error(location, done.stderr, done.returncode)
    errors = unexpected_lines(done.stderr, Pass.DEMUX)
    if done.returncode != 0 and not errors:
        errors = (f"ffprobe ended with {done.ending}",)
    return errors


def display_span(times: Sequence[int | None], stream: Stream) -> dict[str, float]:
    """Return when the first and last picture are shown, where the container stores decoding times only.

    `times` are of the decoded pictures, in ticks of one picture. {} if the first one is unknown: Xvid leaves
    the first packets of an AVI empty, and players show a picture when the next packet comes.
    """
    if times[0] is None:
        return {}
    last = [time + len(times) - 1 - n for n, time in enumerate(times) if time is not None][-1]
    seconds = {"first_pts_s": times[0], "last_pts_s": last, "end_s": last + 1}
    return {name: float(ticks * stream.tick) for name, ticks in seconds.items()}


def frame_packets(
    tools: FfmpegTools, location: str, stream_index: int, stop: threading.Event
) -> tuple[Packets, tuple[str, ...]]:
    """Read the packets of one stream; return them and ffprobe's errors. Raises what `read_packets` raises."""
    reader = PacketReader()
    show = [
        "-select_streams", str(stream_index), "-show_entries",
        "packet=stream_index,pts,dts,duration,size,flags:stream=has_b_frames", "-of", KEYED,
    ]  # fmt: skip
    errors = read_packets(
        tools, location, show, reader.line, stop, packets_seen=lambda: reader.tracks
    )
    return reader.tracks.get(stream_index, Packets()), errors
