"""Find where an HLS ladder may be cut: at its segments' borders, which lie on a grid of seconds. Pure.

A whole encode forces a key frame at the first picture at or after each step of `keyframe_s`, counted
from the first picture, and a segment begins with the first of these at or after each `segment_s`.
Both follow from the pictures' times alone, so a chunk can be told which of its pictures are key
frames, and its rungs are aligned with those of every other chunk. A border is seldom a key frame of
the source: the chunk is then decoded from the one before it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from math import floor

from hevcq.domain.chunking.model import KeyFrame, KeyIndex, seek_s, times_sum
from hevcq.domain.planning.encode_plan import Ladder


def on_grid(
    index: KeyIndex, shown: Sequence[int], sizes: Mapping[int, int], ladder: Ladder
) -> KeyIndex:
    """Return the index of the places where a ladder may be cut, in place of the source's key frames.

    `shown` are the times of all pictures in ticks, ascending; `sizes` their bytes in the source. Those
    that the ladder leaves out are not counted.
    """
    shown = shown[:: ladder.every]
    if not index.keys or not shown:
        return index
    forced = forced_key_frames(shown, index.tick, ladder.keyframe_s)
    begins = segment_starts(shown, forced, index.tick, ladder.segment_s)
    from_keys = [key.pts for key in index.keys]
    keys = []
    for begin, end in pairwise([*begins, len(shown)]):
        held = shown[begin:end]
        decoded_from = bisect_right(from_keys, held[0]) - 1
        keys.append(
            KeyFrame(
                pts=held[0],
                bytes_until_next=sum(sizes[at] for at in held),
                frames_until_next=len(held),
                last_pts=held[-1],
                times=times_sum(held),
                seek_s=seek_s(index, decoded_from) if decoded_from > 0 else None,
                forced=_within(shown, forced, begin, end),
            )
        )
    return index.model_copy(update={"keys": tuple(keys), "frames": len(shown)})


def _within(shown: Sequence[int], forced: Sequence[int], begin: int, end: int) -> tuple[int, ...]:
    first, last = bisect_left(forced, begin), bisect_left(forced, end)
    return tuple(shown[place] for place in forced[first:last])


def forced_key_frames(shown: Sequence[int], tick: Fraction, keyframe_s: float) -> list[int]:
    """Return the places in `shown` at which a whole encode forces key frames.

    ffmpeg evaluates `floor(t/keyframe_s)` for each picture in floating point; so does this, because a
    picture exactly on the grid may be taken for one just before it.
    """
    a_tick = tick.numerator / tick.denominator
    steps = [floor((pts - shown[0]) * a_tick / keyframe_s) for pts in shown]
    return [at for at, step in enumerate(steps) if not at or step > steps[at - 1]]


def segment_starts(
    shown: Sequence[int], forced: Sequence[int], tick: Fraction, segment_s: float
) -> list[int]:
    """Return those of the forced key frames with which segments begin (ffmpeg/hls/segments.py)."""
    step = Fraction(segment_s) / tick
    border, starts = Fraction(0), []
    for place in forced:
        at = shown[place] - shown[0]
        if at >= border:
            starts.append(place)
            border = ((at + 1) // step + 1) * step - 1
    return starts
