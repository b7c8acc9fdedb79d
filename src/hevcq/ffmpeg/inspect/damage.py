"""Compare a container's header and index with the packets that the demuxer found, and locate damage.

Some demuxers silently skip a broken part: a damaged AVI or WMV decodes with a frame less, and an MP4 or Matroska
file that lost its last bytes with a shorter last frame.

A small AVI has one index, `idx1`. An AVI above about a gigabyte has several parts (`RIFF AVIX`), an index for each
(`ix00`), and a list of the indexes in its header (`indx`): OpenDML AVI File Format Extensions 1.02. Entries of
size 0 are frames that repeat the frame before, and demuxers do not return them. For WMV see the Advanced Systems
Format (ASF) Specification, 3.2 and 5.1.
"""

import re
import struct
import threading
from collections import Counter
from collections.abc import Iterator
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
"""A track may end earlier than its header says by TAIL_S seconds or 0.5 %, whichever is more.

On intact sample clips the largest difference is 0.09 s (an AAC track's padding)."""
WITH_DURATION = frozenset({"mov", "matroska", "avi", "asf", "mxf", "flv"})
"""Containers whose header states a duration; for others ffprobe estimates it."""

_UNFINISHED = 0xFFFF_0000
"""Lengths from this on are placeholders of a recording that was never finished."""
_INDEX_OF_INDEXES, _INDEX_OF_CHUNKS = 0, 1
_NO_KEY = 1 << 31
"""The bit of a size in `ix00` that marks a frame that is no key frame."""
_INDX = struct.Struct("<HBBI4s")
"""Head of `indx` and `ix00`: longs per entry, subtype, type, number of entries, name of the chunks."""
_INDX_BYTES = 24
_MAX_HEADER_BYTES = 1 << 22
_MAX_INDEX_BYTES = 1 << 24

Chunk = tuple[bytes, int, int]
"""Name, place of the content, and its length in bytes."""
ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
"""GUIDs of ASF's File Properties and Data objects."""
_ASF_HEAD_BYTES = 1 << 20
_ASF_BROADCAST = 1


def missing_end(info: MediaInfo, measured: Measurement) -> str:
    """Return what ends earlier than the header says, as a clause, or ""."""
    if info.format_name.partition(",")[0] not in WITH_DURATION:
        return ""
    for stream in info.streams:
        if stream.kind in {StreamKind.VIDEO, StreamKind.AUDIO}:
            missing = _missing_track_end(info, stream, measured)
            if missing:
                return missing
    ends = [track.end_s for track in measured.tracks if track.end_s is not None]
    if info.duration_s is None or not ends:
        return ""
    claimed = info.duration_s + min(0.0, info.start_s or 0.0)
    # The chapters of a video that was cut may run past its end.
    has_chapters = info.format_name.startswith("mov,") and info.chapters
    if has_chapters and claimed <= max(chapter.end_s for chapter in info.chapters) + TAIL_S:
        return ""
    return _early_end(claimed, max(ends), "the file")


def time_problem(info: MediaInfo, measured: Measurement) -> str:
    """Return which track of an MP4 has times that go backwards or repeat, as a clause, or "".

    Overlapping fragments make them go backwards; a wrong offset (ctts) gives two pictures one time.
    """
    is_mp4 = info.format_name.startswith("mov,")
    for track in measured.tracks if is_mp4 else ():
        if track.kind in {StreamKind.VIDEO, StreamKind.AUDIO} and not track.monotonic_dts:
            return f"the times of {track.kind.value} stream {track.index} go backwards"
        if any(one == other for one, other in pairwise(track.times)):
            return f"two pictures of video stream {track.index} have one time"
    return ""


def _missing_track_end(info: MediaInfo, stream: Stream, measured: Measurement) -> str:
    name = f"{stream.kind.value} stream {stream.index}"
    track = measured.track(stream.index)
    if track is None or track.packets == 0:
        # A track that claims neither samples nor a duration is odd, but misses nothing.
        claims = stream.frames or (stream.duration_s and not stream.has_no_picture)
        return f"{name} has no packets" if claims else ""
    if stream.duration_s is None or track.end_s is None:
        return ""
    # Matroska's DURATION tag is the end of the track; in other containers a duration counts from its start.
    from_zero = info.format_name.startswith("matroska")
    start = 0.0 if from_zero else (track.first_pts_s or 0.0)
    return _early_end(stream.duration_s, track.end_s - start, name)


