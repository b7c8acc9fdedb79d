"""The commands of a chunk and of a join as whole lists, and the list of parts."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from domain.chunking.indexes import every, index
from hevcq.domain.chunking import ChunkPlan, chunks_at
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.chunking import chunk_command, picture_delay_s
from hevcq.ffmpeg.command.build import (
    JoinedVideo,
    encode_command,
    microseconds,
    source_input,
)
from hevcq.ports.encoder import EncodeRequest
from support.media_facts import MP4, audio, media, profile, video
from support.rendition import TOOLS, request_for

START = [
    "ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-loglevel", "repeat+level+error",
    "-xerror", "-y", "-progress", "pipe:1", "-stats_period", "0.5",
]  # fmt: skip


SOURCE = ["-protocol_whitelist", "file", "-i", "file:/in/video.mp4"]


def split(asked: EncodeRequest, *places: int, **facts: object) -> ChunkPlan:
    held = index(every(10, 60), 60, **facts)
    return chunks_at(asked.profile, asked.plan, held, (0, *places))


def plain() -> Profile:
    return profile(video={"encoder_params": {}})


def test_a_chunk_in_the_middle_is_entered_by_a_seek_and_cut_by_its_ticks():
    asked = request_for(plain(), media(video(), audio()))
    plan = split(asked, 1, 3)

    assert chunk_command(TOOLS, asked, plan, plan.chunks[1]) == [
        *START, "-copyts", "-seek_timestamp", "1", "-noaccurate_seek", "-ss", "10.000000",
        "-itsoffset", "-10.000000", "-format_whitelist", MP4, *SOURCE,
        "-map", "0:0", "-map_metadata", "-1", "-map_chapters", "-1",
        "-c:0", "libx265", "-preset:0", "medium", "-crf:0", "24", "-pix_fmt:0", "yuv420p",
        "-fps_mode:0", "passthrough", "-enc_time_base:0", "1/1000",
        "-x265-params:0", "log-level=error",
        "-filter:0", "settb=1/1000,trim=start_pts=0:end_pts=20000",
        "-tag:0", "hvc1", "-f", "mp4", "file:/out/video.part",
    ]  # fmt: skip


def test_a_join_maps_captions_from_behind_the_source_and_the_list_of_parts():
    recipe = profile(policies={"closed_captions": "convert"})
    asked = request_for(recipe, media(video(closed_captions=True), audio()))
    parts = JoinedVideo(Path("/o/list"), Fraction(0))

    made = encode_command(TOOLS, asked, captions=[Path("/o/cc1.vtt")], video=parts)

    words = [(flag, word) for flag, word in pairwise(made) if flag in {"-i", "-map"}]
    assert [word for flag, word in words if flag == "-i"][1:] == ["file:/o/list", "file:/o/cc1.vtt"]
    assert words[-1] == ("-map", "2:0")


@pytest.mark.parametrize(
    ("start_s", "form", "expected", "steady"),
    [
        (None, MP4, "0.000000", None),
        (0.0, MP4, "0.000000", None),
        (-1.4, MP4, "1.400000", None),
        (0.0, "mpegts", "0.000000", "0.000001"),
        # Teletext, which is not mapped, begins first; ffmpeg alone would begin with the sound.
        (-1.4, "mpegts", "0.000000", "-1.400000"),
    ],
)
def test_the_picture_comes_as_much_later_as_in_the_source(start_s, form, expected, steady):
    tracks = video(start_s=0.0), audio(start_s=0.6)
    asked = request_for(plain(), media(*tracks, start_s=start_s, form=form))

    assert microseconds(picture_delay_s(split(asked, 2), asked)) == expected
    options = source_input("a", asked.info, asked.plan.mapped)
    assert dict(pairwise(options)).get("-itsoffset") == steady
    assert "-itsoffset" not in source_input("a", asked.info)
