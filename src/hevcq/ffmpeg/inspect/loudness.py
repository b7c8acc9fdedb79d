"""Measure how loud sounds are (EBU R 128, ITU-R BS.1770), before and after a gain.

A pass of its own over one sound, so only a profile with `audio.loudness` pays for it. A sound is measured
as it is mixed for its rendition, because fewer channels sound louder or quieter than all of them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence

from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.errors import MediaRefused
from hevcq.ffmpeg.command.build import source_input
from hevcq.ffmpeg.command.levels import mixed_for
from hevcq.ffmpeg.inputs import FfmpegTools, display_name, reading
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import limits_of

METER = "ebur128=peak=true:framelog=verbose"
_FOUND = re.compile(r"^\s+(I|Peak):\s+(-?[\d.]+|-?inf) (LUFS|dBFS)$")
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


def made_loudness(
    tools: FfmpegTools,
    opened: tuple[str, Sequence[str]],
    index: int,
    profile: Profile,
    stop: threading.Event,
) -> Loudness | None:
    """Return how loud a sound of a rendition is, None if that cannot be measured.

    `opened` is the rendition's place, and the options that open it.
    """
    location, options = opened
    return loudness_of(tools, location, [*options, *_sound(index, METER)], profile, stop)


def loudness_of(
    tools: FfmpegTools, location: str, words: list[str], profile: Profile, stop: threading.Event
) -> Loudness | None:
    """Run the meter and read its summary, which ffmpeg prints last, behind whatever the file says of itself."""
    argv = [tools.ffmpeg, "-hide_banner", "-nostdin", "-nostats", "-v", "info", *words]
    limits = reading(limits_of(profile.bounds), tools, location)
    done = run_child(argv, stop=stop, limits=limits, deadline_s=profile.queue.max_job_s)
    found = {}
    for line in done.stderr:
        if match := _FOUND.match(line):
            found[match[1]] = float(match[2])
    if done.returncode != 0 or found.keys() != {"I", "Peak"}:
        return None
    return found["I"], max(SILENT_PEAK, found["Peak"])


def _sound(index: int, filters: str) -> list[str]:
    return ["-map", f"0:{index}", "-filter:a", filters, "-f", "null", "-"]
