"""Mark a source finished once every profile's job of it is done or skipped."""

from collections.abc import Callable, Iterator, Mapping

from hevcq.domain.job import JobRecord, JobState, Source, job_id
from hevcq.domain.keys import UPLOADS, wants
from hevcq.domain.profile import Profile
from hevcq.errors import HevcqError
from hevcq.ports.backend import Backend
from hevcq.ports.catalog import PlacementState
from hevcq.ports.ledger import JobFilter
from hevcq.sql.catalog import Catalog
from hevcq.util.log import get_logger

WELL = frozenset({JobState.DONE, JobState.SKIPPED})


def finished_jobs(
    source: Source,
    profiles: Mapping[str, Profile],
    record_of: Callable[[str], JobRecord | None],
) -> tuple[JobRecord, ...]:
    """Return the jobs of this source version if all are done or skipped, at least one done; else ().

    Every profile that the routing sends the source to must have its job, and so must end the job of
    any other profile. If all profiles skipped it there is no rendition, and the source may be the
    only copy: it is not finished. Nor is an upload through the page, whose record decides.
    """
    if source.key.startswith(f"{UPLOADS}/"):
        return ()
    known, found = frozenset(profiles), []
    for name, profile in list(profiles.items()):  # one may be added meanwhile
        record = record_of(job_id(source, name))
        if record is None:
            if wants(source.key, name, subscribed=profile.subscribe, known=known):
                return ()
            continue
        if record.state not in WELL:
            return ()
        found.append(record)
    return tuple(found) if any(record.state is JobState.DONE for record in found) else ()


IN_PLACE = frozenset({PlacementState.PLACED, PlacementState.REPLACED})


class SourceFinisher:
    """Marks a source as finished; a repetition is harmless, and what fails only keeps it for longer.

    With the `catalog` of the machine that took the source in, every rendition must be in its place
    there; without one, in the store.
    """

    def __init__(
        self, backend: Backend, profiles: Mapping[str, Profile], catalog: Catalog | None = None
    ) -> None:
        self._backend, self._profiles, self._catalog = backend, profiles, catalog

    def __call__(self, source: Source) -> bool:
        """Return whether the source is marked now; an error is logged, and it is not."""
        try:
            jobs = finished_jobs(source, self._profiles, self._backend.ledger.get)
            if not jobs or not all(self._in_place(j) for j in jobs if j.state is JobState.DONE):
                return False
            collected = self._catalog is not None
            return self._backend.store.mark_source_finished(source, collected=collected)
        except HevcqError as error:
            get_logger().warning("source_not_marked_finished", source=source.key, reason=str(error))
            return False

    def _in_place(self, job: JobRecord) -> bool:
        if self._catalog is not None:
            placement = self._catalog.placement(job.job_id)
            return placement is not None and placement.state in IN_PLACE
        made = job.rendition
        there = self._backend.store.stat(made.key) if made else None
        return made is not None and there is not None and there.sha256 == made.sha256


def finished_since(
    backend: Backend, profiles: Mapping[str, Profile], since: float
) -> Iterator[Source]:
    """Mark and yield the finished sources that a job of ended well after `since` (Unix seconds).

    Workers never mark: whoever takes one over could have every original deleted.
    """
    finish, seen = SourceFinisher(backend, profiles), set[str]()
    for job in backend.ledger.jobs(JobFilter(states=WELL, updated_after=since)):
        if job.source.source_id not in seen:
            seen.add(job.source.source_id)
            if finish(job.source):
                yield job.source
