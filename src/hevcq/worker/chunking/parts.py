"""The parts of a split video: encode a chunk; join the chunks into one rendition, verified like any other.

A chunk's report is written first, then the chunk, then the ledger: a kill between them leaves objects
that nothing refers to, and costs the chunk's encode.
"""

from dataclasses import replace
from pathlib import Path

from hevcq.domain.chunking.model import Chunk, ChunkRecord, SplitPlan
from hevcq.domain.job import JobRecord, JobState, Phase, RenditionRef, subjob_id
from hevcq.domain.keys import chunk_name, set_version
from hevcq.domain.verdict import Done, Skipped, Verdict
from hevcq.errors import (
    HevcqError,
    PartUnfit,
    SourceGone,
    StaleFence,
    Unavailable,
    VerificationFailed,
)
from hevcq.ports.encoder import EncodeReport
from hevcq.ports.store import Publication
from hevcq.util.log import get_logger
from hevcq.util.text import encodable
from hevcq.worker.chunking.subjob import Subjob, send_join
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.job import Made
from hevcq.worker.delivery.lease import Fence
from hevcq.worker.encode_job import enqueue_chunks, sweep
from hevcq.worker.publish import adopt, publish
from hevcq.worker.scratch import sha256_file


class ChunkJob(Subjob):
    def _run_part(self, video: SplitPlan) -> Verdict:
        chunk = self._chunk(video)
        made, cpu_s = self._made(video, chunk)
        self.transitions.complete(made, cpu_s=cpu_s)
        send_join(self._context, self._task)
        return Done()

    def _chunk(self, video: SplitPlan) -> Chunk:
        number = self._task.chunk
        if number is None or number >= len(video.chunks.chunks):
            raise PartUnfit(f"The video's plan has no chunk {number}.", index=number)
        return video.chunks.chunks[number]

    def _made(self, video: SplitPlan, chunk: Chunk) -> tuple[RenditionRef, float]:
        with self._context.scratch.job(self._task.unit_id) as folder:
            share = int(self._source.size * chunk.frames / video.chunks.frames)
            copied = share if self._store.free_bytes() is None else 0
            self._context.require_free_space(copied + share, self.part)
            output = folder / chunk_name(chunk.index)
            source, stop = self._source, self._lease.stop
            streamed = self._store.stream(source, folder, moved=lambda _n: None, stop=stop)
            # Only the ranges that are read; the output is valid once this ends without an error.
            with streamed as found:
                report = self._encode(video, chunk, found.location, output)
            self._require_ours(chunk, report)
            return self._publish(chunk, report, output), report.cpu_s

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

    def _require_ours(self, chunk: Chunk, report: EncodeReport) -> None:
        """Check the chunk and its source.

        Raises PartUnfit unless the frames are exact, and SourceChanged or SourceGone unless the source
        is the queued one.
        """
        made = report.frames, report.first_pts, report.last_pts
        if made != (chunk.frames, chunk.start_pts, chunk.last_pts):
            raise PartUnfit(
                f"Chunk {chunk.index} has {made[0]} frames from {made[1]} to {made[2]}, not "
                f"{chunk.frames} from {chunk.start_pts} to {chunk.last_pts}.",
                index=chunk.index,
            )
        self._context.breaker.succeeded()
        # The source may have been replaced while it was read; these are then not its frames.
        self._context.retry_control_call(lambda: self._store.check(self._source))

    def _publish(self, chunk: Chunk, report: EncodeReport, output: Path) -> RenditionRef:
        self._report.phase(Phase.PUBLISH)
        sha256 = sha256_file(output, self._lease.check, missing=Unavailable)
        key, size = self._work_key(chunk_name(chunk.index)), output.stat().st_size
        name = f"{key}.{sha256[:16]}.json"
        arguments = tuple(encodable(word) for word in report.arguments)
        record = ChunkRecord(arguments=arguments, seconds=report.seconds, cpu_s=report.cpu_s)
        self._lease.check()
        self._context.retry_control_call(
            lambda: self._store.put(
                name, record.model_dump_json().encode(), metadata={"job": self._job.job_id}
            )
        )
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
        return RenditionRef(key=key, size=size, sha256=sha256, certificate_key=name)


