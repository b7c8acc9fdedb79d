"""Measure a source with ffmpeg's filters: black bars for `video.crop: auto`, and loudness.

A few places show whether there are bars. If so, every picture is decoded, because the gates compare with the
cropped source and cannot see a crop that cuts off too much.
"""

import re
import threading
from collections.abc import Iterator
from statistics import median_high

from hevcq.domain.media.containers import TEXT_SUBTITLES
from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan, StreamPlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.planning.streams import SILENT
from hevcq.domain.profile import Profile
from hevcq.errors import MediaRefused
from hevcq.ffmpeg.command.build import source_input
from hevcq.ffmpeg.command.filters import decoding_options
from hevcq.ffmpeg.command.levels import mix_filters
from hevcq.ffmpeg.inputs import FfmpegTools, display_name, input_options, with_read_access
from hevcq.ffmpeg.process.child import Finished, run_child
from hevcq.ffmpeg.process.limits import limits_of
from hevcq.ports.encoder import VerifyRequest

PLACES, FRAMES = 8, 8
"""Places over the length of a video where bars are looked for, and the pictures read at each."""
WIDEST, NARROWEST = 0.35, 0.02
"""Largest and smallest share of a side that one bar may have; a narrower edge is not worth a crop."""
EDGES = "format=gray,lut=y='if(gt(val,20),255,0)',cropdetect=limit=0:round=2:reset=0:skip=0"
"""Finds the edges of the bars. Grey has full range here, and black is 0. A row or column belongs to the picture if
one in 255 of its pixels is brighter than 20 in any picture, so dark edges, titles and logos in a bar are kept."""
_EDGE_PLACES = re.compile(r" x1:(-?\d+) x2:(-?\d+) y1:(-?\d+) y2:(-?\d+) ")
UNSTEADY = "Its black bars are not steady, so nothing is cropped."

Bars = tuple[int, int]
"""Columns on the left and on the right, and rows at the top and at the bottom, of the upright picture."""


def find_bars(
    tools: FfmpegTools, location: str, info: MediaInfo, profile: Profile, stop: threading.Event
) -> tuple[tuple[int, int, int] | None, str]:
    """Return the main video's index and bars, None if it has none; and a notice or ""."""
    plan = make_plan(profile, info)
    if not isinstance(plan, EncodePlan):
        return None, ""  # it is not encoded
    index = plan.main_video.source_index
    facts = info.stream(index).video
    problem = _crop_problem(plan)
    if facts is None or problem:
        return None, f"Nothing is cropped: {problem}."
    turned = facts.rotation % 180 == 90
    size = (facts.height, facts.width) if turned else (facts.width, facts.height)
    length = info.duration_s or 0.0
    moments = [length * (n + 0.5) / PLACES for n in range(PLACES)]
    opened = [*decoding_options(info), *input_options(location)]

    def bars(seek: tuple[str, ...], frames: tuple[str, ...]) -> Bars | None:
        words = [*seek, *opened, "-map", f"0:{index}", *frames, "-vf", EDGES]
        words += ["-fps_mode", "passthrough", "-f", "null", "-"]
        done = run_filters(tools, location, words, profile, stop)
        edges = [match for match in map(_EDGE_PLACES.search, done.stderr) if match]
        if done.returncode != 0 or not edges:
            return None
        return _even_bars((*map(int, edges[-1].groups()),), size)

    sampled = (bars(("-ss", f"{at:.3f}"), ("-frames:v", f"{FRAMES}")) for at in moments)
    samples = [each for each in sampled if each is not None]
    # The median ignores places with a title in a bar, or with a dark scene.
    usual = tuple(map(median_high, zip(*samples, strict=True))) if samples else (0, 0)
    if not any(usual):
        return None, ""
    whole = bars((), ()) or (0, 0)
    pairs = zip(usual, whole, size, strict=True)
    is_steady = all(sample - bar <= NARROWEST * side for sample, bar, side in pairs)
    return ((index, *whole), "") if is_steady and any(whole) else (None, UNSTEADY)


def run_filters(
    tools: FfmpegTools, location: str, words: list[str], profile: Profile, stop: threading.Event
) -> Finished:
    """Run ffmpeg over a file for its filters' log, within the profile's bounds; it writes no file."""
    argv = [tools.ffmpeg, "-hide_banner", "-nostdin", "-nostats", "-v", "info", *words]
    limits = with_read_access(limits_of(profile.bounds), tools, location)
    return run_child(argv, stop=stop, limits=limits, deadline_s=profile.queue.max_job_s)


