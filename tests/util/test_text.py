"""Untrusted names as text that breaks no line, terminal or JSON document."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from hevcq.util.text import (
    ago,
    duration,
    duration_range,
    encodable,
    printable,
    timecode,
    webvtt_time,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain ü 日本.mp4", "plain ü 日本.mp4"),
        ("a\n\x1b[2Jb\udcff.mp4", "a\\n\\x1b[2Jb\\xff.mp4"),
        ("\ud800", "\\ud800"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        (Path("/videos/\udcfe"), "/videos/\\xfe"),
        (None, "None"),
    ],
)
def test_printable_text_is_one_line_without_control_characters(value, shown):
    assert printable(value) == shown
    assert printable(value).isprintable()


@pytest.mark.parametrize("text", ["a\nb", "ü", "\udcff", "\ud800\udcff"])
def test_encodable_text_goes_into_json_and_keeps_its_lines(text):
    json.dumps(encodable(text), ensure_ascii=False).encode()

    assert encodable(text).count("\n") == text.count("\n")


def test_durations_and_times_are_short_texts():
    seconds = (None, -3, 59.4, 60, 7200, 12_000, 190_000)
    words = ["", "0 s", "59 s", "1 min", "2 h", "3 h 20 min", "2 days"]
    assert list(map(duration, seconds)) == words
    ranges = [(120, 1500), (120, 3780), (10_860, 14_460), (30, 90), (0, 3)]
    said = [
        "2 to 25 min",
        "2 min to 1 h 3 min",
        "3 h 1 min to 4 h 1 min",
        "30 s to 2 min",
        "up to 3 s",
    ]
    assert [duration_range(*each) for each in ranges] == said
    assert [ago(None, 400.0), ago(100.0, 400.0), ago(500, 400)] == ["", "5 minutes ago", "just now"]
    assert [timecode(754.5), timecode(-0.01, 0)] == ["0:12:34.5", "0:00:00"]
    assert [webvtt_time(Fraction(36_001, 10)), webvtt_time(-1)] == ["01:00:00.100", "00:00:00.000"]
