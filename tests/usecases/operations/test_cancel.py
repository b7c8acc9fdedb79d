"""`hevcq cancel`: only the ledger changes, what ended stays as it ended, one failure stops no other."""

from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.usecases.operations.reprocess import JobChange, JobResult, cancel
from support.fakes.backend import Faulty
from support.fakes.videofarm import VideoFarm


@pytest.fixture
def farm(tmp_path: Path) -> VideoFarm:
    return VideoFarm(tmp_path)


def cancelled(farm: VideoFarm, name: str, **more: object) -> list[JobChange]:
    return list(cancel(farm.backend, [name], "me", **more))


def test_a_job_that_ends_while_it_is_cancelled_is_said_to_have_ended(farm: VideoFarm) -> None:
    source = farm.submit()

    def before(name: str) -> None:
        if name == "cancel":
            farm.ledger.cancel(farm.record(source).job_id, "by another")

    backend = replace(farm.backend, ledger=Faulty(farm.ledger, before=before))
    (found,) = cancel(backend, [source.key], "me")

    assert (found.result, found.detail) == (JobResult.ENDED, "already dead")
    assert farm.record(source).reason == "by another"
