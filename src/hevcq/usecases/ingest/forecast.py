"""Forecast CPU time, wall time and sizes of jobs: a table times what this machine's own jobs measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import median

from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind, VideoFacts
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.ladder import expected_set_bytes
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.ports.catalog import EncodeCost
from hevcq.sqlite.catalog import Catalog

LATEST = 50
"""Newest finished jobs read per profile: they best represent the current machine and settings."""
MEGAPIXELS_PER_CPU_S: dict[tuple[str, str], float] = {
    ("libx265", "ultrafast"): 47.0,
    ("libx265", "superfast"): 26.0,
    ("libx265", "veryfast"): 23.0,
    ("libx265", "faster"): 23.0,
    ("libx265", "fast"): 18.0,
    ("libx265", "medium"): 16.0,
    ("libx265", "slow"): 6.9,
    ("libx265", "slower"): 1.6,
    ("libx265", "veryslow"): 0.95,
    ("libx264", "ultrafast"): 160.0,
    ("libx264", "superfast"): 120.0,
    ("libx264", "veryfast"): 80.0,
    ("libx264", "faster"): 53.0,
    ("libx264", "fast"): 46.0,
    ("libx264", "medium"): 35.0,
    ("libx264", "slow"): 28.0,
    ("libx264", "slower"): 17.0,
    ("libx264", "veryslow"): 12.0,
    ("libsvtav1", "medium"): 19.0,
    ("libvpx-vp9", "medium"): 10.0,
    ("libtheora", "medium"): 33.0,
    ("mpeg4", "medium"): 220.0,
}
"""By encoder and preset, decode included. Measured with ffmpeg 5.1.9 on Big Buck Bunny at 1280x720,
CRF 24, on one 2-core x86-64 machine in November 2026; used until enough own jobs are known.
The last four, at the shipped presets and qualities, are in relation to libx265 on the same 5 s."""

GATE_SHARE = 0.35
"""CPU time of pre-flight and gates as a fraction of the encode: the upper end of measurements."""
LADDER_WORK = 1.9
"""What a pixel of a ladder counts beside one of a single file: its key frames are close together, it
is packaged, and gates H1 to H8 follow. Fitted to 5 s of 720p and 12 s of 1080p."""
JOB_CPU_S = 0.35
"""CPU seconds of a job beside its pictures: programs to start, probes."""
CPU_BY_DENSITY = 0.25
SIZE_BY_DENSITY = 0.8
"""Exponents of the source's bits per pixel in the cost and in the size of its rendition: what took
many bits is hard to encode, and shrinks most. Fitted to clips that were encoded."""
USUAL_DENSITY = 0.15
"""Bits per pixel at which the table holds."""
USUAL_OUTPUT: dict[str, float] = {
    "libx265": 0.09,
    "libx264": 0.12,
    "libsvtav1": 0.06,
    "libvpx-vp9": 0.09,
    "libtheora": 0.24,
    "mpeg4": 0.17,
}
"""Bits per pixel of a rendition at USUAL_DENSITY and the shipped CRF."""
SPREAD = 0.42
"""Standard deviation of one video around the model, in natural logarithms."""
TABLE_SPREAD, OWN_SPREAD = 0.3, 0.2
"""The same of all videos together: around the table, and around the factor of own jobs."""
DEVIATIONS = 1.45
"""Half a range, in standard deviations: 85 % of a normal distribution, as tails are heavier."""
KEPT_ABOVE = 0.95
"""Share of the source above which a rendition is not kept (the default of gates.minimum_saving)."""
OWN_ENOUGH = 3
"""Minimum number of own jobs for their factor to be used."""
JOB_OVERHEAD_S = 0.5
"""Wall seconds to start, probe and publish one job."""
USUAL_RATE = Fraction(25)
"""Frames per second assumed if the header has no frame rate."""
MAX_RATE = Fraction(300)
"""Frames per second above which a header gives its clock rate (Matroska 1000, MPEG 90000)."""
FALLBACK_SECONDS = 1.0
"""Duration in seconds assumed if the header has none: the range then only means 'soon'."""


@dataclass(frozen=True, slots=True)
class Range:
    """A range of durations: `low` and `high` are in seconds."""

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        """Return the range from the sum of the lows to the sum of the highs."""
        return Range(self.low + other.low, self.high + other.high)


NOTHING = Range(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Costs:
    """What own jobs took over what the table says, by profile: medians of CPU seconds and of sizes."""

    cpu_factors: Mapping[str, float] = field(default_factory=dict)
    size_factors: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def learned(cls, samples: Iterable[EncodeCost]) -> Costs:
        """Return the rates of finished jobs; profiles with too few of them keep the table's."""
        of_profile: dict[str, list[EncodeCost]] = {}
        for each in samples:
            if min(each.megapixels, each.cpu_s, each.output_size) > 0:
                of_profile.setdefault(each.profile, []).append(each)
        known = {name: jobs for name, jobs in of_profile.items() if len(jobs) >= OWN_ENOUGH}
        return cls(
            {name: median(job.cpu_s / _cpu(job) for job in jobs) for name, jobs in known.items()},
            {
                name: median(job.output_size / _size(job) for job in jobs)
                for name, jobs in known.items()
            },
        )

    def cpu(self, jobs: Sequence[EncodeCost]) -> Range:
        """Return the CPU seconds of jobs of one profile, including the gates."""
        return self._around(
            jobs, [_cpu(job) * self.cpu_factors.get(job.profile, 1.0) for job in jobs]
        )

    def size(self, jobs: Sequence[EncodeCost]) -> Range:
        """Return the bytes that take the place of the sources of jobs of one profile."""
        found = self._around(jobs, [self._expected_size(job) for job in jobs])
        most = float(sum(largest(job) for job in jobs))
        return Range(min(found.low, most), min(found.high, most))

    def _expected_size(self, job: EncodeCost) -> float:
        """Return the bytes of a rendition: of a ladder by its rungs, unless own jobs are known.

        What those took is known against the table alone. One that saves too little is not kept.
        """
        factor = self.size_factors.get(job.profile)
        size = _size(job) * (factor or 1.0) if factor or not job.usual else float(job.usual)
        return size if size < KEPT_ABOVE * largest(job) else float(largest(job))

    def _around(self, jobs: Sequence[EncodeCost], expected: Sequence[float]) -> Range:
        """Return the range of a sum of jobs: what is one job's own evens out, what all share does not."""
        whole = sum(expected)
        if whole <= 0:
            return NOTHING
        alone = SPREAD * math.hypot(*expected) / whole
        shared = OWN_SPREAD if jobs[0].profile in self.cpu_factors else TABLE_SPREAD
        half = math.exp(DEVIATIONS * math.hypot(alone, shared))
        return Range(whole / half, whole * half)


