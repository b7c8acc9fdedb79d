"""Any sequence of calls to queue, ledger and store does what a small model of their ports says.

STATEFUL_EXAMPLES says how many sequences are tried of each (`make chaos` asks for many more).
"""

import hashlib
import os
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from contracts.backends import MAX_RECEIVES, OPENERS, VISIBILITY_S, source, task
from hevcq.domain.job import SETTLED, JobState, RenditionRef, job_id
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import LeaseLost, StaleFence
from hevcq.ports.ledger import Granted
from hevcq.ports.store import Publication

WHY = Bury(reason="so", failure_class=FailureClass.DAMAGED)
SECONDS = st.sampled_from([1.0, 10.0, 29.0, 61.0, 200.0])
DELAYS = st.sampled_from([0.0, 0.0, 5.0, 90.0])


class Machine(RuleBasedStateMachine):
    """One opened backend of the kind `backend`, on a clock that only the rules move."""

    backend = "memory"

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.world = OPENERS[self.backend](Path(self._folder.name))
        self.now = 0.0

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.world.advance(seconds)

    def teardown(self) -> None:
        self.world.close()
        self._folder.cleanup()


@dataclass
class Waiting:
    """What the model knows of one message; `receipt` is the delivery that holds it."""

    visible_at: float
    attempts: int = 0
    receipt: object = None