def _early_end(claimed_s: float, measured_s: float, name: str) -> str:
    if claimed_s - measured_s <= max(TAIL_S, TAIL_SHARE * claimed_s):
        return ""
    return f"{name} claims {claimed_s:.2f} s but ends after {measured_s:.2f} s"


def index_damage(location: str, info: MediaInfo, measured: Measurement) -> str:
    """Return what the container's index names and the file lacks, as a clause, or ""; URLs are not read."""
    demuxer = info.format_name.partition(",")[0]
    checks = {"avi": _avi_damage, "asf": _asf_damage, "mov": _mp4_damage, "matroska": _mkv_damage}
    if demuxer not in checks or is_url(location):
        return ""
    with open(location, "rb") as file:
        return checks[demuxer](file, file.seek(0, 2), info, measured)


def require_one_video(location: str, info: MediaInfo) -> None:
    """Raise SourceDamaged if an MP4 holds a second video behind the one that ffmpeg reads; URLs are not read."""
    if is_url(location) or not info.format_name.startswith("mov,"):
        return
    with open(location, "rb") as file:
        at = mp4.second_video(file, file.seek(0, 2))
    if at:
        raise SourceDamaged(
            f"{display_name(location)} is not sound: it holds a second video behind the first"
            f" (from byte {at}), which would be lost.",
            remedy=f"Split it there (head -c {at} FILE > FIRST; tail -c +{at + 1} FILE > SECOND),"
            " and encode both files.",
        )


def _mp4_damage(file: BinaryIO, size: int, _info: MediaInfo, _measured: Measurement) -> str:
    media = (box for box in mp4.headers(file, 0, size) if box.kind == b"mdat")
    return next((_missing_bytes(box.end - size) for box in media if box.end > size), "")


def _mkv_damage(file: BinaryIO, size: int, _info: MediaInfo, measured: Measurement) -> str:
    elements = matroska.headers(file, 0, size)
    segment = next((each for each in elements if each.number == matroska.SEGMENT), None)
    missing = _missing_bytes(segment.end - size) if segment is not None else ""
    ends = [track.end_s for track in measured.tracks if track.end_s is not None]
    return missing or matroska.broken_cues(file, size, max(ends, default=None))


def _missing_bytes(count: int) -> str:
    return f"its last {count} bytes are missing" if count > 0 else ""


def _avi_damage(file: BinaryIO, size: int, info: MediaInfo, measured: Measurement) -> str:
    """Return which frames the indexes of an AVI name and the demuxer lacks, as a clause, or ""."""
    parts = [chunk for chunk in _chunks(file, 0, size) if chunk[0] == b"RIFF"]
    for _, begin, length in parts:
        missing = begin + length - size
        if missing > 1:
            return "" if length >= _UNFINISHED else _missing_bytes(missing)
    if not parts:
        return ""
    _, begin, length = parts[0]
    top = list(_chunks(file, begin + 4, size if len(parts) == 1 else begin + length))
    named, damage = _count_opendml_frames(file, size, top)
    if damage:
        return damage
    if not named and len(parts) == 1:  # idx1 names the frames of the first part only
        named = _count_idx1_frames(file, top)
    for stream in info.of_kind(StreamKind.VIDEO):
        track = measured.track(stream.index)
        packets = track.packets + track.discarded if track is not None else named[stream.index]
        if packets < named[stream.index]:
            return f"its index names {named[stream.index]} frames, but {packets} can be read"
    return ""


