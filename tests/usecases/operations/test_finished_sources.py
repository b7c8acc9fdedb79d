"""The machine that took a source in lets it go only when every rendition is in its place."""

from pathlib import Path

import pytest

from contracts.backends import PROFILES
from hevcq.domain.job import JobRecord, JobState, Source, job_id
from hevcq.usecases.operations.reprocess import SourceFinisher, finished_jobs
from hevcq.usecases.placement.collect import Collector
from support.fakes.backend import HEVC
from support.ingest.run import NEVER, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path, discard=False)
    rewire(made)
    return made


def rewire(bench: Bench) -> None:
    """Collect as `hevcq ingest` against a bucket does where the setting is on."""
    profiles = {HEVC.name: HEVC}
    mark_source_finished = SourceFinisher(bench.backend, profiles, bench.catalog)
    bench.collector = Collector(
        bench.ports, bench.proofs, discard=False, mark_source_finished=mark_source_finished
    )
    bench.tracker._collector = bench.collector


def let_go_of(bench: Bench) -> list[tuple[Source, bool]]:
    return bench.backend.store.marked


def test_a_collected_source_is_let_go(bench):
    job = bench.encode()
    assert not bench.collector.mark_source_finished(job.source), "it is not in its place"

    bench.collector.collect(bench.done(job), NEVER)

    assert let_go_of(bench) == [(job.source, True)]


DONE, SKIPPED, DEAD = JobState.DONE, JobState.SKIPPED, JobState.DEAD


@pytest.mark.parametrize(
    ("key", "states", "finished"),
    [
        ("TODO/all/a.mp4", {"hevc": DONE, "720p": SKIPPED}, True),
        ("TODO/hevc/a.mp4", {"hevc": DONE}, True),
        ("TODO/all/a.mp4", {"hevc": DONE}, False),
        ("TODO/all/a.mp4", {"hevc": DONE, "720p": DEAD}, False),
        *(
            ("TODO/all/a.mp4", {"hevc": DONE, "720p": state}, False)
            for state in (JobState.QUEUED, JobState.RUNNING, JobState.SPLIT)
        ),
        ("TODO/all/a.mp4", {"hevc": SKIPPED, "720p": SKIPPED}, False),
        ("UPLOAD/a.mp4", {"hevc": DONE, "720p": DONE}, False),
    ],
)
def test_a_source_is_finished_when_all_who_want_it_ended_well_and_one_made_something(
    key, states, *, finished
):
    source = Source(bucket="uploads", key=key, version="v", size=1)
    facts = {"source": source, "created_at": 0.0, "updated_at": 0.0}
    jobs = [
        JobRecord(job_id=job_id(source, name), profile=name, state=state, **facts)
        for name, state in states.items()
    ]
    known = {job.job_id: job for job in jobs}

    assert finished_jobs(source, PROFILES, known.get) == (tuple(jobs) if finished else ())


def test_a_kill_between_place_and_mark_is_made_up_for_by_the_next_collect(bench):
    job = bench.encode()
    Collector(bench.ports, bench.proofs, discard=False).collect(bench.done(job), NEVER)
    assert let_go_of(bench) == []

    assert bench.collector.collect(bench.done(job), NEVER).already

    assert let_go_of(bench) == [(job.source, True)]


def test_one_whose_rendition_waits_for_its_place_is_kept(bench):
    job = bench.encode()

    assert not SourceFinisher(bench.backend, {HEVC.name: HEVC}, bench.catalog)(job.source)
    assert let_go_of(bench) == []


def test_a_profile_that_is_added_meanwhile_does_not_break_the_look():
    profiles = {HEVC.name: HEVC.model_copy(update={"subscribe": False})}
    source = Source(bucket="b", key="TODO/all/a.mp4", version="v1", size=9)

    def record_of(_job: str) -> None:
        profiles["new"] = HEVC

    assert finished_jobs(source, profiles, record_of) == ()
