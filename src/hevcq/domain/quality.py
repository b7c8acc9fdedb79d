"""Search the CRF at which a video looks as good as was asked: the steps between two measurements.

Quality is VMAF of the worst twentieth of the frames, which is nearer to what people remember than the
mean. ab-av1 and Av1an search in the same way, by the mean and by each shot.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from hevcq.domain.formats import VideoCodec
from hevcq.domain.model import Frozen

TOLERANCE = 0.5
"""Points of VMAF by which a probe may miss its target; fewer cost probes that nobody sees."""
MISSED_BY = 1.5
"""Points below the target from which a finished video has missed it: other frames were sampled."""
MAX_PROBES = 5
NEAR = 1.0
"""Points above the target up to which a learned CRF is near enough for fewer probes."""
LEARNED = 3
"""Videos of a kind from which the CRF of the next short one is known well enough for two probes."""
SHORT_S = 600.0
SAMPLE_S = 2.0
EVERY_S = 240.0
MIN_SAMPLES, MAX_SAMPLES = 4, 16
"""One sample for so many seconds, within these bounds; of a short video at most a half."""
SIZE_SAMPLES, SIZE_SHARE = 12, 0.15
"""Samples at the CRF that was found, for the size alone: at most so many, and a share of a short video."""
USUAL_PROBES = 3.5
SAMPLE_WORK, SIZE_WORK = 1.9, 1.5
"""What a second of a sample costs beside one of the whole encode: it starts anew, and may be measured."""
MOST_WORK = 0.08
"""Share of a long video's encode that a search with its samples for the size may cost."""
DRAWS = 200
POINTS_PER_STEP = 0.9
"""Points of VMAF that one step of x265's CRF costs about (docs/quality.md, CRF 18 to 30)."""
BEYOND = 1.3
"""How many times as far as what is missing a next CRF lies: videos differ in what a step is worth."""
NAMES: Mapping[str, float] = {"high": 95.0, "good": 93.0, "small": 90.0}

Asked = tuple[float, float | None]
"""What a command chose for its videos instead of the profile's: a CRF, and a quality to search it for."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The CRFs that are searched, the best one first, and how finely."""

    best: float
    worst: float
    step: float


SCALES: Mapping[VideoCodec, Scale] = {
    VideoCodec.HEVC: Scale(12, 36, 0.5),
    VideoCodec.H264: Scale(10, 34, 0.5),
    # Whole numbers only.
    VideoCodec.VP9: Scale(15, 55, 1),
    VideoCodec.AV1: Scale(15, 60, 1),
}
"""Of each codec whose quality can be asked for."""


NOT_SEARCHED = "no quality searched"
NOT_FOR_HDR = "VMAF is not made for HDR"


def not_searched(crf: float, why: str) -> str:
    """Return the notice on a rendition whose quality VMAF says nothing of."""
    return f"CRF {crf:g} is used, and {NOT_SEARCHED}: {why}."


def asked_clause(target: float) -> str:
    """Return the part of a rendition's notice that says which quality it was made for."""
    return f"{target:g} was asked for"


class Probe(Frozen):
    """A CRF that was tried on samples."""

    crf: float
    vmaf: float = Field(description="of the worst twentieth of the samples' frames")
    size: int | None = Field(description="bytes of the whole rendition, forecast; null: unknown")


class Aim(Frozen):
    """The quality that was asked for, and what was found on the way to it, in VMAF."""

    target: float
    crf: float = Field(description="that was chosen; none of `probes`: for a second try")
    sampled: float = Field(description="of the frames that the search saw, at the CRF it chose")
    probes: tuple[Probe, ...] = Field(description="the CRFs that were tried, in order")
    cpu_s: float = Field(default=0.0, description="CPU seconds of the search, and of a first try")
    verified: float | None = Field(
        default=None,
        description="of the rendition, in frames that the search never saw; null: not measured",
    )
    within: float | None = Field(
        default=None,
        description="share by which four of five such forecasts of the size miss at most; null: unknown",
    )
    metric: str = Field(description="the model")

    @property
    def missed(self) -> bool:
        """Whether the finished video is worse than was asked for."""
        return self.verified is not None and self.verified < self.target - MISSED_BY

    @property
    def out_of_reach(self) -> bool:
        """Whether not even the best CRF that was tried is good enough."""
        return self.sampled < self.target - MISSED_BY

    def is_unreachable(self, scale: Scale) -> bool:
        """Whether the best CRF of all was tried in vain, so that nothing is encoded."""
        return self.out_of_reach and self.crf <= scale.best

    @property
    def uncertain_crf(self) -> float | None:
        """The smallest CRF above the chosen one whose samples reach the target: its lower bound does not."""
        passed = (each.crf for each in self.probes if each.vmaf >= self.target)
        return min((crf for crf in passed if crf > self.crf), default=None)

    @property
    def size(self) -> int | None:
        """The forecast bytes of the whole rendition, if known."""
        return next((each.size for each in self.probes if each.crf == self.crf), None)

    def in_words(self) -> str:
        seen = self.sampled if self.verified is None else self.verified
        how = "of sampled frames" if self.verified is not None else "of the frames tried"
        first = not self.probes or self.crf in {each.crf for each in self.probes}
        second = "" if first else " at the second try"
        return (
            f"{'Only quality' if self.missed else 'Quality'} {seen:.1f} (VMAF of the worst twentieth"
            f" {how}; {asked_clause(self.target)}), CRF {self.crf:g}{second}."
        )


