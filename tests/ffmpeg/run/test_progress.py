"""Progress lines as ffmpeg 5.1 prints them, and the watch over them."""

import pytest

from hevcq.ffmpeg.run.runner import ProgressReader
from hevcq.ports.encoder import EncodeProgress

FIRST = (
    "frame=0|fps=0.00|stream_0_0_q=0.0|bitrate=N/A|total_size=N/A|out_time_us=N/A|out_time_ms=N/A|"
    "out_time=N/A|dup_frames=0|drop_frames=0|speed=N/A|progress=continue"
)
MIDDLE = (
    "frame=120|fps=59.31|stream_0_0_q=29.8|bitrate= 512.3kbits/s|total_size=262192|"
    "out_time_us=5000000|out_time_ms=5000000|out_time=00:00:05.000000|dup_frames=0|drop_frames=0|"
    "speed=2.47x|progress=continue"
)
END = MIDDLE.replace("=continue", "=end").replace("5000000", "9990000").replace("120", "240")


def read(reader: ProgressReader, block: str) -> EncodeProgress:
    states = [state for line in block.split("|") if (state := reader.feed(line)) is not None]
    assert len(states) == 1
    return states[0]


def test_before_the_first_packet_nothing_is_known_and_nothing_is_wrong():
    assert read(ProgressReader(10.0), FIRST) == EncodeProgress(0.0, 0.0, 0, None, 0)


def test_a_block_becomes_a_state():
    reader = ProgressReader(10.0)

    assert read(reader, MIDDLE) == EncodeProgress(0.5, 5.0, 120, 2.47, 262192)
    assert read(reader, END).fraction == 1.0


def test_values_never_step_back_and_never_pass_the_end():
    reader = ProgressReader(2.0)
    read(reader, MIDDLE)

    again = read(reader, FIRST)

    assert (again.fraction, again.frame, again.size) == (1.0, 120, 262192)


@pytest.mark.parametrize("duration", [None, 0.0, -1.0])
def test_without_a_duration_the_share_is_unknown_until_the_end(duration):
    reader = ProgressReader(duration)

    assert read(reader, MIDDLE).fraction == 0.0
    assert read(reader, END).fraction == 1.0
