"""The base of the subjobs of a split video, its chunks and join: how they start, fail and end the job.

A subjob has its own record, lease and counts, so that it is retried alone. Its job ends only when
the subjob is given up for good, and only once: first the subjob becomes DEAD, then the job, then
the delivery is buried. After a kill in between, the subjob's next delivery continues.
"""

from abc import abstractmethod

from hevcq.domain.chunking.model import SplitPlan
from hevcq.domain.job import JobRecord, JobState, Split, Task, TaskKind
from hevcq.domain.keys import work_key
from hevcq.domain.verdict import Bury, Done, FailureClass, Release, RetryIn, Skipped, Verdict
from hevcq.errors import HevcqError, PartUnfit, SourceGone, StaleFence, Superseded, Unavailable
from hevcq.ports.ledger import Granted
from hevcq.util.file_io import sha256_bytes
from hevcq.util.log import get_logger
from hevcq.worker.delivery.claim import (
    ClaimedTask,
    LedgerTransitions,
    WorkerContext,
    record_verdict,
)
from hevcq.worker.delivery.job import Job, Reporter
from hevcq.worker.delivery.lease import Fence, Lease
from hevcq.worker.encode_job import PLAN, subjob_task, sweep

MAX_PLAN_BYTES = 16 << 20
"""Ample: a plan has some hundred bytes per chunk, and some hundred more per stream."""


class Subjob(Job):
    """One attempt at a chunk or a join. `split_job` is its job, as read at the claim."""

    def __init__(
        self,
        context: WorkerContext,
        claimed: ClaimedTask,
        granted: Granted,
        split_job: JobRecord,
    ) -> None:
        assert split_job.split is not None
        self._job, self._split = split_job, split_job.split
        super().__init__(context, claimed, granted)
        self.part = label(claimed.task, self._split)
        self._end = LedgerTransitions(
            context, claimed.lease, Fence(self._ledger, split_job.job_id, split_job.fence)
        )
        self._unfit = False

    def _reporter(self) -> Reporter:
        return Reporter(
            self._context, self.claimed, label(self._task, self._split), self._require_wanted
        )

    def _require_wanted(self) -> None:
        """End the work once its job continues without it."""
        try:
            job = self._ledger.get(self._job.job_id)
        except HevcqError as error:
            get_logger(job=self._job.job_id).debug("job_not_read", reason=str(error))
            return
        split = None if job is None else job.split
        if (
            job is None
            or job.state is not JobState.SPLIT
            or split is None
            or split.name != self._split.name
        ):
            self._lease.end(Superseded())

    def _run(self) -> Verdict:
        try:
            return self._run_part(self._video())
        except HevcqError as error:
            self._unfit = self._lease.cause is None and self._is_unfit(error)
            raise

    @abstractmethod
    def _run_part(self, video: SplitPlan) -> Verdict: ...

    def _is_unfit(self, error: HevcqError) -> bool:
        """Return whether the video is to be encoded whole, not given up, if this error persists."""
        return isinstance(error, PartUnfit)

    def record(self, verdict: Verdict) -> Verdict:
        """Write the verdict on the subjob, and on its job if that ends; return the delivery's verdict.

        Raises StaleFence if this attempt no longer owns the subjob, and Unavailable or
        StorageError if the ledger does not answer.
        """
        decided = verdict
        if isinstance(decided, (Bury, RetryIn)):
            decided = decided.model_copy(update={"reason": f"{self.part}: {decided.reason}"})
        match decided:
            case Bury() if self._unfit:
                return self._give_up(decided)
            case Bury():
                self.transitions.bury(decided.reason, decided.failure_class)
                ended = end_job(self._end, self._job.job_id, decided)
                sweep(self._context, self._job, forget=False)
                return ended
            case Skipped():
                self._end.skip(decided.reason)
                sweep(self._context, self._job)
            case Done():
                pass
            case _:
                record_verdict(self.transitions, decided)
        return decided

    def _give_up(self, decided: Bury) -> Verdict:
        """Abandon the split: this delivery returns and has the video encoded whole."""
        get_logger(job=self._job.job_id).warning("split_given_up", reason=decided.reason)
        self.transitions.interrupt(decided.reason)
        try:
            self._end.abandon_split(decided.reason)
        except StaleFence:
            return Done()
        sweep(self._context, self._job)
        return Release(reason=decided.reason)

    def _video(self) -> SplitPlan:
        """Read the split's plan.

        Raises PartUnfit if it is not the one whose SHA-256 the ledger has.
        """
        key = self._work_key(PLAN)
        content = self._context.retry_control_call(lambda: self._small(key))
        if sha256_bytes(content) != self._split.plan_sha256:
            raise PartUnfit("The plan of the split video is not the one that was made.")
        return SplitPlan.parse(content)

    def _work_key(self, name: str) -> str:
        return work_key(self._job.work_folder, self._split.name, name)

    def _small(self, key: str) -> bytes:
        try:
            with self._store.open(key) as stream:
                content = stream.read(MAX_PLAN_BYTES + 1)
        except SourceGone as error:
            raise PartUnfit(f"{key} is gone from the store.") from error
        if len(content) > MAX_PLAN_BYTES:
            raise Unavailable(f"{key}, which should be small, has over {MAX_PLAN_BYTES} bytes.")
        return content


