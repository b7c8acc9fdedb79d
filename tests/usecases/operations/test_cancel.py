"""`hevcq cancel`: only the ledger changes, what ended stays as it ended, one failure stops no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.domain.job import JobState
from hevcq.errors import Unavailable
from hevcq.usecases.operations.reprocess import Cancelled, CancelRequest, CancelResult, cancel
from support.fakes.backend import Faulty
from support.fakes.videofarm import VideoFarm


@pytest.fixture
def farm(tmp_path: Path) -> VideoFarm:
    return VideoFarm(tmp_path)


def cancelled(farm: VideoFarm, name: str, **more: object) -> list[Cancelled]:
    return list(cancel(farm.backend, CancelRequest([name], who="me", **more)))


def test_a_job_that_ends_while_it_is_cancelled_is_said_to_have_ended(farm: VideoFarm) -> None:
    source = farm.submit()

    def before(name: str) -> None:
        if name == "cancel":
            farm.ledger.cancel(farm.record(source).job_id, "by another")

    backend = replace(farm.backend, ledger=Faulty(farm.ledger, before=before))
    (found,) = cancel(backend, CancelRequest([source.key], who="me"))

    assert (found.result, found.detail) == (CancelResult.ENDED, "already dead")
    assert farm.record(source).reason == "by another"


def test_the_work_of_a_split_video_is_deleted(farm: VideoFarm) -> None:
    source = farm.chunked()
    assert farm.kept(source)

    assert [each.result for each in cancelled(farm, source.key)] == [CancelResult.CANCELLED]
    assert farm.kept(source) == []


def test_a_store_that_does_not_answer_leaves_the_work_to_a_sweep(farm: VideoFarm) -> None:
    source = farm.chunked()

    def before(name: str) -> None:
        if name == "delete":
            raise Unavailable("no answer")

    backend = replace(farm.backend, store=Faulty(farm.store, before=before))
    (found,) = cancel(backend, CancelRequest([source.key], who="me"))

    assert found.result is CancelResult.CANCELLED
    assert farm.state(source) is JobState.DEAD
    assert farm.kept(source)
