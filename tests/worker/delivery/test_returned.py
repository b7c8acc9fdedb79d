"""A dead letter that the service moved back whole is tried again; a late duplicate is not."""

from __future__ import annotations

from dataclasses import replace

from hevcq.domain.job import JobState, Task
from hevcq.domain.verdict import FailureClass
from hevcq.worker.handler import ProfileQueue
from support.fakes.farm import Farm


def dead(tmp_path) -> tuple[Farm, object]:
    farm = Farm(tmp_path)
    source = farm.submit()
    record = farm.record(source)
    claim = farm.ledger.claim(source, "hevc", owner="w", lease_s=60)
    farm.ledger.bury(record.job_id, claim.fence, "broke", FailureClass.DAMAGED)
    return farm, source


def deliver(farm: Farm, *, from_dlq: bool) -> None:
    delivery = replace(farm.receive(), from_dlq=from_dlq)
    farm.handler().process(ProfileQueue(farm.profile, farm.queue), delivery)


def test_a_letter_moved_back_by_the_service_reopens_its_dead_job(tmp_path) -> None:
    farm, source = dead(tmp_path)

    deliver(farm, from_dlq=True)

    assert farm.state(source) is JobState.DONE
    assert farm.record(source).failures == 0
    ((job, _who, why),) = farm.ledger.reopened
    assert (job, why) == (farm.record(source).job_id, "its dead letter was moved back")


def test_a_message_of_a_dead_job_that_is_no_letter_is_a_duplicate(tmp_path) -> None:
    farm, source = dead(tmp_path)

    deliver(farm, from_dlq=False)

    assert farm.state(source) is JobState.DEAD
    assert farm.ledger.reopened == []


def test_a_letter_moved_back_of_a_job_that_is_done_changes_nothing(tmp_path) -> None:
    farm = Farm(tmp_path)
    source = farm.submit()
    farm.handle()
    before = farm.record(source)
    farm.queue.send([Task(source=source, profile="hevc")])

    deliver(farm, from_dlq=True)

    assert farm.record(source) == before
    assert farm.ledger.reopened == []
