"""When an upload may go: nobody who wants it waits for it, failed at it, or all passed it over."""

import pytest

from contracts.backends import PROFILES
from hevcq.domain.job import JobRecord, JobState, Source, job_id
from hevcq.usecases.operations.finished_sources import finished_jobs

PERSONAL = PROFILES["720p"].model_copy(update={"name": "archive", "subscribe": False})
FLEET = {**PROFILES, "archive": PERSONAL}
SOURCE = Source(bucket="uploads", key="TODO/all/a.mp4", version="v1", size=9)


def finished(states: dict[str, JobState], source: Source = SOURCE) -> list[str]:
    """Return the profiles whose jobs are named, for a source whose jobs are in these states."""
    records = {
        job_id(source, name): JobRecord(
            job_id=job_id(source, name),
            source=source,
            profile=name,
            state=state,
            created_at=0,
            updated_at=0,
        )
        for name, state in states.items()
    }
    return [record.profile for record in finished_jobs(source, FLEET, records.get)]


def test_a_source_is_finished_with_once_every_profile_that_wants_it_settled_it_well():
    assert finished({"hevc": JobState.DONE, "720p": JobState.DONE}) == ["hevc", "720p"]
    assert finished({"hevc": JobState.DONE, "720p": JobState.SKIPPED}) == ["hevc", "720p"]


@pytest.mark.parametrize(
    "states",
    [
        {},
        {"hevc": JobState.DONE},
        {"hevc": JobState.SKIPPED, "720p": JobState.SKIPPED},
        *({"hevc": JobState.DONE, "720p": other} for other in
          (JobState.QUEUED, JobState.RUNNING, JobState.SPLIT, JobState.DEAD)),
        {"hevc": JobState.DONE, "720p": JobState.DONE, "archive": JobState.QUEUED},
    ],
)  # fmt: skip
def test_a_source_that_somebody_may_still_need_is_kept(states):
    assert finished(states) == []


def test_a_profile_that_takes_no_subscription_is_waited_for_only_if_it_was_asked():
    both = {"hevc": JobState.DONE, "720p": JobState.DONE}
    assert finished({**both, "archive": JobState.DONE}) == ["hevc", "720p", "archive"]
    only = SOURCE.model_copy(update={"key": "TODO/archive/a.mp4"})
    assert finished({"archive": JobState.DONE}, only) == ["archive"]
