"""From ffprobe's lines to an index of key frames."""

import pytest

from hevcq.domain.chunking import KeyIndex, times_sum
from hevcq.domain.media.facts import MediaInfo
from hevcq.ffmpeg.chunking import REORDERED_S, build_key_index
from hevcq.ffmpeg.inspect.measure import PacketReader, Packets
from support.ffprobe_lines import counted
from support.media_facts import MKV, MP4, media, video


def read(
    *lines: str, form: str = MP4, tick: str = "1/25", problems: tuple[str, ...] = ()
) -> KeyIndex:
    reader = PacketReader()
    for line in lines:
        kind, _, values = line.partition(",")
        is_packet = kind == "packet"
        reader.line(counted(f"0,{values}") if is_packet else f"has_b_frames={values}")
    info: MediaInfo = media(video(time_base=tick), form=form)
    return build_key_index(info.streams[0], info, reader.tracks.get(0, Packets()), problems)


CLOSED = (
    "packet,0,-2,1,900,K_", "packet,3,-1,1,100,__", "packet,1,0,1,50,__", "packet,2,1,1,50,__",
    "packet,4,2,1,800,K_", "packet,6,3,1,100,__", "packet,5,4,1,50,__", "stream,2",
)  # fmt: skip


def test_frames_belong_to_the_key_frame_they_are_shown_after():
    found = read(*CLOSED)

    assert [(k.pts, k.frames_until_next, k.bytes_until_next) for k in found.keys] == [
        (0, 4, 1100),
        (4, 3, 950),
    ]
    assert [k.last_pts for k in found.keys] == [3, 6]
    assert [k.times for k in found.keys] == [times_sum([0, 1, 2, 3]), times_sum([4, 5, 6])]
    assert (found.frames, found.end_pts, found.time_base) == (7, 7, "1/25")
    assert found.problem == ""


@pytest.mark.parametrize(
    ("packets", "groups"),
    [
        ("0,-1,1,9,K_ 1,0,1,1,__ 4,1,1,9,K_ 2,2,1,1,__ 3,3,1,1,__ 5,4,1,1,__", [(0, 4), (4, 2)]),
        ("-2,-3,1,9,KD -1,-2,1,1,_D 0,-1,1,1,__ 1,0,1,1,__ 2,1,1,9,K_", [(0, 2), (2, 1)]),
    ],
    ids=["open group", "hidden by an edit list"],
)
def test_frames_belong_to_the_group_in_which_they_are_shown(packets, groups):
    found = read(*(f"packet,{each}" for each in packets.split()))

    assert [(k.pts, k.frames_until_next) for k in found.keys] == groups
    assert found.frames == sum(frames for _, frames in groups)
    assert found.problem == ""


@pytest.mark.parametrize(
    ("packets", "problem"),
    [
        ("0,0,1,9,K_ 1,0,1,9,__", "broken_times"),
        ("0,0,1,9,K_ 0,1,1,9,__", "broken_times"),
        ("0,5,1,9,K_ 1,4,1,9,__", "broken_times"),
        ("0,5,1,9,K_ 1,4,1,9,__ 2,6,1,9,__", "broken_times"),
        ("0,0,1,9,K_ N/A,1,1,9,__", "missing_times"),
        ("0,0,1,9,__ 1,1,1,9,K_", "no_first_key"),
        ("3,0,1,9,K_ 1,1,1,9,__", "no_first_key"),
        ("", ""),
    ],
)
def test_what_is_broken_is_reported(packets, problem):
    assert read(*(f"packet,{each}" for each in packets.split())).problem == problem
    assert read(*CLOSED, problems=("moov atom not found",)).problem == "broken_times"


@pytest.mark.parametrize(
    ("form", "delay", "late"),
    [(MP4, 2, (0, 0, 0)), (MKV, 0, (0, 0, 0)), (MKV, 2, (REORDERED_S, 0.04, REORDERED_S))],
)
def test_a_seek_lands_late_enough_but_never_past_the_next_key_frame(form, delay, late):
    packets = [f"packet,{at},{at},1,9,K_" for at in (0, 250, 252)]

    keys = read(*packets, f"stream,{delay}", form=form).keys

    assert [key.seek_s - key.pts / 25 for key in keys] == pytest.approx(late)
