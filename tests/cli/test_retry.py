"""Retry: failed and, by name or state, other sources go back, by path, folder, key or job."""

from cli.conftest import state
from hevcq.cli.exit_codes import ExitCode
from hevcq.domain.job import JobState
from hevcq.ports.queue import Selection


def test_a_skipped_file_is_queued_again_by_its_path(hevcq, farm, monkeypatch):
    path, job = farm.skipped("a.mp4")
    monkeypatch.chdir(path.parent)

    ran = hevcq("retry", "a.mp4")

    assert ran.code == 0
    assert ran.out.startswith("queued  hevc  /")
    assert state(farm, job) is JobState.QUEUED
    assert farm.app.backend.queues["hevc"].depth().ready == 1


def test_a_folder_means_everything_below_and_nothing_beside(hevcq, farm):
    path, job = farm.skipped("in/sub/a.mp4")
    _, other = farm.skipped("in2/b.mp4")

    assert hevcq("retry", path.parents[1], "--state", "skipped").code == 0

    assert state(farm, job) is JobState.QUEUED
    assert state(farm, other) is JobState.SKIPPED


def test_a_key_and_a_job_id_name_it_too(hevcq, farm):
    _, first = farm.skipped("a.mp4")
    _, second = farm.skipped("b.mp4")

    found = hevcq("retry", first.source.key, second.job_id, "--json").lines

    assert [(line["type"], line["result"]) for line in found] == [("retry", "queued")] * 2
    assert {state(farm, first), state(farm, second)} == {JobState.QUEUED}


def test_a_dead_job_leaves_no_letter_behind(hevcq, farm):
    path, job = farm.buried("a.mp4")
    farm.buried("b.mp4")

    assert hevcq("retry", path).code == 0

    assert state(farm, job) is JobState.QUEUED
    kept = farm.app.backend.queues["hevc"].dead_letters(Selection())
    assert [letter.reason for letter in kept] == ["b.mp4 broke"]


def test_a_source_that_changed_is_reported_and_left(hevcq, farm):
    path, job = farm.skipped("a.mp4")
    path.write_bytes(b"another clip, and longer")

    ran = hevcq("retry", path)

    assert ran.code == ExitCode.SOME_FAILED
    assert ran.out.startswith("source_changed  hevc")
    assert "a.mp4" in ran.out
    assert state(farm, job) is JobState.SKIPPED


def test_only_the_wanted_states_and_profiles_go_back(hevcq, farm):
    path, skipped = farm.skipped("a.mp4")
    _, dead = farm.buried("b.mp4")

    assert hevcq("retry", path.parent, "--state", "dead", "--profile", "hevc").code == 0

    assert (state(farm, skipped), state(farm, dead)) == (JobState.SKIPPED, JobState.QUEUED)


def test_a_dry_run_changes_nothing(hevcq, farm):
    path, job = farm.skipped("a.mp4")

    ran = hevcq("retry", path, "--dry-run")

    assert ran.out.startswith("would_queue")
    assert state(farm, job) is JobState.SKIPPED


def test_a_name_nobody_knows_is_reported_and_fails(hevcq):
    ran = hevcq("retry", "nowhere.mp4")

    assert ran.code == ExitCode.SOME_FAILED
    assert "No matching job" in ran.err


def test_of_a_folder_only_failed_jobs_go_back(hevcq, farm):
    path, skipped = farm.skipped("in/a.mp4")
    _, dead = farm.buried("in/b.mp4")

    assert hevcq("retry", path.parent).out.startswith("queued  hevc")

    assert (state(farm, skipped), state(farm, dead)) == (JobState.SKIPPED, JobState.QUEUED)


def test_without_a_name_every_dead_job_goes_back_and_no_other(hevcq, farm):
    _, dead = farm.buried("deep/a.mp4")
    _, skipped = farm.skipped("b.mp4")

    ran = hevcq("retry")

    assert (ran.code, len(ran.out.splitlines())) == (0, 1)
    assert (state(farm, dead), state(farm, skipped)) == (JobState.QUEUED, JobState.SKIPPED)
    assert list(farm.app.backend.queues["hevc"].dead_letters(Selection())) == []
    assert "`hevcq retry --missing` looks for renditions that are gone" in hevcq("retry").err


def test_missing_takes_dead_jobs_and_those_whose_rendition_is_gone(hevcq, farm):
    _, dead = farm.buried("a.mp4")
    _, skipped = farm.skipped("b.mp4")
    _, kept = farm.done("c.mp4")
    _, lost = farm.done("d.mp4")
    farm.app.backend.store.delete(lost.rendition.key)

    dry = hevcq("retry", "--missing", "--dry-run", "--json")
    ran = hevcq("retry", "--missing")

    assert {line["job_id"] for line in dry.lines} == {dead.job_id, lost.job_id}
    assert ran.code == 0
    assert {state(farm, job) for job in (dead, lost)} == {JobState.QUEUED}
    assert (state(farm, skipped), state(farm, kept)) == (JobState.SKIPPED, JobState.DONE)


def test_options_that_contradict_each_other_are_refused(hevcq):
    ran = hevcq("retry", "--missing", "--state", "done")
    assert (ran.code, len(ran.err.splitlines())) == (ExitCode.USAGE, 1)
