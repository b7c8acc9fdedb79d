"""Progress on DynamoDB costs a write now and then, not one for every word of the encoder."""

from __future__ import annotations

import pytest

from aws.breaking import Breaking
from hevcq.aws.dynamodb.ledger import PROGRESS_EVERY_S
from hevcq.domain.job import Phase, Progress, Source
from hevcq.ports.ledger import Granted

pytestmark = pytest.mark.aws
SOURCE = Source(bucket="uploads", key="TODO/all/a.mp4", version="v", size=1)


def test_words_of_one_phase_are_written_once_in_a_while(farm) -> None:
    ledger = farm.backend.ledger
    ledger._db = Breaking(farm.clients.dynamodb)
    claim = ledger.claim(SOURCE, "hevc", owner="w", lease_s=600)
    assert isinstance(claim, Granted)
    (job,) = ledger.register(SOURCE, ["hevc"])
    before = ledger._db.count("update_item")

    for percent in range(10):
        ledger.progress(job.job_id, claim.fence, Progress(phase=Phase.ENCODE, percent=percent))
        farm.clock.advance(PROGRESS_EVERY_S / 5)

    assert ledger._db.count("update_item") - before == 2
    assert ledger.get(job.job_id).progress.percent == 5
