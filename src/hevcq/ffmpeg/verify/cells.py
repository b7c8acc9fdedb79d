"""Find faults in a small area or of a short time, by the cells of the thumbnails. Pure.

A cell is the mean of 16 frames over, in 1080p, 15x17 pixels. An encode's noise is averaged out in it; a
patch of a wrong colour remains. The limits lie between some 300 honest encodes by x265, x264, SVT-AV1
and VP9 and as many damaged ones; docs/reliability/damage.md has the figures of both.
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
"""Largest difference of one cell in 8-bit steps, before the slack for small pictures. Honest encodes in 1080p
reach 5."""
MAX_LINE, LINE_NOISE = 2.2, 1 / 3
"""The same for the mean of a row of 16 or a column of 32 luma cells, and the share of the slack that counts
there. In 1080p the limit is 3.0, and honest encodes reach 2.0. The picture's last two lines are an eighth of
a cell."""
MIN_PIXELS = 16
"""Fewest pixels of a cell that is judged, at about 480x270. In smaller pictures honest encodes shift the edges
of saturated colours by more than damage does."""
FAR, MAX_FAR = 4, 16
"""A difference in steps, and how many cells of a whole picture may exceed it. In 1080p no cell of an honest
encode up to CRF 30 does."""
FIRST_FACTOR = 3.0
"""Factor of the limits in the first 16 frames. Their means are mostly the first frame, and SVT-AV1 makes its
key frame of several frames."""
NOISE_STEPS = 40.0
"""Noise per pixel that an encoder may remove, as in `frames`; in 1080p a cell has 253 pixels. The noise of a
cell is the slack: it is added to the limits, and its square to the number of cells that may be far off."""
ROUGH_SLACK = 30.0
"""Steps added to the slack where the encode need not keep detail: at CRF 34 to 44 and preset ultrafast x265
4.1 shifts the edges of saturated colours by up to 38, those of films by up to 31."""
MIN_ENERGY, MAX_SWAPPED = 0.1, 0.57
"""Mean square difference of even and odd lines from which they can be told apart, and how far an encode may
move each towards the other: 0 keeps them, 1 swaps them. Lost fine detail moves them by up to 0.4, swapped
lines by 0.63 to 1."""
SEGMENT_FRAMES = 96
"""Frames whose lines are judged together."""
TOP_CELLS = 7
"""Cells of a frame whose detail is summed: those with most detail in the source."""
MIN_DETAIL, MIN_KEPT = 6.0, 0.1
"""Sharp detail of the source from which it is judged, and the share that must be left in 16 frames: honest
encodes up to CRF 30 keep 0.21 and more, half resolution keeps 0.03 to 0.13."""
TEXT_DETAIL, MIN_TEXT_KEPT = 90.0, 0.4
"""The same for text on a screen, whose edges reach a cell's largest value: half resolution keeps 0.26 of
them, an encode 0.98 and more. Noise is weaker: film grain has 25 at most."""

_LUMA = 4 * CELLS
_BLUE = _LUMA + LUMA_CELLS
_RED = _BLUE + CHROMA_CELLS
_EVEN = _RED + CHROMA_CELLS
_ODD = _EVEN + CELLS


class CellComparison:
    """Compares the cells, lines and detail of thumbnails, which come in the order of frames.

    `pixels` is the number of pixels of the picture. With `judges_detail` short losses of detail are
    reported too.
    """

    def __init__(self, pixels: int, *, judges_detail: bool) -> None:
        self._are_large = pixels >= MIN_PIXELS * LUMA_CELLS * FRAMES
        self._slack = NOISE_STEPS / math.sqrt(max(1.0, pixels / (LUMA_CELLS * FRAMES)))
        self._slack += 0.0 if judges_detail else ROUGH_SLACK
        self._most_far = MAX_FAR + self._slack * self._slack
        self._judges_detail = judges_detail
        self._frames = 0
        self._far: deque[int] = deque(maxlen=FRAMES)
        self._detail: deque[tuple[int, int]] = deque(maxlen=FRAMES)
        self._energy, self._swapped = 0, 0
        self.source_detail, self.kept_detail = 0, 0

    def compare(self, source: bytes, made: bytes) -> str:
        """Compare the next two thumbnails; return the problem as a clause, or ""."""
        place = self._frames % FRAMES
        scale = FIRST_FACTOR if self._frames < FRAMES else 1.0
        self._frames += 1
        return (
            (self._are_large and self._cell_problem(source, made, place, scale))
            or self._detail_problem(source, made)
            or self._line_problem(source, made)
        )

    def close(self) -> str:
        """Judge the lines since the last full segment; return the problem, or ""."""
        energy, swapped, self._energy, self._swapped = self._energy, self._swapped, 0, 0
        judged = self._frames % SEGMENT_FRAMES or SEGMENT_FRAMES
        if energy >= MIN_ENERGY * 2 * CELLS * judged and swapped > MAX_SWAPPED * energy:
            return "even and odd lines are swapped"
        return ""

    def _cell_problem(self, source: bytes, made: bytes, place: int, scale: float) -> str:
        luma = list(map(sub, made[_LUMA:_BLUE], source[_LUMA:_BLUE]))
        chroma = list(map(sub, made[_BLUE:_EVEN], source[_BLUE:_EVEN]))
        worst, tint = largest(luma), largest(chroma)
        # Not in the first frames: see FIRST_FACTOR.
        some_far = worst > FAR and self._frames > FRAMES
        self._far.append(sum(map(FAR.__lt__, map(abs, luma))) if some_far else 0)
        if worst > scale * MAX_LUMA + self._slack:
            cell = list(map(abs, luma)).index(worst)
            return f"a small area {_position(place, cell, BLOCK_ROWS)} is off by {worst} of 255"
        if tint > scale * MAX_CHROMA + self._slack:
            cell = list(map(abs, chroma)).index(tint) % CHROMA_CELLS
            where = _position(place, cell, CHROMA_ROWS)
            return f"the colour of a small area {where} is off by {tint} of 255"
        most = scale * MAX_LINE + self._slack * LINE_NOISE
        size, cell = _worst_line(luma) if worst > most else (0.0, 0)
        if size > most:
            where = _position(place, cell, BLOCK_ROWS)
            return f"a line of small areas {where} is off by {size:.1f} of 255"
        if self._judges_detail and sum(self._far) > self._most_far:
            return f"{sum(self._far)} small areas are off by more than {FAR} of 255"
        return ""

    def _detail_problem(self, source: bytes, made: bytes) -> str:
        detail, left = source[3 * CELLS : _LUMA], made[3 * CELLS : _LUMA]
        top = sorted(range(CELLS), key=detail.__getitem__, reverse=True)[:TOP_CELLS]
        before, after = sum(detail[cell] for cell in top), sum(left[cell] for cell in top)
        self.source_detail += before
        self.kept_detail += after
        self._detail.append((before, after))
        if not self._judges_detail or len(self._detail) < FRAMES:
            return ""
        before, after = (sum(column) for column in zip(*self._detail, strict=True))
        least = MIN_TEXT_KEPT if before >= TEXT_DETAIL * TOP_CELLS * FRAMES else MIN_KEPT
        if before < MIN_DETAIL * TOP_CELLS * FRAMES or after >= least * before:
            return ""
        return f"only {after / before:.0%} of the source's sharp detail is left: it is blurred"

    def _line_problem(self, source: bytes, made: bytes) -> str:
        step = list(map(sub, source[_ODD:], source[_EVEN:_ODD]))
        energy = sum(map(mul, step, step))
        self._energy += 2 * energy
        self._swapped += energy - sum(map(mul, map(sub, made[_ODD:], made[_EVEN:_ODD]), step))
        return self.close() if self._frames % SEGMENT_FRAMES == 0 else ""


def largest(values: list[int]) -> int:
    """Return the largest absolute value, in half the time of `max(map(abs, values))`."""
    high, low = max(values), min(values)
    return max(high, -low)


def _worst_line(luma: list[int]) -> tuple[float, int]:
    """Return the mean difference of the row or column of cells that is farthest off, and its first cell."""
    sizes = [(abs(sum(luma[at : at + WIDTH])) / WIDTH, at) for at in range(0, LUMA_CELLS, WIDTH)]
    sizes += [(abs(sum(luma[at::WIDTH])) / BLOCK_ROWS, at) for at in range(WIDTH)]
    return max(sizes)


def _position(place: int, cell: int, rows: int) -> str:
    """Describe where a block's cell is in the picture."""
    across = (place % ACROSS + (cell % WIDTH + 0.5) / WIDTH) / ACROSS
    down = (place // ACROSS % DOWN + (cell // WIDTH + 0.5) / rows) / DOWN
    return f"at {across:.0%} of the width and {down:.0%} of the height"
