"""One ingest as a whole over memory ports: plan, queue, work, collect, and what the next run sees.

Queueing and following: whoever works on a job, its end is seen, told once and counted once.

An ingest that does not wait to the end: what is finished is placed, and the rest is counted.
"""

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.library.ingest_session import ingest_exit_code
from hevcq.domain.job import JobState, Phase, Progress
from hevcq.domain.verdict import FailureClass
from hevcq.errors import DiskFull, SourceChanged, StorageError
from hevcq.library.own_files import Certificates
from hevcq.library.scanning.watch_folder import SettlingFiles
from hevcq.ports.catalog import Fingerprint, Mode, PlacementState
from hevcq.ports.ledger import JobFilter
from hevcq.usecases.ingest.decide import Disposition, IngestPlan, Item
from hevcq.usecases.ingest.enqueue import Enqueuer
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.ingest.session import Ingest
from hevcq.usecases.ingest.track import SWEEP_S, IngestOutcome, IngestResult, IngestSummary
from hevcq.usecases.proofs import OwnRenditions, TargetState
from support.fakes.backend import Faulty
from support.ingest.run import NEVER, Bench, session, videos


def run(bench: Bench, ingest: Ingest, plan: IngestPlan) -> None:
    """Queue the plan's items and do the workers' part, without any thread."""
    ingest.summary.add_planned(plan)
    for item in plan.of(Disposition.QUEUE, Disposition.COLLECT, Disposition.JOIN):
        ingest.enqueuer.submit([[item]])
        ingest.enqueuer.step([item], NEVER)
    waiting = list(bench.backend.ledger.jobs(JobFilter()))
    for job in waiting:
        if job.state is JobState.QUEUED:
            bench.work(job)
    ingest.step(NEVER)


def test_a_rendition_that_was_done_and_whose_source_moved_is_still_collected(bench):
    first = session(bench)
    plan = first.plan(videos(bench, "a.mp4"))
    (item,) = plan.items
    ((_, job),) = bench.enqueuer.enqueue([item], NEVER)
    bench.work(job)
    item.path.unlink()

    second = session(bench)
    plan = second.plan([])
    run(bench, second, plan)

    assert plan.counts() == {Disposition.COLLECT: 1}
    assert second.summary.counts() == {IngestOutcome.PLACED: 1}
    assert (bench.media / "a.hevc.mp4").is_file()


def test_what_an_encode_cost_is_remembered_without_the_search_for_a_quality(bench):
    ingest = session(bench)
    run(bench, ingest, ingest.plan(videos(bench, "a.mp4")))

    (cost,) = bench.catalog.encode_costs("hevc", 9).values()
    assert (cost.cpu_s, cost.output_size) == (0.25, len(b"small"))


@pytest.mark.parametrize("content", [b"smaller still", b"small"])
@pytest.mark.parametrize("scanned", [True, False])
def test_what_was_reprocessed_elsewhere_takes_the_place_of_the_older(bench, content, scanned):
    first = session(bench)
    found = videos(bench, "a.mp4")
    run(bench, first, first.plan(found))
    (job,) = bench.backend.ledger.jobs(JobFilter())
    assert bench.backend.task_publisher.requeue(job, who="me", why="better recipe")
    ref = bench.work(job, content)

    second = session(bench)
    run(bench, second, second.plan(found if scanned else []))

    assert second.summary.all_good
    assert (bench.media / "a.hevc.mp4").read_bytes() == content
    assert bench.backend.store.stat(ref.key) is None


def test_a_kill_between_a_replace_and_its_note_is_tidied_by_the_next_run(tmp_path):
    bench = Bench(tmp_path, where=Destination(Mode.REPLACE))
    item = bench.video()
    job = bench.queue(item)
    ref = bench.work(job)
    waiting = bench.catalog.placement(job.job_id)
    assert waiting is not None
    bench.collector.collect(bench.done(job), NEVER)
    # As the kill left it: replaced on disk, waiting in the catalog, the rendition in the store.
    bench.catalog.record_placements([waiting])
    bench.backend.store.put(ref.key, b"small", metadata={})
    (proof,) = (bench.media / ".hevcq/certificates").iterdir()
    bench.backend.store.put(ref.certificate_key, proof.read_bytes(), metadata={})

    second = session(bench)
    run(bench, second, second.plan([]))

    placement = bench.catalog.placement(job.job_id)
    assert placement.state is PlacementState.REPLACED
    assert placement.retained is not None
    assert bench.backend.store.stat(ref.key) is None
    assert second.summary.all_good


