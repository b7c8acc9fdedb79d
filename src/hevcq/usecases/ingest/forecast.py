"""Forecast CPU time, wall time and sizes of jobs: a table, corrected by finished jobs of this machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import fmean, median
from typing import NamedTuple

from hevcq.domain.formats import PRESETS
from hevcq.domain.job import MAX_SIZE
from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind, VideoFacts, ratio
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.ladder import expected_set_bytes
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.ports.catalog import EncodeCost
from hevcq.ports.encoder import Estimate
from hevcq.sql.catalog import Catalog

LATEST = 50
"""Newest finished jobs read per profile: they best represent the current machine and settings."""
MEDIUM = {
    "libx265": 16.0,
    "libx264": 35.0,
    "libsvtav1": 19.0,
    "libvpx-vp9": 10.0,
    "libtheora": 33.0,
    "mpeg4": 220.0,
}
"""Megapixels per CPU second by encoder, decode included. Measured with ffmpeg 5.1.9 on Big Buck Bunny
at 1280x720, CRF 24, on one 2-core x86-64 machine in November 2026; used until enough own jobs are
known. The last four, at the shipped presets, are in relation to libx265 on the same 5 s."""
BY_PRESET = {
    "libx265": (47.0, 26.0, 23.0, 23.0, 18.0, 16.0, 6.9, 1.6, 0.95),
    "libx264": (160.0, 120.0, 80.0, 53.0, 46.0, 35.0, 28.0, 17.0, 12.0),
}
"""The same by preset, in the order of PRESETS."""
GATE_SHARE = 0.35
"""CPU time of pre-flight and gates as a fraction of the encode's; the upper end of measurements."""
LADDER_WORK = 1.9
"""Work for a ladder's pixel relative to a single file's: its key frames are close together, it is
packaged, and gates H1 to H5 follow. Fitted to 5 s of 720p and 12 s of 1080p."""
JOB_CPU_S = 0.35
"""CPU seconds of a job beside its frames: starting programs, probing."""
CPU_BY_DENSITY, SIZE_BY_DENSITY = 0.25, 0.8
"""Exponents of the source's bits per pixel in its rendition's cost and size: a source with many bits is
hard to encode and shrinks most. Fitted to encoded clips."""
USUAL_DENSITY = 0.15
"""Bits per pixel of a source for which the table holds."""
USUAL_OUTPUT = {
    "libx265": 0.09,
    "libx264": 0.12,
    "libsvtav1": 0.06,
    "libvpx-vp9": 0.09,
    "libtheora": 0.24,
    "mpeg4": 0.17,
}
"""Bits per pixel of a rendition at USUAL_DENSITY and the shipped CRF."""
SPREAD, TABLE_SPREAD, OWN_SPREAD = 0.42, 0.3, 0.2
"""Standard deviations in natural logarithms: of one video around the model, and of all together
around the table and around the factor of own jobs."""
SIZE_ERROR, CPU_ERROR = 0.03, 0.15
"""The same for the error that all forecasts from samples share."""
QUALITY_SPREAD = 0.4
"""The same for all sizes together where a quality is searched, since the CRF is unknown beforehand."""
DEVIATIONS = 1.45
"""Half a range, in standard deviations: 85 % of a normal distribution, as tails are heavier."""
NARROW = 0.1
"""Half the width of a range as a share of its middle, at which sampling ends."""
KEPT_ABOVE = 0.95
"""Share of the source above which a rendition is not kept (the default of gates.minimum_saving)."""
MIN_OWN_ENCODES = 3
"""Minimum number of own jobs for their factor to be used."""
JOB_OVERHEAD_S = 0.5
"""Wall seconds to start, probe and publish one job."""
USUAL_RATE, MAX_RATE = Fraction(25), Fraction(300)
"""Frames per second if the header has no rate, or a higher one: its clock (Matroska 1000)."""
FALLBACK_SECONDS = 1.0
"""Duration in seconds assumed if the header has none: the range then only means 'soon'."""


class Range(NamedTuple):
    """A range of seconds or of bytes."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The geometric mean of both ends."""
        return math.sqrt(self.low * self.high)

    @property
    def is_narrow(self) -> bool:
        """Whether no more samples are needed."""
        return self.high - self.low <= NARROW * (self.high + self.low)

    def rounded(self, digits: int | None = None) -> tuple[float, float]:
        return round(self.low, digits), round(self.high, digits)


NOTHING = Range(0.0, 0.0)


def total(ranges: Iterable[Range]) -> Range:
    lows, highs = zip(NOTHING, *ranges, strict=True)
    return Range(sum(lows), sum(highs))


class Factor(NamedTuple):
    """Corrects the table for one profile: factors of CPU seconds and of bytes (None: as in the table).

    `spread` and `shared` are standard deviations, in natural logarithms, of one job and of all together.
    """

    cpu: float = 1.0
    size: float | None = None
    spread: float = SPREAD
    shared: float = TABLE_SPREAD


