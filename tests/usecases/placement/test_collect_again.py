"""A job made again, whose older rendition a person has worked on meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.errors import LibraryError
from support.ingest.run import NEVER, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_older_rendition_that_a_person_edited_is_not_cleared_away_for_a_newer(
    bench: Bench,
) -> None:
    item = bench.video()
    job = bench.queue(item)
    bench.work(job)
    placed = bench.collector.collect(bench.done(job), NEVER).target
    placed.write_bytes(b"cut by hand")
    assert bench.backend.ledger.reopen(job.job_id, who="me", why="better recipe")
    bench.enqueuer.adopt(replace(item, job_id=job.job_id))
    ref = bench.work(job, b"smaller still")

    with pytest.raises(LibraryError, match="exists already"):
        bench.collector.collect(bench.done(job), NEVER)

    assert placed.read_bytes() == b"cut by hand"
    assert bench.backend.store.stat(ref.key) is not None
