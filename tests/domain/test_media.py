"""Facts that are worked out of others: how large a picture is shown, which track was measured."""

import pytest

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