@dataclass(frozen=True, slots=True)
class Still:
    """One frame of a source and of its rendition, each as a JPEG; `at_s` from the first frame.

    `name` says which one it is of those all over a video.
    """

    at_s: float
    score: float
    source: bytes
    made: bytes
    name: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much frames all over a rendition look like their source's.

    `frames` are (seconds, score) of those that were measured, `stills` the worst, the median and the
    best, then the worst of each other place, the worst first.
    """

    metric: str
    frames: tuple[tuple[float, float], ...]
    stills: tuple[Still, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """What the samples of one CRF say: `worst` is the 5th percentile, `least` its lower bound."""

    worst: float
    least: float


def sample_count(length_s: float, more: int = 0) -> int:
    """Return how many samples a video has, and `more` where it is long enough."""
    count = min(MAX_SAMPLES, max(MIN_SAMPLES, round(length_s / EVERY_S)))
    return max(1, min(count + more, int(length_s / (2 * SAMPLE_S))))


def enough_probes(length_s: float, former: int) -> int:
    """Return how many probes will do once one is good, after searches for so many videos of the kind."""
    if length_s < SHORT_S:
        return 2 if former >= LEARNED else MAX_PROBES
    return max(2, min(MAX_PROBES, int(MOST_WORK * length_s / _work_s(length_s, 1))))


def size_samples(length_s: float, probes: float) -> int:
    """Return how many samples for the size alone a video has after so many probes."""
    left_s = SIZE_SHARE * length_s
    if length_s >= SHORT_S:
        left_s = (MOST_WORK * length_s - _work_s(length_s, probes)) / SIZE_WORK
    return max(0, min(SIZE_SAMPLES, int(left_s / SAMPLE_S)))


def search_share(length_s: float) -> float:
    """Return the CPU of a search as a share of the encode's."""
    more = size_samples(length_s, USUAL_PROBES) * SAMPLE_S * SIZE_WORK
    return (_work_s(length_s, USUAL_PROBES) + more) / max(1.0, length_s)


def _work_s(length_s: float, probes: float) -> float:
    """Return the seconds of the whole encode that so many probes cost."""
    return probes * SAMPLE_WORK * sample_count(length_s) * min(SAMPLE_S, length_s / 2)


def worst_twentieth(frames: Sequence[float]) -> float:
    """Return the score that a twentieth of the frames do not reach, between its neighbours."""
    ordered = sorted(frames)
    place = 0.05 * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def score_of(samples: Sequence[Sequence[float]]) -> Score:
    """Return the score of some samples' frames.

    The lower bound is exceeded with nine draws of ten, if samples are drawn again from these
    (bootstrap): with few samples that differ it lies far below.
    """
    drawing = random.Random(0)  # noqa: S311 - the same video gets the same CRF
    worst = worst_twentieth([frame for sample in samples for frame in sample])
    draws = sorted(
        worst_twentieth([f for sample in drawing.choices(samples, k=len(samples)) for f in sample])
        for _ in range(DRAWS)
    )
    return Score(worst, draws[DRAWS // 10])


def search(
    score_at: Callable[[float], Score | None],
    start: float,
    target: float,
    scale: Scale,
    most: int = MAX_PROBES,
) -> tuple[float, dict[float, Score]]:
    """Return the largest CRF that is good enough, and what was tried, `start` first.

    If none of MAX_PROBES is, that is the best one tried; as soon as one is, and no better than needed,
    `most` are enough. It ends where nothing can be said of a CRF; nothing was tried if that is the first.
    """
    tried: dict[float, Score] = {}
    good: list[float] = []
    crf = round_to_scale(start, scale)
    while crf not in tried and len(tried) < MAX_PROBES:
        if len(tried) >= most and good and tried[max(good)].least <= target + NEAR:
            break
        score = score_at(crf)
        if score is None:
            break
        tried[crf] = score
        good += [crf] if score.least >= target - TOLERANCE else []
        crf = next_crf(tried, target, scale)
    return max(good) if good else min(tried, default=crf), tried


def next_crf(tried: Mapping[float, Score], target: float, scale: Scale) -> float:
    """Return the CRF to try next; one that was tried is the answer: the largest that is good enough.

    If none is, that is the best of the scale.
    """
    goal = target - TOLERANCE
    good = [crf for crf, score in tried.items() if score.least >= goal]
    poor = [crf for crf, score in tried.items() if score.least < goal]
    low = max(good, default=None)
    high = min((crf for crf in poor if low is None or crf > low), default=None)
    if low is not None and high is not None:
        if high - low <= scale.step:
            return low
        drop = tried[low].least - tried[high].least
        share = (tried[low].least - goal) / drop if drop > 0 else 0.5
        return round_to_scale(
            low + share * (high - low), Scale(low + scale.step, high - scale.step, scale.step)
        )
    known = low if low is not None else high
    assert known is not None
    missing = (tried[known].least - goal) / POINTS_PER_STEP
    # Beyond the target, so that the next two lie on both sides of it.
    far = min(8.0, max(2.0, abs(missing) * BEYOND)) * _steps(scale)
    return round_to_scale(known + (far if low is not None else -far), scale)


def better_crf(aim: Aim, scale: Scale) -> float:
    """Return the CRF for a second try at a video that missed its target: there is no third."""
    missing = (aim.target - (aim.verified or 0.0)) / POINTS_PER_STEP
    return round_to_scale(aim.crf - BEYOND * missing * _steps(scale), scale)


def _steps(scale: Scale) -> float:
    """Return how many CRFs of a codec look like one of x265's."""
    return scale.worst / SCALES[VideoCodec.HEVC].worst


def round_to_scale(crf: float, scale: Scale) -> float:
    """Return the nearest CRF of a scale."""
    return min(scale.worst, max(scale.best, round(crf / scale.step) * scale.step))
