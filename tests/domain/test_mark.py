"""The mark of a rendition: found again in every container, and not in a stranger's file."""

from __future__ import annotations

import pytest

from hevcq.domain.media.provenance import found_mark, mark, tool_mark
from support.media_facts import audio, media, video


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
