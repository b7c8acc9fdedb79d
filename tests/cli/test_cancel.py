"""Cancel: by path, folder, key or job; what had ended is left as it is."""

from cli.conftest import state
from hevcq.cli.exit_codes import ExitCode
from hevcq.domain.job import JobState


def test_a_folder_is_cancelled_and_what_had_ended_there_is_only_named(hevcq, farm):
    path, (waiting,) = farm.queued("in/a.mp4")
    _, done = farm.done("in/b.mp4")
    _, (other,) = farm.queued("in2/c.mp4")

    ran = hevcq("cancel", path.parent)

    assert ran.code == 0
    words = {line.split()[0]: line for line in ran.out.splitlines()}
    assert set(words) == {"cancelled", "ended"}
    assert "already done" in words["ended"]
    found = [state(farm, job) for job in (waiting, done, other)]
    assert found == [JobState.DEAD, JobState.DONE, JobState.QUEUED]


def test_a_video_in_chunks_is_cancelled_by_its_job(hevcq, farm):
    job = farm.split("video.mp4", (100, 100))

    ran = hevcq("cancel", job.job_id, "--json")

    assert [(line["type"], line["result"]) for line in ran.lines] == [("cancel", "cancelled")]
    (shown,) = hevcq("status", farm.folder / "video.mp4", "--json").lines
    assert (shown["state"], shown["failure_class"]) == ("dead", "cancelled")
    assert shown["reason"].startswith("Cancelled by ")


def test_only_the_wanted_profile_is_cancelled(hevcq, farm):
    path, jobs = farm.queued("a.mp4", "hevc", "720p")

    assert hevcq("cancel", path, "--profile", "720p").code == 0

    assert [state(farm, job) for job in jobs] == [JobState.QUEUED, JobState.DEAD]


def test_a_dry_run_changes_nothing(hevcq, farm):
    path, (job,) = farm.queued("a.mp4")

    ran = hevcq("cancel", path, "--dry-run")

    assert ran.out.startswith("would_cancel  hevc  ")
    assert state(farm, job) is JobState.QUEUED


def test_a_name_that_matches_nothing_is_reported(hevcq, farm):
    farm.queued("a.mp4")

    ran = hevcq("cancel", "elsewhere")

    assert ran.code == ExitCode.SOME_FAILED
    assert "No matching job" in ran.err
    assert ran.out == ""


def test_a_cancelled_job_is_queued_again_by_retry(hevcq, farm):
    path, (job,) = farm.queued("a.mp4")
    hevcq("cancel", path)

    assert hevcq("retry", path).code == 0

    assert state(farm, job) is JobState.QUEUED
