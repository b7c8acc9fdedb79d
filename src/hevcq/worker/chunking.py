"""The parts of a split video: encode a chunk; join the chunks into one rendition, verified like any other.

A chunk is stored first, then recorded in the ledger: a kill in between leaves an unused object, and
costs the chunk's encode.

A subjob (a chunk or the join) has its own record, lease and counts, so that it is retried alone. Only a
subjob that is given up for good ends its job, and only once: first the subjob becomes DEAD, then the
job, then the delivery is buried. After a kill in between, the subjob's next delivery continues.
"""

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path

from hevcq.domain.chunking import Chunk, SplitPlan
from hevcq.domain.job import (
    JobRecord,
    JobState,
    Phase,
    RenditionRef,
    Split,
    Task,
    TaskKind,
    subjob_id,
)
from hevcq.domain.keys import chunk_name, set_version, work_key
from hevcq.domain.verdict import Bury, Done, FailureClass, Release, RetryIn, Skipped, Verdict
from hevcq.errors import (
    HevcqError,
    PartUnfit,
    SourceGone,
    StaleFence,
    Superseded,
    Unavailable,
    VerificationFailed,
)
from hevcq.ports.encoder import EncodeReport
from hevcq.ports.ledger import Granted
from hevcq.ports.store import Publication
from hevcq.util.file_io import sha256_bytes
from hevcq.util.log import get_logger
from hevcq.worker.admission import sha256_file
from hevcq.worker.delivery.claim import (
    ClaimedTask,
    LedgerTransitions,
    WorkerContext,
    is_current_part,
)
from hevcq.worker.delivery.job import Job, Reporter, VerifiedEncode
from hevcq.worker.delivery.lease import Fence, Lease
from hevcq.worker.encode_job import PLAN, enqueue_chunks, subjob_task, sweep
from hevcq.worker.publish import adopt, publish

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
        self._report = Reporter(context, claimed, self.part, self._end_if_superseded)
        self._end = LedgerTransitions(
            context, claimed.lease, Fence(self._ledger, split_job.job_id, split_job.fence)
        )
        self._encode_whole = False

    def _end_if_superseded(self) -> None:
        """End the work if its job ended or continues without it."""
        try:
            job = self._ledger.get(self._job.job_id)
        except HevcqError as error:
            get_logger(job=self._job.job_id).debug("job_not_read", reason=str(error))
            return
        if job is None or not is_current_part(job, self._task):
            self._lease.end(Superseded())

    def _run(self) -> Verdict:
        try:
            return self._run_part(self._read_plan())
        except HevcqError as error:
            self._encode_whole = self._lease.cause is None and self._may_succeed_whole(error)
            raise

    @abstractmethod
    def _run_part(self, video: SplitPlan) -> Verdict: ...

    def _may_succeed_whole(self, error: HevcqError) -> bool:
        """Return whether the video is to be encoded whole instead of given up if this error persists."""
        return isinstance(error, PartUnfit)

    def record(self, verdict: Verdict) -> Verdict:
        """Write the verdict on the subjob, and on the job if it ends; return the delivery's verdict.

        Raises StaleFence if this attempt no longer owns the subjob, and Unavailable or
        StorageError if the ledger does not answer.
        """
        decided = verdict
        if isinstance(decided, (Bury, RetryIn)):
            decided = decided.model_copy(update={"reason": f"{self.part}: {decided.reason}"})
        match decided:
            case Bury() if self._encode_whole:
                return self._abandon_split(decided)
            case Bury():
                self.transitions.record(decided)
                decided_for_delivery = bury_job(self._end, self._job.job_id, decided)
                sweep(self._context, self._job, forget=False)
                return decided_for_delivery
            case Skipped():
                self._end.record(decided)
                sweep(self._context, self._job)
            case Done():
                pass
            case _:
                self.transitions.record(decided)
        return decided

    def _abandon_split(self, decided: Bury) -> Verdict:
        """Abandon the split: this delivery returns, and then the video is encoded whole."""
        get_logger(job=self._job.job_id).warning("split_given_up", reason=decided.reason)
        self.transitions.record(Release(reason=decided.reason))
        try:
            self._end.abandon_split(decided.reason)
        except StaleFence:
            return Done()
        sweep(self._context, self._job)
        return Release(reason=decided.reason)

    def _read_plan(self) -> SplitPlan:
        """Read the split's plan. Raises PartUnfit if its SHA-256 is not the ledger's."""
        key = self._work_key(PLAN)
        content = self._context.retry_control_call(lambda: self._read_object(key))
        if sha256_bytes(content) != self._split.plan_sha256:
            raise PartUnfit("The plan of the split video is not the one that was made.")
        return SplitPlan.parse(content)

    def _work_key(self, name: str) -> str:
        return work_key(self._job.work_folder, self._split.name, name)

    def _read_object(self, key: str) -> bytes:
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


