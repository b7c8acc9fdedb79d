"""Compare what a container's header and index promise with what the demuxer found, and locate damage.

Some demuxers skip what they cannot read without a word: an AVI or WMV with a broken piece decodes with a
frame less, and an MP4 or Matroska file that lost its last bytes with a shorter last frame.

A small AVI has one index, `idx1`. One of more than about a gigabyte has several parts (`RIFF AVIX`), an
index for each piece (`ix00`), and a list of those in its header (`indx`): OpenDML AVI File Format
Extensions 1.02. Entries without a size are frames that repeat the one before, which no demuxer returns.
Advanced Systems Format (ASF) Specification, 3.2 and 5.1.
"""

import re
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import BinaryIO

from hevcq.domain.media.facts import Measurement, MediaInfo, Stream, StreamKind
from hevcq.errors import SourceDamaged
from hevcq.ffmpeg.containers import matroska, mp4
from hevcq.ffmpeg.inputs import (
    FfmpegTools,
    display_name,
    float_or_none,
    int_or_none,
    is_url,
    parse_fields,
)
from hevcq.ffmpeg.inspect.measure import read_packets
from hevcq.ffmpeg.run.messages import Pass, message_text, unexpected_lines
from hevcq.ports.catalog import Spot

TAIL_S = 0.5
TAIL_SHARE = 0.005
"""A track may end this much before its header says: the larger of TAIL_S seconds and 0.5 %.

On intact sample clips the largest difference is 0.09 s (an AAC track's padding)."""
INDEXED = frozenset({"mov", "matroska", "avi", "asf", "mxf", "flv"})
"""Containers whose header states a duration; for others ffprobe estimates it."""

_UNFINISHED = 0xFFFF_0000
"""Lengths from here on are placeholders of a recording that was never finished."""
_OF_INDEXES, _OF_CHUNKS = 0, 1
_NO_KEY = 1 << 31
"""The bit of a size in `ix00` that says that a frame is no key frame."""
_INDX = struct.Struct("<HBBI4s")
"""Of `indx` and `ix00`: longs per entry, subtype, type, entries in use, name of the chunks."""
_INDX_BYTES = 24
_MOST_HEADER_BYTES = 1 << 22
_MOST_INDEX_BYTES = 1 << 24

Chunk = tuple[bytes, int, int]
FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
"""GUIDs of ASF's File Properties and Data objects."""
_HEAD_BYTES = 1 << 20
_BROADCAST = 1


def missing_end(info: MediaInfo, measured: Measurement) -> str:
    """Return what is missing compared with the header, as a clause, or ""."""
    if info.format_name.partition(",")[0] not in INDEXED:
        return ""
    for stream in info.streams:
        if stream.kind in {StreamKind.VIDEO, StreamKind.AUDIO}:
            missing = _track_shortfall(info, stream, measured)
            if missing:
                return missing
    ends = [track.end_s for track in measured.tracks if track.end_s is not None]
    if info.duration_s is None or not ends:
        return ""
    claimed = info.duration_s + min(0.0, info.start_s or 0.0)
    # A list of chapters may run past the end, as that of a video that was cut does.
    listed = info.format_name.startswith("mov,") and info.chapters
    if listed and claimed <= max(chapter.end_s for chapter in info.chapters) + TAIL_S:
        return ""
    return _late(claimed, max(ends), "the file")


def time_problem(info: MediaInfo, measured: Measurement) -> str:
    """Return whose times of an MP4 go backwards or come twice, as a clause, or "".

    Overlapping fragments make them go backwards; a wrong offset (ctts) shows two pictures at once.
    """
    mp4_family = info.format_name.startswith("mov,")
    for track in measured.tracks if mp4_family else ():
        if track.kind in {StreamKind.VIDEO, StreamKind.AUDIO} and not track.monotonic_dts:
            return f"the times of {track.kind.value} stream {track.index} go backwards"
        if any(one == other for one, other in pairwise(track.times)):
            return f"two pictures of video stream {track.index} have one time"
    return ""


def _track_shortfall(info: MediaInfo, stream: Stream, measured: Measurement) -> str:
    name = f"{stream.kind.value} stream {stream.index}"
    track = measured.track(stream.index)
    if track is None or track.packets == 0:
        # A track without samples and without a duration is odd, but misses nothing.
        claims = stream.frames or (stream.duration_s and not stream.has_no_picture)
        return f"{name} has no packets" if claims else ""
    if stream.duration_s is None or track.end_s is None:
        return ""
    # Matroska's DURATION tag is the end of the track; elsewhere a duration counts from its start.
    from_zero = info.format_name.startswith("matroska")
    start = 0.0 if from_zero else (track.first_pts_s or 0.0)
    return _late(stream.duration_s, track.end_s - start, name)


def _late(claimed: float, found: float, name: str) -> str:
    if claimed - found <= max(TAIL_S, TAIL_SHARE * claimed):
        return ""
    return f"{name} claims {claimed:.2f} s but ends after {found:.2f} s"


