"""Measure the tracks of a file in one demux pass over every packet, in little memory.

ffprobe prints a short line for each packet (about 3 s of CPU for a video of two hours), which is
counted at once and not kept.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from zlib import crc32

from hevcq.domain.media.facts import Gaps, Measurement, MediaInfo, Stream, StreamKind, TrackMeasure
from hevcq.errors import Unavailable
from hevcq.ffmpeg.inputs import (
    KEYED,
    KEYED_BY_KIND,
    REPEATING,
    FfmpegTools,
    display_name,
    input_options,
    keyed,
    reading,
    whole,
)
from hevcq.ffmpeg.probe.probe import probe_error
from hevcq.ffmpeg.process.child import stream_child
from hevcq.ffmpeg.process.limits import ChildLimits, LineSplitter
from hevcq.ffmpeg.run.messages import Pass, unexpected_lines

MAX_KEYS = 1024
"""Most key-frame times kept per track; above it only every second, fourth and so on is kept."""
TINY_BYTES = 19
"""Largest packet of MPEG-4 that may be a picture which is not coded (libavcodec's MAX_NVOP_SIZE)."""
CUT_PACKETS = 16
"""Packets at either end among which a cut may leave some out: as many as a decoder reorders."""
EVEN_SOUNDS = frozenset({"aac", "ac3", "eac3", "mp2", "mp3"})
"""Codecs whose packets are equally long, and come in silence too."""
_FIELD = re.compile(r"(?:^|\|)(stream_index|pts|dts|duration|size|flags|data_hash)=([^|\n]+)")


def measure(
    tools: FfmpegTools, location: str, info: MediaInfo, stop: threading.Event
) -> Measurement:
    """Read every packet of `location` once, and measure each track.

    The result's `errors` are the error-level lines of the pass
    without the known harmless ones. Raises SourceUnreadable or SourceGone if the file cannot be
    opened, Unavailable if it sends no more data.
    """
    started = tools.clock.monotonic()
    # Muxers cut or merge the packets of PCM, and of PGS, whose segments MKV merges.
    repacketed = frozenset(
        s.index for s in info.streams if s.codec.startswith(("pcm_", "hdmv_pgs_subtitle"))
    )
    repeating = frozenset(s.index for s in info.streams if s.codec in REPEATING)
    counter = PacketCounter(repacketed, repeating)
    show = [
        "-show_entries", "packet=stream_index,pts,dts,duration,size,flags,data_hash",
        "-show_data_hash", "crc32", "-of", KEYED,
    ]  # fmt: skip
    errors = read_packets(
        tools, location, show, counter.line, stop, packets_seen=lambda: counter.tracks
    )
    return Measurement(
        tracks=tuple(
            track_measure(index, counted, info) for index, counted in sorted(counter.tracks.items())
        ),
        errors=errors,
        seconds=tools.clock.monotonic() - started,
    )


@dataclass(slots=True)
class _Counted:
    """The running count of one stream, in ticks of its time base."""

    packets: int = 0
    tiny: int = 0
    bytes: int = 0
    digest: int = 0
    content: int = 0
    discarded: int = 0
    times: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    untimed: bool = False
    """Whether a packet has no time, and its decoding time is in `times`."""
    open_end: bool = False
    """Whether the last frame has none: the last packet that is shown later than it is decoded."""
    stored: tuple[int, int] | None = None
    """The earliest and the latest time of all packets, with those flagged discard."""
    end: int | None = None
    last_dts: int | None = None
    monotonic: bool = True
    keys: list[int] = field(default_factory=list)

    def decoded(self, dts: int | None) -> None:
        """Note the decoding time of a packet, flagged discard or not."""
        if dts is not None:
            self.monotonic = self.monotonic and (self.last_dts is None or dts >= self.last_dts)
            self.last_dts = dts

    def packet(
        self, pts: int | None, dts: int | None, duration: int, size: int, *, key: bool
    ) -> None:
        """Count one packet that is not flagged discard."""
        self.packets += 1
        if pts is None or pts != dts:
            self.open_end = pts is None
        if pts is None:
            # AVI stores decoding times only.
            pts = dts
            self.untimed = True
        if pts is None:
            return
        self.times.append(pts)
        self.sizes.append(size)
        self.end = max(pts + duration, self.end if self.end is not None else pts)
        if key:
            self.keys.append(pts)


class PacketCounter:
    """Counts ffprobe's packets, a line of KEYED output each.

    Of a packet with side data ffprobe 5.1 prints the hash on a line of its own, and later versions
    something of the side data behind it.
    """

    def __init__(
        self, repacketed: frozenset[int] = frozenset(), repeating: frozenset[int] = frozenset()
    ) -> None:
        """Count packets; the bytes of the streams `repacketed` are digested as a whole.

        In those of `repeating` an empty packet shows the picture before it again, and is none itself.
        """
        self.tracks: dict[int, _Counted] = {}
        self._repacketed, self._repeating = repacketed, repeating
        self._last, self._last_index, self._last_size = _Counted(), -1, 0

    def line(self, text: str) -> None:
        """Count a packet, or add the hash of the last one."""
        fields = dict(_FIELD.findall(text))
        hashed = fields.get("data_hash")
        if "stream_index" not in fields:
            self._hashed(hashed)
            return
        index, size = int(fields["stream_index"]), _ticks(fields, "size") or 0
        if not size and index in self._repeating:
            return
        track = self.tracks.get(index) or self.tracks.setdefault(index, _Counted())
        self._last, self._last_index, self._last_size = track, index, size
        track.bytes += size
        self._hashed(hashed)
        pts, dts, flags = _ticks(fields, "pts"), _ticks(fields, "dts"), fields.get("flags", "")
        track.decoded(dts)
        if pts is not None:
            first, last = track.stored or (pts, pts)
            track.stored = min(first, pts), max(last, pts)
        if "D" in flags:
            track.discarded += 1
            return
        track.tiny += size <= TINY_BYTES
        track.packet(pts, dts, _ticks(fields, "duration") or 0, size, key="K" in flags)

    def _hashed(self, hashed: str | None) -> None:
        """Add the last packet's hash, as `CRC32:0123abcd`, to the digests of its track."""
        if hashed is None:
            return
        track = self._last
        track.digest = crc32(hashed.encode(), track.digest)
        if self._last_index in self._repacketed:
            # CRC-32 is affine in its start value: what these bytes add does not depend on those before.
            zeros, own = bytes(self._last_size), int(hashed.rpartition(":")[2], 16)
            track.content = own ^ crc32(zeros, track.content) ^ crc32(zeros)


def _ticks(fields: dict[str, str], name: str) -> int | None:
    value = fields.get(name, "N/A")
    return None if value == "N/A" else int(value)


def track_measure(index: int, counted: _Counted, info: MediaInfo) -> TrackMeasure:
    stream = next((s for s in info.streams if s.index == index), None)
    tick = stream.tick if stream is not None else Fraction(1, 1000)

    video = stream is not None and stream.kind is StreamKind.VIDEO
    times = tuple(_frame_times(counted, info)) if video else ()
    first, last = counted.stored or (None, None)
    keys = counted.keys if video else []
    while len(keys) > MAX_KEYS:
        keys = keys[::2]

    def seconds(ticks: int | None) -> float | None:
        return None if ticks is None else float(ticks * tick)

    return TrackMeasure(
        index=index,
        kind=stream.kind if stream is not None else StreamKind.DATA,
        packets=counted.packets,
        tiny=counted.tiny,
        bytes=counted.bytes,
        first_pts_s=seconds(min(counted.times, default=None)),
        last_pts_s=seconds(max(counted.times, default=None)),
        end_s=seconds(counted.end),
        monotonic_dts=counted.monotonic,
        discarded=counted.discarded,
        first_stored_s=seconds(first),
        last_stored_s=seconds(last),
        times=times,
        sizes=tuple(size for _, size in sorted(zip(counted.times, counted.sizes, strict=True)))
        if times
        else (),
        digest=f"{counted.digest:08x}" if counted.digest else "",
        content=f"{counted.content:08x}:{counted.bytes}" if counted.content else "",
        gaps=_gaps(info, stream, sorted(counted.times)) if stream is not None else None,
        keys_s=tuple(float(pts * tick) for pts in keys),
    )


def _frame_times(counted: _Counted, info: MediaInfo) -> Sequence[int]:
    """Return the times of all frames in order, or () if some are unknown.

    A program stream has a time only for the first frame that begins in a packet of its own. The others
    are known where all times are those of an even rate: a frame without one is decoded when an earlier
    one is shown.
    """
    times = sorted(counted.times)
    if not counted.untimed or info.format_name != "mpeg" or counted.stored is None:
        return () if counted.untimed else times
    step = min((b - a for a, b in pairwise(times) if b > a), default=1)
    even = range(times[0], times[0] + len(times) * step, step)
    begins = counted.stored[0] == times[0]
    ends = even[-1] - step * counted.open_end == times[-1]
    return even if begins and ends and set(times) <= set(even) else ()


def _gaps(info: MediaInfo, stream: Stream, times: Sequence[int]) -> Gaps | None:
    """Return what is missing from an even rate.

    None where more than one step in a hundred is uneven, as in recordings of a desktop: there a picture
    that stays longer says nothing. Nor do the ends, where a cut without re-encoding leaves pictures out, and
    AVI, which has an empty packet for a picture that stays.
    """
    picture = stream.kind is StreamKind.VIDEO and info.format_name != "avi"
    steps = [after - before for before, after in pairwise(times)]
    usual = sorted(steps)[len(steps) // 2] if steps else 0
    if usual <= 0 or not (picture or stream.codec in EVEN_SOUNDS):
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
        limits=reading(LIMITS, tools, location),
        check=check,
    )
    lines.close()
    if ended.returncode != 0 and not packets_seen():
        raise probe_error(location, ended.stderr, ended.returncode)
    errors = unexpected_lines(ended.stderr, Pass.DEMUX)
    if ended.returncode != 0 and not errors:
        errors = (f"ffprobe ended with {ended.ending}",)
    return errors


def shown_span(times: Sequence[int | None], stream: Stream) -> dict[str, float]:
    """Return when the first and last pictures are shown, where the container has decoding times only.

    Xvid leaves first places of an AVI empty: players show a picture when the next packet comes.
    """
    if times[0] is None:
        return {}
    last = [time + len(times) - 1 - n for n, time in enumerate(times) if time is not None][-1]
    seconds = {"first_pts_s": times[0], "last_pts_s": last, "end_s": last + 1}
    return {name: float(ticks * stream.tick) for name, ticks in seconds.items()}


@dataclass(slots=True)
class FrameTimes:
    """The times of a stream's frames in storage order, in ticks, without those flagged discard.

    `keys` holds (frame number, pts, dts) of each key frame, `sizes` is in bytes. `end` (of the
    last frame) and `longest_step` (between two dts) are in ticks, `missing` counts frames without pts.
    """

    pts: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("l"))
    keys: list[tuple[int, int, int | None]] = field(default_factory=list)
    end: int | None = None
    missing: int = 0
    discarded_first: bool = False
    monotonic: bool = True
    longest_step: int = 0
    delayed: bool = False
    _last_dts: int | None = None

    def line(self, text: str) -> None:
        """Parse one line of ffprobe's KEYED_BY_KIND output: a packet or the stream."""
        kind, _, rest = text.partition("|")
        if kind == "stream":
            self.delayed = self.delayed or bool(whole(keyed(rest).get("has_b_frames", "")))
        elif kind == "packet":
            self._packet(keyed(rest))

    def _packet(self, fields: dict[str, str]) -> None:
        names = ("pts", "dts", "duration", "size")
        pts, dts, duration, size = (whole(fields.get(name, "")) for name in names)
        flags = fields.get("flags", "")
        if dts is not None:
            if self._last_dts is not None:
                self.monotonic = self.monotonic and dts > self._last_dts
                self.longest_step = max(self.longest_step, dts - self._last_dts)
            self._last_dts = dts
        if "D" in flags:
            self.discarded_first = self.discarded_first or not self.pts
            return
        if pts is None:
            self.missing += 1
            return
        if "K" in flags:
            self.keys.append((len(self.pts), pts, dts))
        self.pts.append(pts)
        self.sizes.append(size or 0)
        end = pts + (duration or 0)
        self.end = end if self.end is None else max(self.end, end)


def frame_times(
    tools: FfmpegTools, location: str, stream_index: int, stop: threading.Event
) -> tuple[FrameTimes, tuple[str, ...]]:
    """Read the packets of one stream; return its frame times and the errors of the pass.

    Raises SourceUnreadable, SourceGone or Unavailable as `read_packets` does.
    """
    times = FrameTimes()
    show = [
        "-select_streams", str(stream_index), "-show_entries",
        "packet=pts,dts,duration,size,flags:stream=has_b_frames", "-of", KEYED_BY_KIND,
    ]  # fmt: skip
    errors = read_packets(tools, location, show, times.line, stop, packets_seen=lambda: times.pts)
    return times, errors
