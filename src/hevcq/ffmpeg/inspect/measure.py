"""Measure the tracks of a file in one demux pass over every packet, in little memory.

ffprobe prints a short line for each packet (about 3 s of CPU for a video of two hours), of which its
times and its size are kept.
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
"""Most key-frame times kept per track; above it only every second, fourth and so on is kept."""
TINY_BYTES = 19
"""Largest packet of MPEG-4 that may be a picture which is not coded (libavcodec's MAX_NVOP_SIZE)."""
CUT_PACKETS = 16
"""Packets at either end among which a cut may leave some out: as many as a decoder reorders."""
EVEN_AUDIO_CODECS = frozenset({"aac", "ac3", "eac3", "mp2", "mp3"})
"""Codecs whose packets are equally long, and come in silence too."""
_FIELD = re.compile(
    r"(?:^|\|)(stream_index|pts|dts|duration|size|pos|flags|data_hash|has_b_frames)=([^|\n]+)"
)
NO_TIME = -(1 << 62)
"""Stands for a time that a packet does not have."""


def measure(
    tools: FfmpegTools, location: str, info: MediaInfo, stop: threading.Event
) -> Measurement:
    """Read every packet of `location` once, and measure each track.

    The result's `errors` are the error-level lines of the pass
    without the known harmless ones. Raises SourceUnreadable or SourceGone if the file cannot be
    opened, Unavailable if it sends no more data.
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


def look(
    tools: FfmpegTools, location: str, stop: threading.Event, *, midstream: bool = True
) -> tuple[MediaInfo, Measurement | None]:
    """Probe a file (see `probe`), and measure it on the way if it is small; else return None for that.

    What was measured has no errors then, and its sound was decoded. Raises what `probe` raises.
    """
    started = tools.clock.monotonic()
    found = probe_at_once(tools, location, stop, midstream=midstream)
    if found is None:
        return probe(tools, location, stop, midstream=midstream), None
    info, packets = found
    reader = _reader(info)
    for fields in packets:
        reader.add(fields)
    return info, _measured(reader, info, (), tools.clock.monotonic() - started)


def _reader(info: MediaInfo) -> PacketReader:
    # Muxers cut or merge the packets of PCM, and of PGS, whose segments MKV merges.
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
    """The packets of one stream in the order of the file: times in ticks (or UNTIMED), sizes in bytes.

    `keys` and `hidden` are the numbers of the packets flagged key and discard. `end` is when the last one
    that is not hidden ends. `digest` is of all bytes, `content` of the same wherever packets begin.
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
    """Whether the header says that its pictures are shown in another order."""

    @property
    def shown(self) -> Sequence[int]:
        """The numbers of the packets that are not flagged discard."""
        numbers = range(len(self.pts))
        return [n for n in numbers if n not in self.hidden] if self.hidden else numbers

    @property
    def times(self) -> Sequence[int]:
        """When each packet is shown; AVI stores decoding times only."""
        if NO_TIME not in self.pts:
            return self.pts
        pairs = zip(self.pts, self.dts, strict=True)
        return array("q", (dts if pts == NO_TIME else pts for pts, dts in pairs))

    def steps(self) -> list[int]:
        """Return the ticks from each decoding time to the next."""
        known = [time for time in self.dts if time != NO_TIME]
        return [after - before for before, after in pairwise(known)]


class PacketReader:
    """Reads the packets of each stream, as ffprobe prints them, a line of KEYED output each.

    Of a packet with side data ffprobe 5.1 prints the hash on a line of its own, and later versions
    something of the side data behind it.
    """

    def __init__(
        self, repacketed: frozenset[int] = frozenset(), repeating: frozenset[int] = frozenset()
    ) -> None:
        """Read packets; the bytes of the streams `repacketed` are digested as a whole.

        In those of `repeating` an empty packet shows the picture before it again, and is none itself.
        """
        self.tracks: dict[int, Packets] = {}
        self.index = -1
        """The stream of the last packet."""
        self._repacketed, self._repeating = repacketed, repeating

    def line(self, text: str) -> None:
        """Add a packet, the hash of the last one, or what the header says of the last one's stream."""
        self.add(dict(_FIELD.findall(text)))

    def add(self, fields: Mapping[str, Any]) -> None:
        """Add the same as ffprobe's fields: numbers, or text of them."""
        if "stream_index" in fields:
            size = max(0, _ticks(fields, "size"))
            index = int(fields["stream_index"])
            if not size and index in self._repeating:
                return
            self.index = index
            self._packet(self.tracks.setdefault(index, Packets()), fields, size)
        elif self.tracks and "has_b_frames" in fields:
            self.tracks[self.index].reordered = fields["has_b_frames"] != "0"
        if self.tracks and "data_hash" in fields:
            self._hashed(self.tracks[self.index], fields["data_hash"])

    @staticmethod
    def _packet(track: Packets, fields: Mapping[str, Any], size: int) -> None:
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

    def _hashed(self, track: Packets, hashed: str) -> None:
        """Add the last packet's hash, as `CRC32:0123abcd`, to the digests of its track."""
        track.digest = crc32(hashed.encode(), track.digest)
        if self.index in self._repacketed:
            # CRC-32 is affine in its start value: what these bytes add does not depend on those before.
            zeros, own = bytes(track.sizes[-1]), int(hashed.rpartition(":")[2], 16)
            track.content = own ^ crc32(zeros, track.content) ^ crc32(zeros)


def _ticks(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name, "N/A")
    return NO_TIME if value == "N/A" else int(value)


def track_measure(index: int, packets: Packets, info: MediaInfo) -> TrackMeasure:
    stream = next((s for s in info.streams if s.index == index), None)
    tick = stream.tick if stream is not None else Fraction(1, 1000)
    video = stream is not None and stream.kind is StreamKind.VIDEO
    shown, at = packets.shown, packets.times
    moments = sorted(at[n] for n in shown if at[n] != NO_TIME)
    times = tuple(_frame_times(packets, moments, info)) if video else ()
    in_order = sorted((n for n in shown if at[n] != NO_TIME), key=at.__getitem__) if times else ()
    stored = [time for time in packets.pts if time != NO_TIME]
    keys = [n for n in packets.keys if at[n] != NO_TIME] if video else []
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
        times=times,
        sizes=tuple(packets.sizes[n] for n in in_order),
        digest=f"{packets.digest:08x}" if packets.digest else "",
        content=f"{packets.content:08x}:{size}" if packets.content else "",
        gaps=_gaps(info, stream, moments) if stream is not None else None,
        keys_s=tuple(float(at[n] * tick) for n in keys),
    )


