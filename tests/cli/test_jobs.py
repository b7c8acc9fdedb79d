"""`hevcq retry` and `cancel` by path, folder, key or job; `pause` and `resume`."""

from datetime import datetime, timedelta

import pytest

from cli.conftest import state
from hevcq.cli.exit_codes import ExitCode
from hevcq.domain.job import JobState


@pytest.mark.parametrize(
    ("words", "back"),
    [
        ("", "dead"),
        ("in", "dead"),
        ("in/skipped.mp4", "skipped"),
        ("in --state skipped", "skipped"),
        ("in --state dead --profile hevc", "dead"),
        ("in --state dead --profile 720p", ""),
        ("{skipped.source.key} {beside.job_id}", "skipped beside"),
        ("--missing", "dead lost"),
        ("--dry-run", ""),
    ],
)
def test_what_is_named_is_queued_again_and_nothing_else(hevcq, farm, monkeypatch, words, back):
    path, skipped = farm.skipped("in/skipped.mp4")
    jobs = {
        "skipped": skipped,
        "dead": farm.buried("in/deep/dead.mp4")[1],
        "beside": farm.skipped("in2/beside.mp4")[1],
        "kept": farm.done("in2/kept.mp4")[1],
        "lost": farm.done("in2/lost.mp4")[1],
    }
    farm.queued("in/waiting.mp4")
    farm.app.backend.store.delete(jobs["lost"].rendition.key)
    before = {name: state(farm, job) for name, job in jobs.items()}
    monkeypatch.chdir(path.parents[1])

    ran = hevcq("retry", *words.format(**jobs).split(), "--json")

    expected = before | dict.fromkeys(back.split(), JobState.QUEUED)
    assert {name: state(farm, job) for name, job in jobs.items()} == expected
    named = {line["job_id"]: line["result"] for line in ran.lines}
    assert {jobs[name].job_id for name in back.split()} <= named.keys()
    if words in {"", "in", "--dry-run"}:
        result = "would_queue" if words == "--dry-run" else "queued"
        assert named == {jobs["dead"].job_id: result}, "only what failed is worth a word"
    letters = list(farm.app.backend.queues["hevc"].dead_letters())
    assert bool(letters) is ("dead" not in back), "a job that goes back leaves no letter"


def test_a_source_that_changed_is_reported_and_left(hevcq, farm):
    path, job = farm.skipped("a.mp4")
    path.write_bytes(b"another clip, and longer")

    ran = hevcq("retry", path)

    assert ran.code == ExitCode.SOME_FAILED
    assert ran.out.startswith("source_changed  hevc")
    assert state(farm, job) is JobState.SKIPPED


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("retry", ExitCode.OK, "`hevcq retry --missing` looks for missing renditions"),
        ("retry nowhere.mp4", ExitCode.SOME_FAILED, "No matching job"),
        ("cancel elsewhere", ExitCode.SOME_FAILED, "No matching job"),
        ("retry --missing --state done", ExitCode.USAGE, "Only one of --missing and --state"),
    ],
)
def test_nothing_to_do_is_one_sentence(hevcq, words, code, said):
    ran = hevcq(*words.split())

    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_folder_is_cancelled_and_what_had_ended_there_is_only_named(hevcq, farm):
    path, (waiting,) = farm.queued("in/a.mp4")
    _, done = farm.done("in/b.mp4")
    _, (other,) = farm.queued("in2/c.mp4")
    assert hevcq("cancel", path.parent, "--dry-run").out.count("would_cancel  hevc  ") == 1
    assert state(farm, waiting) is JobState.QUEUED

    ran = hevcq("cancel", path.parent)

    assert ran.code == 0
    words = {line.split()[0]: line for line in ran.out.splitlines()}
    assert set(words) == {"cancelled", "ended"}
    assert "already done" in words["ended"]
    found = [state(farm, job) for job in (waiting, done, other)]
    assert found == [JobState.DEAD, JobState.DONE, JobState.QUEUED]
    assert hevcq("retry", path).code == 0
    assert state(farm, waiting) is JobState.QUEUED


def test_a_video_in_chunks_is_cancelled_by_its_job(hevcq, farm):
    job = farm.split("video.mp4", (100, 100))

    ran = hevcq("cancel", job.job_id, "--json")

    assert [(line["type"], line["result"]) for line in ran.lines] == [("cancel", "cancelled")]
    (shown,) = hevcq("status", farm.folder / "video.mp4", "--json").lines
    assert (shown["state"], shown["failure_class"]) == ("dead", "cancelled")
    assert shown["reason"].startswith("Cancelled by ")


def test_a_pause_is_shown_by_status_until_it_is_resumed(hevcq):
    ran = hevcq("pause", "--for", "2h", "--freeze")
    assert ran.code == 0
    assert ran.out.startswith("Paused by ")
    assert "pause and continue later" in ran.out

    assert "`hevcq resume` ends it. Running encodes pause and continue later" in hevcq("status").out
    (known,) = hevcq("status", "--json").lines
    assert known["closed"][0]["running"] == "freeze"
    every = [queue["profile"] for queue in known["queues"]]
    assert sorted(known["closed"][0]["profiles"]) == sorted(every)

    assert hevcq("resume").out == "Resumed.\n"
    assert "aused" not in hevcq("status").out
    assert hevcq("resume").out == "Nothing was paused.\n"


def test_one_profile_is_paused_and_resumed_alone(hevcq):
    (made,) = hevcq("pause", "--profile", "720p", "--now", "--json").lines
    assert (made["profile"], made["running"], made["until"]) == ("720p", "stop", None)
    assert "720p: Profile 720p is paused by " in hevcq("status").out
    assert hevcq("resume", "--profile", "hevc").out == "Nothing was paused.\n"
    (ended,) = hevcq("resume", "--profile", "720p", "--json").lines
    assert (ended["type"], ended["profile"]) == ("resume", "720p")


def test_status_resume_and_doctor_name_the_hours_that_are_closed(hevcq, monkeypatch):
    now = datetime.now().astimezone()
    opens, closes = now + timedelta(hours=2), now + timedelta(hours=3)
    monkeypatch.setenv("HEVCQ_SCHEDULE__WINDOWS", f"{opens:%H:%M}-{closes:%H:%M}")

    assert "Outside the hours of schedule.windows. It opens " in hevcq("status").out
    hevcq("pause")
    ran = hevcq("resume")
    assert "Resumed." in ran.out
    assert "Outside the hours" in ran.out
    (checked,) = [line for line in hevcq("doctor").out.splitlines() if "schedule" in line]
    assert "closed until" in checked


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--for", "soon"], "'soon' is not a length of time"),
        (["--for", "0h"], "is not between a second and a year"),
        (["--now", "--freeze"], "Only one of"),
        (["--profile", "nothere"], "nothere"),
    ],
)
def test_a_wrong_pause_is_refused_and_holds_nothing_back(hevcq, arguments, says):
    ran = hevcq("pause", *arguments)

    assert ran.code == ExitCode.USAGE
    assert says in ran.err
    assert hevcq("resume").out == "Nothing was paused.\n"


@pytest.mark.parametrize(("command", "held"), [("true", False), ("false", True)])
def test_the_exit_code_of_the_gate_command_decides(hevcq, monkeypatch, command, held):
    monkeypatch.setenv("HEVCQ_SCHEDULE__GATE_COMMAND", command)
    assert ("says no (exit code 1)" in hevcq("status").out) is held
