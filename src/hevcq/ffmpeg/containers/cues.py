"""Hold what the Cues of a Matroska file promise against the file: clusters that are not there.

A demuxer looks for the next cluster where one is missing, and may say nothing. Cues are optional, some
muxers write wrong ones, and tools that change a file's head leave them stale. So they prove damage only
if some of them are right (RFC 9559, 5.1.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from hevcq.ffmpeg.containers.matroska import MOST_BYTES, SEGMENT, Element, elements, headers

_CLUSTER, _SEEK_HEAD, _CUES, _INFO = 0x1F43B675, 0x114D9B74, 0x1C53BB6B, 0x1549A966
_SEEK, _SEEK_ID, _SEEK_POSITION = 0x4DBB, 0x53AB, 0x53AC
_POINT, _TIME, _PLACES, _AT = 0xBB, 0xB3, 0xB7, 0xF1
_SCALE, _MS = 0x2AD7B1, 1_000_000
_LATE_S = 1.0
"""Seconds that a cue may lie behind the last packet: some muxers round to their clusters."""


def broken_cues(file: BinaryIO, size: int, end_s: float | None) -> str:
    """Return what the Cues of a file promise and it does not have, as a clause, or "".

    `end_s` is where the last packet that a demuxer finds ends, in seconds.
    """
    segment = next((top for top in headers(file, 0, size) if top.number == SEGMENT), None)
    if segment is None:
        return ""
    scale, cues = _index(file, segment, size)
    if cues is None:
        return ""
    points = list(_points(file, cues))
    last_s = max((time for time, _ in points), default=0) * scale / 1e9
    places = sorted({segment.start + place for _, place in points})
    wrong = [place for place in places if not _is_cluster(file, place)]
    if wrong and len(wrong) < len(places):
        beyond = ", behind its end" if wrong[-1] >= size else ""
        return f"its index names {len(places)} clusters, and {len(wrong)} of them are not there{beyond}"
    if not wrong and end_s is not None and last_s > end_s + _LATE_S:
        return f"its index names a picture at {last_s:.2f} s, but it ends after {end_s:.2f} s"
    return ""


def _index(file: BinaryIO, segment: Element, size: int) -> tuple[int, Element | None]:
    """Return the nanoseconds of a tick, and the Cues: they are behind the clusters or before them."""
    scale, found, wanted = _MS, None, list[int]()
    for element in elements(file, segment.start, min(segment.end, size)):
        if element.number == _CLUSTER:
            break
        if element.number == _CUES:
            found = element
        elif element.number == _SEEK_HEAD:
            wanted += _positions(file, element)
        elif element.number == _INFO:
            inner = elements(file, element.start, element.end)
            scale = next((_value(file, e) for e in inner if e.number == _SCALE), _MS)
    for place in wanted:
        there = next(elements(file, segment.start + place, size), None)
        if found is None and there is not None and there.number == _CUES:
            found = there
    return scale, found if found is None or found.end - found.start <= MOST_BYTES else None


def _positions(file: BinaryIO, head: Element) -> Iterator[int]:
    for seek in elements(file, head.start, head.end):
        values = {e.number: _value(file, e) for e in elements(file, seek.start, seek.end)}
        if seek.number == _SEEK and values.get(_SEEK_ID) == _CUES:
            yield values.get(_SEEK_POSITION, 0)


def _points(file: BinaryIO, cues: Element) -> Iterator[tuple[int, int]]:
    """Yield the time of each cue in ticks, and the place of its cluster in the segment."""
    for point in elements(file, cues.start, cues.end):
        if point.number != _POINT:
            continue
        inner = list(elements(file, point.start, point.end))
        time = next((_value(file, e) for e in inner if e.number == _TIME), 0)
        for places in (e for e in inner if e.number == _PLACES):
            for element in elements(file, places.start, places.end):
                if element.number == _AT:
                    yield time, _value(file, element)


def _is_cluster(file: BinaryIO, place: int) -> bool:
    file.seek(place)
    return file.read(4) == _CLUSTER.to_bytes(4, "big")


def _value(file: BinaryIO, element: Element) -> int:
    file.seek(element.start)
    return int.from_bytes(file.read(min(8, element.end - element.start)), "big")
