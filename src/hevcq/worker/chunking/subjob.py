"""What a chunk and the join of a split video have in common: how they begin, fail, and end the job.

A part has a record, a lease and counts of its own, so that it is retried alone. Only when it is
given up for good does its job end, and then once: the part is DEAD first, the job after it, the
delivery last. A kill between two of these is taken up by the part's next delivery.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hevcq.domain.chunking.split_plan import SplitPlan
from hevcq.domain.job import JobRecord, JobState, Split, Task, TaskKind
from hevcq.domain.keys import work_key
from hevcq.domain.verdict import Bury, Done, FailureClass, Release, RetryIn, Skipped, Verdict
from hevcq.errors import HevcqError, PartUnfit, SourceGone, StaleFence, Superseded, Unavailable
from hevcq.ports.encoder import EncodeRequest
from hevcq.ports.ledger import Granted
from hevcq.ports.store import Input
from hevcq.util.hashing import sha256_bytes
from hevcq.util.log import get_logger
from hevcq.worker.chunking.split import PLAN, subjob_task
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.events import Reporter
from hevcq.worker.delivery.job import Job, local_path
from hevcq.worker.delivery.lease import Fence, Lease
from hevcq.worker.delivery.settle import LedgerTransitions, record_verdict
from hevcq.worker.delivery.split_leftovers import sweep

MAX_PLAN_BYTES = 16 << 20
"""A plan has some hundred bytes a chunk, and a stream's facts some hundred more."""


class SubjobReporter(Reporter):
    """Reports a part's progress, and ends its work once its job goes on without it."""

    def __init__(self, context: WorkerContext, claimed: ClaimedTask, split: Split) -> None:
        super().__init__(context, claimed.lease, claimed.task, claimed.fence, claimed.worker)
        self.part = label(claimed.task, split)
        self._job_id, self._split = claimed.task.job_id, split.name

    def _look(self) -> None:
        try:
            job = self._fence.ledger.get(self._job_id)
        except HevcqError as error:
            get_logger(job=self._job_id).debug("job_not_looked_at", reason=str(error))
            return
        if job is None or job.split is None or not _is_split(job, self._split):
            self._lease.end(Superseded())