TABLE_ONLY = Costs()


def largest(job: EncodeCost) -> int:
    """Return the largest size in bytes that the rendition of a job can have."""
    return job.most or job.source_size


def learned_rates(catalog: Catalog, profiles: Iterable[Profile]) -> Costs:
    """Return rates refined by what the latest encodes of this machine cost."""
    return Costs.learned(
        cost for profile in profiles for cost in catalog.encode_costs(profile.name, LATEST).values()
    )


def work_of(
    plan: EncodePlan, preset: str, info: MediaInfo, output_size: int = 0, cpu_s: float = 0.0
) -> EncodeCost:
    """Return what a job encodes, and what that took if it is finished."""
    seconds = info.duration_s or FALLBACK_SECONDS
    usual, most = expected_set_bytes(plan, info, seconds) if plan.ladder is not None else (0, 0)
    return EncodeCost(
        profile=plan.profile,
        encoder=plan.video.encoder,
        preset=preset,
        megapixels=megapixels(plan, info),
        source_size=info.size,
        output_size=output_size,
        cpu_s=cpu_s,
        most=most,
        usual=usual,
    )


def _cpu(job: EncodeCost) -> float:
    """Return the CPU seconds of a job by the table."""
    known = MEGAPIXELS_PER_CPU_S.get((job.encoder, job.preset))
    rate = known or MEGAPIXELS_PER_CPU_S[job.encoder, "medium"]
    harder = (_density(job) / USUAL_DENSITY) ** CPU_BY_DENSITY
    return float(JOB_CPU_S + job.megapixels / rate * (1 + GATE_SHARE) * harder)