def index_damage(location: str, info: MediaInfo, measured: Measurement) -> str:
    """Return what is missing of what the index promises, as a clause, or ""; URLs are not read."""
    demuxer = info.format_name.partition(",")[0]
    look = {"avi": _avi, "asf": _packets, "mov": _boxes, "matroska": _segment}.get(demuxer)
    if look is None or is_url(location):
        return ""
    with open(location, "rb") as file:
        return look(file, info, measured)


def require_one_video(location: str, info: MediaInfo) -> None:
    """Raise SourceDamaged if a second video lies behind the one that ffmpeg reads; URLs are not read."""
    if is_url(location) or not info.format_name.startswith("mov,"):
        return
    with open(location, "rb") as file:
        at = mp4.second_video(file, _size(file))
    if at:
        raise SourceDamaged(
            f"{display_name(location)} is not sound: it holds a second video behind the first"
            f" (from byte {at}), which would be lost.",
            remedy=f"Split it there (head -c {at} FILE > FIRST; tail -c +{at + 1} FILE > SECOND),"
            " and encode both files.",
        )


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)


def _avi(file: BinaryIO, info: MediaInfo, measured: Measurement) -> str:
    """Compare the frames that the indexes name, without the empty ones that repeat a picture."""
    tracks = (measured.track(stream.index) for stream in info.of_kind(StreamKind.VIDEO))
    found = {track.index: track.packets + track.discarded for track in tracks if track is not None}
    return avi_damage(file, _size(file), found)


def _boxes(file: BinaryIO, _info: MediaInfo, _measured: Measurement) -> str:
    size = _size(file)
    media = (box for box in mp4.headers(file, 0, size) if box.kind == b"mdat")
    return next((_short(box.end - size) for box in media if box.end > size), "")


def _segment(file: BinaryIO, _info: MediaInfo, measured: Measurement) -> str:
    size = _size(file)
    tops = matroska.headers(file, 0, size)
    segment = next((top for top in tops if top.number == matroska.SEGMENT), None)
    short = _short(segment.end - size) if segment is not None else ""
    ends = [track.end_s for track in measured.tracks if track.end_s is not None]
    return short or matroska.broken_cues(file, size, max(ends, default=None))


def _short(missing: int) -> str:
    return f"its last {missing} bytes are missing" if missing > 0 else ""


def avi_damage(file: BinaryIO, size: int, found: Mapping[int, int]) -> str:
    """Return what is missing of what the indexes of an AVI promise, as a clause, or "".

    `found` is how many packets a demuxer finds of each video, by the stream's number.
    """
    parts = [chunk for chunk in _chunks(file, 0, size) if chunk[0] == b"RIFF"]
    for _, begin, length in parts:
        missing = begin + length - size
        if missing > 1:
            return "" if length >= _UNFINISHED else f"its last {missing} bytes are missing"
    if not parts:
        return ""
    _, begin, length = parts[0]
    top = list(_chunks(file, begin + 4, size if len(parts) == 1 else begin + length))
    named, beyond = _named_by_parts(file, size, top)
    if beyond:
        return beyond
    if not named and len(parts) == 1:  # idx1 names the frames of the first part only
        named = _listed(file, top)
    for stream, packets in found.items():
        if packets < named[stream]:
            return f"its index names {named[stream]} frames, but {packets} can be read"
    return ""


def _chunks(file: BinaryIO, start: int, end: int) -> Iterator[Chunk]:
    """Yield name, begin and length of the chunks between two offsets."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            return
        name, length = struct.unpack("<4sI", head)
        yield name, start + 8, length
        start += 8 + length + (length & 1)


def _kind(file: BinaryIO, chunk: Chunk) -> bytes:
    file.seek(chunk[1])
    return file.read(4)


def _named_by_parts(file: BinaryIO, size: int, top: list[Chunk]) -> tuple[Counter[int], str]:
    """Count by stream the frames that OpenDML's indexes name; of an index behind the end, the clause."""
    named = Counter[int]()
    header = next((c for c in top if c[0] == b"LIST" and _kind(file, c) == b"hdrl"), None)
    if header is None or header[2] > _MOST_HEADER_BYTES:
        return named, ""
    inside = _chunks(file, header[1] + 4, header[1] + header[2])
    streams = [c for c in inside if c[0] == b"LIST" and _kind(file, c) == b"strl"]
    for number, stream in enumerate(streams):
        inner = {c[0]: c for c in _chunks(file, stream[1] + 4, stream[1] + stream[2])}
        index = inner.get(b"indx")
        if b"strh" not in inner or _kind(file, inner[b"strh"]) != b"vids" or index is None:
            continue
        sizes = list[int]()
        for place, length in _indexes(file, index):
            if place + length > size:
                return named, f"its index names a part at byte {place}, behind its end"
            part = next(_chunks(file, place, place + 8), None)
            if part is None or not part[0].startswith((b"ix", b"indx")):
                sizes = []
                break  # places that a writer got wrong prove nothing
            entries = struct.iter_unpack("<II", _table(file, part, 8)[1])
            sizes += [length & ~_NO_KEY for _, length in entries]
        if frames := sum(length > 0 for length in sizes):
            named[number] = frames
    return named, ""