@dataclass(frozen=True, slots=True)
class Costs:
    """The factor of each profile, from finished jobs (medians) or samples, and `estimates` of sampled jobs."""

    factors: Mapping[str, Factor] = field(default_factory=dict)
    estimates: Mapping[EncodeCost, Estimate] = field(default_factory=dict)

    @classmethod
    def learned(cls, samples: Iterable[EncodeCost]) -> Costs:
        """Return the factors of finished jobs; a profile with fewer than MIN_OWN_ENCODES keeps the table's values."""
        ratios: dict[str, list[tuple[float, float]]] = {}
        for job in samples:
            if min(job.megapixels, job.cpu_s, job.output_size) > 0:
                ratio = job.cpu_s / _encode_cpu(job), job.output_size / _size(job)
                ratios.setdefault(job.profile, []).append(ratio)
        return cls(
            {
                name: Factor(
                    median(cpu for cpu, _ in jobs),
                    median(size for _, size in jobs),
                    shared=OWN_SPREAD,
                )
                for name, jobs in ratios.items()
                if len(jobs) >= MIN_OWN_ENCODES
            }
        )

    def sampled(self, estimates: Mapping[EncodeCost, Estimate]) -> Costs:
        """Return these rates with the factors that samples of some jobs give for their profiles."""
        factors = dict(self.factors)
        for name in {job.profile for job in estimates}:
            sampled = {job: estimate for job, estimate in estimates.items() if job.profile == name}
            cpu = sum(each.cpu_s for each in sampled.values()) / sum(map(_encode_cpu, sampled))
            size = sum(estimate.size for estimate in sampled.values()) / sum(map(_size, sampled))
            ratios = [math.log(estimate.size / _size(job)) for job, estimate in sampled.items()]
            mean, root = fmean(ratios), math.sqrt(len(ratios))
            spread = math.hypot(SPREAD, *(each - mean for each in ratios)) / root
            factors[name] = Factor(cpu, size, spread, spread / root)
        return Costs(factors, estimates)

    def cpu(self, jobs: Sequence[EncodeCost]) -> Range:
        """Return the CPU seconds of jobs of one profile, including search and gates."""
        return self._range(jobs, [self.expected_cpu(job) for job in jobs], CPU_ERROR)

    def expected_cpu(self, job: EncodeCost) -> float:
        """Return the middle of the CPU seconds of a job, including search and gates."""
        factor = self.factors.get(job.profile, Factor())
        sample = self.estimates.get(job)
        encode = sample.cpu_s if sample else _encode_cpu(job) * factor.cpu
        return JOB_CPU_S + encode * (1 + job.search) * (1 + GATE_SHARE)

    def size(self, jobs: Sequence[EncodeCost]) -> Range:
        """Return the bytes of the renditions of one profile's jobs, or of the source where that stays."""
        expected, searches = [self._expected_size(job) for job in jobs], any(e.search for e in jobs)
        sizes = self._range(jobs, expected, SIZE_ERROR, QUALITY_SPREAD if searches else 0.0)
        most = float(sum(job.most for job in jobs))
        return Range(min(sizes.low, most), min(sizes.high, most))

    def _expected_size(self, job: EncodeCost) -> float:
        """Return the bytes of a rendition, or of its source if the rendition saves too little to be kept.

        Without finished jobs, a ladder's size comes from its rungs.
        """
        own = self.factors.get(job.profile, Factor()).size
        size = _size(job) * own if own else float(job.usual) or _size(job)
        size = self.estimates[job].size if job in self.estimates else size
        return size if size < KEPT_ABOVE * job.most else float(job.most)

    def _range(
        self,
        jobs: Sequence[EncodeCost],
        expected: Sequence[float],
        sample_error: float,
        quality_spread: float = 0.0,
    ) -> Range:
        """Return the range around a sum of jobs: errors of single jobs even out, shared errors do not."""
        whole = sum(expected)
        if whole <= 0:
            return NOTHING
        factor = self.factors.get(jobs[0].profile, Factor())
        samples = [self.estimates.get(job) for job in jobs]
        errors = [factor.spread if sample is None else sample.error for sample in samples]
        single = math.hypot(*(e * one for e, one in zip(errors, expected, strict=True))) / whole
        unsampled = sum(one for one, s in zip(expected, samples, strict=True) if s is None)
        shared = math.hypot(factor.shared, quality_spread) * unsampled / whole
        is_sampled = any(job.profile == jobs[0].profile for job in self.estimates)
        half = math.exp(
            DEVIATIONS * math.hypot(single, shared, sample_error if is_sampled else 0.0)
        )
        return Range(whole / half, whole * half)


TABLE_ONLY = Costs()