def _size(job: EncodeCost) -> float:
    """Return the bytes of a rendition by the table."""
    bits = USUAL_OUTPUT[job.encoder] * (_density(job) / USUAL_DENSITY) ** SIZE_BY_DENSITY
    return float(bits * job.megapixels * 1e6 / 8)


def _density(job: EncodeCost) -> float:
    """Return a source's bits per pixel of its rendition, within what is plausible."""
    if job.megapixels <= 0:
        return USUAL_DENSITY
    return min(4.0, max(0.003, job.source_size * 8 / (job.megapixels * 1e6)))


def megapixels(plan: EncodePlan, info: MediaInfo) -> float:
    """Return the work of one encode in megapixels: all frames at the target size.

    The rungs of a ladder are added up, each pixel as LADDER_WORK of them; one of another encoder
    counts by how much slower that is.
    """
    seconds = info.duration_s or FALLBACK_SECONDS
    pixels = float(plan.video.width * plan.video.height)
    if plan.ladder is not None:
        own = MEGAPIXELS_PER_CPU_S[plan.video.encoder, "medium"]
        pixels = LADDER_WORK * sum(
            rung.target.width * rung.target.height
            * own / MEGAPIXELS_PER_CPU_S[rung.target.encoder, "medium"]
            for rung in plan.ladder.rungs
        )  # fmt: skip
    return pixels * float(_rate(info)) * seconds / 1e6


def minute_cost(profile: Profile) -> tuple[float, int] | None:
    """Return CPU seconds and bytes of a minute of 1080p by the table; None if it is not encoded.

    The minute has 25 frames a second and an ordinary bit rate, in a codec that no recipe skips.
    """
    picture = VideoFacts(
        width=1920, height=1080, pixel_format="yuv420p", bit_depth=8, average_rate="25/1"
    )
    stream = Stream(index=0, kind=StreamKind.VIDEO, codec="mpeg2video", video=picture)
    pixels = 1920 * 1080 * 25 * 60
    info = MediaInfo(
        format_name="matroska,webm",
        duration_s=60.0,
        size=int(pixels * USUAL_DENSITY / 8),
        streams=(stream,),
    )
    plan = make_plan(profile, info)
    if not isinstance(plan, EncodePlan):
        return None
    work = work_of(plan, profile.video.preset, info)
    return _cpu(work), int(_size(work))


def wall(
    jobs: Sequence[Range],
    cores: float,
    workers: int,
    machine: float | None = None,
    total: Range | None = None,
    busy: float = 1.0,
) -> Range:
    """Return the wall seconds of `jobs`, given in CPU seconds, on `cores` with `workers` slots.

    `total` is what they take together (None: from the sum of the lows to the sum of the highs).

    At best every core is always busy; at worst the longest job runs alone at the end. One job uses
    at most the `machine` cores of one machine (None: all cores), however large the fleet is. At
    worst everything takes `busy` times as long, as other programs go on.
    """
    if not jobs:
        return NOTHING
    cores = max(1.0, cores)
    alone = max(1.0, machine or cores)
    total = total or sum(jobs, NOTHING)
    overhead = JOB_OVERHEAD_S * max(1.0, len(jobs) / max(1, workers))
    low = max(total.low / cores, max(job.low for job in jobs) / alone)
    longest = max(job.high for job in jobs) / alone
    high = total.high / cores + longest * (1 - 1 / max(1, workers))
    return Range(low + overhead, (high + overhead * 2) * max(1.0, busy))


def _rate(info: MediaInfo) -> Fraction:
    for stream in info.of_kind(StreamKind.VIDEO):
        num, _, den = (stream.video.average_rate if stream.video else "").partition("/")
        if num.isdigit() and den.isdigit() and int(num) and int(den):
            rate = Fraction(int(num), int(den))
            return rate if rate <= MAX_RATE else USUAL_RATE
    return USUAL_RATE