def label(task: Task, split: Split) -> str:
    if task.chunk is None:
        return f"Join of {split.chunks} chunks"
    return f"Chunk {task.chunk + 1} of {split.chunks}"


def end_job(end: LedgerTransitions, job_id: str, decided: Bury) -> Verdict:
    """Bury a split job because a subjob is dead; return the verdict on the subjob's delivery.

    If several subjobs die, the one whose reason the job records becomes the dead letter; the others
    are acknowledged.
    """
    try:
        end.bury(decided.reason, decided.failure_class)
    except StaleFence:
        job = end.seen()
        mine = job is not None and job.state is JobState.DEAD and job.reason == decided.reason
        return decided if mine else Done()
    get_logger(job=job_id).warning("split_job_buried", reason=decided.reason)
    return decided


def settle_ended_subjob(
    context: WorkerContext, lease: Lease, task: Task, job: JobRecord, part: JobRecord
) -> Verdict:
    """Return the verdict on a delivery whose subjob ended earlier while its job is still split.

    A kill may have interrupted its predecessor before it sent the join or buried the job.
    """
    if part.state is JobState.DEAD:
        end = LedgerTransitions(
            context, lease, Fence(context.backend.ledger, job.job_id, job.fence)
        )
        why = part.failure_class or FailureClass.INTERNAL
        return end_job(end, job.job_id, Bury(reason=part.reason, failure_class=why))
    send_join(context, task)
    return Done()


def settle_obsolete_subjob(
    context: WorkerContext, task: Task, job: JobRecord, part: JobRecord | None
) -> Verdict:
    """Return the verdict on a subjob's delivery whose job ended or continues without it."""
    get_logger(job=job.job_id).info("part_superfluous", state=job.state.value, split=task.split)
    if task.kind is TaskKind.JOIN and job.state in {JobState.DONE, JobState.SKIPPED}:
        sweep(context, job)
    if part is None or (part.state, job.state) != (JobState.DEAD, JobState.DEAD):
        return Done()
    ledger = context.backend.ledger
    if job.reason == part.reason and not context.retry_control_call(
        lambda: ledger.has_letter(job.job_id)
    ):
        why = part.failure_class or FailureClass.INTERNAL
        return Bury(reason=part.reason, failure_class=why)
    return Done()


def send_join(context: WorkerContext, task: Task) -> None:
    """Send the join if every chunk is done. Any chunk may send it; duplicates are harmless."""
    subjobs = context.backend.ledger
    parts = context.retry_control_call(lambda: subjobs.subjobs(task.job_id))
    chunks = [p for p in parts if p.subjob is not None and p.subjob.chunk is not None]
    if not chunks or any(p.state is not JobState.DONE for p in chunks):
        return
    join = subjob_task(task, task.split, None)
    context.retry_control_call(lambda: context.backend.queues[task.profile].send([join]))