def bury_job(end: LedgerTransitions, job_id: str, decided: Bury) -> Verdict:
    """Bury a split job because a subjob is dead; return the verdict on the subjob's delivery.

    If several subjobs die, the one whose reason the job records becomes the dead letter; the others
    are acknowledged.
    """
    try:
        end.record(decided)
    except StaleFence:
        job = end.read()
        is_ours = job is not None and job.state is JobState.DEAD and job.reason == decided.reason
        return decided if is_ours else Done()
    get_logger(job=job_id).warning("split_job_buried", reason=decided.reason)
    return decided


def settle_ended_subjob(
    context: WorkerContext, lease: Lease, task: Task, job: JobRecord, part: JobRecord
) -> Verdict:
    """Return the verdict on a delivery whose subjob ended earlier while its job is still split.

    A kill may have interrupted the previous delivery before it sent the join or buried the job, so
    this one does that.
    """
    if part.state is JobState.DEAD:
        end = LedgerTransitions(
            context, lease, Fence(context.backend.ledger, job.job_id, job.fence)
        )
        return bury_job(end, job.job_id, _burial_of(part))
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
        return _burial_of(part)
    return Done()


def _burial_of(part: JobRecord) -> Bury:
    return Bury(reason=part.reason, failure_class=part.failure_class or FailureClass.INTERNAL)


def chunks_of(context: WorkerContext, job_id: str) -> list[JobRecord]:
    """Return the records of a SPLIT job's chunks, in their order."""
    ledger = context.backend.ledger
    parts = context.retry_control_call(lambda: ledger.subjobs(job_id))
    return [part for part in parts if part.subjob is not None and part.subjob.chunk is not None]


def send_join(context: WorkerContext, task: Task) -> None:
    """Send the join if every chunk is done. Any chunk may send it; duplicates are harmless."""
    chunks = chunks_of(context, task.job_id)
    if not chunks or any(p.state is not JobState.DONE for p in chunks):
        return
    join = subjob_task(task, task.split, None)
    context.retry_control_call(lambda: context.backend.queues[task.profile].send([join]))


