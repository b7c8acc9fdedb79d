"""Facts that are worked out of others: how large a picture is shown, which track was measured."""

import pytest

from hevcq.domain.media.facts import Measurement, StreamKind, TrackMeasure
from support.media_facts import video


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({}, (720, 576)),
        ({"sample_aspect": "64:45"}, (1024, 576)),
        ({"sample_aspect": "64:45", "rotation": 90}, (576, 1024)),
        ({"rotation": 180}, (720, 576)),
        ({"sample_aspect": "0:1"}, (720, 576)),
        ({"sample_aspect": "1:0"}, (720, 576)),
    ],
)
def test_a_picture_is_shown_upright_with_square_pixels(facts, shown):
    assert video(720, 576, **facts).video.display_size == shown


def test_a_track_is_found_by_its_stream_and_one_that_was_not_seen_is_not():
    first, third = (
        TrackMeasure(index=index, kind=StreamKind.VIDEO, packets=25) for index in (0, 2)
    )
    measured = Measurement(tracks=(first, third))

    assert measured.track(2) == third
    assert measured.track(1) is None
