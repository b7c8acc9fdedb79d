"""When a source is finished with: every profile that it is for has settled it well. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hevcq.domain.job import JobRecord, JobState, Source, job_id
from hevcq.domain.keys import wants
from hevcq.domain.profile import Profile

WELL = frozenset({JobState.DONE, JobState.SKIPPED})


def settled_well(
    source: Source,
    profiles: Mapping[str, Profile],
    record_of: Callable[[str], JobRecord | None],
) -> tuple[JobRecord, ...]:
    """Return the jobs of this version if all are settled well and one made a rendition, else ().

    A profile that the routing wants the source for must have its job, and whatever other profile
    has one (a person sent it there) must have settled it too. Where every profile skipped it
    there is no rendition, and the source may be the only copy: it is not finished with.
    """
    known, found = frozenset(profiles), []
    for name, profile in profiles.items():
        record = record_of(job_id(source, name))
        if record is None:
            if wants(source.key, name, subscribed=profile.subscribe, known=known):
                return ()
            continue
        if record.state not in WELL:
            return ()
        found.append(record)
    return tuple(found) if any(record.state is JobState.DONE for record in found) else ()
