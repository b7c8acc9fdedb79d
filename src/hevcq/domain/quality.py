"""Search the CRF at which a video reaches the requested quality: choose each next CRF to measure.

Quality is the VMAF of the worst twentieth of the frames, which matches what people remember better than
the mean. ab-av1 and Av1an search in the same way, by the mean and by each shot.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from hevcq.domain.formats import VideoCodec
from hevcq.domain.model import Frozen

TOLERANCE = 0.5
"""VMAF points by which a probe may miss its target; nobody sees a smaller difference."""
MISSED_BY = 1.5
"""VMAF points below the target at which a finished video counts as missing it: other frames were sampled."""
MAX_PROBES = 5
NEAR = 1.0
"""VMAF points above the target within which a learned CRF ends a search early."""
LEARNED = 3
"""Searches for videos of a kind after which two probes suffice for a short one."""
SHORT_VIDEO_S = 600.0
SAMPLE_S = 2.0
EVERY_S = 240.0
MIN_SAMPLES, MAX_SAMPLES = 4, 16
"""One sample of SAMPLE_S for every EVERY_S, within these bounds, and at most half of a short video."""
SIZE_SAMPLES, SIZE_SHARE = 12, 0.15
"""Most further samples at the chosen CRF, to forecast the size; and most of a short video, as a share."""
USUAL_PROBES = 3.5
SAMPLE_WORK, SIZE_WORK = 1.9, 1.5
"""Cost of a second of a sample, measured or only for the size, relative to one of the whole encode."""
MAX_WORK_SHARE = 0.08
"""Largest cost of a search with its size samples, as a share of a long video's encode."""
DRAWS = 200
POINTS_PER_STEP = 0.9
"""VMAF points that one step of x265's CRF costs on average (docs/quality.md, CRF 18 to 30)."""
BEYOND = 1.3
"""Factor by which a next CRF overshoots the estimated step, because the worth of a step varies."""
NAMES: Mapping[str, float] = {"high": 95.0, "good": 93.0, "small": 90.0}

Asked = tuple[float, float | None]
"""What a command chose instead of the profile's values: a CRF, and a quality to search from it."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The range of CRFs to search, and the step between two of them."""

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
"""The scale of each codec for which a quality can be searched."""


NOT_SEARCHED = "no quality searched"
NOT_FOR_HDR = "VMAF is not made for HDR"


def not_searched(crf: float, why: str) -> str:
    """Return the notice on a rendition whose quality VMAF cannot measure."""
    return f"CRF {crf:g} is used, and {NOT_SEARCHED}: {why}."


def asked_clause(target: float) -> str:
    """Return the clause of a notice that states the requested quality."""
    return f"{target:g} was asked for"


class Probe(Frozen):
    """The result of one CRF on samples."""

    crf: float
    vmaf: float = Field(description="of the worst twentieth of the samples' frames")
    size: int | None = Field(description="bytes of the whole rendition, forecast; null: unknown")


class Aim(Frozen):
    """The requested quality and the result of its search, in VMAF."""

    target: float
    crf: float = Field(description="the chosen CRF; if not in `probes`, that of a second try")
    sampled: float = Field(description="of the search's frames at the CRF that it chose")
    probes: tuple[Probe, ...] = Field(description="the CRFs that were tried, in order")
    cpu_s: float = Field(default=0.0, description="CPU seconds of the search and of a first try")
    verified: float | None = Field(
        default=None,
        description="of the rendition in frames that the search did not sample; null: not measured",
    )
    within: float | None = Field(
        default=None,
        description="relative error that four of five such size forecasts stay within; null: unknown",
    )
    metric: str = Field(description="VMAF's model")

    @property
    def missed(self) -> bool:
        """Whether the finished video is worse than requested."""
        return self.verified is not None and self.verified < self.target - MISSED_BY

    @property
    def out_of_reach(self) -> bool:
        """Whether not even the best CRF that was tried is good enough."""
        return self.sampled < self.target - MISSED_BY

    def is_unreachable(self, scale: Scale) -> bool:
        """Return whether even the scale's best CRF is not good enough, so that nothing is encoded."""
        return self.out_of_reach and self.crf <= scale.best

    @property
    def uncertain_crf(self) -> float | None:
        """The smallest CRF above the chosen one whose score reaches the target, but not its lower bound."""
        reaching = (each.crf for each in self.probes if each.vmaf >= self.target)
        return min((crf for crf in reaching if crf > self.crf), default=None)

    @property
    def size(self) -> int | None:
        """The forecast bytes of the whole rendition, if known."""
        return next((each.size for each in self.probes if each.crf == self.crf), None)

    def in_words(self) -> str:
        score = self.sampled if self.verified is None else self.verified
        how = "of sampled frames" if self.verified is not None else "of the frames tried"
        first = not self.probes or self.crf in {each.crf for each in self.probes}
        second = "" if first else " at the second try"
        return (
            f"{'Only quality' if self.missed else 'Quality'} {score:.1f} (VMAF of the worst twentieth"
            f" {how}; {asked_clause(self.target)}), CRF {self.crf:g}{second}."
        )