def test_whose_a_file_at_a_target_is(bench):
    def state(target: Path, source: Path, size: int) -> TargetState:
        return OwnRenditions(bench.proofs, Certificates()).state(target, source, size)

    item = bench.video()
    job = bench.encode(item)
    target = bench.media / "a.hevc.mp4"
    assert state(target, item.path, item.size) is TargetState.FREE
    bench.collector.collect(bench.done(job), NEVER)

    assert state(target, item.path, item.size) is TargetState.OURS
    assert state(target, item.path, item.size + 1) is TargetState.FORMER
    assert state(target, bench.media / "a.avi", item.size) is TargetState.TWIN
    moved = bench.media / "moved"
    moved.mkdir()
    shutil.copyfile(target, moved / target.name)
    assert state(moved / target.name, moved / "a.mp4", item.size) is TargetState.STRANGER
    shutil.copyfile(item.path, moved / "a.mp4")
    assert state(moved / target.name, moved / "a.mp4", item.size) is TargetState.OURS
    target.write_bytes(b"other length")
    assert state(target, item.path, item.size) is TargetState.STRANGER


@pytest.mark.parametrize("name", ["a.mp4", "100%25 a.mp4", os.fsdecode(b"\xff.mp4")])
def test_a_copy_of_a_video_that_is_still_there_is_another_video(bench, name):
    item = bench.video(name)
    job = bench.encode(item)
    bench.collector.collect(bench.done(job), NEVER)
    copy = bench.media / "copy.mp4"
    shutil.copyfile(item.path, copy)
    placed = [p for p in bench.media.iterdir() if ".hevc" in p.name and p.is_file()]
    ours = OwnRenditions(bench.proofs, Certificates(), {placed[0].stat().st_size: placed})

    assert ours.find_renamed(copy, item.size, job.profile) is None
    item.path.unlink()
    assert ours.find_renamed(copy, item.size, job.profile) == placed[0]


@pytest.mark.parametrize("outcome", list(IngestOutcome))
def test_the_exit_code_says_how_it_ended(outcome):
    result = IngestResult(Item(Path("/f/a.mp4"), 1, Disposition.QUEUE), outcome)
    good = outcome in {"placed", "skipped", "done_earlier", "queued"}

    expected = ExitCode.OK if good else ExitCode.SOME_FAILED
    assert ingest_exit_code(IngestSummary([result])) is expected
    assert ingest_exit_code(IngestSummary([result], interrupted=True)) is ExitCode.INTERRUPTED


def test_where_a_rendition_belongs_is_recorded_before_its_job_is_queued(bench):
    item = bench.video()
    order: list[str] = []
    task_publisher = Faulty(bench.backend.task_publisher, before=order.append)
    catalog = Faulty(bench.catalog, after=order.append)
    backend = replace(bench.backend, task_publisher=task_publisher)
    ports = replace(bench.ports, backend=backend, catalog=catalog)

    Enqueuer(ports, bench.where, bench.tracker).enqueue([item], NEVER)

    assert [name for name in order if name in {"record_placements", "publish"}] == [
        "record_placements",
        "publish",
    ]


def test_where_events_would_reach_every_profile_each_wanted_one_gets_its_own_key(bench):
    item = bench.video()
    separate_keys = Enqueuer(bench.ports, bench.where, bench.tracker, separate_keys=True)

    ((_, job),) = separate_keys.enqueue([item], NEVER)

    assert job.source.key.startswith("TODO/hevc/")
    assert bench.catalog.placement(job.job_id) is not None