class ChunkJob(Subjob):
    def _run_part(self, video: SplitPlan) -> Verdict:
        number = self._task.chunk
        if number is None or number >= len(video.chunks.chunks):
            raise PartUnfit(f"The video's plan has no chunk {number}.", index=number)
        rendition, cpu_s = self._encode_and_publish(video, video.chunks.chunks[number])
        self.transitions.complete(rendition, cpu_s=cpu_s)
        send_join(self._context, self._task)
        return Done()

    def _encode_and_publish(self, video: SplitPlan, chunk: Chunk) -> tuple[RenditionRef, float]:
        """Encode and publish one chunk; return its reference and its CPU time in seconds."""
        with self._context.scratch.job(self._task.unit_id) as folder:
            share = int(self._source.size * chunk.frames / video.chunks.frames)
            copied = share if self._store.free_bytes() is None else 0
            self._context.require_free_space(copied + share, self.part)
            output = folder / chunk_name(chunk.index)
            source, stop = self._source, self._lease.stop
            stream = self._store.stream(source, folder, moved=lambda _n: None, stop=stop)
            # It fetches only the ranges that are read; the output is valid if it ends without an error.
            with stream as streamed:
                report = self._encode(video, chunk, streamed.location, output)
            self._require_planned(chunk, report)
            return self._publish(chunk, output), report.cpu_s

    def _encode(self, video: SplitPlan, chunk: Chunk, location: str, output: Path) -> EncodeReport:
        self._report.phase(Phase.ENCODE)
        request = self._request(video, location, output)
        on_progress = self._report.encoding(Phase.ENCODE, video.chunks.seconds(chunk))
        report = self._context.encoder.encode_chunk(
            request,
            video.chunks,
            chunk,
            on_progress=on_progress,
            stop=self._lease.stop,
        )
        self._lease.check()
        return report

    def _require_planned(self, chunk: Chunk, report: EncodeReport) -> None:
        """Raise PartUnfit unless the chunk has exactly the planned frames.

        Raises SourceChanged or SourceGone unless the source is still the queued version.
        """
        frames, first, last = report.frames, report.first_pts, report.last_pts
        if (frames, first, last) != (chunk.frames, chunk.start_pts, chunk.last_pts):
            raise PartUnfit(
                f"Chunk {chunk.index} has {frames} frames from {first} to {last}, not "
                f"{chunk.frames} from {chunk.start_pts} to {chunk.last_pts}.",
                index=chunk.index,
            )
        self._context.breaker.record_success()
        # If the source was replaced while it was read, the chunk may have frames of another video.
        self._context.retry_control_call(lambda: self._store.check(self._source))

    def _publish(self, chunk: Chunk, output: Path) -> RenditionRef:
        self._report.phase(Phase.PUBLISH)
        sha256 = sha256_file(output, self._lease.check, missing=Unavailable)
        key, size = self._work_key(chunk_name(chunk.index)), output.stat().st_size
        publication = Publication(
            key=key,
            file=output,
            sha256=sha256,
            job_id=self._task.unit_id,
            fence=self.claimed.fence.number,
            metadata={"job": self._task.unit_id, "sha256": sha256},
            stop=self._lease.stop,
        )
        self._lease.check()
        self._store.publish(publication)
        return RenditionRef(key=key, size=size, sha256=sha256)


