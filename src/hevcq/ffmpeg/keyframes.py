"""Index the key frames of a film by one pass over its packets: no decoding, little memory.

ffprobe prints a short line for each packet of the film. Two numbers a frame are kept, 16 bytes.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise

from hevcq.domain.chunks import KeyFrame, KeyIndex, times_sum
from hevcq.domain.media import MediaInfo, Stream, StreamKind
from hevcq.errors import SourceUnreadable
from hevcq.ffmpeg.lines import Lines
from hevcq.ffmpeg.packets import read_packets
from hevcq.ffmpeg.tools import Tools, name_of

SEEKS_BY_PTS = frozenset({"mov"})
"""Demuxers to which ffmpeg passes a seek as it is (AVFMT_SEEK_TO_PTS). To all others it seeks
`REORDERED_S` earlier where any stream has reordered frames (`ffmpeg_opt.c`, open_input_file)."""
REORDERED_S = 3 / 23
BY_DTS = frozenset({"mpegts"})
"""Demuxers without an index, which look for the packet with that decoding time."""
DISCONTINUOUS = frozenset({"mpegts"})
JUMP_S = 10.0
"""Where ffmpeg takes a jump of decoding times for a break and moves what follows
(`-dts_delta_threshold`); sound would be moved, and the picture of a chunk not."""


@dataclass(slots=True)
class FrameTimes:
    """The times of a film's frames in storage order, without those flagged discard.

    `keys` holds (number of the frame, pts, dts) of each key frame.
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
        """Take one line of ffprobe: `packet,pts,dts,duration,size,flags` or `stream,delay`."""
        fields = text.split(",")
        if fields[0] == "stream" and len(fields) > 1:
            self.delayed = self.delayed or (fields[1].isdigit() and int(fields[1]) > 0)
        elif fields[0] == "packet" and len(fields) >= 6:
            self._packet(fields)

    def _packet(self, fields: list[str]) -> None:
        pts, dts, duration, size = (_number(text) for text in fields[1:5])
        flags = fields[5]
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


def film_of(info: MediaInfo, location: str) -> Stream:
    """Return the film: the first video stream; raise SourceUnreadable if there is none."""
    films = info.of_kind(StreamKind.VIDEO)
    if not films:
        raise SourceUnreadable(f"{name_of(location)} has no video stream.")
    return films[0]


def frame_times(
    tools: Tools, location: str, stream_index: int, stop: threading.Event
) -> tuple[FrameTimes, tuple[str, ...]]:
    """Read the packets of one stream; return its times and what the pass complained of."""
    times = FrameTimes()
    lines = Lines(times.line)
    show = [
        "-select_streams", str(stream_index), "-show_entries",
        "packet=pts,dts,duration,size,flags:stream=has_b_frames", "-of", "csv=p=1:nk=1",
    ]  # fmt: skip
    return times, read_packets(tools, location, show, lines, stop, came=lambda: times.pts)


def keyframes(tools: Tools, location: str, info: MediaInfo, stop: threading.Event) -> KeyIndex:
    """Index the film's key frames; see ports.encoder."""
    film = film_of(info, location)
    times, problems = frame_times(tools, location, film.index, stop)
    return index_of(film, info, times, problems)


def index_of(
    film: Stream, info: MediaInfo, times: FrameTimes, problems: tuple[str, ...] = ()
) -> KeyIndex:
    """Return the index of a film's frame times; complaints of the pass make it not monotonic."""
    demuxer = info.format_name.partition(",")[0]
    shown = sorted(times.pts)
    unique = all(before < after for before, after in pairwise(shown))
    notes = list(problems)
    jump = float(times.longest_step * film.tick)
    if demuxer in DISCONTINUOUS and jump >= JUMP_S:
        notes.append(f"its times jump by {jump:.1f} s")
    by_dts = demuxer in BY_DTS
    early = 0.0 if demuxer in SEEKS_BY_PTS or not times.delayed else REORDERED_S
    keys = _keys(times, shown)
    return KeyIndex(
        stream_index=film.index,
        time_base=film.time_base,
        keys=keys,
        end_pts=times.end if times.end is not None else 0,
        frames=len(shown),
        monotonic=times.monotonic and unique and not notes,
        missing_pts=times.missing,
        starts_with_key=_starts_well(times, shown),
        seek_early_s=early,
        seek_by_dts=by_dts,
        notes=tuple(notes),
    )


def _starts_well(times: FrameTimes, shown: list[int]) -> bool:
    """Whether the first frame shown is a key frame, or follows one that an edit list hides."""
    if not shown or times.discarded_first:
        return True
    return bool(times.keys) and times.keys[0][1] == shown[0]


def _keys(times: FrameTimes, shown: list[int]) -> tuple[KeyFrame, ...]:
    """Return the key frames in the order they are shown, each with what is shown until the next.

    A key frame that is stored before an earlier-shown one, or among the first frames that an edit
    list leaves, is no place to cut.
    """
    if not shown:
        return ()
    begins: list[tuple[int, int | None, int]] = [(shown[0], None, 0)]
    for number, (place, pts, dts) in enumerate(times.keys):
        end = times.keys[number + 1][0] if number + 1 < len(times.keys) else len(times.pts)
        leading = sum(1 for later in times.pts[place + 1 : end] if later < pts)
        if pts == shown[0]:
            begins[0] = (pts, dts, leading)
        elif pts > begins[-1][0]:
            begins.append((pts, dts, leading))
    sizes = dict(zip(times.pts, times.sizes, strict=True))
    borders = [bisect_left(shown, pts) for pts, _, _ in begins] + [len(shown)]
    keys = []
    for (pts, dts, leading), first, last in zip(begins, borders, borders[1:], strict=False):
        held = shown[first:last]
        keys.append(
            KeyFrame(
                pts=pts,
                dts=dts,
                bytes_until_next=sum(sizes[at] for at in held),
                frames_until_next=len(held),
                last_pts=held[-1],
                times=times_sum(held),
                leading=leading,
            )
        )
    return tuple(keys)
