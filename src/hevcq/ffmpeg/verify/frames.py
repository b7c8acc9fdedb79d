"""Judge the picture by the thumbnails of every frame of source and rendition. Pure.

Each frame is compared with its source frame and with that frame's neighbours. Colours are fitted over
seconds, and sharp detail is summed over the whole video. `cells` finds faults in a small area. The limits
are from 17 clips (animation, people, phones, grain, dark, static, black and white, fades) that were
encoded at CRF 20, 28 and 36, and then damaged; docs/reliability/damage.md has the figures on both sides of
each limit.
"""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import mul, sub

from hevcq.ffmpeg.command.thumbnails import CELLS, RECORD_BYTES
from hevcq.ffmpeg.verify.cells import (
    MIN_DETAIL,
    MIN_TEXT_KEPT,
    TEXT_DETAIL,
    TOP_CELLS,
    CellComparison,
    largest,
)

COLOURS = 3 * CELLS
MAX_RMS = 12.0
"""Luma difference of a frame (root mean square over its cells, in 8-bit steps) above which it is a wrong
picture, whatever the source shows. Honest frames reach 2.3."""
MAX_RMS_UNLIKE = 4.0
"""The same for a frame whose squared difference is more than half of the source's own variance."""
MAX_CELL = 32.0
"""Largest difference of one cell; honest frames reach 8."""
NOISE_STEPS = 60.0
"""Noise per pixel, in steps, that an encoder may remove. A cell's mean holds it divided by the root of its
number of pixels. It is added to the limits of a frame, and matters only for very small pictures."""
MAX_LUMA, MAX_CHROMA = 2.0, 2.5
"""Mean absolute difference over a segment; honest encodes reach 0.9 and 1.1."""
MAX_LEVEL = 1.25
"""Luma difference over a segment that brightness and contrast explain: 7 % darker has 2 to 17, honest
encodes 0.75 at most."""
SPECKS, SPECK_SHARE = 15.0, 0.4
"""Strength of sharp detail, in steps, above which an encoder blurs black and white specks to grey, and the
share of the excess by which brightness may shift towards grey. lavfi's `life` has 20 to 23 and shifts by 2.1
to 3.9 at CRF 30; noise of 30 levels has 14, text 8, cameras 1 to 4."""
MAX_ANGLE = 0.1
"""Turn of the hue in radians: 12 degrees are 0.2, honest encodes reach 0.06."""
MIN_COLOURS = 2.0
"""Spread of chroma, in steps, below which a turn of the hue is neither measured nor visible."""
MAX_MATRIX = 0.5
"""Luma difference that chroma alone explains: colours converted by a wrong matrix. Honest encodes reach 0.48
at CRF 34 of preset ultrafast, a wrong matrix has 0.55 and more."""
MATRIX_SHARE, MATRIX_STRENGTH = 0.6, 0.08
"""Smallest share of the luma difference that chroma must explain, and of chroma that must appear in luma:
BT.601 taken for BT.709 has 0.24."""
MIN_MOTION = 0.5
"""Difference of neighbouring source frames (root mean square, in steps) from which they can be told apart."""
MIN_STEP = 4
"""Largest difference, in steps, of a cell to the neighbouring frame's from which a single frame can be taken
for that neighbour: in dark fades of 2 steps x265 repeats a frame. With 3 no honest encode was refused either;
4 leaves a margin."""
MISPLACED, MISPLACED_OVER_NOISE = 0.8, 1.0
"""Share of the way from a frame to its neighbour, and the length of this way as a multiple of the coding
noise, from which the rendition shows the neighbour. At that share honest frames reach 0.5 of the noise."""
COARSE = 0.1
"""Added to that multiple for each step of noise of a small picture. In 64x48 pixels at CRF 30 (13 steps) an
honest encoder repeats a frame at 1.4 of the noise; a doubled frame has 3 and more."""
RUN_SHARE, RUN_OVER_NOISE = 0.55, 0.85
RUN_WINDOW, RUN_FRAMES = 12, 6
"""After a dropped frame all following ones are early: of RUN_WINDOW frames, RUN_FRAMES are nearer to the same
neighbour."""
MIN_KEPT = 0.16
"""Smallest share of sharp detail that must be left. Half resolution keeps 0.13 at most, CRF 28 0.27 and more,
even of grain."""
MAX_GREY, MIN_TINT = -0.75, 0.8
"""Change of the strength of colour that is a loss, and the chroma in steps from which it is judged."""
SEGMENT_FRAMES = 96
"""Frames whose colours are fitted together."""
FIT_EVERY, MIN_FITTED = 6, 4
"""Every sixth frame is fitted, and fewer than four prove nothing. The first is not fitted: SVT-AV1 makes it of
several frames, and in a fade it is off by 2 steps."""

