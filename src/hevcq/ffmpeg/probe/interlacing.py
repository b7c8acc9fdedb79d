"""Find out from the pictures whether a video is interlaced, and which field comes first.

The mark in a header proves nothing: cameras, broadcasters and DVDs mark progressive pictures as interlaced, tapes
were copied with the wrong field order, and DVD rips lost their mark. So libavfilter's idet decides from samples.
Videos without a mark are examined only in the sizes of standard-definition television, and by fewer frames: larger
interlaced videos nearly always have a mark, and this costs as much as a probe.
"""

import re
import threading
from dataclasses import dataclass

from hevcq.domain.media.facts import MediaInfo, Stream
from hevcq.errors import EncoderFailed, LimitExceeded
from hevcq.ffmpeg.command.filters import uncropped_options
from hevcq.ffmpeg.inputs import (
    PROBE_DEADLINE_S,
    PROBE_LIMITS,
    FfmpegTools,
    input_options,
    with_read_access,
)
from hevcq.ffmpeg.process.child import run_child

PLACES = 4
FRAMES_PER_PLACE = 50
"""Decoded frames at each place: 2 s of 25 per second, about 0.3 s of CPU at 1080i."""
SHORT_VIDEO_S = 10.0
"""A video shorter than this is examined at its beginning only, with as many frames in all."""
UNMARKED_FRAMES = 16
STRICT_THRESHOLD = 1.5
"""idet's threshold without a mark, and if both field orders are seen. At its default of 1.04 hard edges look combed:
54 of 60 frames of a drawn test picture. At 1.5 none do, but 12 in 13 and all frames of two interlaced cameras."""
MIN_COMBED, MIN_COMBED_TELECINED = 0.9, 0.2
"""Share of decided frames that must be combed in a video without a mark, and in a telecine."""
MIN_DECIDED = 12
"""Frames on which idet must decide; with fewer, as in a still picture, the mark is believed."""
MAX_COMBED = 0.04
"""Share of decided frames that may look combed in progressive video, by noise and sharp edges."""
CLEAR_ORDER = 4
"""How many times as often as the other a field order must be seen to overrule the mark."""
MIN_REPEATS = 0.04
"""A telecine repeats the top field in more than this share of frames, and the bottom field too. Usual are 0.2 of
each, less where nothing moves; interlaced video repeats none."""
_REPEATS = re.compile(r"Repeated Fields: Neither:\s*(\d+) Top:\s*(\d+) Bottom:\s*(\d+)")
_SEEN = re.compile(
    r"Multi frame detection: TFF:\s*(\d+) BFF:\s*(\d+) Progressive:\s*(\d+) Undetermined"
)


@dataclass(frozen=True, slots=True)
class FieldsSeen:
    """How many frames idet saw with the top field first, with the bottom field first, or as progressive.

    `repeats` counts the frames whose top field repeats, and those whose bottom field does; `others` those where
    neither does.
    """

    top_first: int = 0
    bottom_first: int = 0
    progressive: int = 0
    repeats: tuple[int, int] = (0, 0)
    others: int = 0

    @property
    def is_progressive(self) -> bool:
        combed = self.top_first + self.bottom_first
        decided = combed + self.progressive
        return decided >= MIN_DECIDED and combed <= MAX_COMBED * decided

    @property
    def is_mixed(self) -> bool:
        """Whether both field orders are seen, neither of them clearly; true fields never look so."""
        combed = self.top_first + self.bottom_first
        return combed >= MIN_DECIDED and not self.order and not self.is_progressive

    @property
    def is_interlaced(self) -> bool:
        combed = self.top_first + self.bottom_first
        least = MIN_COMBED_TELECINED if self.is_telecined else MIN_COMBED
        return bool(self.order) and combed >= least * (combed + self.progressive)

    @property
    def is_telecined(self) -> bool:
        """Whether both fields repeat now and then, as in a telecine."""
        return min(self.repeats) > MIN_REPEATS * (self.others + sum(self.repeats))

    @property
    def order(self) -> str:
        """The clearly seen field order, `tt` or `bb`, or ""."""
        if max(self.top_first, self.bottom_first) < MIN_DECIDED:
            return ""
        if self.top_first >= CLEAR_ORDER * self.bottom_first:
            return "tt"
        return "bb" if self.bottom_first >= CLEAR_ORDER * self.top_first else ""


