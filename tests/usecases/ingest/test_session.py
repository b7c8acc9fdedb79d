"""One ingest as a whole over memory ports: plan, queue, work, collect, and what the next run sees."""

import shutil
from pathlib import Path

import pytest

from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.library.ingest_session import ingest_exit_code
from hevcq.domain.events import EventName
from hevcq.domain.job import JobState
from hevcq.domain.planning.encode_plan import Refuse, Skip, SkipReason
from hevcq.library.own_files import Certificates
from hevcq.library.scanning.scan import Rejected, RejectionCause
from hevcq.ports.catalog import Mode, PlacementState
from hevcq.ports.ledger import JobFilter
from hevcq.usecases.ingest.decide import Disposition, IngestPlan
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.ingest.session import Ingest
from hevcq.usecases.ingest.track import IngestOutcome, IngestResult, IngestSummary
from hevcq.usecases.proofs import OwnRenditions, TargetState
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


def test_a_rendition_that_was_done_and_whose_source_moved_is_still_collected(bench: Bench) -> None:
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


def test_what_an_encode_cost_is_remembered_without_the_search_for_a_quality(bench: Bench) -> None:
    ingest = session(bench)
    run(bench, ingest, ingest.plan(videos(bench, "a.mp4")))

    (cost,) = bench.catalog.encode_costs("hevc", 9).values()
    assert (cost.cpu_s, cost.output_size) == (0.25, len(b"small"))


@pytest.mark.parametrize("content", [b"smaller still", b"small"])
@pytest.mark.parametrize("scanned", [True, False])
def test_what_was_reprocessed_elsewhere_takes_the_place_of_the_older(
    bench: Bench, content: bytes, scanned: bool
) -> None:
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


def test_a_kill_between_a_replace_and_its_note_is_tidied_by_the_next_run(tmp_path: Path) -> None:
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
    assert placement is not None
    assert placement.state is PlacementState.REPLACED
    assert placement.retained is not None
    assert bench.backend.store.stat(ref.key) is None
    assert second.summary.all_good


def test_what_is_skipped_refused_or_no_video_is_reported_counted_and_never_queued(
    bench: Bench,
) -> None:
    plans = {
        "a.mp4": Skip(reason=SkipReason.ALREADY_TARGET, detail="It is HEVC already."),
        "b.mp4": Refuse(policy="policies.hdr", detail="It is HDR."),
    }
    found = videos(bench, "a.mp4", "b.mp4")
    answers = iter(plans.values())
    ingest = session(bench, planner=lambda _profile, _info: next(answers))
    bad = Rejected(bench.media / "c.mp4", RejectionCause.EMPTY, "It is empty.")
    link = Rejected(bench.media / "d.mp4", RejectionCause.LINK, "It is a link.")

    plan = ingest.plan([*found, bad, link])
    ingest.summary.add_planned(plan)

    assert ingest.summary.counts() == {IngestOutcome.SKIPPED: 2, IngestOutcome.REFUSED: 2}
    assert ingest_exit_code(ingest.summary) is ExitCode.SOME_FAILED
    assert bench.backend.ledger.counts() == {}
    planned = [event for event in bench.events if event.event is EventName.FILE_PLANNED]
    assert all(event.reason for event in planned)


def test_a_video_with_hard_links_is_refused_before_it_is_encoded_in_vain(bench: Bench) -> None:
    linked, alone = videos(bench, "linked.mp4", "alone.mp4")
    (bench.media / "other name").hardlink_to(linked.path)
    where = Destination(Mode.REPLACE)

    plan = session(bench, where=where).plan([linked, alone])

    refused, queued = plan.items
    assert (refused.disposition, queued.disposition) == (Disposition.REFUSE, Disposition.QUEUE)
    assert "has 2 names (hard links)" in refused.reason
    beside = session(bench).plan([linked, alone])
    assert {item.disposition for item in beside.items} == {Disposition.QUEUE}


def test_whose_a_file_at_a_target_is(bench: Bench) -> None:
    def state(target: Path, source: Path, size: int) -> TargetState:
        return OwnRenditions(bench.proofs, Certificates()).state(target, source, size)

    item = bench.video()
    job = bench.queue(item)
    bench.work(job)
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


@pytest.mark.parametrize(
    ("outcome", "interrupted", "expected"),
    [
        (IngestOutcome.PLACED, False, ExitCode.OK),
        (IngestOutcome.SKIPPED, False, ExitCode.OK),
        (IngestOutcome.EARLIER, False, ExitCode.OK),
        (IngestOutcome.QUEUED, False, ExitCode.OK),
        (IngestOutcome.REFUSED, False, ExitCode.SOME_FAILED),
        (IngestOutcome.FAILED, False, ExitCode.SOME_FAILED),
        (IngestOutcome.NOT_PLACED, False, ExitCode.SOME_FAILED),
        (IngestOutcome.OPEN, False, ExitCode.SOME_FAILED),
        (IngestOutcome.OPEN, True, ExitCode.INTERRUPTED),
        (IngestOutcome.PLACED, True, ExitCode.INTERRUPTED),
    ],
)
def test_the_exit_code_says_how_it_ended(
    outcome: IngestOutcome, interrupted: bool, expected: ExitCode
) -> None:
    result = IngestResult(path=Path("/f/a.mp4"), profile="hevc", outcome=outcome)

    assert ingest_exit_code(IngestSummary([result], interrupted=interrupted)) is expected
