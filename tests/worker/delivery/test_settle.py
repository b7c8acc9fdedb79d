"""What comes of a delivery: one end, one letter, its progress, and that a cancel stops it."""

from unittest.mock import Mock

import pytest

from hevcq.domain.events import EventName
from hevcq.domain.job import JobState, Phase, Task, job_id
from hevcq.domain.verdict import Abandon, Bury, Done, FailureClass, Release, RetryIn, Skipped
from hevcq.errors import SourceDamaged, StaleFence, Unavailable
from hevcq.ports.encoder import EncodeProgress
from hevcq.usecases.operations.reprocess import JobResult, cancel
from hevcq.worker.delivery.claim import (
    ClaimedTask,
    LedgerTransitions,
    combine_verdicts,
    send_afresh,
    settle,
)
from hevcq.worker.delivery.job import Reporter
from hevcq.worker.delivery.lease import Fence, Lease
from support.fakes.farm import Farm
from support.fakes.videofarm import EmbeddedVideoFarm, VideoFarm

DONE, SKIPPED = Done(), Skipped(reason="small")
BURY = Bury(reason="holes", failure_class=FailureClass.DAMAGED)
RETRY = RetryIn(seconds=30, reason="broke", failure_class=FailureClass.ENCODER)
RELEASE, LATER = Release(reason="stop"), Release(reason="disk", delay_s=90)
ABANDON = Abandon(reason="lost")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([DONE], DONE),
        ([SKIPPED], SKIPPED),
        ([DONE, SKIPPED], DONE),
        ([DONE, BURY], BURY),
        ([BURY, RETRY], RETRY),
        ([RELEASE, BURY], RELEASE),
        ([RETRY, RELEASE, LATER], LATER),
        ([DONE, ABANDON, RETRY], ABANDON),
    ],
)
def test_a_delivery_goes_only_when_nothing_in_it_waits(verdicts, expected):
    assert combine_verdicts(verdicts) == expected


@pytest.mark.parametrize(
    ("decided", "verb"),
    [
        (DONE, "ack"),
        (SKIPPED, "ack"),
        (BURY, "bury"),
        (RETRY, "release"),
        (RELEASE, "release"),
    ],
)
def test_each_verdict_settles_once_and_a_second_time_is_harmless(tmp_path, decided, verb):
    farm = Farm(tmp_path)
    farm.submit()
    delivery = farm.receive()

    assert settle(farm.context, farm.queue, delivery, decided) is True
    assert settle(farm.context, farm.queue, delivery, decided) is False
    assert farm.queue.settled == [(verb, "m1")]


def test_a_new_message_is_sent_before_the_old_one_goes():
    queue = Mock()

    send_afresh(queue, Mock())

    assert [name for name, *_ in queue.method_calls] == ["send", "ack"]


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


@pytest.fixture
def reporting(tmp_path):
    farm = Farm(tmp_path)
    source = farm.submit()
    delivery = farm.receive()
    lease = Lease(farm.queue, delivery, farm.profile.queue, farm.clock, lambda: 0.5)
    farm.ledger.claim(source, "hevc", owner="here:0", lease_s=300)
    fence = Fence(farm.ledger, job_id(source, "hevc"), 1)
    claimed = ClaimedTask(delivery.tasks[0], farm.profile, lease, fence, "here:0")
    return farm, lease, Reporter(farm.context, claimed)


@pytest.mark.parametrize("every_s", [5.0, 30.0])
def test_progress_goes_to_the_ledger_at_its_interval_and_to_the_display_always(reporting, every_s):
    farm, _lease, reporter = reporting
    written = []
    farm.ledger.progress_every_s = every_s
    farm.ledger.progress = lambda _job, _fence, progress: written.append(progress.percent)

    for percent in range(10):
        reporter.percent(Phase.ENCODE, percent)
        farm.clock.advance(every_s / 2)

    assert written == [0, 2, 4, 6, 8]
    assert [e.kind for e in farm.events] == [EventName.JOB_PROGRESS] * 10


def test_the_end_is_forecast_from_the_speed_and_percent_stays_within_bounds(reporting):
    farm, _lease, reporter = reporting
    report = reporter.encoding(Phase.ENCODE, 100.0)
    report(EncodeProgress(fraction=0.25, out_time_s=25, frame=1, speed=2.5, size=1))
    report(EncodeProgress(fraction=1.7, out_time_s=170, frame=1, speed=2.5, size=1))
    report(EncodeProgress(fraction=-1, out_time_s=0, frame=0, speed=None, size=0))

    progress = [event.progress for event in farm.events]
    assert (progress[0].percent, progress[0].eta_s) == (25, 30)
    assert (progress[1].percent, progress[1].eta_s) == (100, 0)
    assert (progress[2].percent, progress[2].eta_s) == (0, None)


def test_progress_under_a_stale_fence_ends_the_zombie_early(reporting):
    farm, lease, reporter = reporting
    farm.clock.advance(1)
    farm.ledger.interrupt(reporter._fence.job_id, 1, "x")

    reporter.phase(Phase.PROBE)

    assert lease.lost
    assert isinstance(lease.cause, StaleFence)


def ended(farm: Farm, source) -> list[JobResult]:
    names = [job_id(source, farm.profile.name)]
    return [done.result for done in cancel(farm.backend, names, "ana")]


