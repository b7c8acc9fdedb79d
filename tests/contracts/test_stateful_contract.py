"""Any sequence of calls to queue, ledger and store does what a small model of their ports says.

STATEFUL_EXAMPLES says how many sequences are tried of each (`make chaos` asks for many more).
"""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test

from contracts.backends import source
from contracts.models import Machine, QueueMachine
from hevcq.domain.job import SETTLED, JobState, RenditionRef, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence
from hevcq.ports.ledger import Granted
from hevcq.ports.store import Publication

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
