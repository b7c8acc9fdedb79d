"""Tell of a steady telecine which fields make an original frame, and when that is shown. Pure."""

from __future__ import annotations

from fractions import Fraction

from pydantic import Field

from hevcq.domain.model import Frozen


class Cadence(Frozen):
    """A steady telecine: ten fields of each four original frames, two of which repeat another.

    `top` and `bottom` are the places, among each five frames from the first of the file on, of the
    frame whose top (bottom) field repeats that of the frame before. Where the fields of two original
    frames share a frame, that of the parity which repeats first (the leading one) is behind.
    """

    top: int = Field(ge=0, lt=5)
    bottom: int = Field(ge=0, lt=5)
    frames: int = Field(description="frames in the file")
    rate: str = Field(description="frames per second in the file: 30000/1001 or 30/1")

    @property
    def shift(self) -> int:
        """Original frames by which the bottom field of the first frame is ahead of its top field."""
        whole = next(n for n in range(5) if self.is_whole(n))
        return _passed(self.top, whole) - _passed(self.bottom, whole)

    @property
    def top_leads(self) -> bool:
        """Whether the top field repeats first, and is behind the bottom field until that repeats."""
        return (self.bottom - self.top) % 5 in {1, 2}

    def is_whole(self, frame: int) -> bool:
        """Return whether both fields of a frame are of the same original frame."""
        lead, other = (self.top, self.bottom) if self.top_leads else (self.bottom, self.top)
        return (frame - other) % 5 < (lead - other) % 5

    @property
    def left_out(self) -> int:
        """The place of the frame to leave out: both its fields are in others, or in its neighbour."""
        return self.top if self.top_leads else self.bottom

    @property
    def torn(self) -> int | None:
        """The place of a frame whose leading field belongs to the other field of the frame before."""
        place = (self.left_out + 1) % 5
        return None if self.is_whole(place) else place

    @property
    def restored(self) -> int:
        """Original frames of which the file has both fields."""
        last = self.frames - 1
        numbers = _passed(self.top, last), self.shift + _passed(self.bottom, last)
        return max(0, min(numbers) - max(0, self.shift) + 1)

    @property
    def halves(self) -> int:
        """Original frames of which the file has one field only, at its ends: two at most."""
        last = self.frames - 1
        numbers = _passed(self.top, last), self.shift + _passed(self.bottom, last)
        return abs(self.shift) + abs(numbers[0] - numbers[1])

    @property
    def tick(self) -> Fraction:
        """Seconds in which all times are whole."""
        return Fraction(1, 120_000)

    @property
    def steps(self) -> tuple[int, int, int]:
        """Ticks from the file's first frame to the first original one, between those, and of a frame.

        Even times lie half a field at most from those at which the fields are shown.
        """
        quarter = int(30_000 / Fraction(self.rate))
        anchor = (self.left_out - 2) % 5
        late = 4 * anchor + 5 * (max(0, self.shift) - _passed(self.top, anchor))
        return max(0, late) * quarter, 5 * quarter, 4 * quarter


def _passed(place: int, frame: int) -> int:
    """Return how many frames up to `frame`, without the first, have a new field where `place` repeats."""
    return sum(1 for n in range(1, frame % 5 + 1) if n != place) + frame // 5 * 4
