"""The machine that took a source in lets it go only when every rendition is in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.domain.job import JobState, Source
from hevcq.errors import LibraryError, Unavailable
from hevcq.usecases.operations.finished_sources import SourceFinisher
from hevcq.usecases.placement.collect import Collector
from support.fakes.backend import HEVC, Faulty
from support.ingest.run import NEVER, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path, discard=False)
    rewire(made)
    return made


def rewire(bench: Bench) -> None:
    """Collect as `hevcq ingest` against a bucket does where the setting is on."""
    profiles = {HEVC.name: HEVC}
    mark_source_finished = SourceFinisher(bench.backend, profiles, bench.catalog)
    bench.collector = Collector(
        bench.ports, bench.proofs, discard=False, mark_source_finished=mark_source_finished
    )
    bench.tracker._collector = bench.collector


def let_go_of(bench: Bench) -> list[tuple[Source, bool]]:
    return bench.backend.store.marked


def test_a_collected_source_is_let_go(bench: Bench) -> None:
    job = bench.queue(bench.video())
    bench.work(job)
    assert let_go_of(bench) == []

    bench.collector.collect(bench.done(job), NEVER)

    assert let_go_of(bench) == [(job.source, True)]


def test_one_that_cannot_be_placed_is_kept(bench: Bench) -> None:
    job = bench.queue(bench.video())
    bench.work(job)
    (bench.media / "a.hevc.mp4").write_bytes(b"a stranger's")

    with pytest.raises(LibraryError):
        bench.collector.collect(bench.done(job), NEVER)

    assert let_go_of(bench) == []


def test_one_that_was_skipped_has_no_rendition_and_is_kept(bench: Bench) -> None:
    job = bench.queue(bench.video())
    bench.backend.ledger.skip(job.job_id, bench.claim(job), "not smaller")

    bench.tracker.step(NEVER)

    assert bench.done(job).state is JobState.SKIPPED
    assert let_go_of(bench) == []


def test_a_kill_between_place_and_mark_is_made_up_for_by_the_next_collect(bench: Bench) -> None:
    job = bench.queue(bench.video())
    bench.work(job)
    Collector(bench.ports, bench.proofs, discard=False).collect(bench.done(job), NEVER)
    assert let_go_of(bench) == []

    assert bench.collector.collect(bench.done(job), NEVER).already

    assert let_go_of(bench) == [(job.source, True)]


def test_a_store_that_does_not_answer_keeps_the_source_and_the_rendition_its_place(
    bench: Bench,
) -> None:
    job = bench.queue(bench.video())
    bench.work(job)

    def fails(name: str) -> None:
        if name == "mark_source_finished":
            raise Unavailable("no answer")

    broken = Faulty(bench.backend.store, before=fails)
    backend = replace(bench.backend, store=broken)
    mark_source_finished = SourceFinisher(backend, {HEVC.name: HEVC}, bench.catalog)
    collector = Collector(
        bench.ports, bench.proofs, discard=False, mark_source_finished=mark_source_finished
    )

    done = collector.collect(bench.done(job), NEVER)

    assert done.target.is_file()
    assert let_go_of(bench) == []


def test_without_a_catalog_the_ledger_alone_decides(bench: Bench) -> None:
    job = bench.queue(bench.video())
    finisher = SourceFinisher(bench.backend, {HEVC.name: HEVC})
    assert not finisher(job.source)
    bench.work(job)
    assert finisher(job.source)
    assert let_go_of(bench) == [(job.source, False)]
