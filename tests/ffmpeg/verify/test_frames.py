"""G8 compares every frame: wrong pictures are caught wherever they are, honest noise is not."""

import io
import random
import subprocess
from dataclasses import replace

import pytest

from ffmpeg.verify.conftest import Pair, ffmpeg, pair_once
from ffmpeg.verify.test_damage import COPY, SAME_TIMES, X265, caught
from hevcq.domain.certificate import Gate, Outcome
from hevcq.domain.formats import VideoCodec, keeps_detail
from hevcq.ffmpeg.command.thumbnails import CELLS, RAW_OUTPUT, RECORD_BYTES, output_graph
from hevcq.ffmpeg.verify.frames import FrameComparison, PictureFacts

PIXELS = 1280 * 720
SAME = bytes(RECORD_BYTES - 4 * CELLS)
"""The rest of a thumbnail, which `test_cells` is about: alike in source and rendition."""


def pictures(count: int, *, seed: int = 1, speed: float = 3.0) -> list[bytes]:
    """Make thumbnails of a picture that moves by `speed` steps a frame, with colours and detail."""
    chance = random.Random(seed)
    still = [chance.randint(40, 200) for _ in range(3 * CELLS)]
    way = [chance.uniform(-1, 1) for _ in range(3 * CELLS)]
    detail = bytes(chance.randint(20, 90) for _ in range(CELLS))

    def moved(value: float) -> int:
        return max(0, min(255, round(value)))

    return [
        bytes(moved(a + speed * frame * b) for a, b in zip(still, way, strict=True)) + detail
        for frame in range(count)
    ]


def coded(frames: list[bytes], *, noise: float = 0.6, seed: int = 2) -> list[bytes]:
    """Return the thumbnails after an honest encode: a little noise, some detail gone."""
    chance = random.Random(seed)

    def cell(place: int, value: int) -> int:
        if place >= 3 * CELLS:
            return value * 6 // 10
        return max(0, min(255, round(value + chance.gauss(0, noise))))

    return [bytes(cell(place, value) for place, value in enumerate(one)) for one in frames]


def compared(
    source: list[bytes],
    made: list[bytes],
    *,
    crf: float = 24,
    pixels: int = PIXELS,
    holds_last: bool = False,
) -> tuple[str, PictureFacts]:
    comparison = FrameComparison(
        io.BytesIO(b"".join(frame + SAME for frame in source)).read,
        pixels,
        judges_detail=keeps_detail(VideoCodec.HEVC, crf),
        holds_last=holds_last,
    )
    data = b"".join(frame + SAME if len(frame) == 4 * CELLS else frame for frame in made)
    for begin in range(0, len(data), 1000):
        comparison.feed(data[begin : begin + 1000])
    return comparison.close(), comparison.facts()


def changed(frame: bytes, planes: slice, change) -> bytes:
    """Change the cells of a slice by `change(place, value)`."""
    cells = list(frame)
    for place in range(*planes.indices(len(cells))):
        cells[place] = max(0, min(255, round(change(place, cells[place]))))
    return bytes(cells)


LUMA, BLUE, RED = slice(0, CELLS), slice(CELLS, 2 * CELLS), slice(2 * CELLS, 3 * CELLS)
SOURCE = pictures(30)


def test_an_honest_encode_is_told_apart_from_nothing_and_has_its_digest():
    problem, facts = compared(SOURCE, coded(SOURCE))
    _, again = compared(SOURCE, coded(SOURCE))
    _, other = compared(SOURCE, coded(SOURCE, seed=3))

    assert problem == ""
    assert facts.frames == 30
    assert 0 < facts.mean < 1
    assert facts.digest == again.digest != other.digest


def test_a_wrong_part_of_a_frame_is_reported():
    made = coded(SOURCE)
    made[3] = changed(made[3], slice(40, 43), lambda _, value: value + 50)
    assert compared(SOURCE, made)[0].startswith("frame 3 differs in one area by 5")