def test_a_file_that_changed_since_the_scan_is_not_queued(bench):
    item = bench.video()
    item.path.write_bytes(b"it grows")

    with pytest.raises(SourceChanged, match="growing"):
        bench.enqueuer.enqueue([item], NEVER)

    assert bench.backend.ledger.counts() == {}


def test_a_placement_that_another_ingest_finished_is_never_set_back(bench):
    item = bench.video()
    job = bench.encode(item)
    bench.tracker.step(NEVER)

    bench.enqueuer.enqueue([item], NEVER)

    placement = bench.catalog.placement(job.job_id)
    assert placement.state is PlacementState.PLACED


def test_a_done_job_is_collected_reported_and_counted_once(bench):
    bench.encode()

    bench.tracker.step(NEVER)
    bench.tracker.step(NEVER)

    assert bench.reported() == ["job_queued", "job_done", "placed"]
    assert bench.ends() == {IngestOutcome.PLACED: 1}
    assert bench.summary.results[0].saved == 400 - 5
    assert (bench.summary.saved, bench.summary.added) == (0, 5)
    assert bench.tracker.open == 0


def test_progress_is_reported_when_it_changes_and_only_then(bench):
    job = bench.queue(bench.video())
    fence = bench.claim(job)
    for percent in (10.0, 10.0, 20.0):
        progress = Progress(phase=Phase.ENCODE, percent=percent, speed=2.0, eta_s=5.0)
        bench.backend.ledger.progress(job.job_id, fence, progress)
        bench.tracker.note(job.job_id, progress)
        bench.tracker.step(NEVER)

    bench.tracker.note("a job that nobody follows", Progress(phase=Phase.ENCODE, percent=30.0))

    told = [event.percent for event in bench.events if event.event == "job_progress"]
    assert told == [10.0, 20.0]


def test_a_skip_a_failure_and_a_retry_are_reported_with_their_reasons(bench):
    jobs = {name: bench.queue(bench.video(name)) for name in ("s.mp4", "d.mp4", "r.mp4")}
    ledger = bench.backend.ledger
    fences = {name: bench.claim(job) for name, job in jobs.items()}
    bench.tracker.step(NEVER)
    ledger.skip(jobs["s.mp4"].job_id, fences["s.mp4"], "not_smaller: Would save too little.")
    ledger.bury(jobs["d.mp4"].job_id, fences["d.mp4"], "It is damaged.", FailureClass.DAMAGED)
    ledger.fail(jobs["r.mp4"].job_id, fences["r.mp4"], "ffmpeg broke", FailureClass.ENCODER)

    bench.tracker.step(NEVER)
    bench.tracker.step(NEVER)

    told = {e.event.value: e for e in bench.events}
    assert told["job_skipped"].reason == "Would save too little."
    assert told["job_skipped"].skip == "not_smaller"
    assert told["job_failed"].failure_class == "damaged"
    assert told["job_retry"].reason == "ffmpeg broke"
    assert bench.reported().count("job_retry") == 1
    assert bench.ends() == {IngestOutcome.SKIPPED: 1, IngestOutcome.FAILED: 1}
    assert bench.tracker.open == 1


def test_a_disk_that_is_away_is_one_pause_for_all_its_videos(bench):
    jobs = [bench.queue(bench.video(name)) for name in ("a.mp4", "b.mp4")]
    fences = [bench.claim(job) for job in jobs]
    bench.tracker.step(NEVER)
    for job, fence in zip(jobs, fences, strict=True):
        bench.backend.ledger.interrupt(job.job_id, fence, "The folder /m is not there. Mount it.")

    bench.tracker.step(NEVER)

    assert bench.reported().count("paused") == 1
    assert "job_retry" not in bench.reported()
    assert bench.events[-1].reason == "The folder /m is not there. Mount it."


def test_a_change_that_no_listing_showed_is_found_by_the_sweep(bench):
    item = bench.video()
    ((item, job),) = bench.enqueuer.enqueue([item], NEVER)
    blind = Faulty(bench.backend.ledger)
    blind.jobs = lambda _wanted: iter(())
    bench.backend = replace(bench.backend, ledger=blind)
    bench.wire()
    bench.tracker.add(item, job)
    bench.work(job)

    bench.tracker.step(NEVER)
    assert bench.ends() == {}
    bench.clock.advance(SWEEP_S)
    bench.tracker.step(NEVER)

    assert bench.ends() == {IngestOutcome.PLACED: 1}


