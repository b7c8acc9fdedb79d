"""What this machine's own finished jobs cost, as the ledger recorded it: refines the forecast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from hevcq.domain.job import JobRecord, JobState
from hevcq.domain.media import MediaInfo
from hevcq.domain.plan import EncodePlan, Plan, Planner
from hevcq.domain.profile import Profile
from hevcq.ports.catalog import Catalog
from hevcq.ports.ledger import JobFilter, JobLedger
from hevcq.usecases.forecast import Rates, Sample, megapixels

LATEST = 50
"""Finished jobs of a profile that are looked at: the newest say most about today's machine."""


def learned_rates(
    ledger: JobLedger, catalog: Catalog, profiles: Iterable[Profile], planner: Planner
) -> Rates:
    """Return rates refined by the latest finished jobs whose source facts are still known."""
    samples: list[Sample] = []
    for profile in profiles:
        wanted = JobFilter(states=frozenset({JobState.DONE}), profile=profile.name)
        for job in islice(ledger.jobs(wanted), LATEST):
            samples.extend(_sample(job, catalog, profile, planner))
    return Rates.learned(samples)


def _sample(
    job: JobRecord, catalog: Catalog, profile: Profile, planner: Planner
) -> Iterator[Sample]:
    placement = catalog.placement(job.job_id)
    if placement is None or not job.cpu_s:
        return
    fingerprint, facts = catalog.cached([placement.source]).get(placement.source, (None, ""))
    if fingerprint != placement.fingerprint or not isinstance(facts, MediaInfo):
        return
    plan: Plan = planner(profile, facts)
    if isinstance(plan, EncodePlan):
        yield Sample(profile.name, megapixels(plan, facts), job.cpu_s)
