"""A pass over the packets that fails is never taken for a video that is well."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hevcq.errors import SourceGone, SourceUnreadable
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.inspect.packets import read_packets
from hevcq.ffmpeg.process.output import LineSplitter
from hevcq.util.clock import SystemClock

LINE = "packet,0,0,1,100,K__"


def passed_over(folder: Path, script: str) -> tuple[list[str], tuple[str, ...]]:
    """Read a video's packets with a program in ffprobe's place; return its lines and complaints."""
    program, video = folder / "ffprobe", folder / "video.mkv"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    video.touch()
    packets_seen: list[str] = []
    tools = FfmpegTools("ffmpeg", str(program), SystemClock())
    stop = threading.Event()
    errors = read_packets(
        tools,
        str(video),
        [],
        LineSplitter(packets_seen.append),
        stop,
        packets_seen=lambda: packets_seen,
    )
    return packets_seen, errors


@pytest.mark.parametrize(
    ("script", "complaints"),
    [
        (f"echo {LINE}", ()),
        (f"echo {LINE}; exit 3", ("ffprobe ended with exit code 3",)),
        (f"echo {LINE}; echo odd >&2; exit 3", ("odd",)),
        (f"echo {LINE}; echo odd >&2", ("odd",)),
        (f"printf %s {LINE}; exit 4", ("ffprobe ended with exit code 4",)),
    ],
)
def test_an_end_that_is_not_well_is_a_complaint_whatever_came_before(tmp_path, script, complaints):
    assert passed_over(tmp_path, script) == ([LINE], complaints)


@pytest.mark.parametrize(
    ("script", "error"),
    [("echo", SourceUnreadable), ("echo Invalid data found", SourceUnreadable),
     # A tag may say so too: only the video that is not there is gone.
     ("echo No such file or directory", SourceUnreadable),
     ("rm HERE/video.mkv; echo No such file or directory", SourceGone)],
)  # fmt: skip
def test_a_pass_that_fails_before_the_first_packet_refuses_the_video(tmp_path, script, error):
    with pytest.raises(error):
        passed_over(tmp_path, f"{script.replace('HERE', str(tmp_path))} >&2; exit 1")
