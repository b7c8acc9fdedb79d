"""Forecast CPU time, wall time and sizes of jobs: a table times what this machine's own jobs measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import fmean, median
from typing import NamedTuple

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
PRESETS = [
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
]
BY_PRESET = {
    "libx265": (47.0, 26.0, 23.0, 23.0, 18.0, 16.0, 6.9, 1.6, 0.95),
    "libx264": (160.0, 120.0, 80.0, 53.0, 46.0, 35.0, 28.0, 17.0, 12.0),
}
"""The same by preset, in the order of PRESETS."""
GATE_SHARE = 0.35
"""CPU time of pre-flight and gates as a fraction of the encode: the upper end of measurements."""
LADDER_WORK = 1.9
"""What a pixel of a ladder counts beside one of a single file: its key frames are close together, it
is packaged, and gates H1 to H5 follow. Fitted to 5 s of 720p and 12 s of 1080p."""
JOB_CPU_S = 0.35
"""CPU seconds of a job beside its pictures: programs to start, probes."""
CPU_BY_DENSITY, SIZE_BY_DENSITY = 0.25, 0.8
"""Exponents of the source's bits per pixel in the cost and in the size of its rendition: what took
many bits is hard to encode, and shrinks most. Fitted to clips that were encoded."""
USUAL_DENSITY = 0.15
"""Bits per pixel at which the table holds."""
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
"""The same of samples: what all that is forecast from them is wrong by."""
QUALITY_SPREAD = 0.4
"""The same of all sizes together where a quality is searched: nobody knows the CRF before."""
DEVIATIONS = 1.45
"""Half a range, in standard deviations: 85 % of a normal distribution, as tails are heavier."""
KNOWN_WITHIN = 0.1
"""Half of the range of all sizes, as a share, at which no more is sampled."""
KEPT_ABOVE = 0.95
"""Share of the source above which a rendition is not kept (the default of gates.minimum_saving)."""
OWN_ENOUGH = 3
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
        """What is as likely too little as too much: the ends are as many times above and below it."""
        return math.sqrt(self.low * self.high)

    @property
    def is_known(self) -> bool:
        """Whether it is so narrow that no more samples are needed."""
        return self.high - self.low <= KNOWN_WITHIN * (self.high + self.low)


NOTHING = Range(0.0, 0.0)


def total(ranges: Iterable[Range]) -> Range:
    """Return the range from the sum of the lows to the sum of the highs."""
    found = list(ranges)
    return Range(sum(each.low for each in found), sum(each.high for each in found))


class Factor(NamedTuple):
    """What encodes of a profile take over the table: CPU seconds, and bytes (None: by the table).

    `spread` and `shared` are standard deviations of one job, and of all together.
    """

    cpu: float = 1.0
    size: float | None = None
    spread: float = SPREAD
    shared: float = TABLE_SPREAD


@dataclass(frozen=True, slots=True)
class Costs:
    """The factors of profiles by own jobs (medians) or by samples, `estimates` of these very jobs."""

    factors: Mapping[str, Factor] = field(default_factory=dict)
    estimates: Mapping[EncodeCost, Estimate] = field(default_factory=dict)

    @classmethod
    def learned(cls, samples: Iterable[EncodeCost]) -> Costs:
        """Return the rates of finished jobs; profiles with too few of them keep the table's."""
        known: dict[str, list[tuple[float, float]]] = {}
        for job in samples:
            if min(job.megapixels, job.cpu_s, job.output_size) > 0:
                over_table = job.cpu_s / _encode_cpu(job), job.output_size / _size(job)
                known.setdefault(job.profile, []).append(over_table)
        return cls(
            {
                name: Factor(
                    median(cpu for cpu, _ in jobs),
                    median(size for _, size in jobs),
                    shared=OWN_SPREAD,
                )
                for name, jobs in known.items()
                if len(jobs) >= OWN_ENOUGH
            }
        )

    def sampled(self, estimates: Mapping[EncodeCost, Estimate]) -> Costs:
        """Return the rates that samples of some jobs show for all jobs of their profiles."""
        factors = dict(self.factors)
        for name in {job.profile for job in estimates}:
            found = {job: estimate for job, estimate in estimates.items() if job.profile == name}
            cpu = sum(each.cpu_s for each in found.values()) / sum(map(_encode_cpu, found))
            size = sum(estimate.size for estimate in found.values()) / sum(map(_size, found))
            ratios = [math.log(estimate.size / _size(job)) for job, estimate in found.items()]
            mean, root = fmean(ratios), math.sqrt(len(ratios))
            spread = math.hypot(SPREAD, *(each - mean for each in ratios)) / root
            factors[name] = Factor(cpu, size, spread, spread / root)
        return Costs(factors, estimates)

    def cpu(self, jobs: Sequence[EncodeCost]) -> Range:
        """Return the CPU seconds of jobs of one profile, including search and gates."""
        return self._around(jobs, [self.expected_cpu(job) for job in jobs], CPU_ERROR)

    def expected_cpu(self, job: EncodeCost) -> float:
        """Return the middle of the CPU seconds of a job, including search and gates."""
        factor = self.factors.get(job.profile, Factor())
        tried = self.estimates.get(job)
        encode = tried.cpu_s if tried else _encode_cpu(job) * factor.cpu
        return JOB_CPU_S + encode * (1 + job.search) * (1 + GATE_SHARE)

    def size(self, jobs: Sequence[EncodeCost]) -> Range:
        """Return the bytes that take the place of the sources of jobs of one profile."""
        expected, searches = [self._expected_size(job) for job in jobs], any(e.search for e in jobs)
        found = self._around(jobs, expected, SIZE_ERROR, QUALITY_SPREAD if searches else 0.0)
        most = float(sum(job.most for job in jobs))
        return Range(min(found.low, most), min(found.high, most))

    def _expected_size(self, job: EncodeCost) -> float:
        """Return the bytes of a rendition: of a ladder by its rungs, unless own jobs are known.

        One that saves too little is not kept.
        """
        own = self.factors.get(job.profile, Factor()).size
        size = _size(job) * own if own else float(job.usual) or _size(job)
        size = self.estimates[job].size if job in self.estimates else size
        return size if size < KEPT_ABOVE * job.most else float(job.most)

    def _around(
        self,
        jobs: Sequence[EncodeCost],
        expected: Sequence[float],
        of_trials: float,
        of_quality: float = 0.0,
    ) -> Range:
        """Return the range of a sum of jobs: what is one job's own evens out, what all share does not."""
        whole = sum(expected)
        if whole <= 0:
            return NOTHING
        factor = self.factors.get(jobs[0].profile, Factor())
        tried = [self.estimates.get(job) for job in jobs]
        errors = [factor.spread if estimate is None else estimate.error for estimate in tried]
        alone = math.hypot(*(e * one for e, one in zip(errors, expected, strict=True))) / whole
        untried = sum(
            one for one, estimate in zip(expected, tried, strict=True) if estimate is None
        )
        shared = math.hypot(factor.shared, of_quality) * untried / whole
        known = of_trials if any(job.profile == jobs[0].profile for job in self.estimates) else 0.0
        half = math.exp(DEVIATIONS * math.hypot(alone, shared, known))
        return Range(whole / half, whole * half)


TABLE_ONLY = Costs()


def learned_rates(catalog: Catalog, profiles: Iterable[Profile]) -> Costs:
    """Return rates refined by what the latest encodes of this machine cost."""
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
    """Return what a job encodes, and what that took if it is finished.

    `keeps_larger`: the profile keeps a rendition that is larger than its source, as those for
    streaming do.
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

    The rungs of a ladder are added up, each pixel as LADDER_WORK of them; one of another encoder
    counts by how much slower that is.
    """
    if plan.ladder is None:
        return plan.video.width * plan.video.height
    targets = [rung.target for rung in plan.ladder.rungs]
    work = sum(each.width * each.height / MEDIUM[each.encoder] for each in targets)
    return LADDER_WORK * MEDIUM[plan.video.encoder] * work


def minute_cost(profile: Profile) -> tuple[float, int] | None:
    """Return CPU seconds and bytes of a minute of 1080p by the table; None if it is not encoded.

    The minute has 25 frames a second and an ordinary bit rate, in a codec that no recipe skips.
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