Plane = list[int]


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """The result of the comparison: number of frames, digest of the rendition's thumbnails, differences.

    `mean` and `worst` are luma differences in 8-bit steps. `detail` is the share of sharp detail that is
    left (1.0 if the source has hardly any).
    """

    frames: int
    digest: str
    mean: float
    worst: float
    detail: float


@dataclass(slots=True)
class _Segment:
    """Sums over a segment's fitted frames: products of planes, and of planes with differences."""

    first: int = 0
    frames: int = 0
    fitted: int = 0
    detail: int = 0
    squares: int = 0
    absolute: list[float] = field(default_factory=lambda: [0.0] * 3)
    products: list[list[float]] = field(default_factory=lambda: [[0.0] * 4 for _ in range(4)])
    answers: list[list[float]] = field(default_factory=lambda: [[0.0] * 4 for _ in range(3)])


class FrameComparison:
    """Compares thumbnails frame by frame while the rendition is decoded.

    `read` returns the next bytes of the source's thumbnails. `pixels` is the number of pixels of the
    picture. `judges_detail` says that the encode should keep sharp detail. With `holds_last` the rendition
    leaves out repeated frames, and its last frame must look like all further frames of the source. `when`
    formats the time of a frame number, or returns "".
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        pixels: int,
        *,
        judges_detail: bool = True,
        holds_last: bool = False,
        when: Callable[[int], str] = lambda _frame: "",
    ) -> None:
        self._read, self._when = read, when
        self._holds_last, self._last = holds_last, b""
        self._slack = NOISE_STEPS / math.sqrt(max(1.0, pixels / CELLS))
        self._judges_detail = judges_detail
        self._rest = b""
        self._digest = hashlib.sha256()
        self._frames = 0
        self._problem = ""
        self._ahead = b""
        self._step: tuple[Plane, int] = [], 0
        self._segment = _Segment()
        self._cells = CellComparison(pixels, judges_detail=judges_detail)
        self._total, self._worst = 0.0, 0.0
        self._near: dict[int, deque[int]] = {
            -1: deque(maxlen=RUN_FRAMES),
            1: deque(maxlen=RUN_FRAMES),
        }

    @property
    def frames(self) -> int:
        """The number of frames compared so far."""
        return self._frames

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the rendition's thumbnails."""
        data = self._rest + chunk
        whole = len(data) - len(data) % RECORD_BYTES
        self._rest = data[whole:]
        self._digest.update(memoryview(data)[:whole])
        for begin in range(0, whole, RECORD_BYTES):
            self._frame(data[begin : begin + RECORD_BYTES])

    def close(self) -> str:
        """Judge the end of the video; return the first problem as a clause, or ""."""
        while self._holds_last and self._last and not self._problem and self._is_ahead():
            self._frame(self._last, held=True)
        self._end_segment()
        if not self._problem and (problem := self._cells.close()):
            self._note_problem(f"{problem} up to {self._frame_name(self._frames - 1)}")
        if not self._problem and len(self._source()) == RECORD_BYTES:
            self._note_problem(f"the picture ends after {self._frames} frames, before the source's")
        if not self._problem and self._rest:
            self._note_problem("the decoded pictures end inside a frame")
        if not self._problem and self._judges_detail and self.detail < self._least_kept():
            self._note_problem(
                f"only {self.detail:.0%} of the source's sharp detail is left: it is blurred"
            )
        return self._problem

    @property
    def detail(self) -> float:
        """The share of the source's sharp detail that is left; 1.0 if the source has hardly any."""
        source, made = self._cells.source_detail, self._cells.kept_detail
        if source < MIN_DETAIL * TOP_CELLS * max(1, self._frames):
            return 1.0
        return made / source

    def _least_kept(self) -> float:
        is_text = self._cells.source_detail >= TEXT_DETAIL * TOP_CELLS * max(1, self._frames)
        return MIN_TEXT_KEPT if is_text else MIN_KEPT

    def facts(self) -> PictureFacts:
        mean = self._total / max(1, self._frames)
        return PictureFacts(
            self._frames, self._digest.hexdigest(), mean, self._worst, min(1.0, self.detail)
        )

    def _frame_name(self, frame: int) -> str:
        at = self._when(frame)
        return f"frame {frame} (at {at})" if at else f"frame {frame}"

    def _note_problem(self, problem: str) -> None:
        self._problem = self._problem or problem

    def _source(self) -> bytes:
        if self._ahead:
            record, self._ahead = self._ahead, b""
            return record
        return self._read(RECORD_BYTES)

    def _is_ahead(self) -> bool:
        """Whether the source has another frame; reads it."""
        self._ahead = self._ahead or self._read(RECORD_BYTES)
        return len(self._ahead) == RECORD_BYTES

    def _frame(self, made: bytes, *, held: bool = False) -> None:
        self._last = made
        if self._problem:
            self._frames += 1
            return
        source = self._source()
        if len(source) != RECORD_BYTES:
            self._note_problem(
                f"the picture has more frames than the {self._frames} that were encoded"
            )
            return
        self._ahead = self._read(RECORD_BYTES)
        off = list(map(sub, made[:COLOURS], source[:COLOURS]))
        self._judge_alone(source, off)
        self._judge_place(source, off)
        self._collect(source, off)
        # A held frame repeats the cells of one block, while the source's frame has those of the next.
        if not held and not self._problem and (problem := self._cells.compare(source, made)):
            self._note_problem(f"{problem} in the pictures up to {self._frame_name(self._frames)}")
        self._frames += 1
        if self._segment.frames >= SEGMENT_FRAMES:
            self._end_segment()

    def _judge_alone(self, source: bytes, off: Plane) -> None:
        luma = off[:CELLS]
        squares = sum(map(mul, luma, luma))
        rms = math.sqrt(squares / CELLS)
        cell = largest(off)
        self._worst = max(self._worst, rms)
        if rms <= MAX_RMS_UNLIKE + self._slack and cell <= MAX_CELL:
            return
        plane = source[:CELLS]
        total = sum(plane)
        varies = sum(map(mul, plane, plane)) - total * total / CELLS
        unlike = squares > 0.5 * varies
        if rms > MAX_RMS + self._slack or (unlike and rms > MAX_RMS_UNLIKE + self._slack):
            self._note_problem(
                f"{self._frame_name(self._frames)} is another picture than the source's"
                f" (brightness off by {rms:.1f} of 255)"
            )
        elif cell > MAX_CELL + 3 * self._slack:
            self._note_problem(
                f"{self._frame_name(self._frames)} differs in one area by {cell} of 255 (brightness or colour)"
            )

    def _judge_place(self, source: bytes, off: Plane) -> None:
        """Check whether the frame shows the source's previous or next frame instead of its own."""
        behind, self._step = self._step, ([], 0)
        if len(self._ahead) == RECORD_BYTES:
            ahead = list(map(sub, self._ahead[:COLOURS], source[:COLOURS]))
            self._step = ahead, sum(map(mul, ahead, ahead))
        noise = sum(map(mul, off, off))
        enough = MISPLACED_OVER_NOISE + COARSE * self._slack
        for direction, (step, energy) in ((-1, behind), (1, self._step)):
            if energy < MIN_MOTION * MIN_MOTION * COLOURS:
                continue
            if 1.01 * noise < RUN_SHARE * RUN_SHARE * energy:
                continue  # the difference is too small to reach that share (Cauchy-Schwarz)
            share = direction * sum(map(mul, off, step)) / energy
            if share < RUN_SHARE:
                continue
            rest = max(0.01 * COLOURS, noise - share * share * energy)
            over_noise = math.sqrt(energy / rest)
            seen = max(map(abs, step)) >= MIN_STEP
            if seen and share >= MISPLACED and over_noise >= enough:
                self._misplaced(self._frames, direction)
            elif over_noise >= RUN_OVER_NOISE:
                self._count_near(direction)

    def _count_near(self, direction: int) -> None:
        near = self._near[direction]
        near.append(self._frames)
        if len(near) == RUN_FRAMES and near[-1] - near[0] < RUN_WINDOW:
            self._misplaced(near[0], direction)

    def _misplaced(self, frame: int, direction: int) -> None:
        word = "before" if direction < 0 else "after"
        self._note_problem(
            f"{self._frame_name(frame)} shows the source's frame {word} it: one was dropped or doubled"
        )

    def _collect(self, source: bytes, off: Plane) -> None:
        part = self._segment
        part.frames += 1
        sizes = [sum(map(abs, off[at : at + CELLS])) / CELLS for at in (0, CELLS, 2 * CELLS)]
        for plane, size in enumerate(sizes):
            part.absolute[plane] += size
        self._total += sizes[0]
        part.detail += sum(source[COLOURS : COLOURS + CELLS])
        if self._frames and self._frames % FIT_EVERY == 0:
            self._fit(source, off)

    def _fit(self, source: bytes, off: Plane) -> None:
        part = self._segment
        part.fitted += CELLS
        part.squares += sum(map(mul, off[:CELLS], off[:CELLS]))
        planes = [
            [1] * CELLS,
            [value - 126 for value in source[:CELLS]],
            [value - 128 for value in source[CELLS : 2 * CELLS]],
            [value - 128 for value in source[2 * CELLS : COLOURS]],
        ]
        for row in range(4):
            for column in range(row, 4):
                product = sum(map(mul, planes[row], planes[column]))
                part.products[row][column] += product
                if row != column:
                    part.products[column][row] += product
        for plane in range(3):
            differences = off[plane * CELLS : (plane + 1) * CELLS]
            for column in range(4):
                part.answers[plane][column] += sum(map(mul, differences, planes[column]))

    def _end_segment(self) -> None:
        part, self._segment = self._segment, _Segment(first=self._frames)
        if part.frames and not self._problem:
            for problem in _segment_problems(part, self._slack / 2):
                self._note_problem(f"{problem} from {self._frame_name(part.first)} on")
                return