def test_a_full_target_disk_is_waited_for_and_told_once_it_lasts(bench):
    tries: list[str] = []

    def fill(call: str) -> None:
        tries.extend([call] * (call == "collect"))
        if call == "collect" and len(tries) <= 2:
            raise DiskFull("no room")

    bench.backend = replace(bench.backend, store=Faulty(bench.backend.store, before=fill))
    bench.wire()
    bench.encode()

    bench.tracker.step(NEVER)
    assert "paused" not in bench.reported()
    bench.tracker.step(NEVER)
    assert len(tries) == 1
    bench.clock.advance(1.0)
    bench.tracker.step(NEVER)
    assert bench.reported()[-1] == "paused"
    bench.clock.advance(10.0)
    bench.tracker.step(NEVER)

    assert bench.ends() == {IngestOutcome.PLACED: 1}


def test_a_damaged_data_folder_ends_the_intake_and_is_raised_to_the_caller(bench):

    def broken(name: str) -> None:
        if name == "publish":
            raise StorageError("It is damaged.")

    task_publisher = Faulty(bench.backend.task_publisher, before=broken)
    bench.backend = replace(bench.backend, task_publisher=task_publisher)
    bench.wire()
    stop = threading.Event()
    bench.enqueuer.submit([[bench.video()]])
    bench.enqueuer.start(1, stop)
    while bench.enqueuer.busy:
        stop.wait(0.01)
    stop.set()
    bench.enqueuer.join()

    with pytest.raises(StorageError):
        bench.enqueuer.raise_error()


def test_a_job_that_vanished_from_the_ledger_is_queued_anew(bench):
    lost = replace(bench.video(), disposition=Disposition.JOIN, job_id="no-such-job")

    bench.enqueuer.submit([[lost]])
    bench.enqueuer.step([lost], NEVER)

    assert bench.backend.ledger.counts() == {("hevc", JobState.QUEUED): 1}


VIDEO = Path("/videos/a.mp4")


def bytes_now(size: int, mtime_ns: int = 1) -> dict[Path, Fingerprint]:
    return {VIDEO: Fingerprint(size=size, mtime_ns=mtime_ns, inode=1, device=1)}


def test_a_file_that_stays_the_same_becomes_ready_exactly_once():
    settling = SettlingFiles(settle_s=5.0)
    settling.observe(bytes_now(10), now=0.0)

    assert settling.observe(bytes_now(10), now=4.9) == []
    assert settling.observe(bytes_now(10), now=5.0) == [VIDEO]
    assert settling.observe(bytes_now(10), now=60.0) == []
    assert settling.unsettled == 0


def test_nothing_is_put_in_place_once_a_stop_is_asked_for(bench):
    ingest = session(bench)
    (item,) = ingest.plan(videos(bench, "a.mp4")).of(Disposition.QUEUE)
    ingest.enqueuer.step([item], NEVER)
    (job,) = bench.backend.ledger.jobs(JobFilter())
    bench.work(job)
    (stop := threading.Event()).set()

    again = session(bench)
    again.collect_finished(stop)

    (placement,) = bench.catalog.placements()
    assert placement.state is PlacementState.WAITING
    assert again.summary.counts() == {}


@pytest.mark.parametrize(
    ("queued", "outcome"), [(True, IngestOutcome.QUEUED), (False, IngestOutcome.OPEN)]
)
def test_what_is_left_open_is_counted_as_it_was_asked_for(bench, outcome, *, queued):
    ingest = session(bench)
    (item,) = ingest.plan(videos(bench, "a.mp4")).of(Disposition.QUEUE)
    ingest.enqueuer.step([item], NEVER)
    assert ingest.open

    ingest.finish(queued=queued)

    assert ingest.summary.counts() == {outcome: 1}
