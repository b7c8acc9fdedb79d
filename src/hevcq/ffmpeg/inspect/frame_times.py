"""Read the time and size of every frame of a stream in one pass over its packets, without decoding.

ffprobe prints a short line for each packet. Two numbers per frame are kept, 16 bytes.
"""

from __future__ import annotations

import threading
from array import array
from dataclasses import dataclass, field

from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.inspect.measure import read_packets
from hevcq.ffmpeg.process.limits import LineSplitter
from hevcq.ffmpeg.versions import KEYED_BY_KIND, keyed


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
            self.delayed = self.delayed or bool(_number(keyed(rest).get("has_b_frames", "")))
        elif kind == "packet":
            self._packet(keyed(rest))

    def _packet(self, fields: dict[str, str]) -> None:
        names = ("pts", "dts", "duration", "size")
        pts, dts, duration, size = (_number(fields.get(name, "")) for name in names)
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


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def frame_times(
    tools: FfmpegTools, location: str, stream_index: int, stop: threading.Event
) -> tuple[FrameTimes, tuple[str, ...]]:
    """Read the packets of one stream; return its frame times and the errors of the pass.

    Raises SourceUnreadable, SourceGone or Unavailable as `read_packets` does.
    """
    times = FrameTimes()
    lines = LineSplitter(times.line)
    show = [
        "-select_streams", str(stream_index), "-show_entries",
        "packet=pts,dts,duration,size,flags:stream=has_b_frames", "-of", KEYED_BY_KIND,
    ]  # fmt: skip
    return times, read_packets(tools, location, show, lines, stop, packets_seen=lambda: times.pts)
