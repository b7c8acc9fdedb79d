"""Index the key frames of a video, or the grid of its HLS ladder: the places where it can be cut."""

from __future__ import annotations

import threading
from bisect import bisect_left
from itertools import pairwise

from hevcq.domain.chunking.planner import KeyFrame, KeyIndex, times_sum
from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
from hevcq.domain.planning.encode_plan import Ladder
from hevcq.errors import SourceUnreadable
from hevcq.ffmpeg.inputs import FfmpegTools, display_name
from hevcq.ffmpeg.inspect.measure import FrameTimes, frame_times

SEEKS_BY_PTS = frozenset({"mov"})
"""Demuxers that seek by presentation time (AVFMT_SEEK_TO_PTS). In all others ffmpeg seeks
`REORDERED_S` earlier if any stream has reordered frames (`ffmpeg_opt.c`, open_input_file)."""
REORDERED_S = 3 / 23
BY_DTS = frozenset({"mpegts"})
"""Demuxers without an index, which seek to the packet with that decoding time."""
DISCONTINUOUS = frozenset({"mpegts"})
JUMP_S = 10.0
"""Seconds from which ffmpeg treats a jump of decoding times as a discontinuity and shifts what follows
(`-dts_delta_threshold`): it would shift the audio, but not the picture of a chunk."""


def first_video_stream(info: MediaInfo, location: str) -> Stream:
    """Return the first video stream; raise SourceUnreadable if there is none."""
    videos = info.of_kind(StreamKind.VIDEO)
    if not videos:
        raise SourceUnreadable(f"{display_name(location)} has no video stream.")
    return videos[0]


def keyframes(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    ladder: Ladder | None,
    stop: threading.Event,
) -> KeyIndex:
    """Index the video's key frames; see ports.encoder."""
    video = first_video_stream(info, location)
    times, problems = frame_times(tools, location, video.index, stop)
    index = build_key_index(video, info, times, problems)
    if ladder is None:
        return index
    from hevcq.domain.chunking.grid import on_grid

    return on_grid(index, sorted(times.pts), dict(zip(times.pts, times.sizes, strict=True)), ladder)


def build_key_index(
    video: Stream, info: MediaInfo, times: FrameTimes, problems: tuple[str, ...] = ()
) -> KeyIndex:
    """Return the key-frame index of a video's frame times.

    Any of `problems`, the errors of the pass, marks the index as not monotonic.
    """
    demuxer = info.format_name.partition(",")[0]
    shown = sorted(times.pts)
    unique = all(before < after for before, after in pairwise(shown))
    notes = list(problems)
    jump = float(times.longest_step * video.tick)
    if demuxer in DISCONTINUOUS and jump >= JUMP_S:
        notes.append(f"its times jump by {jump:.1f} s")
    by_dts = demuxer in BY_DTS
    early = 0.0 if demuxer in SEEKS_BY_PTS or not times.delayed else REORDERED_S
    keys = _keys(times, shown)
    return KeyIndex(
        stream_index=video.index,
        time_base=video.time_base,
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
    """Return the key frames in display order, each with the frames up to the next one.

    Leaves out key frames where no cut is possible: those stored before one that is displayed
    earlier, and those among the first frames after an edit list's start.
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