@pytest.mark.parametrize(
    ("speed", "shown", "problem"),
    [
        (4.0, [*range(12), 11, *range(13, 20)], "frame 12 shows the source's frame before it"),
        (4.0, range(20), ""),
        (2.0, [*range(12), 11, *range(13, 20)], ""),
        (3.0, [*range(8), *range(9, 18), 17, 18, 19], "frame 8 shows the source's frame after it"),
    ],
    ids=["doubled", "honest", "doubled in a dark fade", "dropped, and one doubled later"],
)
def test_a_neighbour_in_a_frames_place_is_reported_where_a_cell_moves_by_four_steps(
    speed, shown, problem
):
    """Where next to nothing moves, encoders repeat a frame."""
    source = pictures(20, speed=speed)
    found = compared(source, coded([source[number] for number in shown]))[0]
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


@pytest.mark.parametrize(
    ("planes", "change", "words"),
    [
        (LUMA, lambda _, value: value - 1.6, "brightness or contrast is"),
        (LUMA, lambda _, value: 126 + (value - 126) * 0.96, "brightness or contrast is"),
        (slice(CELLS, 3 * CELLS), lambda _, value: 128 + (value - 128) * 0.2, "colour"),
        (BLUE, lambda _, value: value + 6, "colours are"),
    ],
    ids=["darker", "flatter", "nearly grey", "bluer"],
)
def test_changed_colours_are_reported(planes, change, words):
    muted = [changed(f, slice(CELLS, 3 * CELLS), lambda _, v: 128 + (v - 120) / 5) for f in SOURCE]
    made = [changed(frame, planes, change) for frame in coded(muted)]
    assert words in compared(muted, made)[0]