class JoinJob(Subjob):
    """Join the chunks of one split; one attempt. Its end ends the job."""

    def _is_unfit(self, error: HevcqError) -> bool:
        # A video that fails a gate when joined may pass when encoded whole: blame the cuts first.
        return isinstance(error, (PartUnfit, VerificationFailed))

    def _run_part(self, video: SplitPlan) -> Verdict:
        subjobs = self._context.backend.ledger
        parts = self._context.retry_control_call(lambda: subjobs.subjobs(self._job.job_id))
        chunks = [p for p in parts if p.subjob is not None and p.subjob.chunk is not None]
        if len(chunks) != self._split.chunks or any(p.state is not JobState.DONE for p in chunks):
            # A chunk is encoded again. Its task may have been lost with the join that requeued it;
            # the subjob that completes the set sends another join.
            enqueue_chunks(self._context, self._task.as_whole_job(), self._split)
            self.transitions.interrupt("A chunk is not done yet.")
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
            files = [self._collected(part, folder) for part in chunks]
            records = [self._chunk_record(part) for part in chunks]
            with self._fetched(folder) as (_path, location):
                made = self._prove(video, location, files, records)
            return made if isinstance(made, Skipped) else self._publish(video, made)

    def _collected(self, part: JobRecord, folder: Path) -> Path:
        """Download one chunk.

        Raises PartUnfit, and requeues the chunk, if it is gone or has other bytes.
        """
        number, there = _number(part), part.rendition
        target = folder / chunk_name(number)
        problem = "has no object"
        if there is not None:
            try:
                sha256 = self._store.collect(
                    there.key, target, moved=lambda _n: None, stop=self._lease.stop
                )
                self._lease.check()
                if sha256 == there.sha256:
                    return target
                problem = "has other bytes than were recorded"
            except SourceGone:
                problem = "is gone from the store"
        raise self._again(number, f"Chunk {number + 1} {problem}.")

    def _chunk_record(self, part: JobRecord) -> ChunkRecord:
        number = _number(part)
        key = part.rendition.certificate_key if part.rendition is not None else ""
        try:
            return ChunkRecord.parse(self._small(key))
        except PartUnfit as error:
            raise self._again(number, str(error)) from error

    def _again(self, number: int, reason: str) -> PartUnfit:
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

    def _joined(
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
            raise self._again(error.index, str(error)) from error
        self._lease.check()
        if report.frames != video.chunks.frames:
            raise PartUnfit(
                f"The joined video has {report.frames} frames, not {video.chunks.frames}."
            )
        return report

    @property
    def _version(self) -> str:
        return set_version(self._job.job_id, self._job.fence, self.claimed.fence.number)

    def _prove(
        self, video: SplitPlan, location: str, files: list[Path], records: list[ChunkRecord]
    ) -> Made | Skipped:
        output = files[0].parent / f"rendition.{video.plan.extension}"
        joined = self._joined(video, location, files, output)
        made = self._proved(video, location, output, joined)
        if isinstance(made, Skipped):
            return made
        report, fence = _summed(made.report, records), self.claimed.fence.number
        return replace(made, report=report, join=fence)

    def _publish(self, video: SplitPlan, made: Made) -> Done:
        job = Fence(self._ledger, self._job.job_id, self._job.fence)
        claimed = ClaimedTask(self._task, video.recipe, self._lease, job, self.claimed.worker)
        try:
            rendition = publish(self._context, claimed, made, self._report)
        except StaleFence as refused:
            self._require_replaceable(made, refused)
            raise
        return self._complete(rendition, made.report.cpu_s)

    def _require_replaceable(self, made: Made, refused: StaleFence) -> None:
        """Raise PartUnfit if an earlier join of this split published a set that was not adopted.

        All joins have the job's fence, and no two sets the same bytes: only a whole encode, which has a
        fence of its own, can replace it. Were this attempt a stale one, the ledger would refuse that.
        """
        job = self._context.retry_control_call(lambda: self._ledger.get(self._job.job_id))
        mine = job is not None and (job.state, job.fence) == (JobState.SPLIT, self._job.fence)
        if made.members and mine:
            raise PartUnfit(f"{made.key} holds a set of an earlier join that is not intact.") from (
                refused
            )


def _number(part: JobRecord) -> int:
    return part.subjob.chunk if part.subjob is not None and part.subjob.chunk is not None else 0


def _summed(joined: EncodeReport, records: list[ChunkRecord]) -> EncodeReport:
    """Return the rendition's report: the commands, seconds and CPU seconds of chunks and join."""
    words: list[str] = []
    for part in records:
        words += [*part.arguments, "&&"]
    return replace(
        joined,
        arguments=(*words, *joined.arguments),
        seconds=joined.seconds + sum(part.seconds for part in records),
        cpu_s=joined.cpu_s + sum(part.cpu_s for part in records),
    )
