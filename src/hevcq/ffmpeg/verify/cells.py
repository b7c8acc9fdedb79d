"""Judge what is wrong in a small place or for a short time, by the cells of the thumbnails. Pure.

A cell is the mean of 16 pictures, of 1080 lines over 15x17 pixels: the noise of an encode is gone
from it, a patch of another colour is not. The limits are from some 300 honest encodes by x265, x264,
SVT-AV1 and VP9 and as many damages; docs/reliability/damage.md has the figures on both sides.
"""

import math
from collections import deque
from operator import mul, sub

from hevcq.ffmpeg.command.thumbnails import (
    ACROSS,
    BLOCK_ROWS,
    CELLS,
    CHROMA_CELLS,
    CHROMA_ROWS,
    DOWN,
    FRAMES,
    LUMA_CELLS,
    WIDTH,
)

MAX_LUMA, MAX_CHROMA = 7.5, 7.5
"""Largest difference of one cell in 8-bit steps, without the noise of small pictures. Of 1080 lines honest
ones reach 5."""
MAX_LINE, LINE_NOISE = 2.2, 1 / 3
"""The same of the mean of a row of 16 cells or a column of 32 in luma, and the share of the noise there:
of 1080 lines 3.0, of which honest ones reach 2.0. The two last lines are an eighth of a cell."""
MIN_PIXELS = 16
"""Pixels of a cell from which cells are judged, at about 480x270. In smaller pictures honest encodes move
the edges of full colours by more than damage does."""
FAR, MAX_FAR = 4, 16
"""A difference in steps, and the cells of a whole picture that may have it: of 1080 lines no honest encode
up to CRF 30 has one."""
FIRST = 3.0
"""How much more may be off in the first 16 pictures, whose means are mostly of the first one: SVT-AV1
makes a key frame of several pictures."""
NOISE_STEPS = 40.0
"""Noise per pixel that an encoder may remove, as in `frames`; of 1080 lines a cell has 253 pixels. Added
to the limits; the square of it to the cells that may be far off."""
ROUGH = 30.0
"""Steps that are added where the encode is not expected to keep detail: at CRF 34 to 44 and preset ultrafast
x265 4.1 moves the edges of full colours by up to 38, of films by up to 31."""
MIN_ENERGY, MAX_SWAPPED = 0.1, 0.57
"""Difference between even and odd lines (mean of squares) from which they can be told apart, and the
share of the way from the ones to the others that an encode may go: what it loses of fine detail lies
between them, up to 0.4; where lines are swapped it is 0.63 to 1."""
SEGMENT_FRAMES = 96
"""Frames whose lines are judged together."""
TOP_CELLS = 7
"""Cells of a frame, those with most detail in the source, whose detail is added up."""
MIN_DETAIL, MIN_KEPT = 6.0, 0.1
"""Sharp detail of the source from which it is judged, and the share that must be left in 16 pictures:
honest ones keep 0.21 and more up to CRF 30, half resolution 0.03 to 0.13."""
TEXT_DETAIL, MIN_TEXT_KEPT = 90.0, 0.4
"""The same of text on a screen, whose edges are as strong as a cell can say: at half resolution it keeps
0.26, encoded 0.98 and more. Noise is weaker: film grain has 25 at most."""

_LUMA = 4 * CELLS
_BLUE = _LUMA + LUMA_CELLS
_RED = _BLUE + CHROMA_CELLS
_EVEN = _RED + CHROMA_CELLS
_ODD = _EVEN + CELLS