class QueueMachine(Machine):
    """Messages are told apart by their videos: each is sent once."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.queue = self.world.queue
        self.waiting: dict[int, Waiting] = {}
        self.dead: dict[int, FailureClass] = {}
        self.sent = 0

    @rule(delay=DELAYS)
    def send(self, delay: float) -> None:
        self.sent += 1
        self.queue.send([task(self.sent)], delay_s=delay)
        self.waiting[self.sent] = Waiting(self.now + delay)

    @rule(target=held)
    def receive(self) -> tuple[int, object]:
        ready = {n: w for n, w in self.waiting.items() if w.visible_at <= self.now}
        spent = {n for n, w in ready.items() if w.attempts >= MAX_RECEIVES}
        found = self.queue.receive(1, wait_s=0.0, stop=threading.Event())
        buried = {n for n in spent if n in self._letters()}
        for number in buried:
            del self.waiting[number]
            self.dead[number] = FailureClass.RECEIVES
        if not found:
            assert not set(ready) - spent, "something was ready, and nothing came"
            assert buried == spent
            return (0, None)
        (delivery,) = found
        number = _number(delivery.tasks[0])
        assert number in ready
        assert number not in spent
        one = self.waiting[number]
        assert delivery.attempt == one.attempts + 1
        one.attempts, one.receipt = delivery.attempt, delivery
        one.visible_at = self.now + VISIBILITY_S
        return (number, delivery)

    def _mine(self, number: int, delivery: object) -> Waiting | None:
        one = self.waiting.get(number)
        return one if one is not None and one.receipt is delivery else None

    @rule(one=held, seconds=st.sampled_from([1.0, 60.0, 300.0]))
    def extend(self, one: tuple[int, object], seconds: float) -> None:
        number, delivery = one
        if delivery is None:
            return
        mine = self._mine(number, delivery)
        if mine is None:
            with pytest.raises(LeaseLost):
                self.queue.extend(delivery, seconds)
            return
        before = self.world.clock.monotonic()
        assert self.queue.extend(delivery, seconds) == pytest.approx(before + seconds)
        mine.visible_at = self.now + seconds

    @rule(one=held)
    def ack(self, one: tuple[int, object]) -> None:
        number, delivery = one
        if delivery is not None:
            mine = self._mine(number, delivery)
            assert self.queue.ack(delivery) is (mine is not None)
            if mine is not None:
                del self.waiting[number]

    @rule(one=held, delay=DELAYS)
    def release(self, one: tuple[int, object], delay: float) -> None:
        number, delivery = one
        if delivery is not None:
            mine = self._mine(number, delivery)
            assert self.queue.release(delivery, delay_s=delay) is (mine is not None)
            if mine is not None:
                mine.visible_at, mine.receipt = self.now + delay, None

    @rule(one=held)
    def bury(self, one: tuple[int, object]) -> None:
        number, delivery = one
        if delivery is not None:
            mine = self._mine(number, delivery)
            assert self.queue.bury(delivery, WHY) is (mine is not None)
            if mine is not None:
                del self.waiting[number]
                self.dead[number] = WHY.failure_class

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.dead)))
        letter = self._letters()[number]
        assert self.queue.purge(letter)
        assert not self.queue.purge(letter)
        del self.dead[number]

    def _letters(self) -> dict[int, object]:
        found = self.queue.dead_letters()
        return {_number(letter.task): letter for letter in found}

    @invariant()
    def every_message_is_somewhere_and_once(self) -> None:
        depth = self.queue.depth()
        assert depth.ready + depth.in_flight + depth.delayed == len(self.waiting)
        assert depth.dead == len(self.dead)
        assert depth.ready == sum(w.visible_at <= self.now for w in self.waiting.values())
        letters = self._letters()
        assert {n: letter.failure_class for n, letter in letters.items()} == self.dead


def _number(one: object) -> int:
    return int(one.source.key.rsplit("/", 1)[1].split(".")[0])


EXAMPLES = int(os.environ.get("STATEFUL_EXAMPLES", "12"))
STEPS = 40


@dataclass
class Entry:
    """What the model knows of one job."""

    state: JobState = JobState.QUEUED
    fence: int = 0
    failures: int = 0
    crashes: int = 0
    suspected_worker_faults: int = 0
    owner: str = ""
    until: float = 0.0
    reasons: list[str] = field(default_factory=list)


JOBS, OWNERS = st.integers(1, 2), st.sampled_from(["here:0", "there:0"])
BACK = st.sampled_from([0, 0, 0, 1, 2])
"""How many fences behind the current one a call is made with."""


class LedgerMachine(Machine):
    """Two jobs, two owners, fences that may be old."""

    @initialize()
    def begin(self) -> None:
        self.ledger, self.jobs = self.world.ledger, {1: Entry(), 2: Entry()}
        for number in self.jobs:
            self.ledger.register(source(number), ["hevc"])

    @rule(number=JOBS, owner=OWNERS, lease=st.sampled_from([30.0, 100.0]))
    def claim(self, number: int, owner: str, lease: float) -> None:
        job, now = self.jobs[number], self.now
        claim = self.ledger.claim(source(number), "hevc", owner=owner, lease_s=lease)
        running = job.state is JobState.RUNNING
        live = running and job.until > now
        if job.state in SETTLED:
            assert claim.state in SETTLED
        elif live and job.owner != owner:
            assert claim.state is JobState.RUNNING
        else:
            job.crashes += running and not live
            job.fence, job.state, job.owner, job.until = (
                *(job.fence + 1, JobState.RUNNING, owner),
                now + lease,
            )
            assert claim == Granted(
                job.fence, job.failures, job.crashes, job.suspected_worker_faults
            )

    def _under(self, number: int, back: int, call) -> Entry | None:
        """Make a call under a fence; return the job if it took effect, as the model says it must."""
        job = self.jobs[number]
        fence = job.fence - back
        if back == 0 and job.state is JobState.RUNNING:
            call(job_id(source(number), "hevc"), fence)
            return job
        with pytest.raises(StaleFence):
            call(job_id(source(number), "hevc"), fence)
        return None

    @rule(number=JOBS, back=BACK)
    def renew(self, number: int, back: int) -> None:
        job = self._under(number, back, lambda j, f: self.ledger.renew(j, f, lease_s=50.0))
        if job is not None:
            job.until = self.now + 50.0

    @rule(number=JOBS, back=BACK)
    def complete(self, number: int, back: int) -> None:
        made = RenditionRef(key="k", size=1, sha256="0" * 64, certificate_key="c")
        self._end(
            number, back, JobState.DONE, lambda j, f: self.ledger.complete(j, f, made, cpu_s=1.0)
        )

    @rule(number=JOBS, back=BACK)
    def skip(self, number: int, back: int) -> None:
        self._end(number, back, JobState.SKIPPED, lambda j, f: self.ledger.skip(j, f, "so"))

    @rule(number=JOBS, back=BACK)
    def bury(self, number: int, back: int) -> None:
        kind = FailureClass.DAMAGED
        self._end(number, back, JobState.DEAD, lambda j, f: self.ledger.bury(j, f, "so", kind))

    def _end(self, number: int, back: int, state: JobState, call) -> None:
        job = self._under(number, back, call)
        if job is not None:
            job.state, job.owner = state, ""

    @rule(number=JOBS, back=BACK)
    def fail(self, number: int, back: int) -> None:
        kind = FailureClass.ENCODER
        job = self._under(number, back, lambda j, f: self.ledger.fail(j, f, "so", kind))
        if job is not None:
            job.state, job.owner, job.failures = JobState.QUEUED, "", job.failures + 1

    @rule(number=JOBS, back=BACK, suspected_worker_fault=st.booleans())
    def interrupt(self, number: int, back: int, suspected_worker_fault: bool) -> None:
        job = self._under(
            number,
            back,
            lambda j, f: self.ledger.interrupt(
                j, f, "so", suspected_worker_fault=suspected_worker_fault
            ),
        )
        if job is not None:
            job.state, job.owner, job.suspected_worker_faults = (
                JobState.QUEUED,
                "",
                job.suspected_worker_faults + suspected_worker_fault,
            )

    @rule(number=JOBS)
    def bury_unclaimed(self, number: int) -> None:
        job = self.jobs[number]
        free = job.state is JobState.QUEUED or (
            job.state is JobState.RUNNING and job.until <= self.now
        )
        name = job_id(source(number), "hevc")
        assert self.ledger.bury_unclaimed(name, "so", FailureClass.RECEIVES) is free
        if free:
            job.state, job.owner = JobState.DEAD, ""

    @rule(number=JOBS)
    def reopen(self, number: int) -> None:
        job = self.jobs[number]
        settled = job.state in SETTLED
        name = job_id(source(number), "hevc")
        assert self.ledger.reopen(name, who="a person", why="to see") is settled
        if settled:
            job.state, job.failures, job.crashes, job.suspected_worker_faults = (
                JobState.QUEUED,
                0,
                0,
                0,
            )

    @invariant()
    def the_record_is_the_models(self) -> None:
        for number, job in getattr(self, "jobs", {}).items():
            record = self.ledger.get(job_id(source(number), "hevc"))
            counts = (record.failures, record.crashes, record.suspected_worker_faults)
            assert counts == (job.failures, job.crashes, job.suspected_worker_faults)
            seen = (record.state, record.fence, record.owner)
            assert seen == (job.state, job.fence, job.owner)
            assert (record.rendition is not None) is (job.state is JobState.DONE)


class StoreMachine(Machine):
    """One key, two jobs, publications under any fence."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.world.backend.store
        self.visible: tuple[str, int, bytes] | None = None
        self.made = 0

    @rule(
        job=st.sampled_from(["a" * 32, "b" * 32]), fence=st.integers(1, 4), salt=st.integers(1, 3)
    )
    def publish(self, job: str, fence: int, salt: int) -> None:
        content = b"clip %d" % salt
        self.made += 1
        path = Path(self._folder.name) / f"made-{self.made}"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        publication = Publication("DONE/hevc/a.mp4", path, digest, job, fence, {"job": job})
        there = self.visible
        ours = there is not None and there[0] == job
        if ours and there[2] != content and there[1] >= fence:
            with pytest.raises(StaleFence):
                self.store.publish(publication)
            return
        if ours and there[2] == content and fence > there[1]:
            return  # a store may note the later fence, or keep the first
        seen = self.store.publish(publication)
        assert seen.sha256 == digest
        if not (ours and there[2] == content):
            self.visible = (job, fence, content)

    @rule()
    def delete(self) -> None:
        assert self.store.delete("DONE/hevc/a.mp4") is (self.visible is not None)
        self.visible = None

    @invariant()
    def readers_see_one_whole_rendition_or_none(self) -> None:
        seen = self.store.stat("DONE/hevc/a.mp4")
        assert (seen is not None) is (self.visible is not None)
        if seen is not None:
            with self.store.open("DONE/hevc/a.mp4") as stream:
                assert stream.read() == self.visible[2]
            assert [one.key for one in self.store.list("DONE/")] == ["DONE/hevc/a.mp4"]


@pytest.mark.parametrize("backend", ["memory", "embedded", "postgres"])
@pytest.mark.parametrize("machine", [QueueMachine, LedgerMachine, StoreMachine])
def test_any_sequence_of_calls_does_what_the_model_says(machine, backend):
    asked = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    of_backend = type(f"{backend.title()}{machine.__name__}", (machine,), {"backend": backend})

    run_state_machine_as_test(of_backend, settings=asked)
