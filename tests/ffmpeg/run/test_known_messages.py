"""The list of harmless lines excuses exactly what it names."""

from __future__ import annotations

import re

import pytest

from hevcq.ffmpeg.run.known_messages import KNOWN_MESSAGES, Pass, message_text, unexpected_lines

NULL_DTS = (
    "[null @ 0x558d1a2059c0] Application provided invalid, non monotonically increasing dts "
    "to muxer in stream 0: 15 >= 15"
)
REPEATED = "    Last message repeated 3 times"


def test_a_known_line_is_excused_in_its_own_pass_only():
    assert unexpected_lines([NULL_DTS], Pass.DECODE) == ()
    assert unexpected_lines([NULL_DTS], Pass.ENCODE) == (NULL_DTS,)


def test_the_same_words_of_another_component_are_not_excused():
    line = NULL_DTS.replace("[null", "[mp4")
    assert unexpected_lines([line], Pass.DECODE) == (line,)


def test_a_level_in_front_changes_nothing():
    assert unexpected_lines([NULL_DTS.replace("] A", "] [error] A")], Pass.DECODE) == ()


def test_a_repetition_shares_the_fate_of_its_line():
    assert unexpected_lines([NULL_DTS, REPEATED], Pass.DECODE) == ()
    assert unexpected_lines(["bad", REPEATED], Pass.DECODE) == ("bad",)
    assert unexpected_lines([REPEATED], Pass.DECODE) == (REPEATED,)


@pytest.mark.parametrize(
    "line",
    [
        "[3 earlier lines dropped]",
        "[matroska,webm @ 0x563a80b3bd80] File ended prematurely",
        "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x5619d49f55c0] stream 0, offset 0x25e83d: partial file",
        "Error while decoding stream #0:1: Invalid data found when processing input",
        "x" + NULL_DTS,
        NULL_DTS + "\nmore",
    ],
)
def test_anything_else_is_suspicious(line):
    for ffmpeg_pass in Pass:
        assert unexpected_lines([line], ffmpeg_pass) == (line,)


def test_every_entry_compiles_and_gives_its_reason():
    for known in KNOWN_MESSAGES:
        re.compile(known.component)
        re.compile(known.text)
        assert known.passes
        assert known.reason.endswith(".")


@pytest.mark.parametrize(
    "line",
    [
        "x265 [error]: Failed to genrate CPU mask",
        "libnuma: Warning: Cannot read node cpumask from sysfs",
        "numa_sched_setaffinity_v2_int() failed: Invalid argument",
    ],
)
def test_a_container_without_sys_does_not_spoil_an_encode(line):
    assert unexpected_lines([line], Pass.ENCODE) == ()
    assert unexpected_lines([line], Pass.DECODE) == (line,)


def test_another_error_of_x265_is_suspicious():
    line = "x265 [error]: Failed to allocate memory"
    assert unexpected_lines([line], Pass.ENCODE) == (line,)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x5644f8959e00] stream 0, offset 0x25e83d: partial file",
            "stream 0, offset 0x25e83d: partial file",
        ),
        ("[h264 @ 0x55d] [error] error while decoding MB 3 7.", "error while decoding MB 3 7"),
        ("[in#0 @ 0x1] [h264 @ 0x55d] cut", "cut"),
        ("video track 0 lost 1 of 150 packets", "video track 0 lost 1 of 150 packets"),
        ("", ""),
    ],
)
def test_a_sentence_for_people_names_no_address(line, words):
    assert message_text(line) == words
