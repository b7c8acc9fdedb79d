"""G8 sees what is wrong in a small place or for a short time; the noise of honest encodes is not."""

import io
import random
import subprocess
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import ffmpeg
from ffmpeg.verify.test_damage import SAME_TIMES
from hevcq.ffmpeg.command.thumbnails import (
    CELLS,
    CHROMA_CELLS,
    FRAMES,
    LUMA_CELLS,
    RAW_OUTPUT,
    RECORD_BYTES,
    WIDTH,
    output_graph,
)
from hevcq.ffmpeg.verify.cells import CellComparison
from hevcq.ffmpeg.verify.frames import FrameComparison
from support.once import folder_once

PIXELS = 1920 * 1080
LUMA, BLUE = 4 * CELLS, 4 * CELLS + LUMA_CELLS
EVEN = BLUE + 2 * CHROMA_CELLS


def thumbnail(seed: int) -> bytearray:
    """Make a thumbnail whose cells and lines are all different."""
    chance = random.Random(seed)
    return bytearray(chance.randint(60, 190) for _ in range(RECORD_BYTES))


def judged(
    made, *, frame: int = FRAMES + 1, judges_detail: bool = True, pixels: int = PIXELS
) -> str:
    """Compare 32 frames, one of which `made` changes; return the first problem."""
    comparison = CellComparison(pixels, judges_detail=judges_detail)
    found = ""
    for number in range(2 * FRAMES):
        source = thumbnail(number)
        changed = bytearray(source)
        if number == frame:
            made(changed)
        found = found or comparison.compare(bytes(source), bytes(changed))
    return found or comparison.close()


def off(*cells: int, by: int = 20):
    """Return a change of some bytes of a thumbnail."""

    def change(record: bytearray) -> None:
        for cell in cells:
            record[cell] += by

    return change


def test_a_cell_is_named_by_its_place_in_the_picture():
    middle = LUMA + 16 * WIDTH + 8
    assert judged(off(middle)) == (
        "a small area at 19% of the width and 26% of the height is off by 20 of 255"
    )
    assert judged(off(middle), frame=FRAMES + 8).startswith(
        "a small area at 7% of the width and 76% of the height"
    )


def test_a_cell_of_another_colour_is_reported():
    assert judged(off(BLUE + 3)).startswith("the colour of a small area at 15% of the width")


def test_a_line_of_cells_is_reported_where_no_cell_alone_is_far_off():
    row, column = range(BLUE - WIDTH, BLUE), range(LUMA + 2, BLUE, WIDTH)
    assert "a line of small areas" in judged(off(*row, by=6))
    assert "a line of small areas" in judged(off(*column, by=6))
    assert judged(off(*row, by=3)) == ""


def test_an_encode_that_is_meant_to_be_rough_may_be_further_off():
    assert judged(off(LUMA + 40, by=30), judges_detail=False) == ""
    assert judged(off(LUMA + 40, by=50), judges_detail=False) != ""


def test_the_cells_of_small_pictures_are_not_judged():
    assert judged(off(LUMA + 40, by=60), pixels=854 * 480) != ""
    assert judged(off(LUMA + 40, by=60), pixels=320 * 180) == ""


def test_swapped_lines_are_told_from_lines_that_lost_their_difference():
    def all_frames(change) -> str:
        comparison = CellComparison(PIXELS, judges_detail=True)
        for number in range(FRAMES):
            source = thumbnail(number)
            even, odd = source[EVEN : EVEN + CELLS], source[EVEN + CELLS :]
            made = source[:EVEN] + bytes(change(even, odd)) + bytes(change(odd, even))
            assert comparison.compare(bytes(source), bytes(made)) == ""
        return comparison.close()

    assert all_frames(lambda _own, other: other) == "even and odd lines are swapped"
    assert all_frames(lambda own, other: [(a + b) // 2 for a, b in zip(own, other)]) == ""  # noqa: B905


COUNT = 36
X264 = ("-c:v", "libx264", "-preset", "superfast", "-crf", "24")
MOVING = (
    "testsrc2=size=1920x1080:rate=24,hue=s=0.6,eq=contrast=0.8,rotate=a=0.1+n/400,"
    "noise=alls=3:allf=t,format=yuv420p"
)
SMALL = {
    "a block of 16 pixels": "drawbox=x=806:y=406:w=16:h=16:c=green:t=fill",
    "a block of 64 pixels": "drawbox=x=806:y=406:w=64:h=64:c=black:t=fill",
    "a row of blocks green for 3 frames": (
        "drawbox=x=0:y=528:w=iw:h=16:c=green:t=fill:enable=between(n\\,18\\,20)"
    ),
    "a row of blocks shifted": (
        "split[x][z];[z]crop=iw:16:0:528,scroll=hpos=16/1920[w];[x][w]overlay=0:528"
    ),
    "lines swapped in pairs": "il=luma_swap=1:chroma_swap=1",
    "two green lines at the bottom": "drawbox=x=0:y=1078:w=iw:h=2:c=green:t=fill",
    "a subtitle": (
        "drawtext=text='A subtitle':fontsize=48:fontcolor=white:borderw=2:x=(w-tw)/2:y=h-2*th"
    ),
    "a second blurred": "gblur=sigma=2:enable=between(n\\,6\\,29)",
}


@pytest.fixture
def film() -> Path:
    """Make two seconds of 1080 lines, and an encode of them."""

    def make(folder: Path) -> Path:
        ffmpeg("-f", "lavfi", "-i", MOVING, "-frames:v", COUNT, "-c:v", "libx264", "-preset",
               "ultrafast", "-crf", 6, folder / "source.mkv")  # fmt: skip
        ffmpeg("-i", folder / "source.mkv", *X264, *SAME_TIMES, folder / "made.mkv")
        return folder

    return folder_once("film", make)


def thumbnails(path: Path, spoil: str = "") -> bytes:
    graph = ",".join(filter(None, [spoil, output_graph()]))
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-filter:v", graph, *RAW_OUTPUT]
    done = subprocess.run([*command, "pipe:1"], check=True, timeout=120, stdout=subprocess.PIPE)
    return done.stdout


@pytest.fixture
def original(film) -> bytes:
    return folder_once("film's thumbnails", lambda _: thumbnails(film / "source.mkv"))


def verdict(original: bytes, made: bytes) -> str:
    comparison = FrameComparison(io.BytesIO(original).read, PIXELS)
    comparison.feed(made)
    return comparison.close()


@pytest.mark.parametrize("name", SMALL)
def test_small_and_short_damage_of_1080_lines_is_caught(film, original, name):
    assert verdict(original, thumbnails(film / "made.mkv", SMALL[name])) != ""


def test_the_honest_encode_of_1080_lines_passes(film, original):
    assert verdict(original, thumbnails(film / "made.mkv")) == ""