def _crop_problem(plan: EncodePlan) -> str:
    """Return why a video is not cropped whatever its bars, or ""."""
    drawn = (track for track in plan.kept if track.kind is StreamKind.SUBTITLE)
    if any(track.codec not in TEXT_SUBTITLES for track in drawn):
        return "its subtitles are pictures with places on the whole frame"
    if plan.video.dolby_vision:
        return "its Dolby Vision metadata is about the whole picture"
    return "the size or aspect of its picture changes" if plan.video.fit else ""


def _even_bars(edges: tuple[int, ...], size: tuple[int, int]) -> Bars | None:
    """Return the bars outside the edges of a picture; None for a black picture.

    Opposite bars are equal. Sizes are rounded down to even numbers, so that no picture is lost and chroma samples
    keep their places.
    """
    left, right, top, bottom = edges
    if right < left or bottom < top:
        return None
    sides = (left, size[0] - 1 - right), (top, size[1] - 1 - bottom)
    bars = [min(pair) // 2 * 2 for pair in sides]
    columns, rows = (
        bar if NARROWEST * side <= bar <= WIDEST * side else 0
        for bar, side in zip(bars, size, strict=True)
    )
    return columns, rows


METER = "ebur128=peak=true:framelog=verbose"
_LOUDNESS_LINE = re.compile(r"^\s+(I|Peak):\s+(-?[\d.]+|-?inf) (LUFS|dBFS)$")
MAX_QUIETER_LU, MAX_LOUDER_LU = 1.0, 2.0
"""Loudness units by which a sound may miss its planned loudness. On 21 clips of cameras and films an encode misses
by at most 0.8; white noise, as of rain, becomes 1.7 louder in AAC of 64 kbit/s a channel."""
SILENT_PEAK = -120.0
"""dBTP of digital silence, for which ffmpeg prints -inf."""

Loudness = tuple[float, float]
"""Integrated loudness in LUFS (-70 for silence) and true peak in dBTP."""


def measure_source_loudness(
    tools: FfmpegTools, location: str, info: MediaInfo, profile: Profile, stop: threading.Event
) -> Iterator[tuple[int, float, float]]:
    """Yield index, loudness and peak of each sound that the plan encodes.

    Raises MediaRefused if one cannot be measured.
    """
    plan = make_plan(profile, info)
    if not isinstance(plan, EncodePlan):
        return  # it is not encoded
    for track in plan.encoded(StreamKind.AUDIO):
        source = info.stream(track.source_index)
        filters = f"{mix_filters(track, source, plan)},{METER}"
        opened = source_input(location, info, plan.mapped)
        words = [*opened, *_meter_options(source.index, filters)]
        loudness = measure_loudness(tools, location, words, profile, stop)
        if loudness is None:
            raise MediaRefused(
                f"{display_name(location)}: the loudness of its stream {source.index} cannot be measured.",
                remedy="Leave audio.loudness of the profile empty to keep its sound as loud as it is.",
            )
        yield (source.index, *loudness)


def loudness_problem(
    tools: FfmpegTools,
    request: VerifyRequest,
    sound: tuple[StreamPlan, int],
    stop: threading.Event,
) -> str:
    """Return how a rendition's loudness differs from the source's with the planned gain, or "".

    `sound` is the plan of the track, and its index in the rendition.
    """
    kept, index = sound
    source = request.info.stream(kept.source_index).audio
    before = source.loudness if source is not None else None
    location = str(request.output)
    words = [*input_options(location), *_meter_options(index, METER)]
    after = measure_loudness(tools, location, words, request.profile, stop)
    if before is None or after is None:
        return "has a loudness that cannot be measured"
    louder = after[0] - before - kept.gain_db
    if -MAX_QUIETER_LU <= louder <= MAX_LOUDER_LU or max(after[0], before) <= SILENT:
        return ""
    return f"has {after[0]:.1f} LUFS, not {before + kept.gain_db:.1f}"


def measure_loudness(
    tools: FfmpegTools, location: str, words: list[str], profile: Profile, stop: threading.Event
) -> Loudness | None:
    """Run the meter and return the values of its summary; None if it cannot measure the sound as a whole."""
    done = run_filters(tools, location, words, profile, stop)
    values = {}
    for line in done.stderr:
        if match := _LOUDNESS_LINE.match(line):
            if match[1] in values:
                return None  # its channels change, so ffmpeg measured it in pieces
            values[match[1]] = float(match[2])
    if done.returncode != 0 or values.keys() != {"I", "Peak"}:
        return None
    return values["I"], max(SILENT_PEAK, values["Peak"])


def _meter_options(index: int, filters: str) -> list[str]:
    return ["-map", f"0:{index}", "-filter:a", filters, "-f", "null", "-"]
