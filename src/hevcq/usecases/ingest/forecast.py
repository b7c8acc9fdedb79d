"""Forecast the CPU and wall time of jobs, with rates learned from finished jobs in the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice

from hevcq.domain.job import JobRecord, JobState
from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan, Plan, Planner
from hevcq.domain.profile import Profile
from hevcq.ports.catalog import Catalog
from hevcq.ports.ledger import JobFilter, JobLedger

LATEST = 50
"""Newest finished jobs read per profile: they best represent the current machine."""


def learned_rates(
    ledger: JobLedger, catalog: Catalog, profiles: Iterable[Profile], planner: Planner
) -> Rates:
    """Return rates refined by the latest finished jobs with cached source facts."""
    samples: list[JobCost] = []
    for profile in profiles:
        wanted = JobFilter(states=frozenset({JobState.DONE}), profile=profile.name)
        for job in islice(ledger.jobs(wanted), LATEST):
            samples.extend(_sample(job, catalog, profile, planner))
    return Rates.learned(samples)


def _sample(
    job: JobRecord, catalog: Catalog, profile: Profile, planner: Planner
) -> Iterator[JobCost]:
    placement = catalog.placement(job.job_id)
    if placement is None or not job.cpu_s:
        return
    fingerprint, facts = catalog.cached([placement.source]).get(placement.source, (None, ""))
    if fingerprint != placement.fingerprint or not isinstance(facts, MediaInfo):
        return
    plan: Plan = planner(profile, facts)
    if isinstance(plan, EncodePlan):
        yield JobCost(profile.name, megapixels(plan, facts), job.cpu_s)


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
}
"""By encoder and preset, decode included. Measured with ffmpeg 5.1.9 on Big Buck Bunny at 1280x720,
CRF 24, on one 2-core x86-64 machine in November 2026; used until enough own jobs are known."""

GATE_SHARE = 0.35
"""CPU time of pre-flight and gates as a fraction of the encode: the upper end of measurements."""
TABLE_SPREAD = (0.5, 2.0)
"""Spread of real videos around the table: content and CPU vary by about a factor of two."""
OWN_SPREAD = (0.75, 1.4)
"""Spread of videos around the mean of this machine's own jobs."""
OWN_ENOUGH = 3
"""Minimum number of own jobs for their mean to be used."""
JOB_OVERHEAD_S = 0.5
"""Wall seconds to start, probe and publish one job."""
USUAL_RATE = Fraction(25)
"""Frames per second assumed if the header has no frame rate."""
FASTEST_RATE = Fraction(300)
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

    def spread(self, workers: int) -> Range:
        """Return the range if `workers` share the work."""
        return Range(self.low / max(1, workers), self.high / max(1, workers))


NOTHING = Range(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class JobCost:
    """One finished job of this machine: what it encoded and what that cost.

    `megapixels` is the sum over all frames of the target picture.
    """

    profile: str
    megapixels: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Rates:
    """The CPU seconds per megapixel, by profile if own jobs are known, else by encoder."""

    own: dict[str, float] = field(default_factory=dict)

    @classmethod
    def learned(cls, samples: Iterable[JobCost]) -> Rates:
        """Return the rates of finished jobs; profiles with too few of them keep the table's rate."""
        work: dict[str, list[JobCost]] = {}
        for sample in samples:
            if sample.megapixels > 0 and sample.cpu_s > 0:
                work.setdefault(sample.profile, []).append(sample)
        own = {
            name: sum(s.cpu_s for s in jobs) / sum(s.megapixels for s in jobs)
            for name, jobs in work.items()
            if len(jobs) >= OWN_ENOUGH
        }
        return cls(own)

    def cpu(self, plan: EncodePlan, preset: str, info: MediaInfo) -> Range:
        """Return the CPU seconds of one job, including the gates."""
        work = megapixels(plan, info)
        own = self.own.get(plan.profile)
        if own is not None:
            return Range(work * own * OWN_SPREAD[0], work * own * OWN_SPREAD[1])
        known = MEGAPIXELS_PER_CPU_S.get((plan.video.encoder, preset))
        rate = known or MEGAPIXELS_PER_CPU_S[plan.video.encoder, "medium"]
        cost = work / rate * (1 + GATE_SHARE)
        return Range(cost * TABLE_SPREAD[0], cost * TABLE_SPREAD[1])


TABLE_ONLY = Rates()


def megapixels(plan: EncodePlan, info: MediaInfo) -> float:
    """Return the work of one encode in megapixels: all frames at the target size."""
    seconds = info.duration_s or FALLBACK_SECONDS
    return plan.video.width * plan.video.height * float(_rate(info)) * seconds / 1e6


def wall(jobs: Sequence[Range], cores: float, workers: int, machine: float | None = None) -> Range:
    """Return the wall seconds of `jobs`, given in CPU seconds, on `cores` with `workers` slots.

    At best every core is always busy; at worst the longest job runs alone at the end. One job uses
    at most the `machine` cores of one machine (None: all cores), however large the fleet is.
    """
    if not jobs:
        return NOTHING
    cores = max(1.0, cores)
    alone = max(1.0, machine or cores)
    total = sum(jobs, NOTHING)
    overhead = JOB_OVERHEAD_S * max(1.0, len(jobs) / max(1, workers))
    low = max(total.low / cores, max(job.low for job in jobs) / alone)
    longest = max(job.high for job in jobs) / alone
    high = total.high / cores + longest * (1 - 1 / max(1, workers))
    return Range(low + overhead, high + overhead * 2)


def _rate(info: MediaInfo) -> Fraction:
    for stream in info.of_kind(StreamKind.VIDEO):
        if stream.video is None:
            continue
        num, _, den = stream.video.average_rate.partition("/")
        if num.isdigit() and den.isdigit() and int(num) and int(den):
            rate = Fraction(int(num), int(den))
            return rate if rate <= FASTEST_RATE else USUAL_RATE
    return USUAL_RATE
