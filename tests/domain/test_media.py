"""Facts that are worked out of others: how large a picture is shown, which track was measured."""

import pytest

from hevcq.domain.media.facts import Measurement, StreamKind, TrackMeasure
from hevcq.domain.planning.metadata import found_mark, mark, tool_mark
from support.media_facts import audio, media, video


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


@pytest.mark.parametrize(
    "tags",
    [
        {"hevcq": mark("hevc", "r1")},
        {"title": "Holidays", "HEVCQ": mark("hevc", "r1")},
        {"encoder": tool_mark("hevc", "r1")},
        {"encoding_tool": tool_mark("hevc", "r1")},
    ],
)
def test_a_rendition_of_ours_is_known_by_its_file_or_by_a_stream(tags):
    assert found_mark(media(video(), audio(), tags=tags)) == "hevc/r1"
    assert found_mark(media(video(), audio(tags=tags))) == "hevc/r1"


@pytest.mark.parametrize(
    "tags",
    [{}, {"encoder": "Lavf59.27.100"}, {"encoder": "hevcq"}, {"comment": tool_mark("hevc", "r1")}],
)
def test_a_file_of_somebody_elses_carries_no_mark(tags):
    assert found_mark(media(video(tags=tags), audio(), tags=tags)) is None
