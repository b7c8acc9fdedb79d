"""What calls itself interlaced is looked at: by its pictures it is judged, not by its mark."""

from __future__ import annotations

import threading

import pytest

from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.probe.fields import FieldsSeen, fields_seen
from hevcq.util.clock import SystemClock

LINE = "[Parsed_idet_1 @ 0x55] Multi frame detection: TFF:{:>6} BFF:{:>6} Progressive:{:>6} Undetermined:{:>6}"


def facts_of(name: str, folder):
    # Planted bugs are tried in a tree without the benchmarks.
    from benchmarks.fidelity import ordinary
    from benchmarks.fidelity.served import named

    path = ordinary.make(named(name), folder)
    info = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock()).probe(
        str(path), stop=threading.Event()
    )
    return info.streams[0].video


@pytest.mark.parametrize(
    ("name", "progressive", "seen"),
    [("dvd-flagged.vob", True, ""), ("dvd-rip.mkv", False, "tt"), ("tape-dv.avi", False, "bb")],
)
def test_the_pictures_decide_and_not_the_mark(tmp_path, name, progressive, seen) -> None:
    facts = facts_of(name, tmp_path)

    assert facts.marked_interlaced
    assert (facts.progressive_pictures, facts.interlaced) == (progressive, not progressive)
    assert facts.seen_order == seen


def test_what_is_not_marked_is_not_looked_at(tmp_path) -> None:
    facts = facts_of("mp3.mp4", tmp_path)

    assert (facts.marked_interlaced, facts.progressive_pictures, facts.seen_order) == (
        False,
        False,
        "",
    )


def test_the_results_of_all_places_are_added_up() -> None:
    lines = (LINE.format(1, 2, 30, 4), "[null @ 0x1] something else", LINE.format(10, 0, 3, 0))

    assert fields_seen(lines) == FieldsSeen(11, 2, 33)


@pytest.mark.parametrize(
    ("seen", "progressive", "order"),
    [
        (FieldsSeen(), False, ""),  # a still picture: nothing decided
        (FieldsSeen(progressive=11), False, ""),
        (FieldsSeen(progressive=12), True, ""),
        (FieldsSeen(top_first=4, progressive=96), True, ""),
        (FieldsSeen(top_first=5, progressive=95), False, ""),
        (FieldsSeen(top_first=40, bottom_first=10, progressive=50), False, "tt"),
        (FieldsSeen(top_first=40, bottom_first=11), False, ""),
        (FieldsSeen(top_first=3, bottom_first=12), False, "bb"),
    ],
)
def test_doubt_is_left_with_the_mark(seen: FieldsSeen, progressive: bool, order: str) -> None:
    assert (seen.is_progressive, seen.order) == (progressive, order)
