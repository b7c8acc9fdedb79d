"""Look at the pictures of a video that may be interlaced: whether it is, and which field is first.

Cameras, broadcasters and DVDs mark progressive pictures as interlaced, tapes were copied with the
wrong field order, and rips of DVDs lost their mark, so the mark decides nothing; libavfilter's idet
over samples does. Without a mark only the sizes of television in standard definition are looked at,
and by fewer frames: larger ones nearly always have it, and looking costs as much as a probe.
"""

import re
import threading
from dataclasses import dataclass

from hevcq.domain.media.facts import MediaInfo, Stream
from hevcq.errors import EncoderFailed, LimitExceeded
from hevcq.ffmpeg.command.filters import uncropped
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
SHORT_S = 10.0
"""Seconds below which one place, the beginning, is enough; it is looked at for as many frames."""
UNMARKED_FRAMES = 16
CLEAR = 1.5
"""idet's threshold without a mark, and where both field orders are seen. At its 1.04 hard edges look like
combs: 54 of 60 frames of a drawn test picture, and none at 1.5, where of two interlaced cameras' frames
12 in 13 and all do."""
MIN_COMBED, MIN_COMBED_TELECINED = 0.9, 0.2
"""Share of decided frames that must be combed without a mark, and with the repeated fields of a telecine."""
MIN_JUDGED = 12
"""Frames that idet must have decided on; below it (a still picture) the mark is believed."""
MAX_COMBED = 0.04
"""Share of decided frames that may look combed in progressive video: noise and sharp edges."""
CLEAR_ORDER = 4
"""One field order must be seen so many times as often as the other to overrule the mark."""
MIN_REPEATS = 0.04
"""Share of frames whose top field repeats, and of those whose bottom field does, from which a video may
be a telecine: one has 0.2 of each, less where nothing moves, and interlaced video none."""
_REPEATS = re.compile(r"Repeated Fields: Neither:\s*(\d+) Top:\s*(\d+) Bottom:\s*(\d+)")
_SEEN = re.compile(
    r"Multi frame detection: TFF:\s*(\d+) BFF:\s*(\d+) Progressive:\s*(\d+) Undetermined"
)


@dataclass(frozen=True, slots=True)
class FieldsSeen:
    """Frames in which idet saw the top or bottom field first, or no fields at all.

    `repeats` are those whose top and whose bottom field repeats, `others` those of which neither does.
    """

    top_first: int = 0
    bottom_first: int = 0
    progressive: int = 0
    repeats: tuple[int, int] = (0, 0)
    others: int = 0

    @property
    def is_progressive(self) -> bool:
        combed = self.top_first + self.bottom_first
        judged = combed + self.progressive
        return judged >= MIN_JUDGED and combed <= MAX_COMBED * judged

    @property
    def is_mixed(self) -> bool:
        """Whether both field orders are seen and neither clearly, which true fields do not show."""
        both = self.top_first + self.bottom_first
        return both >= MIN_JUDGED and not self.order and not self.is_progressive

    @property
    def is_interlaced(self) -> bool:
        combed = self.top_first + self.bottom_first
        least = MIN_COMBED_TELECINED if self.is_telecined else MIN_COMBED
        return bool(self.order) and combed >= least * (combed + self.progressive)

    @property
    def is_telecined(self) -> bool:
        """Whether both fields repeat now and then, as those of a telecine do."""
        return min(self.repeats) > MIN_REPEATS * (self.others + sum(self.repeats))

    @property
    def order(self) -> str:
        """The field order that is clearly seen, `tt` or `bb`, or ""."""
        if max(self.top_first, self.bottom_first) < MIN_JUDGED:
            return ""
        if self.top_first >= CLEAR_ORDER * self.bottom_first:
            return "tt"
        return "bb" if self.bottom_first >= CLEAR_ORDER * self.top_first else ""


def with_fields_seen(
    tools: FfmpegTools, location: str, info: MediaInfo, stop: threading.Event
) -> MediaInfo:
    """Return the facts with what the pictures of each video that may be interlaced show.

    A video that cannot be looked at keeps its mark: damage is left to the pre-flight.
    """
    return info.model_copy(
        update={
            "streams": tuple(
                _looked_at(tools, location, info, stream, stop)
                if stream.may_be_interlaced
                else stream
                for stream in info.streams
            )
        }
    )


def _looked_at(
    tools: FfmpegTools, location: str, info: MediaInfo, stream: Stream, stop: threading.Event
) -> Stream:
    video = stream.video
    assert video is not None  # or it could not be interlaced
    marked = video.marked_interlaced
    limits = with_read_access(PROBE_LIMITS, tools, location)

    def look(*, clearly: bool) -> FieldsSeen:
        argv = _command(tools, location, info, stream, clearly=clearly)
        done = run_child(argv, stop=stop, limits=limits, deadline_s=PROBE_DEADLINE_S)
        return fields_seen(done.stderr)

    try:
        seen = look(clearly=not marked)
        if marked and seen.is_mixed:
            # Hard edges look like fields of both orders; only what is clear without doubt overrules the mark.
            again = look(clearly=True)
            seen = again if again.is_progressive else seen
    except (EncoderFailed, LimitExceeded):
        return stream
    if not marked and not seen.is_interlaced:
        return stream
    found = {
        "interlaced_pictures": not marked,
        # Of a telecine idet calls the frames with fields of two progressive if they are few.
        "progressive_pictures": marked and seen.is_progressive and not seen.is_telecined,
        "seen_order": seen.order,
        "telecined": seen.is_telecined,
    }
    return stream.model_copy(update={"video": video.model_copy(update=found)})


def fields_seen(lines: tuple[str, ...]) -> FieldsSeen:
    top, bottom, progressive = _added_up(_SEEN, lines)
    others, *repeats = _added_up(_REPEATS, lines)
    return FieldsSeen(top, bottom, progressive, (repeats[0], repeats[1]), others)


def _added_up(pattern: re.Pattern[str], lines: tuple[str, ...]) -> list[int]:
    found = [match.groups() for line in lines if (match := pattern.search(line))]
    return [sum(int(numbers[place]) for numbers in found) for place in range(3)]


def _command(
    tools: FfmpegTools, location: str, info: MediaInfo, stream: Stream, *, clearly: bool
) -> list[str]:
    length = info.duration_s or 0.0
    places = PLACES if length >= SHORT_S else 1
    marked = stream.video is not None and stream.video.marked_interlaced
    frames = (FRAMES_PER_PLACE if marked else UNMARKED_FRAMES) * PLACES // places
    clear = f"=intl_thres={CLEAR}" if clearly else ""
    command = [tools.ffmpeg, "-v", "info", "-nostdin", "-nostats", "-hide_banner"]
    for place in range(places):
        at = length * (place + 0.5) / places if places > 1 else 0.0
        seek = ["-noaccurate_seek", "-ss", f"{at:.3f}"] if at else []
        # Fields of a picture that is turned first would be columns, which idet does not look for.
        command += ["-noautorotate", *uncropped(info), *seek, *input_options(location)]
    graph = ";".join(
        f"[{place}:{stream.index}]trim=end_frame={frames},idet{clear}[f{place}]"
        for place in range(places)
    )
    command += ["-filter_complex", graph]
    for place in range(places):
        command += ["-map", f"[f{place}]", "-fps_mode", "passthrough", "-f", "null", "-"]
    return command
