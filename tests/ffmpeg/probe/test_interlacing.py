"""What calls itself interlaced is looked at: by its pictures it is judged, not by its mark."""

import threading

import pytest
from benchmarks.fidelity import ordinary
from benchmarks.fidelity.served import named

from ffmpeg.verify.conftest import ffmpeg
from hevcq.domain.planning.planner import make_plan
from hevcq.ffmpeg.probe.interlacing import FieldsSeen
from support.clips import media_clip
from support.media_facts import profile, video
from support.rendition import ENCODER

REAL = ("sony-1080i50-avchd.mts", "made-h264-1080i25-tff.mp4")


@pytest.mark.parametrize(
    ("name", "progressive", "seen"),
    [("dvd-flagged.vob", True, ""), ("dvd-rip.mkv", False, "tt"), ("tape-dv.avi", False, "bb")]
    + [(name, False, "tt") for name in REAL],
)
def test_the_pictures_decide_and_not_the_mark(tmp_path, name, progressive, seen):
    path = media_clip(name) if name in REAL else ordinary.make(named(name), tmp_path)
    facts = ENCODER.probe(str(path), stop=threading.Event()).streams[0].video

    assert facts.marked_interlaced
    assert (facts.progressive_pictures, facts.interlaced) == (progressive, not progressive)
    assert facts.seen_order == seen


WOVEN = (
    "testsrc2=s={size}:r=50:d=2,gblur=sigma=2,tinterlace=mode=interleave_{first},setfield={mark}"
)
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "4", "-pix_fmt", "yuv420p")


def made(path, graph: str, *options: str):
    ffmpeg("-f", "lavfi", "-i", graph, *options, path)
    info = ENCODER.probe(str(path), stop=threading.Event())
    plan = make_plan(profile("hevc"), info)
    return info.streams[0].video, plan


@pytest.mark.parametrize(("first", "mark", "tff"), [("top", "bff", True), ("bottom", "tff", False)])
def test_fields_in_another_order_than_marked_are_deinterlaced_as_they_are_seen(
    tmp_path, first, mark, tff
):
    graph = WOVEN.format(size="192x108", first=first, mark=mark)
    order = ("-flags", "+ildct+ilme", "-field_order", f"{mark[0]}{mark[0]}")
    facts, plan = made(tmp_path / "wrong.mkv", graph, *MPEG2, *order)

    assert facts.field_order[-1] == mark[0]
    assert (plan.video.deinterlace, plan.video.top_field_first) == (True, tff)
    assert "its fields are marked in the wrong order; the right one is used" in plan.notices[-1]


def test_interlaced_pictures_of_television_are_seen_without_a_mark(tmp_path):
    graph = WOVEN.format(size="96x576", first="top", mark="prog")
    facts, plan = made(tmp_path / "rip.avi", graph, "-c:v", "mpeg4", "-q:v", "3")

    assert not facts.marked_interlaced
    assert (facts.interlaced, facts.seen_order, facts.has_wrong_field_order) == (True, "tt", False)
    assert (plan.video.deinterlace, plan.video.top_field_first) == (True, True)
    assert "not marked as interlaced, but its pictures are" in plan.notices[-1]


def test_hard_edges_that_are_marked_as_fields_are_no_fields(tmp_path):
    """Small pictures of hard edges show fields of both orders; interlaced video has one."""
    graph = "testsrc2=s=320x180:r=25:d=3,setfield=tff"
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-x264opts", "tff=1")
    facts, plan = made(tmp_path / "drawn.mkv", graph, *x264)

    assert (facts.marked_interlaced, facts.interlaced) == (True, False)
    assert plan.video.deinterlace is False


@pytest.mark.parametrize(
    ("changes", "looked"),
    [
        ({}, True),
        ({"height": 1080}, False),
        ({"height": 1080, "field_order": "tt"}, True),
        ({"average_rate": "24/1"}, False),
        ({"average_rate": "30000/1001"}, True),
        ({"average_rate": "0/0"}, False),
        ({"codec": "hevc"}, False),
    ],
)
def test_only_what_television_records_is_looked_at_without_a_mark(changes, looked):
    stream = video(**{"width": 720, "height": 576, "average_rate": "25/1", **changes})

    assert stream.may_be_interlaced is looked


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
def test_doubt_is_left_with_the_mark(seen, progressive, order):
    assert (seen.is_progressive, seen.order) == (progressive, order)