def _frame_times(packets: Packets, times: Sequence[int], info: MediaInfo) -> Sequence[int]:
    """Return the times of all frames in order, or () if some are unknown.

    A program stream has a time only for the first frame that begins in a packet of its own. The others
    are known where all times are those of an even rate: a frame without one is decoded when an earlier
    one is shown.
    """
    shown = packets.shown
    if all(packets.pts[n] != NO_TIME for n in shown):
        return times
    stored = [time for time in packets.pts if time != NO_TIME]
    if info.format_name != "mpeg" or not stored or not times:
        return ()
    step = min((b - a for a, b in pairwise(times) if b > a), default=1)
    even = range(times[0], times[0] + len(times) * step, step)
    # Whether the last frame has none: the last packet that is shown later than it is decoded.
    last = next((n for n in reversed(shown) if packets.pts[n] != packets.dts[n]), -1)
    ends = even[-1] - step * (packets.pts[last] == NO_TIME) == times[-1]
    return even if min(stored) == times[0] and ends and set(times) <= set(even) else ()


def _gaps(info: MediaInfo, stream: Stream, times: Sequence[int]) -> Gaps | None:
    """Return what is missing from an even rate.

    None where more than one step in a hundred is uneven, as in recordings of a desktop: there a picture
    that stays longer says nothing. Nor do the ends, where a cut without re-encoding leaves pictures out, and
    AVI, which has an empty packet for a picture that stays.
    """
    picture = stream.kind is StreamKind.VIDEO and info.format_name != "avi"
    steps = [after - before for before, after in pairwise(times)]
    usual = sorted(steps)[len(steps) // 2] if steps else 0
    if usual <= 0 or not (picture or stream.codec in EVEN_AUDIO_CODECS):
        return None
    uneven = [place for place, step in enumerate(steps) if round(step / usual) != 1]
    inner = [place for place in uneven if CUT_PACKETS <= place < len(steps) - CUT_PACKETS]
    count = sum(round(steps[place] / usual) - 1 for place in inner)
    if len(uneven) * 100 > len(steps) or count <= 0:
        return None
    even = [step for step in steps[CUT_PACKETS:-CUT_PACKETS] if round(step / usual) == 1]
    rounded = usual / 500 + info.format_name.startswith("matroska")
    exact = sum(even) / len(even) if even else usual
    # Where files were joined, a step is no whole number of pictures: nothing is lost there.
    whole = all(abs(steps[n] - round(steps[n] / exact) * exact) <= rounded for n in inner)
    certain = whole and max(even, default=0) - min(even, default=0) <= rounded
    return Gaps(count=count, at_s=float(times[inner[0] + 1] * stream.tick), certain=certain)


SILENCE_S = 120.0
"""Seconds without output after which a pass counts as stalled: a dead network folder or disk."""
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
    """Pass on each line of what `show` asks ffprobe of every packet; return what the pass complained of.

    That is its error-level lines without the known harmless ones, else its exit code. `packets_seen` says
    whether any packet was read: a pass that failed without one raises SourceUnreadable or
    SourceGone. Raises Unavailable if the file gives no more bytes.
    """
    lines, heard = LineSplitter(on_line), tools.clock.monotonic()

    def feed(chunk: bytes) -> None:
        nonlocal heard
        heard = tools.clock.monotonic()
        lines.feed(chunk)

    def check() -> None:
        if tools.clock.monotonic() - heard > SILENCE_S:
            raise Unavailable(f"{display_name(location)} sent no data for {SILENCE_S:.0f} s.")

    argv = [tools.ffprobe, "-v", "error", *show, *input_options(location)]
    ended = stream_child(
        argv,
        stop=stop,
        on_chunk=feed,
        limits=with_read_access(LIMITS, tools, location),
        check=check,
    )
    lines.close()
    if ended.returncode != 0 and not packets_seen():
        raise probe_error(location, ended.stderr, ended.returncode)
    errors = unexpected_lines(ended.stderr, Pass.DEMUX)
    if ended.returncode != 0 and not errors:
        errors = (f"ffprobe ended with {ended.ending}",)
    return errors


def display_span(times: Sequence[int | None], stream: Stream) -> dict[str, float]:
    """Return when the first and last pictures are shown, where the container has decoding times only.

    Xvid leaves first places of an AVI empty: players show a picture when the next packet comes.
    """
    if times[0] is None:
        return {}
    last = [time + len(times) - 1 - n for n, time in enumerate(times) if time is not None][-1]
    seconds = {"first_pts_s": times[0], "last_pts_s": last, "end_s": last + 1}
    return {name: float(ticks * stream.tick) for name, ticks in seconds.items()}


def frame_packets(
    tools: FfmpegTools, location: str, stream_index: int, stop: threading.Event
) -> tuple[Packets, tuple[str, ...]]:
    """Read the packets of one stream; return them and the errors of the pass.

    Raises SourceUnreadable, SourceGone or Unavailable as `read_packets` does.
    """
    reader = PacketReader()
    show = [
        "-select_streams", str(stream_index), "-show_entries",
        "packet=stream_index,pts,dts,duration,size,flags:stream=has_b_frames", "-of", KEYED,
    ]  # fmt: skip
    errors = read_packets(
        tools, location, show, reader.line, stop, packets_seen=lambda: reader.tracks
    )
    return reader.tracks.get(stream_index, Packets()), errors