def learned_rates(catalog: Catalog, profiles: Iterable[Profile]) -> Costs:
    """Return the rates of the LATEST encodes of each profile on this machine."""
    return Costs.learned(
        cost for profile in profiles for cost in catalog.encode_costs(profile.name, LATEST).values()
    )


def work_of(
    plan: EncodePlan,
    preset: str,
    info: MediaInfo,
    output_size: int = 0,
    cpu_s: float = 0.0,
    *,
    keeps_larger: bool = False,
) -> EncodeCost:
    """Return a job's work, with the size and CPU seconds that it took if it is finished.

    `keeps_larger`: the profile keeps a rendition that is larger than its source, as streaming profiles do.
    """
    seconds = info.duration_s or FALLBACK_SECONDS
    usual, most = 0, MAX_SIZE if keeps_larger else info.size
    if plan.ladder:
        usual, most = expected_set_bytes(plan, info, seconds)
    return EncodeCost(
        profile=plan.profile,
        encoder=plan.video.encoder,
        preset=preset,
        megapixels=_pixels(plan) * float(_rate(info)) * seconds / 1e6,
        source_size=info.size,
        output_size=output_size,
        cpu_s=cpu_s,
        most=most,
        usual=usual,
    )


def _encode_cpu(job: EncodeCost) -> float:
    """Return the CPU seconds of an encode by the table, without search and gates."""
    by_preset = dict(zip(PRESETS, BY_PRESET.get(job.encoder, ()), strict=False))
    speed = by_preset.get(job.preset, MEDIUM[job.encoder])
    harder = (_density(job) / USUAL_DENSITY) ** CPU_BY_DENSITY
    return float(job.megapixels / speed * harder)


def _size(job: EncodeCost) -> float:
    bits = USUAL_OUTPUT[job.encoder] * (_density(job) / USUAL_DENSITY) ** SIZE_BY_DENSITY
    return float(bits * job.megapixels * 1e6 / 8)


def _density(job: EncodeCost) -> float:
    """Return a source's bits per pixel of its rendition, within what is plausible."""
    if job.megapixels <= 0:
        return USUAL_DENSITY
    return min(4.0, max(0.003, job.source_size * 8 / (job.megapixels * 1e6)))


def _pixels(plan: EncodePlan) -> float:
    """Return the pixels of one frame of the rendition.

    For a ladder it is the sum over all rungs, times LADDER_WORK; the rung of a slower encoder counts more.
    """
    if plan.ladder is None:
        return plan.video.width * plan.video.height
    targets = [rung.target for rung in plan.ladder.rungs]
    work = sum(each.width * each.height / MEDIUM[each.encoder] for each in targets)
    return LADDER_WORK * MEDIUM[plan.video.encoder] * work


def minute_cost(profile: Profile) -> tuple[float, int] | None:
    """Return the table's CPU seconds and bytes for a minute of 1080p; None if the profile does not encode it.

    The minute has 25 frames a second, USUAL_DENSITY bits per pixel, and a codec that no recipe skips.
    """
    picture = VideoFacts(
        width=1920, height=1080, pixel_format="yuv420p", bit_depth=8, average_rate="25/1"
    )
    stream = Stream(index=0, kind=StreamKind.VIDEO, codec="mpeg2video", video=picture)
    size = int(1920 * 1080 * 25 * 60 * USUAL_DENSITY / 8)
    info = MediaInfo(format_name="matroska,webm", duration_s=60.0, size=size, streams=(stream,))
    plan = make_plan(profile, info)
    if not isinstance(plan, EncodePlan):
        return None
    work = work_of(plan, profile.video.preset, info)
    return TABLE_ONLY.expected_cpu(work), int(_size(work))


def wall(
    jobs: Sequence[Range],
    whole: Range,
    cores: float,
    workers: int,
    machine: float | None = None,
) -> Range:
    """Return the wall seconds of `jobs`, `whole` CPU seconds together, on `cores` with `workers` slots.

    At best every core is always busy; at worst the longest job runs alone at the end. One job uses at
    most the `machine` cores of one machine (None: all cores), however large the fleet is.
    """
    if not jobs:
        return NOTHING
    cores, workers = max(1.0, cores), max(1, workers)
    alone = max(1.0, machine or cores)
    overhead = JOB_OVERHEAD_S * max(1.0, len(jobs) / workers)
    low = max(whole.low / cores, max(job.low for job in jobs) / alone)
    high = whole.high / cores + max(job.high for job in jobs) / alone * (1 - 1 / workers)
    return Range(low + overhead, high + overhead * 2)


def _rate(info: MediaInfo) -> Fraction:
    videos = (stream.video for stream in info.of_kind(StreamKind.VIDEO) if stream.video)
    known = next(filter(None, (ratio(video.average_rate) for video in videos)), USUAL_RATE)
    return known if known <= MAX_RATE else USUAL_RATE