def with_fields_seen(
    tools: FfmpegTools, location: str, info: MediaInfo, stop: threading.Event
) -> MediaInfo:
    """Examine the pictures of each video that may be interlaced, and add the result to its facts.

    A video that cannot be decoded keeps its mark: the pre-flight reports damage.
    """
    streams = (
        _with_fields_seen(tools, location, info, stream, stop)
        if stream.may_be_interlaced
        else stream
        for stream in info.streams
    )
    return info.model_copy(update={"streams": tuple(streams)})


def _with_fields_seen(
    tools: FfmpegTools, location: str, info: MediaInfo, stream: Stream, stop: threading.Event
) -> Stream:
    video = stream.video
    assert video is not None  # only a video may be interlaced
    marked = video.marked_interlaced
    limits = with_read_access(PROBE_LIMITS, tools, location)

    def detect(*, strict: bool) -> FieldsSeen:
        argv = _detection_command(tools, location, info, stream, strict=strict)
        done = run_child(argv, stop=stop, limits=limits, deadline_s=PROBE_DEADLINE_S)
        return fields_seen(done.stderr)

    try:
        seen = detect(strict=not marked)
        if marked and seen.is_mixed:
            # Hard edges look like fields of both orders; only the strict threshold may overrule the mark.
            again = detect(strict=True)
            seen = again if again.is_progressive else seen
    except (EncoderFailed, LimitExceeded):
        return stream
    if not marked and not seen.is_interlaced:
        return stream
    facts = {
        "interlaced_pictures": not marked,
        # If few frames of a telecine have fields of two film frames, idet calls it progressive.
        "progressive_pictures": marked and seen.is_progressive and not seen.is_telecined,
        "seen_order": seen.order,
        "telecined": seen.is_telecined,
    }
    return stream.model_copy(update={"video": video.model_copy(update=facts)})


def fields_seen(lines: tuple[str, ...]) -> FieldsSeen:
    top, bottom, progressive = _sums(_SEEN, lines)
    others, *repeats = _sums(_REPEATS, lines)
    return FieldsSeen(top, bottom, progressive, (repeats[0], repeats[1]), others)


def _sums(pattern: re.Pattern[str], lines: tuple[str, ...]) -> list[int]:
    """Return the sums of the pattern's three numbers over the lines of all places."""
    rows = [match.groups() for line in lines if (match := pattern.search(line))]
    return [sum(int(row[column]) for row in rows) for column in range(3)]


def _detection_command(
    tools: FfmpegTools, location: str, info: MediaInfo, stream: Stream, *, strict: bool
) -> list[str]:
    length = info.duration_s or 0.0
    places = PLACES if length >= SHORT_VIDEO_S else 1
    marked = stream.video is not None and stream.video.marked_interlaced
    frames = (FRAMES_PER_PLACE if marked else UNMARKED_FRAMES) * PLACES // places
    threshold = f"=intl_thres={STRICT_THRESHOLD}" if strict else ""
    command = [tools.ffmpeg, "-v", "info", "-nostdin", "-nostats", "-hide_banner"]
    for place in range(places):
        at = length * (place + 0.5) / places if places > 1 else 0.0
        seek = ["-noaccurate_seek", "-ss", f"{at:.3f}"] if at else []
        # In a rotated picture the fields would be columns, which idet does not detect.
        command += ["-noautorotate", *uncropped_options(info), *seek, *input_options(location)]
    graph = ";".join(
        f"[{place}:{stream.index}]trim=end_frame={frames},idet{threshold}[f{place}]"
        for place in range(places)
    )
    command += ["-filter_complex", graph]
    for place in range(places):
        command += ["-map", f"[f{place}]", "-fps_mode", "passthrough", "-f", "null", "-"]
    return command
