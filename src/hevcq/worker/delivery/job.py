"""The base class of encode, chunk and join jobs.

A job is one attempt at a claimed task. `run` does the work and returns a verdict or raises;
`record` writes the verdict to the ledger. The rest of a delivery's life cycle is in
`worker/handler.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hevcq.domain.certificate import GateResult
from hevcq.domain.events import EventName, JobEvent
from hevcq.domain.job import Phase, RenditionRef
from hevcq.domain.media.facts import Measurement, MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, SkipReason
from hevcq.domain.profile import Profile
from hevcq.domain.verdict import Done, Release, Skipped, Verdict
from hevcq.errors import DiskFull, Unavailable
from hevcq.ports.encoder import SetFile, VerifyRequest
from hevcq.ports.ledger import Granted, SkipMemory
from hevcq.ports.store import Input
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.events import Reporter
from hevcq.worker.delivery.settle import LedgerTransitions, record_verdict


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """A source that passed its preflight and is to be split if that pays; `duration_s` in seconds."""

    location: str
    info: MediaInfo
    plan: EncodePlan
    measured: Measurement
    source_sha256: str
    duration_s: float | None


class SplittableJob(Protocol):
    """The attributes of a job that a split needs."""

    claimed: ClaimedTask
    transitions: LedgerTransitions


SplitVideo = Callable[[WorkerContext, SplittableJob, SplitRequest], Done | Release | None]
"""Split a job's video; return None if it is to be encoded whole."""


class Job(ABC):
    """One attempt at a claimed task: from its source to a verdict in the ledger.

    `rendition` is set once the job is complete. `part` labels a chunk or a join for people, and is
    empty for a whole video. `sent_back` says that a join requeued a chunk: the join returns in a
    new message, whose attempt number starts again, so only the ledger's failure count limits this
    loop.
    """

    part = ""

    def __init__(self, context: WorkerContext, claimed: ClaimedTask, granted: Granted) -> None:
        self.claimed, self.granted = claimed, granted
        self.rendition: RenditionRef | None = None
        self.sent_back = False
        self._context = context
        self._task, self._profile = claimed.task, claimed.profile
        self._lease, self._source = claimed.lease, claimed.task.source
        self._store, self._ledger = context.backend.store, context.backend.ledger
        self._skips: SkipMemory = context.backend.ledger
        self.transitions = LedgerTransitions(context, claimed.lease, claimed.fence)
        self._report = self._reporter()

    def _reporter(self) -> Reporter:
        claimed = self.claimed
        return Reporter(self._context, claimed.lease, claimed.task, claimed.fence, claimed.worker)

    def run(self) -> Verdict:
        """Check that the source is still the queued version, then do the work.

        May raise any HevcqError; `delivery.decide` turns it into a verdict.
        """
        self._context.retry_control_call(lambda: self._store.check(self._source))
        return self._run()

    @abstractmethod
    def _run(self) -> Verdict:
        """Do the work; return Done, Skipped or Release."""

    def record(self, verdict: Verdict) -> Verdict:
        """Write the verdict to the ledger; return the verdict on the delivery.

        Raises StaleFence if this attempt no longer owns the job, and Unavailable or
        StorageError if the ledger does not answer.
        """
        record_verdict(self.transitions, verdict)
        return verdict

    def _notice(self, notices: tuple[str, ...]) -> None:
        """Tell people what the rendition does not keep, sentence by sentence."""
        for sentence in notices:
            self._context.emit(
                JobEvent(
                    kind=EventName.JOB_NOTICE,
                    job_id=self._task.job_id,
                    source=self._source,
                    profile=self._profile.name,
                    worker=self.claimed.worker,
                    reason=sentence,
                )
            )

    def _require_free_space(self, size: int, name: str) -> None:
        """Raise DiskFull unless scratch and store have `size` bytes free beyond the reserve."""
        context = self._context
        needed = size + context.min_free_bytes
        scratch = context.scratch.free_bytes()
        store = context.retry_control_call(self._store.free_bytes)
        free = scratch if store is None else min(scratch, store)
        if free < needed:
            least = -(-needed >> 20)  # rounded up, or it might seem to be enough
            raise DiskFull(
                f"{name} needs {least} MiB free, and there are {free >> 20} MiB.",
                remedy="The work goes on by itself once there is room.",
            )

    def _verify(
        self, request: VerifyRequest, duration_s: float | None, files: tuple[SetFile, ...] = ()
    ) -> tuple[tuple[GateResult, ...], float]:
        """Run the gates over an output, or the `files` of a set in the folder that it is.

        Returns their results and their time in seconds.
        """
        self._report.phase(Phase.VERIFY)
        began = self._context.clock.monotonic()
        encoder, stop = self._context.encoder, self._lease.stop
        on_progress = self._report.encoding(Phase.VERIFY, duration_s)
        if files:
            gates = encoder.verify_set(request, files, on_progress=on_progress, stop=stop)
        else:
            gates = encoder.verify(request, on_progress=on_progress, stop=stop)
        return gates, self._context.clock.monotonic() - began

    def _remember_skip(self, source_sha256: str, profile: Profile, reason: str) -> Skipped:
        """Record that these bytes are not worth encoding, then skip.

        In this order a kill between the two costs no second encode.
        """
        self._context.retry_control_call(
            lambda: self._skips.remember(source_sha256, profile.name, profile.revision, reason)
        )
        return Skipped(reason=f"{SkipReason.NOT_SMALLER.value}: {reason}")


def local_path(fetched: Input) -> Path:
    """Return the local file of a fetched source.

    Raises Unavailable if the store provided none.
    """
    if fetched.path is None:
        raise Unavailable("The store handed out no local file to read the source from.")
    return fetched.path