def _segment_problems(part: _Segment, slack: float) -> Iterator[str]:
    luma, blue, red = (value / part.frames for value in part.absolute)
    greyed = _greying_allowance(part)
    if luma > MAX_LUMA + slack + greyed:
        yield f"brightness is off by {luma:.1f} of 255"
    if max(blue, red) > MAX_CHROMA + slack:
        yield f"colours are off by {max(blue, red):.1f} of 255"
    if part.fitted < MIN_FITTED * CELLS:
        return
    mean = [[value / part.fitted for value in row] for row in part.products]
    answers = [[value / part.fitted for value in row] for row in part.answers]
    fits = [solve_fit([row[:] for row in mean], row[:]) for row in answers]
    level = _level_change(mean, answers[0], fits[0])
    if level > MAX_LEVEL + slack / 2 + greyed:
        yield f"brightness or contrast is off by {level:.1f} of 255"
    by_chroma = min(_chroma_explained(mean, fits[0]), math.sqrt(part.squares / part.fitted))
    strength = math.hypot(fits[0][2], fits[0][3])
    if strength > MATRIX_STRENGTH and by_chroma > max(MAX_MATRIX, MATRIX_SHARE * luma):
        yield "colours were converted by another matrix than the source's"
    for plane in (2, 3):
        if mean[plane][plane] > MIN_TINT**2 and fits[plane - 1][plane] < MAX_GREY:
            yield "colour is lost"
    angle = _hue_turn(mean, answers, fits)
    if angle > MAX_ANGLE:
        yield f"the hue is turned by {math.degrees(angle):.0f} degrees"