class CellComparison:
    """Compares the cells, the lines and the detail of thumbnails, which come in the order of frames.

    `pixels` is the size of the picture. Short losses of detail are reported if `judges_detail`.
    """

    def __init__(self, pixels: int, *, judges_detail: bool) -> None:
        self._are_large = pixels >= MIN_PIXELS * LUMA_CELLS * FRAMES
        self._slack = NOISE_STEPS / math.sqrt(max(1.0, pixels / (LUMA_CELLS * FRAMES)))
        self._slack += 0.0 if judges_detail else ROUGH
        self._most_far = MAX_FAR + self._slack * self._slack
        self._judges_detail = judges_detail
        self._frames = 0
        self._far: deque[int] = deque(maxlen=FRAMES)
        self._detail: deque[tuple[int, int]] = deque(maxlen=FRAMES)
        self._energy, self._swapped = 0, 0
        self.source_detail, self.kept_detail = 0, 0

    def compare(self, source: bytes, made: bytes) -> str:
        """Compare the next thumbnails; return what is wrong, as a clause, or ""."""
        place = self._frames % FRAMES
        scale = FIRST if self._frames < FRAMES else 1.0
        self._frames += 1
        return (
            (self._are_large and self._cells(source, made, place, scale))
            or self._detail_problem(source, made)
            or self._lines(source, made)
        )

    def close(self) -> str:
        """Judge what is left; return what is wrong, or ""."""
        energy, swapped, self._energy, self._swapped = self._energy, self._swapped, 0, 0
        judged = self._frames % SEGMENT_FRAMES or SEGMENT_FRAMES
        if energy >= MIN_ENERGY * 2 * CELLS * judged and swapped > MAX_SWAPPED * energy:
            return "even and odd lines are swapped"
        return ""

    def _cells(self, source: bytes, made: bytes, place: int, scale: float) -> str:
        luma = list(map(sub, made[_LUMA:_BLUE], source[_LUMA:_BLUE]))
        chroma = list(map(sub, made[_BLUE:_EVEN], source[_BLUE:_EVEN]))
        worst, tint = largest(luma), largest(chroma)
        # Not of the first pictures: see FIRST.
        some_far = worst > FAR and self._frames > FRAMES
        self._far.append(sum(map(FAR.__lt__, map(abs, luma))) if some_far else 0)
        if worst > scale * MAX_LUMA + self._slack:
            cell = list(map(abs, luma)).index(worst)
            return f"a small area {_where(place, cell, BLOCK_ROWS)} is off by {worst} of 255"
        if tint > scale * MAX_CHROMA + self._slack:
            cell = list(map(abs, chroma)).index(tint) % CHROMA_CELLS
            where = _where(place, cell, CHROMA_ROWS)
            return f"the colour of a small area {where} is off by {tint} of 255"
        most = scale * MAX_LINE + self._slack * LINE_NOISE
        size, cell = _worst_line(luma) if worst > most else (0.0, 0)
        if size > most:
            where = _where(place, cell, BLOCK_ROWS)
            return f"a line of small areas {where} is off by {size:.1f} of 255"
        if self._judges_detail and sum(self._far) > self._most_far:
            return f"{sum(self._far)} small areas are off by more than {FAR} of 255"
        return ""

    def _detail_problem(self, source: bytes, made: bytes) -> str:
        detail, left = source[3 * CELLS : _LUMA], made[3 * CELLS : _LUMA]
        places = sorted(range(CELLS), key=detail.__getitem__, reverse=True)[:TOP_CELLS]
        there, here = sum(detail[cell] for cell in places), sum(left[cell] for cell in places)
        self.source_detail += there
        self.kept_detail += here
        self._detail.append((there, here))
        if not self._judges_detail or len(self._detail) < FRAMES:
            return ""
        there, here = (sum(column) for column in zip(*self._detail, strict=True))
        least = MIN_TEXT_KEPT if there >= TEXT_DETAIL * TOP_CELLS * FRAMES else MIN_KEPT
        if there < MIN_DETAIL * TOP_CELLS * FRAMES or here >= least * there:
            return ""
        return f"only {here / there:.0%} of the source's sharp detail is left: it is blurred"

    def _lines(self, source: bytes, made: bytes) -> str:
        step = list(map(sub, source[_ODD:], source[_EVEN:_ODD]))
        energy = sum(map(mul, step, step))
        self._energy += 2 * energy
        self._swapped += energy - sum(map(mul, map(sub, made[_ODD:], made[_EVEN:_ODD]), step))
        return self.close() if self._frames % SEGMENT_FRAMES == 0 else ""


def largest(values: list[int]) -> int:
    """Return the size of the largest value; in half the time that the size of each takes."""
    high, low = max(values), min(values)
    return max(high, -low)


def _worst_line(luma: list[int]) -> tuple[float, int]:
    """Return the mean of the row or column of cells that is farthest off, and its first cell."""
    sizes = [(abs(sum(luma[at : at + WIDTH])) / WIDTH, at) for at in range(0, LUMA_CELLS, WIDTH)]
    sizes += [(abs(sum(luma[at::WIDTH])) / BLOCK_ROWS, at) for at in range(WIDTH)]
    return max(sizes)


def _where(place: int, cell: int, rows: int) -> str:
    """Return where a cell of a block is in the picture."""
    across = (place % ACROSS + (cell % WIDTH + 0.5) / WIDTH) / ACROSS
    down = (place // ACROSS % DOWN + (cell // WIDTH + 0.5) / rows) / DOWN
    return f"at {across:.0%} of the width and {down:.0%} of the height"