def _indexes(file: BinaryIO, index: Chunk) -> Iterator[tuple[int, int]]:
    """Yield place and length of the indexes that a stream's `indx` names; it may be the only one itself."""
    kind, table = _table(file, index, 16)
    if kind == _OF_CHUNKS:
        yield index[1] - 8, 8 + index[2]
    elif kind == _OF_INDEXES:
        for place, length, _ in struct.iter_unpack("<QII", table):
            yield place, length


def _table(file: BinaryIO, index: Chunk, entry: int) -> tuple[int, bytes]:
    """Return the kind of an index of OpenDML, and its whole entries of so many bytes."""
    file.seek(index[1])
    head = file.read(_INDX_BYTES)
    if len(head) < _INDX_BYTES:
        return -1, b""
    _, _, kind, used, _ = _INDX.unpack(head[: _INDX.size])
    table = file.read(min(entry * used, max(0, index[2] - _INDX_BYTES)))
    return kind, table[: len(table) // entry * entry]


def _listed(file: BinaryIO, top: list[Chunk]) -> Counter[int]:
    """Count by stream the frames that an `idx1` names; those of 0 bytes repeat the one before."""
    index = next((c for c in top if c[0] == b"idx1"), None)
    if index is None:
        return Counter()
    file.seek(index[1])
    table = file.read(min(index[2], _MOST_INDEX_BYTES))
    return Counter(
        int(name[:2])
        for name, _, _, size in struct.iter_unpack("<4sIII", table[: len(table) // 16 * 16])
        if name[2:] in {b"dc", b"db"} and name[:2].isdigit() and size
    )


def _packets(file: BinaryIO, _info: MediaInfo, _measured: Measurement) -> str:
    """Return which data packets are missing, or begin unlike all others, as a clause, or ""."""
    size = _size(file)
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    facts, data = head.find(FILE), head.find(DATA)
    if min(facts, data) < 0 or facts + 104 > len(head) or data + 50 > len(head):
        return ""
    flags, smallest, largest = struct.unpack_from("<III", head, facts + 88)
    length, count = struct.unpack_from("<Q16xQ", head, data + 16)
    if flags & _BROADCAST or smallest != largest or not smallest or not count:
        return ""
    first = data + 50
    whole_packets = (min(size, data + length) - first) // smallest
    if whole_packets < count:
        return f"{count - whole_packets} of its {count} data packets are missing"
    broken = 0
    for number in range(count):
        file.seek(first + number * smallest)
        # the first byte of a packet is the kind of its error correction
        broken += file.read(1) != head[first : first + 1]
    # Packets of several makes begin in several ways; damage is rare.
    if 0 < broken <= max(1, count // 4):
        return f"{broken} of its {count} data packets are broken"
    return ""


MAX_SPOTS = 20
APART_S = 1.0
"""Complaints closer together than this are of one spot."""
SHOW = (
    "-threads", "1", "-show_packets", "-show_frames", "-show_log", "16", "-show_entries",
    ("packet=codec_type,stream_index,pts_time,pos"
    ":frame=stream_index,best_effort_timestamp_time,pkt_pos:log=message"), "-of", "compact=p=1:nk=0",
)  # fmt: skip
"""One thread decodes: several report their errors beside other frames."""
ENDS_EARLY = re.compile(r"prematurely|partial file|[Tt]runcat")
"""What a demuxer says at the end of a file that lacks the rest, beside no frame."""
NO_SOUND = "a packet of sound that does not decode"


def locate_damage(tools: FfmpegTools, location: str, stop: threading.Event) -> tuple[Spot, ...]:
    """Return at most MAX_SPOTS spots, in the order of the file; none if no place is known.

    ffprobe decodes the whole file and prints each frame with the error lines that came before it. A file
    that ends too early has its spot where its last frame is. Raises what `read_packets` raises.
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
        fields = parse_fields(rest)
        stream = fields.get("stream_index", "")
        if kind == "packet" and fields.get("codec_type") == "audio":
            self._packet(
                stream, float_or_none(fields.get("pts_time")), int_or_none(fields.get("pos"))
            )
        elif kind == "frame":
            self._silent.pop(stream, None)
            self._heard.add(stream)
            self._time = float_or_none(fields.get("best_effort_timestamp_time"))
            self._byte = int_or_none(fields.get("pkt_pos"))
            self.last_s = max(self.last_s or 0.0, self._time or 0.0)
            self.last_byte = max(self.last_byte or 0, self._byte or 0)
        _, found, message = text.partition("message=")
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
