"""The short form of `make fidelity`: a few ordinary files end as its table says."""

from __future__ import annotations

import pytest
from benchmarks.fidelity import metadata, ordinary
from benchmarks.fidelity.served import is_served, named
from benchmarks.fidelity.trial import Trial, recipe, run_trial

CHEAP = (
    "mp3.mp4",
    "camera-mjpeg.mov",
    "flash-h264.flv",
    "empty-second-video.mov",
    "dvd-flagged.vob",
    "dvd-rip.mkv",
    "recording-teletext.ts",
)
"""Clips with the profile hevc: one of each way that only a whole encode shows."""


DEAR = (
    "captions.mp4",
    "divx-packed.mp4",
    "subtitles-webvtt.webm",
    "phone-amr.3gp",
    "flash.flv",
    "camera-pcm.mov",
    "mp2.mp4",
    "phone-cut.mov",
    "recording-data.ts",
    "recording-late-sound.ts",
    "recording-sound-comes-later.ts",
)
"""Oddities that were refused once."""


@pytest.mark.media
@pytest.mark.parametrize("name", [*CHEAP, *(pytest.param(n, marks=pytest.mark.slow) for n in DEAR)])
def test_an_ordinary_file_is_served(name: str, tmp_path) -> None:
    clip = named(name)
    source = ordinary.make(clip, tmp_path)
    assert source is not None

    trial = run_trial(source, recipe("hevc"), tmp_path)

    assert (trial.outcome, trial.detail) == (clip.outcomes[0], trial.detail)


@pytest.mark.parametrize(
    ("outcome", "expected", "served"),
    [
        ("encoded", "encoded", True),
        ("skip:already_target", "skip:already_target", True),
        ("skip:smaller_than_box", "encoded", False),
        ("refused:policies.interlaced", "encoded", False),
        ("failed:G5", "encoded", False),
    ],
)
def test_only_a_rendition_or_an_expected_skip_counts_as_served(outcome, expected, served) -> None:
    assert is_served(Trial(outcome), expected) is served


@pytest.mark.slow
@pytest.mark.media
def test_no_kind_of_metadata_is_lost_without_a_word(tmp_path) -> None:
    assert metadata.figure(tmp_path).value == "33 carried, 19 named, 0 lost"


def test_metadata_of_a_file_that_is_not_served_counts_as_lost() -> None:
    found = metadata.fates(Trial("failed:G3"), metadata.BOXES)

    assert all(fate.startswith(metadata.LOST) for fate in found.values())


def test_each_ordinary_file_has_its_own_name() -> None:
    names = [clip.name for clip in (*ordinary.ORDINARY, *ordinary.SHARED)]

    assert len(names) == len(set(names))