def _chunks(file: BinaryIO, start: int, end: int) -> Iterator[Chunk]:
    """Yield the chunks between two offsets."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            return
        name, length = struct.unpack("<4sI", head)
        yield name, start + 8, length
        start += 8 + length + (length & 1)


def _four_bytes(file: BinaryIO, chunk: Chunk) -> bytes:
    """Return the first four bytes of a chunk: the kind of a LIST, or of a stream in `strh`."""
    file.seek(chunk[1])
    return file.read(4)


def _count_opendml_frames(file: BinaryIO, size: int, top: list[Chunk]) -> tuple[Counter[int], str]:
    """Count the frames that OpenDML's indexes name, by stream; return a clause too if an index is missing."""
    named = Counter[int]()
    header = next((c for c in top if c[0] == b"LIST" and _four_bytes(file, c) == b"hdrl"), None)
    if header is None or header[2] > _MAX_HEADER_BYTES:
        return named, ""
    inside = _chunks(file, header[1] + 4, header[1] + header[2])
    streams = [c for c in inside if c[0] == b"LIST" and _four_bytes(file, c) == b"strl"]
    for number, stream in enumerate(streams):
        inner = {c[0]: c for c in _chunks(file, stream[1] + 4, stream[1] + stream[2])}
        index = inner.get(b"indx")
        if b"strh" not in inner or _four_bytes(file, inner[b"strh"]) != b"vids" or index is None:
            continue
        sizes = list[int]()
        for place, length in _opendml_indexes(file, index):
            if place + length > size:
                return named, f"its index names a part at byte {place}, behind its end"
            part = next(_chunks(file, place, place + 8), None)
            if part is None or not part[0].startswith((b"ix", b"indx")):
                sizes = []
                break  # the writer stored wrong places, which prove nothing
            entries = struct.iter_unpack("<II", _opendml_entries(file, part, 8)[1])
            sizes += [length & ~_NO_KEY for _, length in entries]
        if frames := sum(length > 0 for length in sizes):
            named[number] = frames
    return named, ""


def _opendml_indexes(file: BinaryIO, index: Chunk) -> Iterator[tuple[int, int]]:
    """Yield place and length of the indexes that a stream's `indx` lists; it may itself be the only one."""
    kind, table = _opendml_entries(file, index, 16)
    if kind == _INDEX_OF_CHUNKS:
        yield index[1] - 8, 8 + index[2]
    elif kind == _INDEX_OF_INDEXES:
        for place, length, _ in struct.iter_unpack("<QII", table):
            yield place, length


