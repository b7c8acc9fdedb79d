"""A clip goes through every profile of a farm; where it stops is said, and nothing stays behind."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hevcq.domain.verdict import FailureClass
from hevcq.errors import ConfigError, VerificationFailed
from hevcq.ports.ledger import JobFilter
from hevcq.usecases.farm_check import check_farm
from support.clips import WorkedClock
from support.fakes.farm import Farm


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def tools_of(farm: Farm, clock: WorkedClock, **changes: object) -> SimpleNamespace:
    profiles = {farm.profile.name: farm.profile}
    usual = {"backend": farm.backend, "profiles": profiles, "encoder": farm.encoder}
    return SimpleNamespace(**usual | changes, clock=clock)


def test_a_clip_that_fails_stops_at_the_worker_with_its_reason_and_leaves_no_letter(farm):
    farm.encoder.errors["verify"] = [VerificationFailed("G4: frame 3 differs.")] * 9

    (found,) = check_farm(tools_of(farm, WorkedClock(farm.handle)), "0a1b")

    assert not found.ok
    assert "stopped at the worker: the job failed (verification)" in found.detail
    assert "G4: frame 3 differs." in found.detail
    depth = farm.queue.depth()
    assert [*farm.store.list("DONE/"), *farm.letters()] == []
    assert depth.ready + depth.in_flight == 0


def test_a_rendition_that_is_not_there_stops_at_publishing(farm):
    def lose() -> None:
        farm.handle()
        for each in list(farm.store.list("DONE/")):
            farm.store.delete(each.key)

    clock = WorkedClock(lose)

    (found,) = check_farm(tools_of(farm, clock), "0a1b")

    assert not found.ok
    assert "stopped at the publish" in found.detail


def test_nothing_is_uploaded_for_a_profile_without_a_queue(farm):
    class Queues(dict):
        def __missing__(self, profile: str) -> None:
            raise ConfigError(f"There is no queue {profile}.", remedy="Make it.")

    backend = replace(farm.backend, queues=Queues(farm.backend.queues))
    other = farm.profile.model_copy(update={"name": "another"})
    profiles = {"another": other, farm.profile.name: farm.profile}
    tools = tools_of(farm, WorkedClock(farm.handle), backend=backend, profiles=profiles)

    first, second = check_farm(tools, "0a1b")

    assert first.detail == "The clip stopped at the queue: There is no queue another."
    assert first.remedy == "Make it."
    assert (second.name, second.ok) == ("farm: hevc", True)
    assert [source.key for source, _ in farm.store.marked] == [
        "TODO/hevc/hevcq-doctor/hevc-0a1b.mp4"
    ]


def test_what_was_sent_is_taken_back_when_nobody_waits_any_more(farm):
    def interrupt() -> None:
        raise KeyboardInterrupt

    clock = WorkedClock(interrupt)

    with pytest.raises(KeyboardInterrupt):
        list(check_farm(tools_of(farm, clock), "0a1b"))

    (job,) = farm.ledger.jobs(JobFilter())
    assert job.failure_class is FailureClass.CANCELLED
