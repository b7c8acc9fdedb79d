"""What every ledger promises (ports/ledger.py), over every backend."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.backends import BULK, World, source
from hevcq.domain.job import (
    SETTLED,
    JobRecord,
    JobState,
    Phase,
    Progress,
    RenditionRef,
    Split,
    Task,
    job_id,
    subjob_id,
)
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import StaleFence
from hevcq.ports.ledger import Claim, Granted, JobFilter

LEASE_S = 60


RENDITION = RenditionRef(
    key="DONE/hevc/a.mp4",
    size=5,
    sha256="ab" * 32,
    certificate_key="c.json",
    certificate_sha256="cd" * 32,
    notices=("Stream 0: the last picture is left out.", 'Its "captions" – none.'),
)

JOB = job_id(source(), "hevc")

HALF = Progress(phase=Phase.ENCODE, percent=50.0, speed=2.0, eta_s=7.5)

ENDINGS: dict[str, Callable[[World, int], None]] = {
    "complete": lambda w, f: w.backend.ledger.complete(JOB, f, RENDITION, cpu_s=1.5),
    "skip": lambda w, f: w.backend.ledger.skip(JOB, f, "HEVC already"),
    "bury": lambda w, f: w.backend.ledger.bury(JOB, f, "broken", FailureClass.DAMAGED),
    "fail": lambda w, f: w.backend.ledger.fail(JOB, f, "it failed", FailureClass.ENCODER),
    "interrupt": lambda w, f: w.backend.ledger.interrupt(JOB, f, "stopped"),
}

FENCED = {
    **ENDINGS,
    "renew": lambda w, f: w.backend.ledger.renew(JOB, f, lease_s=LEASE_S),
    "progress": lambda w, f: w.backend.ledger.progress(JOB, f, HALF),
    "certify": lambda w, f: w.backend.ledger.certify(JOB, f, "ef" * 32),
}

SETTLING = {"complete": JobState.DONE, "skip": JobState.SKIPPED, "bury": JobState.DEAD}


def claim(world: World, owner: str = "a") -> Claim:
    return world.ledger.claim(source(), "hevc", owner=owner, lease_s=LEASE_S)


def granted(world: World, owner: str = "a") -> Granted:
    found = claim(world, owner)
    assert isinstance(found, Granted)
    return found


def job(world: World) -> JobRecord:
    return world.ledger.get(JOB)


def test_registering_makes_a_queued_record_for_each_profile(world):
    found = world.ledger.register(source(), ["hevc", "720p"])

    assert [(r.profile, r.state, r.source) for r in found] == [
        ("hevc", JobState.QUEUED, source()),
        ("720p", JobState.QUEUED, source()),
    ]
    assert [world.ledger.get(record.job_id) for record in found] == found


def test_a_certificate_is_known_to_later_attempts_until_another_is_certified(world):
    first = granted(world).fence
    world.ledger.certify(JOB, first, "ef" * 32)
    world.ledger.interrupt(JOB, first, "stopped")
    second = granted(world).fence

    assert job(world).certified("ef" * 32)
    assert not job(world).certified("ab" * 32)

    world.ledger.complete(JOB, second, RENDITION, cpu_s=1.5)
    world.ledger.reopen(JOB, who="me", why="test")
    assert not job(world).certified("")
    third = granted(world).fence
    world.ledger.certify(JOB, third, "ab" * 32)
    assert job(world).certified("ab" * 32)
    assert not job(world).certified("ef" * 32)


def test_a_claim_registers_an_unknown_job_and_writes_the_attempt_before_the_work(world):
    found = granted(world, "here")

    assert found == Granted(fence=1, failures=0, crashes=0)
    record = job(world)
    assert (record.state, record.owner, record.fence) == (JobState.RUNNING, "here", 1)
    assert record.started_at == pytest.approx(world.clock.now(), abs=2)
    assert record.lease_until == pytest.approx(world.clock.now() + LEASE_S, abs=2)


@pytest.mark.parametrize("other", ["b", "a:1"])
def test_a_live_lease_is_not_granted_to_another(world, other):
    granted(world, "a:0")

    found = claim(world, other)

    assert found == job(world)
    assert (job(world).owner, job(world).crashes) == ("a:0", 0)


def test_a_lease_that_ran_out_is_granted_with_one_crash_counted(world):
    first = granted(world, "a")
    world.advance(LEASE_S + 1)

    second = granted(world, "b")

    assert second == Granted(fence=first.fence + 1, failures=0, crashes=1)
    assert job(world).crashes == 1


def refuses(world: World, fence: int) -> None:
    """Check that no call under this fence changes anything."""
    before = job(world)
    for name, call in FENCED.items():
        with pytest.raises(StaleFence):
            call(world, fence)
        assert job(world) == before, name


def test_a_zombie_is_refused_once_another_holds_the_job(world):
    zombie = granted(world, "a").fence
    world.advance(LEASE_S + 1)
    live = granted(world, "b").fence

    refuses(world, zombie)

    assert job(world).fence == live


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_moves_a_job_that_is_not_running(world, ending):
    fence = granted(world).fence
    ENDINGS[ending](world, fence)

    refuses(world, fence)


def test_nothing_moves_a_job_that_was_never_claimed(world):
    refuses(world, 1)
    world.ledger.register(source(), ["hevc"])
    refuses(world, 0)

    assert job(world).state is JobState.QUEUED


def test_a_completed_job_has_its_rendition_and_is_not_granted_again(world):
    fence = granted(world).fence

    ENDINGS["complete"](world, fence)

    record = job(world)
    assert (record.state, record.rendition, record.cpu_s) == (JobState.DONE, RENDITION, 1.5)
    assert record.finished_at == pytest.approx(world.clock.now(), abs=2)
    assert claim(world, "b") == record


@pytest.mark.parametrize(
    ("ending", "state", "reason", "failure_class"),
    [
        ("skip", JobState.SKIPPED, "HEVC already", None),
        ("bury", JobState.DEAD, "broken", FailureClass.DAMAGED),
    ],
)
def test_a_job_that_ended_without_a_rendition_says_why(world, ending, state, reason, failure_class):
    ENDINGS[ending](world, granted(world).fence)

    record = job(world)
    assert (record.state, record.reason, record.failure_class) == (state, reason, failure_class)
    assert claim(world).state in SETTLED


def test_a_failure_is_counted_and_the_job_is_free_at_once(world):
    ENDINGS["fail"](world, granted(world, "a").fence)

    record = job(world)
    assert (record.state, record.failures, record.reason) == (JobState.QUEUED, 1, "it failed")
    assert record.failure_class is FailureClass.ENCODER
    assert granted(world, "b") == Granted(fence=2, failures=1, crashes=0)


def test_an_interruption_is_neither_a_failure_nor_a_crash(world):
    ENDINGS["interrupt"](world, granted(world, "a").fence)

    assert (job(world).state, job(world).reason) == (JobState.QUEUED, "stopped")
    ENDINGS["fail"](world, granted(world, "b").fence)
    ENDINGS["interrupt"](world, granted(world, "c").fence)
    assert job(world).failure_class is None, "that of the failure before says nothing of this"
    assert granted(world, "d") == Granted(fence=4, failures=1, crashes=0)


def test_a_doubt_is_counted_by_itself_until_the_job_is_reopened(world):
    for suspected_worker_faults in (1, 2):
        world.ledger.interrupt(
            JOB, granted(world).fence, "perhaps the worker's", suspected_worker_fault=True
        )
        assert (job(world).state, job(world).suspected_worker_faults) == (
            JobState.QUEUED,
            suspected_worker_faults,
        )
    assert granted(world) == Granted(fence=3, failures=0, crashes=0, suspected_worker_faults=2)
    ENDINGS["fail"](world, 3)
    ENDINGS["interrupt"](world, granted(world).fence)
    assert granted(world) == Granted(fence=5, failures=1, crashes=0, suspected_worker_faults=2)
    ENDINGS["bury"](world, 5)
    assert world.ledger.reopen(JOB, who="a person", why="to see")
    assert granted(world) == Granted(fence=6, failures=0, crashes=0, suspected_worker_faults=0)


def test_progress_is_shown_and_never_changes_a_state(world):
    fence = granted(world).fence

    world.ledger.progress(JOB, fence, HALF)

    assert (job(world).progress, job(world).state) == (HALF, JobState.RUNNING)
    ENDINGS["complete"](world, fence)
    assert job(world).progress is None


def test_a_new_attempt_starts_without_the_progress_of_the_last(world):
    world.ledger.progress(JOB, granted(world, "a").fence, HALF)
    world.advance(LEASE_S + 1)
    granted(world, "b")

    assert job(world).progress is None


def test_the_queue_may_bury_a_job_that_nobody_holds(world):
    assert world.ledger.bury_unclaimed(JOB, "given up", FailureClass.RECEIVES) is False, "unknown"
    granted(world, "a")
    assert world.ledger.bury_unclaimed(JOB, "given up", FailureClass.RECEIVES) is False, "held"
    world.advance(LEASE_S + 1)

    assert world.ledger.bury_unclaimed(JOB, "given up", FailureClass.RECEIVES) is True

    assert (job(world).state, job(world).failure_class) == (JobState.DEAD, FailureClass.RECEIVES)
    assert world.ledger.bury_unclaimed(JOB, "again", FailureClass.RECEIVES) is False, "settled"
    assert job(world).reason == "given up"


@pytest.mark.parametrize("ending", SETTLING)
def test_a_settled_job_can_be_reopened_with_fresh_counts_and_its_fence_kept(world, ending):
    ENDINGS["fail"](world, granted(world, "a").fence)
    granted(world, "a")
    world.advance(LEASE_S + 1)
    fence = granted(world, "b").fence
    ENDINGS[ending](world, fence)
    assert (job(world).state, job(world).crashes) == (SETTLING[ending], 1)
    before = job(world)
    assert not world.ledger.cancel(JOB, WHY)
    assert job(world) == before, "what ended is not cancelled"

    assert world.ledger.reopen(JOB, who="me", why="a better preset") is True

    record = job(world)
    assert (record.state, record.failures, record.crashes) == (JobState.QUEUED, 0, 0)
    assert (record.fence, record.rendition, record.failure_class) == (fence, None, None)
    with pytest.raises(StaleFence):
        ENDINGS["complete"](world, fence)
    assert granted(world) == Granted(fence=fence + 1, failures=0, crashes=0)


def test_only_a_settled_job_can_be_reopened(world):
    assert world.ledger.reopen(JOB, who="me", why="x") is False
    world.ledger.register(source(), ["hevc"])
    assert world.ledger.reopen(JOB, who="me", why="x") is False
    granted(world)
    assert world.ledger.reopen(JOB, who="me", why="x") is False


def test_one_fence_is_granted_once_however_many_ask(world):
    for round_ in range(1, 11):
        barrier = threading.Barrier(4)

        def ask(name: str, barrier: threading.Barrier = barrier) -> Claim:
            barrier.wait()
            return claim(world, name)

        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, name) for name in "abcd"]
            found = [future.result() for future in asked]

        won = [answer for answer in found if isinstance(answer, Granted)]
        assert [answer.fence for answer in won] == [round_]
        assert sum(not isinstance(answer, Granted) for answer in found) == 3
        world.advance(LEASE_S + 1)


def test_jobs_are_listed_newest_change_first_by_every_given_condition(world):
    for name in ("x/1", "x/2", "y/3"):
        world.ledger.register(source(name), ["hevc", "720p"])
        world.advance(10)
    fence = world.ledger.claim(source("x/1"), "hevc", owner="a", lease_s=60)
    assert isinstance(fence, Granted)
    world.ledger.skip(job_id(source("x/1"), "hevc"), fence.fence, "small")
    middle = world.ledger.get(job_id(source("x/2"), "hevc"))
    assert middle is not None

    def listed(**wanted: object) -> list[tuple[str, str]]:
        return [(r.source.key[9:-4], r.profile) for r in world.ledger.jobs(JobFilter(**wanted))]

    every = listed()
    assert len(every) == 6
    assert every[0] == ("x/1", "hevc")
    assert set(every[1:3]) == {("y/3", "hevc"), ("y/3", "720p")}
    assert listed(states=frozenset({JobState.SKIPPED, JobState.DEAD})) == [("x/1", "hevc")]
    assert len(listed(states=frozenset({JobState.SKIPPED, JobState.QUEUED}))) == 6
    assert listed(profile="720p") == [("y/3", "720p"), ("x/2", "720p"), ("x/1", "720p")]
    assert set(listed(source_key=source("x/2").key)) == {("x/2", "hevc"), ("x/2", "720p")}
    assert len(listed(key_prefixes=("TODO/all/x/",))) == 4
    assert listed(key_prefixes=("TODO/all/_/",)) == []
    both = ("TODO/all/_/", "TODO/all/x/")
    assert len(listed(key_prefixes=both)) == 4
    newer = listed(updated_after=middle.updated_at)
    assert set(newer) == {("x/1", "hevc"), ("y/3", "hevc"), ("y/3", "720p")}
    assert listed(profile="720p", states=frozenset({JobState.SKIPPED})) == []


def test_jobs_are_counted_by_profile_and_state(world):
    for number in range(3):
        world.ledger.register(source(number), ["hevc", "720p"])
    world.ledger.claim(source(1), "hevc", owner="a", lease_s=60)

    counts = {key: count for key, count in world.ledger.counts().items() if count}

    assert counts == {
        ("hevc", JobState.QUEUED): 2,
        ("hevc", JobState.RUNNING): 1,
        ("720p", JobState.QUEUED): 3,
    }


def test_listing_pages_through_many_jobs_without_loading_them_all(world):
    world.needs(BULK)
    total = 20_000
    world.register_many((source(number), "hevc") for number in range(total))

    listing = world.ledger.jobs(JobFilter(states=frozenset({JobState.QUEUED})))
    seen = {next(listing).job_id for _ in range(5_000)}

    assert len(seen) == 5_000, "no job comes twice across pages"
    assert world.ledger.counts() == {("hevc", JobState.QUEUED): total}


WHY = "Cancelled by ana."


SPLIT = Split(name="d-1", chunks=2, frames=20, seconds=2.0, plan_sha256="0" * 64)


def cancelled(world: World) -> None:
    assert world.ledger.cancel(JOB, WHY)
    assert (job(world).state, job(world).reason) == (JobState.DEAD, WHY)
    assert job(world).failure_class is FailureClass.CANCELLED
    assert (job(world).owner, job(world).progress, job(world).lease_until) == ("", None, 0.0)
    assert job(world).finished_at is not None
    assert claim(world, "late").state in SETTLED


def test_a_job_that_waits_is_cancelled(world):
    world.ledger.register(source(), ["hevc"])

    cancelled(world)
    assert world.ledger.counts() == {("hevc", JobState.DEAD): 1}


def test_who_holds_a_cancelled_job_under_a_live_lease_is_refused(world):
    fence = granted(world).fence

    cancelled(world)

    refuses(world, fence)


def test_a_split_job_is_cancelled_and_its_parts_cannot_end_it_any_more(world):
    ledger, fence = world.ledger, granted(world).fence
    ledger.split(JOB, fence, SPLIT, [10, 10])

    cancelled(world)
    assert ledger.subjobs(JOB) == []
    for call in ("complete", "skip", "bury"):
        with pytest.raises(StaleFence):
            ENDINGS[call](world, fence)


def test_a_job_nobody_knows_and_a_part_are_not_cancelled(world):
    assert not world.ledger.cancel("0" * 32, WHY)
    world.ledger.split(JOB, granted(world).fence, SPLIT, [10, 10])

    assert not world.ledger.cancel(subjob_id(JOB, SPLIT.name, 0), WHY)
    assert job(world).state is JobState.SPLIT


def test_a_dead_job_has_its_letter_until_it_is_reopened(world):
    ledger, queue = world.ledger, world.backend.queues["hevc"]
    queue.send([Task(source=source(), profile="hevc")])
    (delivery,) = queue.receive(1, wait_s=0, stop=threading.Event())
    fence = granted(world).fence
    ledger.note_letter(JOB)
    assert not ledger.has_letter(JOB), "it is running"

    ledger.bury(JOB, fence, "broken", FailureClass.DAMAGED)
    assert not ledger.has_letter(JOB)
    why = Bury(reason="broken", failure_class=FailureClass.DAMAGED)
    assert queue.bury(delivery, why)
    ledger.note_letter(JOB)
    assert ledger.has_letter(JOB)

    (letter,) = queue.dead_letters(JOB)
    ledger.reopen(JOB, who="me", why="test")
    queue.send([letter.task])
    assert queue.purge(letter)
    assert not ledger.has_letter(JOB)
    ledger.note_letter("0" * 32)
    assert not ledger.has_letter("0" * 32)
