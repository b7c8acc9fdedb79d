"""Measure how loud sounds are (EBU R 128, ITU-R BS.1770), before and after a gain.

A pass of its own over one sound, so only a profile with `audio.loudness` pays for it. A sound is measured
as it is mixed for its rendition, because fewer channels sound louder or quieter than all of them.
"""

import re
import threading
from collections.abc import Iterator

from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan, StreamPlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.planning.streams import SILENT
from hevcq.domain.profile import Profile
from hevcq.errors import MediaRefused
from hevcq.ffmpeg.command.build import source_input
from hevcq.ffmpeg.command.levels import mixed_for
from hevcq.ffmpeg.inputs import FfmpegTools, display_name, input_options
from hevcq.ffmpeg.inspect.bars import reported
from hevcq.ports.encoder import VerifyRequest

METER = "ebur128=peak=true:framelog=verbose"
_FOUND = re.compile(r"^\s+(I|Peak):\s+(-?[\d.]+|-?inf) (LUFS|dBFS)$")
MAX_QUIETER_LU, MAX_LOUDER_LU = 1.0, 2.0
"""Loudness units by which a sound may be off its planned loudness. On 21 clips of cameras and films an
encode is at most 0.8 off; white noise, as of rain, becomes 1.7 louder in AAC of 64 kbit/s a channel."""
SILENT_PEAK = -120.0
"""dBTP of a sound without a sample that is not 0, of which ffmpeg says -inf."""

Loudness = tuple[float, float]
"""Integrated loudness in LUFS (-70 of silence) and true peak in dBTP."""


def source_loudness(
    tools: FfmpegTools, location: str, info: MediaInfo, profile: Profile, stop: threading.Event
) -> Iterator[tuple[int, float, float]]:
    """Yield the index of each sound that the plan encodes, with its loudness and peak.

    Raises MediaRefused if one cannot be measured.
    """
    plan = make_plan(profile, info)
    if not isinstance(plan, EncodePlan):
        return  # decided before, and not encoded
    for track in plan.encoded(StreamKind.AUDIO):
        source = next(s for s in info.streams if s.index == track.source_index)
        filters = f"{mixed_for(track, source, plan)},{METER}"
        opened = source_input(location, info, plan.mapped)
        found = loudness_of(
            tools, location, [*opened, *_sound(source.index, filters)], profile, stop
        )
        if found is None:
            raise MediaRefused(
                f"{display_name(location)}: the loudness of its stream {source.index} cannot be measured.",
                remedy="Leave audio.loudness of the profile empty to keep its sound as loud as it is.",
            )
        yield (source.index, *found)


def loudness_problem(
    tools: FfmpegTools,
    request: VerifyRequest,
    sound: tuple[StreamPlan, int],
    stop: threading.Event,
) -> str:
    """Return how the loudness of a rendition's sound differs from the source's with the planned gain, or "".

    `sound` is its plan and its index in the rendition.
    """
    kept, index = sound
    source = next(s.audio for s in request.info.streams if s.index == kept.source_index)
    before = source.loudness if source is not None else None
    location = str(request.output)
    words = [*input_options(location), *_sound(index, METER)]
    after = loudness_of(tools, location, words, request.profile, stop)
    if before is None or after is None:
        return "has a loudness that cannot be measured"
    louder = after[0] - before - kept.gain_db
    if -MAX_QUIETER_LU <= louder <= MAX_LOUDER_LU or max(after[0], before) <= SILENT:
        return ""
    return f"has {after[0]:.1f} LUFS, not {before + kept.gain_db:.1f}"


def loudness_of(
    tools: FfmpegTools, location: str, words: list[str], profile: Profile, stop: threading.Event
) -> Loudness | None:
    """Run the meter and read its summary, which ffmpeg prints last, behind whatever the file says of itself."""
    done = reported(tools, location, words, profile, stop)
    found = {}
    for line in done.stderr:
        if match := _FOUND.match(line):
            if match[1] in found:
                return None  # where its channels change, the sound is measured in pieces
            found[match[1]] = float(match[2])
    if done.returncode != 0 or found.keys() != {"I", "Peak"}:
        return None
    return found["I"], max(SILENT_PEAK, found["Peak"])


def _sound(index: int, filters: str) -> list[str]:
    return ["-map", f"0:{index}", "-filter:a", filters, "-f", "null", "-"]