class JoinJob(Subjob):
    """One attempt to join the chunks of one split. Its end ends the job."""

    def _may_succeed_whole(self, error: HevcqError) -> bool:
        # A video that fails a gate when joined may pass when encoded whole: blame the cuts first.
        return isinstance(error, (PartUnfit, VerificationFailed))

    def _run_part(self, video: SplitPlan) -> Verdict:
        chunks = chunks_of(self._context, self._job.job_id)
        if len(chunks) != self._split.chunks or any(p.state is not JobState.DONE for p in chunks):
            # A chunk is to be encoded again. Its task may have been lost when the join that requeued it
            # was killed, so send it; the subjob that completes the set sends another join.
            enqueue_chunks(self._context, self._task.as_whole_job(), self._split)
            self.transitions.record(Release(reason="A chunk is not done yet."))
            return Done()
        whole = self._task.as_whole_job()
        earlier = adopt(self._context, self._lease, whole, video, self._key(video))
        if earlier is not None:
            return self._complete(*earlier)
        return self._join(video, chunks)

    def _complete(self, rendition: RenditionRef, cpu_s: float) -> Done:
        self._end.complete(rendition, cpu_s=cpu_s)
        self.rendition = rendition
        sweep(self._context, self._job)
        return Done()

    def _join(self, video: SplitPlan, chunks: list[JobRecord]) -> Verdict:
        with self._context.scratch.job(self._task.unit_id) as folder:
            copied = self._source.size if self._store.free_bytes() is None else 0
            sizes = sum(p.rendition.size for p in chunks if p.rendition is not None)
            self._context.require_free_space(copied + 2 * sizes, self.part)
            self._report.phase(Phase.FETCH)
            files = [self._download_chunk(part, folder) for part in chunks]
            with self._fetched(folder) as (_path, location):
                encode = self._join_and_verify(video, location, files, chunks)
            return encode if isinstance(encode, Skipped) else self._publish(video, encode)

    def _download_chunk(self, part: JobRecord, folder: Path) -> Path:
        """Download one chunk; if it is gone or has other bytes, requeue it and raise PartUnfit."""
        number, stored = _chunk_number(part), part.rendition
        target = folder / chunk_name(number)
        problem = "has no object"
        if stored is not None:
            try:
                sha256 = self._store.collect(stored.key, target, stop=self._lease.stop)
                self._lease.check()
                if sha256 == stored.sha256:
                    return target
                problem = "has other bytes than were recorded"
            except SourceGone:
                problem = "is gone from the store"
        raise self._requeue_chunk(number, f"Chunk {number + 1} {problem}.")

    def _requeue_chunk(self, number: int, reason: str) -> PartUnfit:
        """Requeue one chunk, and return the error that ends this join.

        The join counts the failure, which limits this loop. The object is deleted first, because an equal
        one would not be published over it; after a kill, the next join comes here again.
        """
        part = subjob_id(self._job.job_id, self._split.name, number)
        get_logger(job=self._job.job_id).warning("part_again", chunk=number, reason=reason)
        key = self._work_key(chunk_name(number))
        self._context.retry_control_call(lambda: self._store.delete(key))
        self._context.retry_control_call(
            lambda: self._ledger.reopen(part, who=self.claimed.worker, why=reason)
        )
        enqueue_chunks(self._context, self._task.as_whole_job(), self._split)
        self.sent_back = True
        return PartUnfit(reason, index=number)

    def _join_files(
        self, video: SplitPlan, location: str, files: list[Path], output: Path
    ) -> EncodeReport:
        self._report.phase(Phase.JOIN)
        encoder, chunks, stop = self._context.encoder, video.chunks, self._lease.stop
        request = self._request(video, location, output)
        on_progress = self._report.encoding(Phase.JOIN, video.duration_s)
        try:
            report = encoder.join(request, chunks, files, on_progress=on_progress, stop=stop)
        except PartUnfit as error:
            if error.index is None or self._lease.cause is not None:
                raise
            raise self._requeue_chunk(error.index, str(error)) from error
        self._lease.check()
        if report.frames != video.chunks.frames:
            raise PartUnfit(
                f"The joined video has {report.frames} frames, not {video.chunks.frames}."
            )
        return report

    @property
    def _version(self) -> str:
        return set_version(self._job.job_id, self._job.fence, self.claimed.fence.number)

    def _join_and_verify(
        self, video: SplitPlan, location: str, files: list[Path], chunks: list[JobRecord]
    ) -> VerifiedEncode | Skipped:
        """Join and verify; the report's times then include those of the chunks."""
        output = files[0].parent / f"rendition.{video.plan.extension}"
        joined = self._join_files(video, location, files, output)
        encode = self._verify(video, location, output, joined)
        if isinstance(encode, Skipped):
            return encode
        cpu_s = encode.report.cpu_s + sum(part.cpu_s or 0.0 for part in chunks)
        seconds = encode.report.seconds + sum(_work_seconds(part) for part in chunks)
        report = replace(encode.report, seconds=seconds, cpu_s=cpu_s)
        return replace(encode, report=report, join=self.claimed.fence.number)

    def _publish(self, video: SplitPlan, encode: VerifiedEncode) -> Done:
        job = Fence(self._ledger, self._job.job_id, self._job.fence)
        claimed = ClaimedTask(self._task, video.recipe, self._lease, job, self.claimed.worker)
        try:
            rendition = publish(self._context, claimed, encode, self._report)
        except StaleFence as refused:
            self._require_replaceable(encode, refused)
            raise
        return self._complete(rendition, encode.report.cpu_s)

    def _require_replaceable(self, encode: VerifiedEncode, refused: StaleFence) -> None:
        """Raise PartUnfit if an earlier join of this split published a set that was not adopted.

        All joins have the job's fence, and no two sets the same bytes. So only a whole encode, which has
        a fence of its own, can replace that set. If this attempt is stale, the ledger refuses that too.
        """
        job = self._context.retry_control_call(lambda: self._ledger.get(self._job.job_id))
        is_current = job is not None and (job.state, job.fence) == (JobState.SPLIT, self._job.fence)
        if encode.members and is_current:
            problem = f"{encode.key} holds a set of an earlier join that is not intact."
            raise PartUnfit(problem) from refused


def _chunk_number(part: JobRecord) -> int:
    return part.subjob.chunk if part.subjob is not None and part.subjob.chunk is not None else 0


def _work_seconds(part: JobRecord) -> float:
    """Return how many seconds a chunk was in work."""
    return max(0.0, (part.finished_at or 0.0) - (part.started_at or part.finished_at or 0.0))