def _opendml_entries(file: BinaryIO, index: Chunk, entry_bytes: int) -> tuple[int, bytes]:
    """Return the kind of an OpenDML index, and its whole entries."""
    file.seek(index[1])
    head = file.read(_INDX_BYTES)
    if len(head) < _INDX_BYTES:
        return -1, b""
    _, _, kind, count, _ = _INDX.unpack(head[: _INDX.size])
    table = file.read(min(entry_bytes * count, max(0, index[2] - _INDX_BYTES)))
    return kind, table[: len(table) // entry_bytes * entry_bytes]


def _count_idx1_frames(file: BinaryIO, top: list[Chunk]) -> Counter[int]:
    """Count the frames that `idx1` names, by stream, without the empty ones that repeat a frame."""
    index = next((c for c in top if c[0] == b"idx1"), None)
    if index is None:
        return Counter()
    file.seek(index[1])
    table = file.read(min(index[2], _MAX_INDEX_BYTES))
    return Counter(
        int(name[:2])
        for name, _, _, size in struct.iter_unpack("<4sIII", table[: len(table) // 16 * 16])
        if name[2:] in {b"dc", b"db"} and name[:2].isdigit() and size
    )


def _asf_damage(file: BinaryIO, size: int, _info: MediaInfo, _measured: Measurement) -> str:
    """Return how many data packets are missing, or begin unlike all others, as a clause, or ""."""
    file.seek(0)
    head = file.read(_ASF_HEAD_BYTES)
    facts, data = head.find(ASF_FILE), head.find(ASF_DATA)
    if min(facts, data) < 0 or facts + 104 > len(head) or data + 50 > len(head):
        return ""
    flags, smallest, largest = struct.unpack_from("<III", head, facts + 88)
    length, count = struct.unpack_from("<Q16xQ", head, data + 16)
    if flags & _ASF_BROADCAST or smallest != largest or not smallest or not count:
        return ""
    first = data + 50
    whole_packets = (min(size, data + length) - first) // smallest
    if whole_packets < count:
        return f"{count - whole_packets} of its {count} data packets are missing"
    broken = 0
    for number in range(count):
        file.seek(first + number * smallest)
        # A packet begins with its kind of error correction.
        broken += file.read(1) != head[first : first + 1]
    # If many differ, the packets are of several kinds; damage is rare.
    if 0 < broken <= max(1, count // 4):
        return f"{broken} of its {count} data packets are broken"
    return ""


MAX_SPOTS = 20
APART_S = 1.0
"""Errors closer together than this belong to one spot."""
SHOW = (
    "-threads", "1", "-show_packets", "-show_frames", "-show_log", "16", "-show_entries",
    ("packet=codec_type,stream_index,pts_time,pos"
    ":frame=stream_index,best_effort_timestamp_time,pkt_pos:log=message"), "-of", "compact=p=1:nk=0",
)  # fmt: skip
"""Options of ffprobe. One thread decodes, because several threads print their errors next to other frames."""
ENDS_EARLY = re.compile(r"prematurely|partial file|[Tt]runcat")
"""A demuxer's errors at the end of a truncated file, which ffprobe prints without a frame."""
NO_SOUND = "a packet of sound that does not decode"


def locate_damage(tools: FfmpegTools, location: str, stop: threading.Event) -> tuple[Spot, ...]:
    """Return at most MAX_SPOTS spots in file order; none if no place is known.

    ffprobe decodes the whole file and prints each frame with the errors before it. The spot of a truncated file
    is its last frame. Raises what `read_packets` raises.
    """
    finder = DamageFinder()
    errors = read_packets(tools, location, SHOW, finder.line, stop, packets_seen=lambda: True)
    ends = [line for line in errors if ENDS_EARLY.search(line)]
    if ends and not finder.spots:
        return (Spot(finder.last_s, finder.last_byte, message_text(ends[0])),)
    return tuple(finder.spots)


class DamageFinder:
    """Finds the damaged spots in ffprobe's packets, frames and errors."""

    def __init__(self) -> None:
        self.spots: list[Spot] = []
        self._time: float | None = None
        self._byte: int | None = None
        self.last_s: float | None = None
        self.last_byte: int | None = None
        self._undecoded: dict[str, tuple[float | None, int | None]] = {}
        """By stream, time and byte of an audio packet that has not become a frame yet."""
        self._decoded: set[str] = set()
        """The streams with a decoded frame."""

    def line(self, text: str) -> None:
        """Read a packet, a frame or an error."""
        kind, _, rest = text.partition("|")
        fields = parse_fields(rest)
        stream = fields.get("stream_index", "")
        if kind == "packet" and fields.get("codec_type") == "audio":
            self._add_packet(
                stream, float_or_none(fields.get("pts_time")), int_or_none(fields.get("pos"))
            )
        elif kind == "frame":
            self._undecoded.pop(stream, None)
            self._decoded.add(stream)
            self._time = float_or_none(fields.get("best_effort_timestamp_time"))
            self._byte = int_or_none(fields.get("pkt_pos"))
            self.last_s = max(self.last_s or 0.0, self._time or 0.0)
            self.last_byte = max(self.last_byte or 0, self._byte or 0)
        _, separator, message = text.partition("message=")
        if separator:
            self._add_error(message)

    def _add_packet(self, stream: str, time: float | None, byte: int | None) -> None:
        """Note a packet of sound. If the one before it has not become a frame by now, it is damaged.

        ffprobe prints the errors of such a packet without a frame. A decoder may need the first packets to start.
        """
        if stream in self._undecoded and stream in self._decoded:
            self._time, self._byte = self._undecoded[stream]
            self._add_error(NO_SOUND)
        self._undecoded[stream] = (time, byte)

    def _add_error(self, line: str) -> None:
        # A decoder repeats an error for every block of a frame, and for some frames after it.
        last = self.spots[-1].time_s if self.spots else None
        is_near = last is not None and self._time is not None and abs(self._time - last) < APART_S
        if is_near or len(self.spots) >= MAX_SPOTS or not unexpected_lines([line], Pass.DECODE):
            return
        self.spots.append(Spot(self._time, self._byte, message_text(line)))
