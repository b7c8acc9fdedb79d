"""Packets and frame times that differ from a plan of chunks, told without an encode."""

from fractions import Fraction
from types import SimpleNamespace

import pytest

from domain.chunking.indexes import chunky, clip, every, index, planned
from hevcq.domain.chunking import ChunkPlan, chunks_at
from hevcq.errors import PartUnfit
from hevcq.ffmpeg import chunking as encode
from hevcq.ffmpeg.run.messages import Pass
from support.ffprobe_lines import packet

STREAM = "stream|codec_name=h264|width=64|height=48|pix_fmt=yuv420p|time_base=1/1000|extradata_hash=SHA256:abc|"
SHOWN = ("pts", "flags")
TIMES = list(range(0, 8000, 40))
FIRST = TIMES[:100]


@pytest.fixture(scope="module")
def plan() -> ChunkPlan:
    """Return a plan of two chunks of four seconds, 100 frames each."""
    recipe, facts = chunky(), clip()
    return chunks_at(recipe, planned(recipe, facts), index(every(4, 8), 8), (0, 1))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([packet(f"{at},K_", SHOWN) for at in FIRST], ""),
        ([packet(f"{at},K_", SHOWN) for at in FIRST[:99]], "has 99 frames, expected 100"),
        ([packet("N/A,KD", SHOWN)] * 100, "has 100 frames without a display time"),
        ([packet(f"{at + 1},K_", SHOWN) for at in FIRST], "spans 1 to 3961, expected 0 to 3960"),
        ([packet(f"{at + (at == 40)},K_", SHOWN) for at in FIRST], "has frame times that differ from the source's"),
    ],
)  # fmt: skip
def test_an_encoded_chunk_is_held_against_its_plan(plan, lines, problem):
    found = encode.EncodedChunk()
    for line in ["", "stream|codec_name=h264", *lines, STREAM]:
        found.line(line)

    assert found.headers == "h264|64|48|yuv420p|SHA256:abc"
    assert encode.chunk_problem(found, plan, plan.chunks[0]) == problem
    if not problem:
        found.tick = Fraction(1, 1500)
        odd = encode.chunk_problem(found, plan, plan.chunks[0])
        assert odd == "has frame times that are not multiples of the source's time base"


def test_a_chunk_of_which_ffmpeg_complains_is_unfit(plan, monkeypatch):
    report = SimpleNamespace(stderr=("[libx265 @ 0x1] [error] something is wrong",))
    monkeypatch.setattr(encode, "run_with_progress", lambda *_: report)
    job = SimpleNamespace(ffmpeg_pass=Pass.ENCODE, request=SimpleNamespace(location="a.mp4"))

    with pytest.raises(PartUnfit, match=r"while encoding chunk 1 of 2 of a\.mp4: .*wrong"):
        encode.encode_chunk(job, [], plan, plan.chunks[0], lambda _: None)
