"""Choose the key frames at which a video is cut: equal work, scene cuts preferred. Pure.

The work of a stretch of video is modelled from its packets: the share `FIXED` follows the frames
(all have the same size, so pixels cancel out), the rest follows the bytes, because a stretch that
was costly for the source's encoder is costly again. A wrong model makes chunks of uneven work,
never a wrong video.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, pairwise

from hevcq.domain.chunk_settings import Chunking
from hevcq.domain.chunking.chunk_count import best_cut, goals_of, ways_to_cut
from hevcq.domain.chunking.model import KeyIndex

FIXED = 0.5
"""Share of the work in proportion to frames; the rest is in proportion to the source's bytes. Fitted
to x265's time for each group of pictures in a video of nine real clips (benchmarks/chunk_costs.tsv):
the error is least at 0.46 with preset medium and at 0.62 with ultrafast, and nearly as small between."""
REACH = 0.25
"""Largest distance from the ideal place at which a scene cut is considered, as a share of the chunk."""
CUT_BONUS = 0.1
"""Extra distance allowed for a scene cut over another key frame, as a share of the chunk."""
EARLY = 0.95
"""A key frame closer to the previous one than this share of the longest gap counts as a scene cut."""
TAPER = 0.5
"""Length of the last chunks as a share of the others, if the number of workers is unknown."""
TAPERED = 0.3
"""Share of the video that is cut into the shorter chunks."""


def share_of_work(frames: float, size: float) -> float:
    """Return the share of the work from the shares of frames and bytes; frames only if no bytes are known."""
    return FIXED * frames + (1 - FIXED) * size if size else frames


def choose_boundaries(chunking: Chunking, index: KeyIndex, *, workers_hint: int) -> tuple[int, ...]:
    """Return the positions in `index.keys` at which chunks begin; the first is 0.

    No chunk is shorter than `min_s` seconds; a chunk is longer than `max_s` seconds only where the
    source has no key frame in between.
    """
    video = _Video(index)
    if workers_hint <= 0:
        return video.cut(chunking, _tapered(chunking, video.length_s))
    cuts = [
        video.cut(chunking, goals) for goals in ways_to_cut(chunking, video.length_s, workers_hint)
    ]
    return best_cut(cuts, [video.costs(cut) for cut in cuts], video.length_s, workers_hint)


def _tapered(chunking: Chunking, length_s: float) -> list[float]:
    """Return the shares of the work at which chunks begin if the number of workers is unknown."""
    wanted = max(2.0, length_s / chunking.target_s)
    small = max(chunking.min_s, chunking.target_s * TAPER) / chunking.target_s
    long = max(1, round(wanted * (1 - TAPERED)))
    short = round((wanted - long) / small) if wanted >= 4 else 0
    weights = [1.0] * (long if short else max(1, round(wanted))) + [small] * short
    return goals_of(weights)


class _Video:
    """Key frames with their times in seconds and the share of the work before each."""

    def __init__(self, index: KeyIndex) -> None:
        first, tick = index.keys[0].pts, index.tick
        self.at = [float((key.pts - first) * tick) for key in index.keys]
        self.length_s = float((index.end_pts - first) * tick)
        total = sum(key.bytes_until_next for key in index.keys)
        works = [
            share_of_work(
                key.frames_until_next / max(1, index.frames),
                key.bytes_until_next / total if total else 0.0,
            )
            for key in index.keys
        ]
        self.done = [0.0, *accumulate(works)][:-1]
        gaps = [after - before for before, after in zip(self.at, self.at[1:], strict=False)]
        longest = max(gaps, default=0.0)
        self.cuts = {
            place + 1
            for place, gap in enumerate(gaps)
            # In an intra-only video a key frame says nothing about scenes.
            if gap < EARLY * longest
        }

    def cut(self, chunking: Chunking, goals: list[float]) -> tuple[int, ...]:
        """Return the chunk boundaries nearest to the goals."""
        places = [0]
        for goal in goals:
            place = self.place(chunking, places[-1], goal)
            if place is not None and place > places[-1]:
                places.append(place)
        return tuple(self.filled(chunking, places))

    def costs(self, places: tuple[int, ...]) -> list[float]:
        """Return the share of the work in each chunk of a cut."""
        begins = [self.done[place] for place in places]
        return [after - before for before, after in pairwise([*begins, 1.0])]

    def place(self, chunking: Chunking, last: int, goal: float) -> int | None:
        """Return the key frame nearest to the goal that leaves enough video on both sides, or None."""
        ideal = self._time_of(goal)
        wide = max(chunking.min_s, chunking.target_s) * REACH
        lowest = self.at[last] + chunking.min_s
        highest = min(self.length_s - chunking.min_s, self.at[last] + chunking.max_s)
        near = self._between(max(lowest, ideal - wide), min(highest, ideal + wide))
        candidates = near or self._between(lowest, highest)

        def distance(place: int) -> tuple[float, int]:
            bonus = CUT_BONUS * chunking.target_s if place in self.cuts else 0.0
            return abs(self.at[place] - ideal) - bonus, place

        return min(candidates, key=distance, default=None)

    def filled(self, chunking: Chunking, places: list[int]) -> list[int]:
        """Cut chunks longer than `max_s` seconds again, where a key frame allows it."""
        filled = [places[0]]
        ends = [*places[1:], None]
        for end in ends:
            limit = self.at[end] if end is not None else self.length_s
            while limit - self.at[filled[-1]] > chunking.max_s:
                start = self.at[filled[-1]]
                pieces = -(-(limit - start) // chunking.max_s)
                fitting = self._between(start + chunking.min_s, limit - chunking.min_s)
                if not fitting:
                    break
                ideal = start + (limit - start) / pieces
                inside = [p for p in fitting if self.at[p] <= start + chunking.max_s] or fitting[:1]
                filled.append(min(inside, key=lambda p: (abs(self.at[p] - ideal), p)))
            if end is not None:
                filled.append(end)
        return filled

    def _between(self, lowest: float, highest: float) -> range:
        return range(bisect_left(self.at, lowest - 1e-9), bisect_left(self.at, highest + 1e-9))

    def _time_of(self, goal: float) -> float:
        """Return the time in seconds at which that share of the work is done; even between key frames."""
        place = max(0, bisect_left(self.done, goal) - 1)
        after = place + 1
        end_at = self.at[after] if after < len(self.at) else self.length_s
        end_done = self.done[after] if after < len(self.done) else 1.0
        span = end_done - self.done[place]
        inside = (goal - self.done[place]) / span if span > 0 else 0.0
        return self.at[place] + inside * (end_at - self.at[place])
