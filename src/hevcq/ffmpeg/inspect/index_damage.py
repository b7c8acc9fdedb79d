"""Compare what a container's header and index promise with what the demuxer found.

Some demuxers skip what they cannot read without a word: an AVI or WMV with a broken piece decodes with a
frame less, and an MP4 or Matroska file that lost its last bytes with a shorter last frame.
"""

from __future__ import annotations

from typing import BinaryIO

from hevcq.domain.media.facts import Measurement, MediaInfo, Stream, StreamKind
from hevcq.errors import SourceDamaged
from hevcq.ffmpeg.containers import matroska, mp4
from hevcq.ffmpeg.inputs import display_name, is_url
from hevcq.ffmpeg.inspect.measure import skipped

TAIL_S = 0.5
TAIL_SHARE = 0.005
"""A track may end this much before its header says: the larger of TAIL_S seconds and 0.5 %.

On intact sample clips the largest difference is 0.09 s (an AAC track's padding)."""
INDEXED = frozenset({"mov", "matroska", "avi", "asf", "mxf", "flv"})
"""Containers whose header states a duration; for others ffprobe estimates it."""


def shortfall(info: MediaInfo, measured: Measurement) -> str:
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
    return _late(claimed, max(ends), "the file")


def _track_shortfall(info: MediaInfo, stream: Stream, measured: Measurement) -> str:
    name = f"{stream.kind.value} stream {stream.index}"
    track = measured.track(stream.index)
    if track is None or track.packets == 0:
        # A track without samples and without a duration is odd, but misses nothing.
        claims = stream.frames or (stream.duration_s and not stream.pictureless)
        return f"{name} has no packets" if claims else ""
    if stream.duration_s is None or track.end_s is None:
        return ""
    # Matroska's DURATION tag is the end of the track; elsewhere a duration counts from its start.
    from_zero = info.format_name.startswith("matroska")
    start = 0.0 if from_zero else (track.first_pts_s or 0.0)
    return _late(stream.duration_s, track.end_s - start, name) or skipped(info, stream, track)


def _late(claimed: float, found: float, name: str) -> str:
    if claimed - found <= max(TAIL_S, TAIL_SHARE * claimed):
        return ""
    return f"{name} claims {claimed:.2f} s but ends after {found:.2f} s"


def index_damage(location: str, info: MediaInfo, measured: Measurement) -> str:
    """Return what is missing of what the index promises, as a clause, or ""; URLs are not read."""
    demuxer = info.format_name.partition(",")[0]
    look = {
        "avi": _avi, "asf": _asf, "mov": _boxes, "matroska": _segment, "dv": _end, "ogg": _end,
    }.get(demuxer)  # fmt: skip
    if look is None or is_url(location):
        return ""
    with open(location, "rb") as file:
        return look(file, info, measured)


def require_single(location: str, info: MediaInfo) -> None:
    """Raise SourceDamaged if a second video lies behind the one that ffmpeg reads; URLs are not read."""
    demuxer = info.format_name.partition(",")[0]
    if is_url(location) or demuxer not in {"mov", "asf"}:
        return
    from hevcq.ffmpeg.containers import unindexed

    with open(location, "rb") as file:
        look = mp4.second_video if demuxer == "mov" else unindexed.second_video
        at = look(file, _size(file))
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
    from hevcq.ffmpeg.containers.avi import missing_frames

    tracks = (measured.track(stream.index) for stream in info.of_kind(StreamKind.VIDEO))
    found = {track.index: track.packets + track.discarded for track in tracks if track is not None}
    return missing_frames(file, _size(file), found)


def _asf(file: BinaryIO, _info: MediaInfo, _measured: Measurement) -> str:
    from hevcq.ffmpeg.containers.unindexed import packet_damage

    return packet_damage(file, _size(file))


def _boxes(file: BinaryIO, _info: MediaInfo, _measured: Measurement) -> str:
    """Look whether the media of an MP4 or MOV ends after the file does."""
    size = _size(file)
    media = (box for box in mp4.headers(file, 0, size) if box.kind == b"mdat")
    return next((_short(box.end - size) for box in media if box.end > size), "")


def _segment(file: BinaryIO, _info: MediaInfo, measured: Measurement) -> str:
    """Look whether the segment of a Matroska file ends after the file does, and whether its Cues hold."""
    size = _size(file)
    tops = matroska.headers(file, 0, size)
    segment = next((top for top in tops if top.number == matroska.SEGMENT), None)
    short = _short(segment.end - size) if segment is not None else ""
    ends = [track.end_s for track in measured.tracks if track.end_s is not None]
    return short or matroska.broken_cues(file, size, max(ends, default=None))


def _end(file: BinaryIO, info: MediaInfo, _measured: Measurement) -> str:
    """Look whether a file without an index ends inside a frame of DV or a page of Ogg."""
    from hevcq.ffmpeg.containers import unindexed

    look = unindexed.ends_inside_frame if info.format_name == "dv" else unindexed.ends_inside_page
    size = _size(file)
    file.seek(0)
    return look(file, size)


def _short(missing: int) -> str:
    return f"its last {missing} bytes are missing" if missing > 0 else ""
