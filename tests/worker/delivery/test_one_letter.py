"""A dead job has one dead letter, and its reason names the source."""

import pytest

from hevcq.domain.job import Task
from hevcq.domain.verdict import FailureClass
from hevcq.errors import SourceDamaged


def test_a_duplicate_of_a_dead_job_leaves_no_further_letter(farm):
    farm.encoder.errors["preflight"] = [SourceDamaged("12 packets are missing.")]
    source = farm.submit()
    farm.handle()
    for _ in range(3):
        farm.queue.send([Task(source=source, profile="hevc")])
        farm.handle()

    assert len(farm.letters()) == 1
    assert farm.queue.depth().ready == 0


def test_a_dead_job_whose_burial_was_prevented_gets_its_letter(farm):
    source = farm.submit()
    job = farm.record(source).job_id
    farm.backend.ledger.bury_unclaimed(job, "12 packets are missing.", FailureClass.DAMAGED)

    farm.handle()

    (letter,) = farm.letters()
    assert letter.reason == "12 packets are missing."


def test_a_reason_names_the_source_and_no_scratch_path(farm):
    source = farm.submit("TODO/all/a.mp4")
    place = farm.context.scratch.folder / "hevcq-12-1" / f"{farm.record(source).job_id}-1"
    fetched = place / f"{source.source_id}.mp4"
    farm.encoder.errors["preflight"] = [
        SourceDamaged(f"{fetched} is damaged: {source.source_id}.mp4, {place}/output.mp4.")
    ]

    farm.handle()

    (letter,) = farm.letters()
    named = f"{source.key} is damaged: {source.key}, the temporary file output.mp4."
    assert letter.reason == farm.record(source).reason
    assert letter.reason.startswith(named)


@pytest.mark.parametrize("copy", ["recording.ts", "recording.mpg"])
def test_the_copy_of_a_recording_is_named_as_the_recording(farm, copy):
    source = farm.submit("TODO/all/tv.ts")
    place = farm.context.scratch.folder / "hevcq-12-1" / f"{farm.record(source).job_id}-1"
    farm.encoder.errors["preflight"] = [SourceDamaged(f"{place}/{copy} is damaged: so.")]

    farm.handle()

    (letter,) = farm.letters()
    assert letter.reason.startswith(f"{source.key} is damaged: so.")
