"""Find where in a damaged file the damage is: the time and the byte of the frames that complain.

ffprobe decodes the whole file and prints each frame with the error lines that came before it. One
thread decodes, because several report their errors beside other frames.
"""

from __future__ import annotations

import re
import threading

from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.inspect.measure import read_packets
from hevcq.ffmpeg.run.messages import Pass, message_text, unexpected_lines
from hevcq.ffmpeg.versions import whole
from hevcq.ports.catalog import Spot

MAX_SPOTS = 20
APART_S = 1.0
"""Complaints closer together than this are of one spot."""
SHOW = (
    "-threads", "1", "-show_packets", "-show_frames", "-show_log", "16", "-show_entries",
    ("packet=codec_type,stream_index,pts_time,pos"
    ":frame=stream_index,best_effort_timestamp_time,pkt_pos:log=message"), "-of", "compact=p=1:nk=0",
)  # fmt: skip
ENDS_EARLY = re.compile(r"prematurely|partial file|[Tt]runcat")
"""What a demuxer says at the end of a file that lacks the rest, beside no frame."""
NO_SOUND = "a packet of sound that does not decode"
_FIELD = re.compile(
    r"\|(codec_type|stream_index|pts_time|pos|best_effort_timestamp_time|pkt_pos)=([^|\n]*)"
)
_MESSAGE = "message="


def locate_damage(tools: FfmpegTools, location: str, stop: threading.Event) -> tuple[Spot, ...]:
    """Return at most MAX_SPOTS spots, in the order of the file; none if no place is known.

    A file that ends too early has its spot where its last frame is.

    Raises what `read_packets` raises.
    """
    spots = Spots()
    complaints = read_packets(tools, location, SHOW, spots.line, stop, packets_seen=lambda: True)
    ends = [line for line in complaints if ENDS_EARLY.search(line)]
    if ends and not spots.found:
        return (Spot(spots.last_s, spots.last_byte, message_text(ends[0])),)
    return tuple(spots.found)


class Spots:
    """Reads ffprobe's frames and their log lines, and keeps where something is wrong."""

    def __init__(self) -> None:
        self.found: list[Spot] = []
        self._time: float | None = None
        self._byte: int | None = None
        self.last_s: float | None = None
        self.last_byte: int | None = None
        self._silent: dict[str, tuple[float | None, int | None]] = {}
        self._heard: set[str] = set()

    def line(self, text: str) -> None:
        """Read a packet, a frame or what was logged."""
        kind, _, rest = text.partition("|")
        fields = {match[1]: match[2] for match in _FIELD.finditer("|" + rest)}
        stream = fields.get("stream_index", "")
        if kind == "packet" and fields.get("codec_type") == "audio":
            self._packet(stream, _number(fields.get("pts_time")), whole(fields.get("pos")))
        elif kind == "frame":
            self._silent.pop(stream, None)
            self._heard.add(stream)
            self._time = _number(fields.get("best_effort_timestamp_time"))
            self._byte = whole(fields.get("pkt_pos"))
            self.last_s = max(self.last_s or 0.0, self._time or 0.0)
            self.last_byte = max(self.last_byte or 0, self._byte or 0)
        _, found, message = text.partition(_MESSAGE)
        if found:
            self._complaint(message)

    def _packet(self, stream: str, time: float | None, byte: int | None) -> None:
        """Note a packet of sound; the one before it should have become a frame by now.

        What a packet that does not decode complains of is with no frame. The first packets may only
        prepare a decoder.
        """
        if stream in self._silent and stream in self._heard:
            self._time, self._byte = self._silent[stream]
            self._complaint(NO_SOUND)
        self._silent[stream] = (time, byte)

    def _complaint(self, line: str) -> None:
        # A decoder says the same of every block of a frame, and goes on for some frames.
        last = self.found[-1].time_s if self.found else None
        near = last is not None and self._time is not None and abs(self._time - last) < APART_S
        if near or len(self.found) >= MAX_SPOTS or not unexpected_lines([line], Pass.DECODE):
            return
        self.found.append(Spot(self._time, self._byte, message_text(line)))


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