@pytest.fixture(params=[VideoFarm, EmbeddedVideoFarm])
def videos(request, tmp_path):
    return request.param(tmp_path)


def left(farm: Farm, source) -> None:
    """No message, no letter, no rendition, no part: only the record with its reason."""
    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    record = farm.until_settled(source)
    assert (record.state, record.reason) == (JobState.DEAD, "Cancelled by ana.")
    assert record.failure_class is FailureClass.CANCELLED
    depth = farm.queue.depth()
    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (0, 0, 0, 0)
    assert not [found.key for found in farm.store.list("DONE/")]


def test_a_running_encode_stops_at_its_next_heartbeat(tmp_path):
    farm = Farm(tmp_path)
    source = farm.submit()

    def midway() -> None:
        ended(farm, source)
        farm.lease.beat(farm.clock.monotonic())

    farm.encoder.during["encode"] = midway
    handled = farm.handle()

    assert isinstance(farm.lease.cause, StaleFence)
    assert (type(handled.verdict), farm.queue.settled) == (Abandon, [])
    left(farm, source)
    assert farm.encoder.calls.count("encode") == 1
    assert farm.scratch_files() == []


def test_the_chunks_of_a_cancelled_video_are_not_encoded(videos):
    source = videos.split()
    videos.handle()

    assert ended(videos, source) == [JobResult.CANCELLED]

    assert videos.kept(source) == [], "what was kept for it is gone"
    left(videos, source)
    assert videos.encoder.calls.count("encode_chunk") == 1


def test_a_video_cancelled_in_its_join_publishes_nothing(videos):
    source = videos.chunked()
    videos.encoder.during["verify"] = lambda: ended(videos, source)
    videos.handle()

    left(videos, source)


def test_parts_that_cannot_be_cleared_away_keep_no_other_job_from_being_cancelled(tmp_path):
    farm = VideoFarm(tmp_path)
    split, waiting = farm.split(), farm.submit("b.mp4")

    listing, farm.store.list = farm.store.list, Mock(side_effect=Unavailable("access is denied"))
    names = [source.key for source in (split, waiting)]
    results = [done.result for done in cancel(farm.backend, names, "ana")]
    farm.store.list = listing

    assert results == [JobResult.CANCELLED] * 2
    left(farm, split)
    left(farm, waiting)


@pytest.mark.parametrize("same_end", [True, False])
def test_an_end_without_an_answer_is_not_ours_if_another_attempt_took_over(tmp_path, same_end):
    farm = Farm(tmp_path)
    source, skip, tried = farm.submit(), farm.ledger.skip, []
    job = farm.record(source).job_id

    def claimed() -> int:
        return farm.ledger.claim(source, "hevc", owner=f"{farm.clock.now()}", lease_s=1.0).fence

    def overtaken(*asked: object) -> None:
        if tried:
            return skip(*asked)
        tried.append(asked)
        farm.clock.advance(2.0)
        fence = claimed()
        if same_end:
            skip(job, fence, "by another")
        raise Unavailable("no answer")

    ours = LedgerTransitions(farm.context, Mock(), Fence(farm.ledger, job, claimed()))
    farm.ledger.skip = overtaken

    with pytest.raises(StaleFence):
        ours.record(Skipped(reason="by us"))


def lost(port, call, *, times=1, happened=True):
    """Let the next calls of a port end without an answer."""
    real, left = getattr(port, call), [times]

    def without_answer(*args, **more):
        if left[0]:
            left[0] -= 1
            if happened:
                real(*args, **more)
            raise Unavailable("no answer")
        return real(*args, **more)

    setattr(port, call, without_answer)


@pytest.mark.parametrize("there", [None, "another job", "other bytes"])
def test_a_publication_that_did_not_happen_is_not_taken_for_one(tmp_path, there):
    farm = Farm(tmp_path)
    source = farm.submit()
    if there is not None:
        owner = "somebody else's" if there == "another job" else job_id(source, "hevc")
        farm.store.put(farm.key(source), b"what is there", metadata={"job": owner})
    lost(farm.store, "publish", happened=False)

    assert isinstance(farm.handle().verdict, RetryIn)
    assert farm.state(source) is JobState.QUEUED
    assert farm.store.published == []


def test_a_video_whose_chunks_could_not_be_queued_is_looked_at_again_soon(tmp_path):
    farm = VideoFarm(tmp_path)
    source = farm.submit()
    queue = farm.context.backend.queues["hevc"]
    lost(queue, "send", times=3, happened=False)

    handled = farm.handle()

    assert isinstance(handled.verdict, Release)
    assert farm.state(source) is JobState.SPLIT
    assert not farm.record(source).split.announced
    assert farm.until_settled(source).state is JobState.DONE
    assert farm.encoder.calls.count("keyframes") == 1, "it was not split again"


def test_a_failed_sweep_does_not_stop_a_video_from_being_done(tmp_path):
    farm = VideoFarm(tmp_path)
    source = farm.chunked()
    lost(farm.store, "list", happened=False)

    assert isinstance(farm.handle().verdict, Done)

    assert farm.state(source) is JobState.DONE
    assert farm.kept(source) != [], "a later sweep removes it"
