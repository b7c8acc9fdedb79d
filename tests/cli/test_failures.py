"""Dead letters: listed, shown, purged, sent back."""

import threading

import pytest

from hevcq.cli.context import NO_WORKER
from hevcq.cli.exit_codes import ExitCode
from hevcq.domain.job import JobState
from hevcq.domain.verdict import FailureClass


def letters(farm, profile: str = "hevc") -> list:
    return list(farm.app.backend.queues[profile].dead_letters())


def test_a_listing_names_source_class_and_reason_on_one_line(hevcq, farm):
    path, job = farm.buried("bad\n\x1b[2J one.mp4", FailureClass.DAMAGED)

    ran = hevcq("failures", "list")
    (known,) = hevcq("failures", "list", "--json").lines

    heading, row = ran.out.splitlines()
    assert heading.split() == ["letter", "profile", "class", "buried", "source", "reason"]
    assert "damaged" in row
    assert f"  {path.parent}/bad\\n\\x1b[2J one.mp4  " in row, "a path, not its key"
    assert (known["type"], known["profile"], known["job_id"]) == ("dead_letter", "hevc", job.job_id)
    assert known["tail"] == ["last words"]
    assert known["task"]["source"]["key"] == job.source.key


def test_a_listing_selects_by_class_profile_and_limit(hevcq, farm):
    farm.buried("a.mp4", FailureClass.DAMAGED)
    farm.buried("b.mp4", FailureClass.ENCODER)
    farm.buried("c.mp4", FailureClass.ENCODER, "720p")

    def reasons(*options: str) -> list[str]:
        return [line["reason"][:1] for line in hevcq("failures", "list", "--json", *options).lines]

    assert sorted(reasons()) == ["a", "b", "c"]
    assert reasons("--class", "damaged") == ["a"]
    assert reasons("--profile", "720p") == ["c"]
    assert len(reasons("--limit", "2")) == 2
    assert reasons("--class", "encoder", "--profile", "hevc", "--limit", "5") == ["b"]


def test_show_has_the_last_lines_of_ffmpeg_and_the_message(hevcq, farm):
    farm.buried("a.mp4")
    (letter,) = letters(farm)

    ran = hevcq("failures", "show", letter.letter_id)

    assert "reason: a.mp4 broke" in ran.out
    assert "  | last words" in ran.out
    assert '"profile":"hevc"' in ran.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("failures forget", ExitCode.SOME_FAILED, "Nothing deleted."),
        ("redrive", ExitCode.USAGE, "--dlq"),
        (
            "failures acknowledge nowhere.mp4",
            ExitCode.USAGE,
            "No such file or folder: nowhere.mp4.",
        ),
        ("failures show zzz", ExitCode.USAGE, "No failed job 'zzz'"),
        ("failures list --profile hevcc", ExitCode.USAGE, "Did you mean 'hevc'?"),
    ],
)
def test_what_is_not_confirmed_or_not_there_changes_nothing(hevcq, farm, words, code, said):
    farm.buried("a.mp4")

    ran = hevcq(*words.split())

    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert len(letters(farm)) == 1


def test_forget_deletes_what_was_selected_and_leaves_the_job_dead(hevcq, farm):
    path, job = farm.buried("a.mp4", FailureClass.DAMAGED)
    farm.buried("b.mp4")

    ran = hevcq("failures", "forget", "--class", "damaged", "--yes")

    assert (ran.code, ran.err) == (0, "1 dead letter deleted.\n")
    assert [letter.reason for letter in letters(farm)] == ["b.mp4 broke"]
    assert farm.app.backend.ledger.get(job.job_id).state is JobState.DEAD
    assert path.exists()


def test_show_and_forget_take_a_letter_or_a_job_and_no_other(hevcq, farm):
    jobs = [farm.buried(f"{number}.mp4")[1].job_id for number in range(11)]
    first = letters(farm)[0].letter_id

    assert hevcq("failures", "show", jobs[1][:12]).out == hevcq("failures", "show", "2").out
    assert hevcq("failures", "forget", first, "--yes").err == "1 dead letter deleted.\n"
    assert hevcq("failures", "forget", jobs[1][:12], "--yes").err == "1 dead letter deleted.\n"
    assert [letter.task.job_id for letter in letters(farm)] == jobs[2:]


def test_redrive_sends_letters_back_with_their_failures_forgiven(hevcq, farm):
    _, job = farm.buried("a.mp4")
    assert hevcq("redrive", "--dlq", "--dry-run").out.startswith("would_queue  hevc")
    assert len(letters(farm)) == 1

    ran = hevcq("redrive", "--dlq")

    assert ran.code == 0
    assert ran.err == f"{NO_WORKER}\n"
    assert letters(farm) == []
    record = farm.app.backend.ledger.get(job.job_id)
    assert (record.state, record.failures) == (JobState.QUEUED, 0)
    (delivery,) = farm.app.backend.queues["hevc"].receive(2, wait_s=0, stop=threading.Event())
    assert delivery.tasks == (farm.task(job),)
    assert delivery.attempt == 1


def test_redrive_of_a_source_that_is_gone_says_so_and_keeps_the_letter(hevcq, farm):
    farm.buried("a.mp4")
    (farm.folder / "a.mp4").unlink()

    ran = hevcq("redrive", "--dlq")
    assert (ran.code, len(letters(farm))) == (ExitCode.SOME_FAILED, 1)
    assert ran.out.startswith("source_changed  hevc")


def test_redrive_takes_only_what_was_selected(hevcq, farm):
    farm.buried("a.mp4", FailureClass.DAMAGED)
    farm.buried("b.mp4", FailureClass.ENCODER)
    farm.buried("c.mp4", FailureClass.ENCODER)

    assert hevcq("redrive", "--dlq", "--class", "encoder", "--limit", "1").code == 0

    assert [letter.reason[0] for letter in letters(farm)] == ["a", "c"]
    assert hevcq("redrive", "--dlq", "--profile", "720p").err.startswith("No matching dead letter")


def test_an_acknowledged_failure_is_skipped_and_listed_no_more(hevcq, farm):
    path, job = farm.buried("a.mp4", FailureClass.DAMAGED)
    _, other = farm.buried("b.mp4")

    ran = hevcq("failures", "acknowledge", path)

    assert (ran.code, ran.out) == (0, f"kept  hevc  {path}\n")
    kept = farm.app.backend.ledger.get(job.job_id)
    assert (kept.state, kept.reason) == (
        JobState.SKIPPED,
        "Kept as it is, as asked. a.mp4 broke",
    )
    assert [each.task.job_id for each in letters(farm)] == [other.job_id]
    assert hevcq("retry", path).code == 0
    assert farm.app.backend.ledger.get(job.job_id).state is JobState.QUEUED
    assert hevcq("failures", "acknowledge", other.job_id, path).code == 0
    assert letters(farm) == []


def test_an_acknowledgement_that_a_kill_interrupted_is_finished_by_the_next(hevcq, farm):
    path, job = farm.buried("a.mp4")
    farm.app.backend.ledger.reopen(job.job_id, who="me", why="acknowledged")  # then the kill

    assert hevcq("failures", "acknowledge", path).code == 0

    assert farm.app.backend.ledger.get(job.job_id).state is JobState.SKIPPED
    assert letters(farm) == []
