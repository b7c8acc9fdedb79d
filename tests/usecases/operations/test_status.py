"""`hevcq status PATH`: why a file that an ingest looked at has no job."""

from pathlib import Path

import pytest

from hevcq.library.filesystem import fingerprint_of
from hevcq.usecases.operations.status import Unqueued, jobs_of, unqueued
from support.catalog import new_catalog
from support.clips import ManualClock
from support.fakes.backend import HEVC, memory_backend
from support.fakes.encoder import INFO


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "a.mp4"
    found.write_bytes(b"clip")
    return found


def why(path: Path, facts: object, *profiles) -> list[Unqueued]:
    catalog = new_catalog(ManualClock())
    if facts is not None:
        catalog.cache([(path, fingerprint_of(path.lstat()), facts)])
    return list(unqueued(catalog, profiles, path))


def test_a_policy_that_refuses_it_is_named(path: Path) -> None:
    video, sound = INFO.streams
    strange = INFO.model_copy(update={"streams": (video.model_copy(update={"codec": ""}), sound)})
    (found,) = why(path, strange, HEVC)
    assert (found.profile, found.state) == ("hevc", "refused")
    assert found.reason.endswith("in a codec that ffmpeg does not know. (video)")


def test_a_job_that_two_names_find_is_listed_once_and_a_name_without_one_is_reported() -> None:
    clock = ManualClock()
    backend = memory_backend(clock)
    source = backend.store.add_source("TODO/all/a.mp4", b"clip")
    (job,) = backend.task_publisher.publish(source, ["hevc"], announced=False)
    names, unknown = [job.job_id, "TODO/all/", "TODO/no"], list[str]()

    found = list(jobs_of(backend, new_catalog(clock), names, unknown))

    assert [each.job_id for each in found] == [job.job_id]
    assert unknown == ["TODO/no"]