class Subjob(Job):
    """One attempt at a chunk or a join. `split_job` is the job it belongs to, as of the claim."""

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
        return SubjobReporter(self._context, self.claimed, self._split)

    def _run(self) -> Verdict:
        """Do the part by the split's plan."""
        try:
            return self._run_part(self._video())
        except HevcqError as error:
            self._unfit = self._lease.cause is None and self._is_unfit(error)
            raise

    @abstractmethod
    def _run_part(self, video: SplitPlan) -> Verdict: ...

    def _is_unfit(self, error: HevcqError) -> bool:
        """Return whether the video is better encoded whole than given up, if this never succeeds."""
        return isinstance(error, PartUnfit)

    def record(self, verdict: Verdict) -> Verdict:
        """Write the verdict to the ledger, for the part and where it ends that, for its job.

        Returns what becomes of the delivery. Raises StaleFence if the part is no longer ours,
        Unavailable or StorageError.
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
                sweep(self._context, self._job.job_id, forget=False)
                return ended
            case Skipped():
                self._end.skip(decided.reason)
                sweep(self._context, self._job.job_id)
            case Done():
                pass
            case _:
                record_verdict(self.transitions, decided)
        return decided

    def _give_up(self, decided: Bury) -> Verdict:
        """Have the video encoded whole: this delivery comes back, and asks for just that."""
        get_logger(job=self._job.job_id).warning("split_given_up", reason=decided.reason)
        self.transitions.interrupt(decided.reason)
        try:
            self._end.abandon_split(decided.reason)
        except StaleFence:
            return Done()
        sweep(self._context, self._job.job_id)
        return Release(reason=decided.reason)

    def _video(self) -> SplitPlan:
        """Read the split's plan; PartUnfit if it is not the one that the ledger names."""
        key = work_key(self._job.job_id, self._split.name, PLAN)
        content = self._context.retry_control_call(lambda: self._small(key))
        if sha256_bytes(content) != self._split.plan_sha256:
            raise PartUnfit("The plan of the split video is not the one that was made.")
        return SplitPlan.parse(content)

    def _small(self, key: str) -> bytes:
        try:
            with self._store.open(key) as stream:
                content = stream.read(MAX_PLAN_BYTES + 1)
        except SourceGone as error:
            raise PartUnfit(f"{key} is gone from the store.") from error
        if len(content) > MAX_PLAN_BYTES:
            raise Unavailable(f"{key}, which should be small, has over {MAX_PLAN_BYTES} bytes.")
        return content

    @contextmanager
    def _fetched(self, folder: Path) -> Iterator[tuple[Path, str]]:
        """Make the source readable; yield its path and its location for the encoder."""
        with self._opened(self._store.fetch, folder) as found:
            yield local_path(found), found.location

    @contextmanager
    def _streamed(self, folder: Path) -> Iterator[str]:
        """Make the source readable, as little of it as is read; yield its location.

        What was made of it counts only once the context is left without an error.
        """
        with self._opened(self._store.stream, folder) as found:
            yield found.location

    @contextmanager
    def _opened(
        self, way: Callable[..., AbstractContextManager[Input]], folder: Path
    ) -> Iterator[Input]:
        """Have the store make the source readable, in the one way or the other."""
        with way(self._source, folder, moved=lambda _n: None, stop=self._lease.stop) as found:
            yield found

    def _request(self, video: SplitPlan, location: str, output: Path) -> EncodeRequest:
        """Return what chunk and join ask of the encoder alike."""
        return EncodeRequest(
            profile=video.recipe,
            plan=video.plan,
            info=video.info,
            location=location,
            output=output,
            duration_s=video.duration_s,
            source_size=self._source.size,
            max_seconds=self._lease.left_s,
            threads=self._threads(video),
        )

    def _threads(self, video: SplitPlan) -> int:
        recipe = video.recipe
        return recipe.chunking.threads or recipe.bounds.threads or self._context.threads


def label(task: Task, split: Split) -> str:
    """Return what a part is called, for people."""
    if task.chunk is None:
        return f"Join of {split.chunks} chunks"
    return f"Chunk {task.chunk + 1} of {split.chunks}"


def end_job(end: LedgerTransitions, job_id: str, decided: Bury) -> Verdict:
    """Bury a split job because a part of it is dead; return what becomes of the part's delivery.

    Of several parts that die, the one whose reason the job has is its dead letter; the others are
    acknowledged.
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
    """Return what becomes of a delivery whose part ended earlier while its job is still split.

    It may be the one that a kill kept from going on: from sending the join, or burying the job.
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
    """Return what becomes of a part's delivery whose job ended, or goes on without it."""
    get_logger(job=job.job_id).info("part_superfluous", state=job.state.value, split=task.split)
    if task.kind is TaskKind.JOIN and job.state in {JobState.DONE, JobState.SKIPPED}:
        sweep(context, job.job_id)
    dead = part is not None and part.state is JobState.DEAD
    if part is not None and dead and job.state is JobState.DEAD and job.reason == part.reason:
        why = part.failure_class or FailureClass.INTERNAL
        return Bury(reason=part.reason, failure_class=why)
    return Done()


def send_join(context: WorkerContext, task: Task) -> None:
    """Send the join if every chunk is done. Whoever sees the set complete sends; twice is harmless."""
    subjobs = context.backend.subjobs
    parts = context.retry_control_call(lambda: subjobs.subjobs(task.job_id))
    chunks = [p for p in parts if p.subjob is not None and p.subjob.chunk is not None]
    if not chunks or any(p.state is not JobState.DONE for p in chunks):
        return
    join = subjob_task(task, task.split, None)
    context.retry_control_call(lambda: context.backend.queues[task.profile].send([join]))


def _is_split(job: JobRecord, name: str) -> bool:
    return job.state is JobState.SPLIT and job.split is not None and job.split.name == name
