"""What comes only later in a video is seen before it is planned: a shape, fields, captions."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import ENCODER, ffmpeg
from hevcq.domain.planning.encode_plan import EncodePlan, Plan
from hevcq.domain.planning.planner import make_plan
from hevcq.ffmpeg.probe.parse import media_info
from support.clips import make_clip
from support.media_facts import profile

FIELDS = ["-vf", "interlace", "-flags", "+ildct+ilme"]


def recording(folder: Path, first: dict[str, object], then: dict[str, object]) -> Path:
    """Make a transport stream of two programmes, the second far longer."""
    one = make_clip(folder, name="one.ts", seconds=1, audio=False, **first)
    two = make_clip(folder, name="two.ts", seconds=8, audio=False, **then)
    listing, target = folder / "both.ffconcat", folder / "recording.ts"
    listing.write_text(f"ffconcat version 1.0\nfile '{one}'\nfile '{two}'\n")
    ffmpeg("-f", "concat", "-safe", "0", "-i", listing, "-c", "copy", target)
    return target


def plan_of(path: Path) -> Plan:
    return make_plan(profile("hevc"), ENCODER.probe(str(path), stop=threading.Event()))


@pytest.mark.parametrize(
    ("first", "then", "policy"),
    [
        ({"extra": ["-aspect", "4:3"]}, {"extra": ["-aspect", "16:9"]}, "video"),
        ({"size": "160x120"}, {"size": "320x240"}, "video"),
        ({}, {"extra": FIELDS, "rate": 50}, "policies.interlaced"),
    ],
    ids=["another shape", "another size", "fields"],
)
def test_what_comes_after_another_programme_is_seen(first, then, policy, tmp_path) -> None:
    plan = plan_of(recording(tmp_path, first, then))

    assert not isinstance(plan, EncodePlan)
    assert getattr(plan, "policy", plan) == policy


def test_one_programme_after_another_of_its_kind_is_encoded(tmp_path) -> None:
    assert isinstance(plan_of(recording(tmp_path, {"crf": 12}, {})), EncodePlan)


def test_captions_and_dynamic_hdr_that_begin_later_are_seen() -> None:
    streams = [{"index": 0, "codec_type": "video", "width": 320, "height": 240}]
    names = "ATSC A53 Part 4 Closed Captions", "HDR Dynamic Metadata SMPTE2094-40 (HDR10+)"
    side = [{"side_data_type": name} for name in names]
    later = [{"stream_index": 0, "side_data_list": side}]

    video = media_info({"streams": streams, "midstream_frames": later}).streams[0].video

    assert video is not None
    assert (video.closed_captions, video.hdr10_plus, video.becomes) == (True, True, "")
