"""What programs answer of odd sources, and sources whose bytes are odd, are read for what they are."""

from contextlib import nullcontext

import pytest

from ffmpeg.inspect.test_made_recordings import info
from hevcq.domain.media.facts import Measurement, StreamKind, TrackMeasure
from hevcq.errors import MediaRefused
from hevcq.ffmpeg.inspect import preflight
from support.media_facts import profile, video


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (tuple(1001 * n for n in range(40)), ""),
        (tuple(1001 * n + n % 2 * 200 for n in range(40)), ""),
        ((0, 500, 9000), "shown at uneven times"),
        ((), "shown at uneven times"),
    ],
    ids=["even", "rounded", "uneven", "unknown"],
)
def test_a_telecine_at_uneven_times_is_not_inverted(times, said) -> None:
    facts = {"field_order": "tt", "telecined": True, "average_rate": "30000/1001"}
    pulled = info(video(720, 480, time_base="1/30000", **facts))
    track = TrackMeasure(index=0, kind=StreamKind.VIDEO, packets=len(times), times=times)
    measured, asked = Measurement(tracks=(track,)), profile("hevc", video={"invert_telecine": True})

    with pytest.raises(MediaRefused, match=said) if said else nullcontext():
        preflight.require_even_film("a.mkv", pulled, measured, asked)
    preflight.require_even_film("a.mkv", pulled, measured, profile("hevc"))