@dataclass(frozen=True, slots=True)
class Still:
    """One frame of a source and of its rendition as JPEGs, `at_s` seconds after the first frame.

    `name` says which frame of a comparison it is.
    """

    at_s: float
    score: float
    source: bytes
    made: bytes
    name: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How similar sampled frames of a rendition are to their source's.

    `frames` are (seconds, score) of the measured frames. `stills` are the worst, the median and the best,
    then the worst of each other sampled place, worst first.
    """

    metric: str
    frames: tuple[tuple[float, float], ...]
    stills: tuple[Still, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """The VMAF of one CRF's samples: `worst` is the 5th percentile, `least` its lower bound."""

    worst: float
    least: float


def sample_count(length_s: float, more: int = 0) -> int:
    """Return how many samples to take, with `more` on top if the video is long enough."""
    count = min(MAX_SAMPLES, max(MIN_SAMPLES, round(length_s / EVERY_S)))
    return max(1, min(count + more, int(length_s / (2 * SAMPLE_S))))


def enough_probes(length_s: float, former: int) -> int:
    """Return how many probes suffice once one is good, given `former` searches for videos of the kind."""
    if length_s < SHORT_VIDEO_S:
        return 2 if former >= LEARNED else MAX_PROBES
    return max(2, min(MAX_PROBES, int(MAX_WORK_SHARE * length_s / _work_s(length_s, 1))))


def size_samples(length_s: float, probes: float) -> int:
    """Return how many samples to take only for the size, after so many probes."""
    left_s = SIZE_SHARE * length_s
    if length_s >= SHORT_VIDEO_S:
        left_s = (MAX_WORK_SHARE * length_s - _work_s(length_s, probes)) / SIZE_WORK
    return max(0, min(SIZE_SAMPLES, int(left_s / SAMPLE_S)))


def search_share(length_s: float) -> float:
    """Return the CPU of a search as a share of the encode's."""
    more = size_samples(length_s, USUAL_PROBES) * SAMPLE_S * SIZE_WORK
    return (_work_s(length_s, USUAL_PROBES) + more) / max(1.0, length_s)


def _work_s(length_s: float, probes: float) -> float:
    """Return the cost of so many probes, in seconds of the whole encode's video."""
    return probes * SAMPLE_WORK * sample_count(length_s) * min(SAMPLE_S, length_s / 2)


def worst_twentieth(frames: Sequence[float]) -> float:
    """Return the 5th percentile of the scores, interpolated between two neighbours."""
    ordered = sorted(frames)
    rank = 0.05 * (len(ordered) - 1)
    below = int(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (rank - below) * (ordered[above] - ordered[below])


def score_of(samples: Sequence[Sequence[float]]) -> Score:
    """Return the score of the samples' frames.

    Its lower bound is that of nine in ten bootstrap draws of the samples. If few samples differ much, it
    is far below the score.
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
    """Return the largest CRF that is good enough, and the scores of all CRFs tried from `start` on.

    If none of MAX_PROBES is good enough, return the best one tried. Once a CRF is good enough but hardly
    better, `most` probes suffice. A CRF that cannot be scored ends the search; the scores may be empty.
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
    """Return the CRF to try next, or one already tried, which ends the search.

    That is the largest one that is good enough, or the scale's best if none is.
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
    nearest = low if low is not None else high
    assert nearest is not None
    missing = (tried[nearest].least - goal) / POINTS_PER_STEP
    # Overshoot the target, so that two CRFs enclose it.
    far = min(8.0, max(2.0, abs(missing) * BEYOND)) * _steps(scale)
    return round_to_scale(nearest + (far if low is not None else -far), scale)


def better_crf(aim: Aim, scale: Scale) -> float:
    """Return the CRF for the second and last try at a video that missed its target."""
    missing = (aim.target - (aim.verified or 0.0)) / POINTS_PER_STEP
    return round_to_scale(aim.crf - BEYOND * missing * _steps(scale), scale)


def _steps(scale: Scale) -> float:
    """Return how many CRF steps of a codec correspond to one of x265's."""
    return scale.worst / SCALES[VideoCodec.HEVC].worst


def round_to_scale(crf: float, scale: Scale) -> float:
    """Return the scale's CRF nearest to `crf`."""
    return min(scale.worst, max(scale.best, round(crf / scale.step) * scale.step))
