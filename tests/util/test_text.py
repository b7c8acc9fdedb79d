"""Untrusted names as text that breaks no line, terminal or JSON document."""

import json
from pathlib import Path

import pytest

from hevcq.util.text import encodable, printable


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