def test_a_blurred_picture_is_reported_unless_the_profile_asks_for_as_little():
    made = [
        frame[: 3 * CELLS] + bytes(value // 10 for value in frame[3 * CELLS :]) for frame in SOURCE
    ]
    assert "it is blurred" in compared(SOURCE, made)[0]
    assert compared(SOURCE, made, crf=40)[0] == ""


@pytest.mark.parametrize(("left", "blurred"), [(31, True), (120, False)])
def test_text_that_keeps_a_quarter_of_its_edges_is_blurred(left, blurred):
    text = [frame[: 3 * CELLS] + bytes([120] * CELLS) for frame in SOURCE]
    made = [frame[: 3 * CELLS] + bytes([left] * CELLS) for frame in SOURCE]
    assert ("it is blurred" in compared(text, made)[0]) is blurred


def test_a_picture_that_ends_early_or_late_is_reported():
    made = coded(SOURCE)
    assert "ends after 29 frames" in compared(SOURCE, made[:-1])[0]
    assert "more frames than the 29" in compared(SOURCE[:-1], made)[0]
    broken = [*made[:-1], made[-1][:CELLS]]
    assert compared(SOURCE[:-1], broken)[0] == "the decoded pictures end inside a frame"


@pytest.fixture
def moving() -> Pair:
    """Encode 2 s of a picture that moves as a whole, in colour and with fine detail."""
    picture = (
        "testsrc2=size=640x360:rate=25:duration=2,hue=s=0.4,eq=contrast=0.7,"
        "rotate=a=n/60:ow=320:oh=180,noise=alls=3"
    )
    return pair_once("moving.mkv", picture=picture, extra=("-t", "2"))


# The times stay as they are: each frame shows the source's frame of that number.
DROPPED = "shuffleframes=" + " ".join(str(n + (10 <= n < 40)) for n in range(50))
DOUBLED = "shuffleframes=" + " ".join(str(n - (n == 10)) for n in range(50))
CRAFTED = {
    "a black tail": "drawbox=c=black:t=fill:enable=gt(n\\,44)",
    "hue turned": "hue=h=12",
    "matrix mixed up": "colormatrix=bt601:bt709",
    "dropped and doubled later": DROPPED,
    "neighbour doubled": DOUBLED,
    "one black frame": "drawbox=c=black:t=fill:enable=eq(n\\,30)",
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_picture_is_caught(moving, tmp_path, name):
    target = tmp_path / "spoilt.mkv"
    ffmpeg("-i", moving.good, *COPY, *X265, "-filter:v", CRAFTED[name], *SAME_TIMES, target)
    assert caught(moving.judge(target)) is Gate.G8


def test_two_files_are_compared_without_the_thumbnails_of_an_encode(moving, tmp_path):
    alone = replace(moving.request.report, thumbnails=())
    compared_alone, after_encode = moving.judge(report=alone)[-1], moving.judge()[-1]
    assert compared_alone.outcome is Outcome.PASSED
    assert compared_alone.detail == after_encode.detail
    target = tmp_path / "spoilt.mkv"
    ffmpeg("-i", moving.good, *COPY, *X265, "-filter:v", "hue=h=20", *SAME_TIMES, target)
    assert caught(moving.judge(target, report=alone)) is Gate.G8


@pytest.mark.parametrize("size", ["1920x1080", "640x360"])
def test_a_thumbnail_holds_exact_means_of_large_pictures(size):
    """Means that are 5 steps off make a fade rest and jump, and a frame of it look like its neighbour."""
    levels = (16, 17, 18, 120, 235)
    flat = f"color=s={size}:r=25:d=0.04,format=yuv420p,lutyuv=y={{0}}:u=140:v=90[p{{0}}]"
    inputs = "".join(f"[p{level}]" for level in levels)
    pictures = ";".join([*map(flat.format, levels), f"{inputs}concat=n={len(levels)}"])
    command = ["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", pictures]
    command += ["-filter:v", output_graph(), *RAW_OUTPUT, "pipe:1"]
    made = subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE).stdout

    assert len(made) == len(levels) * RECORD_BYTES
    for place, level in enumerate(levels):
        frame = made[place * RECORD_BYTES :][:RECORD_BYTES]
        assert {*frame[LUMA]} == {level}
        assert {*frame[BLUE]} == {140}
        assert {*frame[RED]} == {90}


def test_a_blue_sky_whose_colour_follows_its_luma_has_no_other_brightness_or_matrix():
    """A fit of all planes sets brightness against colour there, in pictures that hardly differ."""
    chance = random.Random(5)
    source, made = [], []
    for _ in range(96):
        luma = [chance.choice([150, 214, 216, 218, 220]) for _ in range(CELLS)]
        extra = [int(chance.random() < 0.08) for _ in range(CELLS)]
        blue = [
            round(188 - (value - 217) * 0.6) + more for value, more in zip(luma, extra, strict=True)
        ]
        red = [round(100 + (value - 217) * 0.3) for value in luma]
        detail = [20] * CELLS
        source.append(bytes([*luma, *blue, *red, *detail]))
        off = [value - more for value, more in zip(luma, extra, strict=True)]
        made.append(bytes([*off, *blue, *red, *detail]))

    assert compared(source, made)[0] == ""
    darker = [changed(frame, LUMA, lambda _, value: value - 3) for frame in made]
    assert compared(source, darker)[0] != ""


def specks(detail: int) -> list[bytes]:
    chance = random.Random(6)
    cells = [[chance.randint(30, 60) for _ in range(CELLS)] for _ in range(30)]
    return [bytes([*luma, *[128] * 2 * CELLS, *[detail] * CELLS]) for luma in cells]


@pytest.mark.parametrize(
    ("detail", "steps", "problem"),
    [
        (120, 3, ""),
        (120, -3, "brightness is off by 3.0 of 255"),
        (120, 8, "is another picture"),
        (40, 3, "brightness is off by 3.0 of 255"),
    ],
    ids=["what an encoder makes grey", "away from grey", "more than that", "of ordinary detail"],
)
def test_black_and_white_specks_may_turn_a_little_grey(detail, steps, problem):
    source = specks(detail)
    made = [changed(frame, LUMA, lambda _, value: value + steps) for frame in source]

    found = compared(source, made)[0]

    assert problem in found
    assert bool(found) == bool(problem)
