"""The base class of encode, chunk and join jobs.

A job is one attempt at a claimed task. `run` does the work and returns a verdict or raises;
`record` writes the verdict to the ledger. The rest of a delivery's life cycle is in
`worker/handler.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.certificate import GateResult, kept_original
from hevcq.domain.events import EventName
from hevcq.domain.job import Phase, RenditionRef
from hevcq.domain.keys import MASTER, rendition_key, set_version
from hevcq.domain.planning.encode_plan import EncodePlan, SkipReason, Work
from hevcq.domain.verdict import Skipped, Verdict
from hevcq.errors import Unavailable
from hevcq.ports.encoder import EncodeReport, EncodeRequest, SetFile
from hevcq.ports.ledger import Granted
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.events import Reporter
from hevcq.worker.delivery.settle import LedgerTransitions, record_verdict


@dataclass(frozen=True, slots=True)
class Made:
    """An encode that is not yet published, with its gate results; `verify_s` in seconds.

    For a set, `file` is the master playlist. `join` is the fence of the join that made it, if one did.
    """

    key: str
    file: Path
    source_sha256: str
    plan: EncodePlan
    report: EncodeReport
    gates: tuple[GateResult, ...]
    verify_s: float
    join: int = 0

    @property
    def members(self) -> tuple[SetFile, ...]:
        return tuple(file for file in self.report.files if file.name != MASTER)


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
        self.transitions = LedgerTransitions(context, claimed.lease, claimed.fence)
        self._report = self._reporter()

    def _reporter(self) -> Reporter:
        return Reporter(self._context, self.claimed)

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
        for sentence in notices:
            self._context.emit(self.claimed.event(EventName.JOB_NOTICE, reason=sentence))

    @contextmanager
    def _fetched(self, folder: Path) -> Iterator[tuple[Path, str]]:
        """Fetch the source; yield its path and its location for the encoder.

        Raises Unavailable if the store handed out no local file.
        """
        moved = self._report.moved(Phase.FETCH, self._source.size)
        with self._store.fetch(self._source, folder, moved=moved, stop=self._lease.stop) as found:
            if found.path is None:
                raise Unavailable("The store handed out no local file to read the source from.")
            yield found.path, found.location

    def _request(self, work: Work, location: str, output: Path) -> EncodeRequest:
        return EncodeRequest(
            profile=work.recipe,
            plan=work.plan,
            info=work.info,
            location=location,
            output=output,
            duration_s=work.duration_s,
            source_size=self._source.size,
            max_seconds=self._lease.left_s,
            threads=work.recipe.bounds.threads or self._context.threads,
            measured=work.measured,
            version=self._version,
        )

    @property
    def _version(self) -> str:
        """The folder of this attempt, if it makes a set."""
        return set_version(self._task.job_id, self.claimed.fence.number)

    def _key(self, work: Work) -> str:
        return rendition_key(self._source.key, work.recipe.name, work.plan.extension)

    def _proved(
        self, work: Work, location: str, output: Path, report: EncodeReport
    ) -> Made | Skipped:
        """Run the gates over what was made; return it, or remember that the original is kept."""
        self._notice(report.notices)
        self._report.phase(Phase.VERIFY)
        began = self._context.clock.monotonic()
        encoder, stop = self._context.encoder, self._lease.stop
        request = self._request(work, location, output).to_verify(report)
        on_progress = self._report.encoding(Phase.VERIFY, work.duration_s)
        gates = encoder.verify(request, on_progress=on_progress, stop=stop)
        reason = kept_original(gates)
        if reason is not None:
            return self._remember_skip(work, reason)
        plan = work.plan.noting(*report.notices)
        if plan.aim is not None:
            verified = encoder.check_quality(request, stop=stop)
            plan = plan.verified(verified)
        verify_s = self._context.clock.monotonic() - began
        return Made(
            key=self._key(work),
            file=output / MASTER if report.files else output,
            source_sha256=work.source_sha256,
            plan=plan,
            report=report,
            gates=gates,
            verify_s=verify_s,
        )

    def _remember_skip(self, work: Work, reason: str) -> Skipped:
        """Record that these bytes are not worth encoding, then skip.

        In this order a kill between the two costs no second encode.
        """
        sha256, recipe = work.source_sha256, work.recipe
        self._context.retry_control_call(
            lambda: self._ledger.remember(sha256, recipe.name, recipe.revision, reason)
        )
        return Skipped(reason=f"{SkipReason.NOT_SMALLER.value}: {reason}")