def _greying_allowance(part: _Segment) -> float:
    """Return by how many steps luma may shift towards grey because the source consists of specks."""
    strength = 2 * math.sqrt(part.detail / (CELLS * part.frames))
    to_grey = part.answers[0][1] < 0
    return SPECK_SHARE * max(0.0, strength - SPECKS) if to_grey else 0.0


def _level_change(mean: list[list[float]], answer: list[float], fit: list[float]) -> float:
    """Return the root mean square of the luma difference that brightness and contrast explain.

    Two fits must agree, so the smaller one counts. Where colours follow luma (a sky and a meadow) the full
    fit sets them against each other, and finds changes in frames that hardly differ. The fit of brightness
    and contrast alone takes a wrong matrix for a change of brightness.
    """
    alone = solve_fit([row[:2] for row in mean[:2]], answer[:2])
    return min(
        math.sqrt(max(0.0, offset**2 + 2 * offset * gain * mean[0][1] + gain**2 * mean[1][1]))
        for offset, gain in (alone, fit[:2])
    )


def _hue_turn(
    mean: list[list[float]], answers: list[list[float]], fits: list[list[float]]
) -> float:
    """Return the turn of the hue in radians; 0.0 where there is too little colour to tell.

    A turn adds to each chroma plane a share of the other one, with opposite signs, and the same share for
    strong and for faint colours. Two estimates must agree, so the smaller one counts. The fit takes a faint
    tint that is flattened beside a strong colour for a turn; the best single angle takes an uneven loss of
    colour for one.
    """
    varied = sum(mean[plane][plane] - mean[0][plane] ** 2 for plane in (2, 3))
    if math.sqrt(max(0.0, varied / 2)) <= MIN_COLOURS:
        return 0.0
    red_by_blue = answers[2][2] - answers[2][0] * mean[0][2]
    blue_by_red = answers[1][3] - answers[1][0] * mean[0][3]
    best = (red_by_blue - blue_by_red) / varied
    fitted = (fits[2][2] - fits[1][3]) / 2
    return min(abs(best), abs(fitted)) if best * fitted > 0 else 0.0


def _chroma_explained(mean: list[list[float]], fit: list[float]) -> float:
    """Return the root mean square of the luma difference that a fit explains by the chroma planes."""
    blue, red = fit[2], fit[3]
    square = blue**2 * mean[2][2] + 2 * blue * red * mean[2][3] + red**2 * mean[3][3]
    return math.sqrt(max(0.0, square))


def solve_fit(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve the normal equations of a fit, damped so that planes which hardly vary explain nothing."""
    size = len(right)
    for row in range(size):
        matrix[row][row] += 0.25 if row else 1e-6
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(matrix[row][column]))
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        right[column], right[pivot] = right[pivot], right[column]
        for row in range(column + 1, size):
            factor = matrix[row][column] / matrix[column][column]
            for place in range(column, size):
                matrix[row][place] -= factor * matrix[column][place]
            right[row] -= factor * right[column]
    answer = [0.0] * size
    for row in reversed(range(size)):
        known = sum(matrix[row][place] * answer[place] for place in range(row + 1, size))
        answer[row] = (right[row] - known) / matrix[row][row]
    return answer
