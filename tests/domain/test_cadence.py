"""The arithmetic of a telecine, against one that is acted out field by field."""

from fractions import Fraction
from itertools import product

import pytest

from hevcq.domain.media.cadence import Cadence


def shown(pattern: str, lead: str, cut: int, frames: int) -> list[tuple[int, int]]:
    """Return of each frame the numbers of the originals of its top and bottom field."""
    fields: list[int] = []
    original = 0
    while len(fields) < 2 * (cut + frames):
        fields += [original] * int(pattern[original % len(pattern)])
        original += 1
    pairs = zip(fields[::2], fields[1::2], strict=False)
    both = [(one, other) if lead == "t" else (other, one) for one, other in pairs]
    return both[cut : cut + frames]


CASES = list(product(("23", "2332"), "tb", range(5), range(10, 15)))


def cadence(pairs: list[tuple[int, int]]) -> Cadence:
    top, bottom = (
        next(n for n in range(1, 6) if pairs[n][side] == pairs[n - 1][side]) % 5 for side in (0, 1)
    )
    return Cadence(top=top, bottom=bottom, frames=len(pairs), rate="30000/1001")


@pytest.mark.parametrize(("pattern", "lead", "cut", "frames"), CASES)
def test_every_original_frame_of_which_both_fields_are_there_is_restored(
    pattern: str, lead: str, cut: int, frames: int
) -> None:
    pairs = shown(pattern, lead, cut, frames)
    found = cadence(pairs)
    tops, bottoms = {top for top, _ in pairs}, {bottom for _, bottom in pairs}
    mine = 0 if found.top_leads else 1

    assert found.top_leads == (lead == "t")
    assert [found.is_whole(n) for n in range(frames)] == [top == bottom for top, bottom in pairs]
    kept = [
        n for n in range(frames) if n % 5 != found.left_out and not (n == 0 and found.torn == 0)
    ]
    leading = [pairs[n][mine] for n in kept]
    other = [pairs[n - 1 if n % 5 == found.torn else n][1 - mine] for n in kept]
    assert leading == other == sorted(tops & bottoms)
    assert found.restored == len(leading)
    assert found.halves == len(tops ^ bottoms)


@pytest.mark.parametrize(("pattern", "lead", "cut"), list(product(("23", "2332"), "tb", range(5))))
def test_the_first_original_is_shown_within_a_field_of_where_it_was(
    pattern: str, lead: str, cut: int
) -> None:
    pairs = shown(pattern, lead, cut, 10)
    found = cadence(pairs)
    first = min({top for top, _ in pairs} & {bottom for _, bottom in pairs})
    fields = [
        number for top, bottom in pairs for number in ((top, bottom), (bottom, top))[lead == "b"]
    ]
    begins, step, frame = found.steps

    assert (step, frame) == (5005, 4004)
    assert abs(begins - fields.index(first) * 2002) <= 1001
    assert found.tick * step == Fraction(1001, 24000)
