"""Encode one chunk, and put it where the join finds it.

The report is written first, then the chunk, then the ledger: a kill between them leaves either an
intact chunk that the next attempt adopts, or an object that nothing refers to.
"""

from __future__ import annotations

from pathlib import Path

from hevcq.domain.chunking.model import ChunkRecord, SplitPlan
from hevcq.domain.chunking.planner import Chunk
from hevcq.domain.job import Phase, RenditionRef
from hevcq.domain.keys import chunk_name
from hevcq.domain.verdict import Done, Verdict
from hevcq.errors import PartUnfit, SourceGone, Unavailable
from hevcq.ports.encoder import ChunkReport
from hevcq.ports.store import Publication, StoredObject
from hevcq.util.file_io import sha256_stream
from hevcq.util.log import get_logger
from hevcq.util.text import encodable
from hevcq.worker.chunking.subjob import Subjob, send_join
from hevcq.worker.scratch import sha256_file


class ChunkJob(Subjob):
    """Encode one chunk; one attempt."""

    def _run_part(self, video: SplitPlan) -> Verdict:
        chunk = self._chunk(video)
        reference, cpu_s = self._found(chunk) or self._made(video, chunk)
        self.transitions.complete(reference, cpu_s=cpu_s)
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
            self._require_free_space(copied + share, self.part)
            output = folder / chunk_name(chunk.index)
            encoding = self._context.encoding(self.claimed.worker, self._lease.check)
            source, stop = self._source, self._lease.stop
            streamed = self._store.stream(source, folder, moved=lambda _n: None, stop=stop)
            # Only the ranges that are read; the output is valid once this ends without an error.
            with encoding, streamed as found:
                report = self._encode(video, chunk, found.location, output)
            self._require_ours(chunk, report)
            return self._publish(chunk, report, output), report.cpu_s

    def _encode(self, video: SplitPlan, chunk: Chunk, location: str, output: Path) -> ChunkReport:
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

    def _require_ours(self, chunk: Chunk, report: ChunkReport) -> None:
        """Check the chunk and its source.

        Raises PartUnfit unless the frames are exact, and SourceChanged or SourceGone unless the source
        is the queued one.
        """
        _require_exact(chunk, report.frames, report.first_pts, report.last_pts)
        self._context.breaker.succeeded()
        # The source may have been replaced while it was read; these are then not its frames.
        self._context.retry_control_call(lambda: self._store.check(self._source))

    def _publish(self, chunk: Chunk, report: ChunkReport, output: Path) -> RenditionRef:
        self._report.phase(Phase.PUBLISH)
        sha256 = sha256_file(output, self._lease.check, missing=Unavailable)
        key, size = self._work_key(chunk_name(chunk.index)), output.stat().st_size
        name = f"{key}.{sha256[:16]}.json"
        record = self._chunk_record(report, sha256, size)
        self._lease.check()
        self._context.retry_control_call(
            lambda: self._store.put(
                name, record.model_dump_json().encode(), metadata={"job": self._job.job_id}
            )
        )
        metadata = {
            "job": self._task.unit_id,
            "fence": str(self.claimed.fence.number),
            "sha256": sha256,
            "frames": str(report.frames),
            "report": name,
        }
        publication = Publication(
            key=key,
            file=output,
            sha256=sha256,
            job_id=self._task.unit_id,
            fence=self.claimed.fence.number,
            metadata=metadata,
            stop=self._lease.stop,
        )
        self._lease.check()
        self._store.publish(publication)
        return RenditionRef(key=key, size=size, sha256=sha256, certificate_key=name)

    def _chunk_record(self, report: ChunkReport, sha256: str, size: int) -> ChunkRecord:
        return ChunkRecord(
            part_id=self._task.unit_id,
            sha256=sha256,
            arguments=tuple(encodable(word) for word in report.arguments),
            seconds=report.seconds,
            cpu_s=report.cpu_s,
            frames=report.frames,
            first_pts=report.first_pts,
            last_pts=report.last_pts,
            size=size,
            headers=report.headers,
            ffmpeg=self._context.encoder.version(),
        )

    def _found(self, chunk: Chunk) -> tuple[RenditionRef, float] | None:
        """Return the chunk that an earlier attempt published but did not record, or None.

        The second value is its CPU time in seconds. It counts only with its report, and with its own
        bytes read back and hashed.
        """
        key = self._work_key(chunk_name(chunk.index))
        seen = self._context.retry_control_call(lambda: self._store.stat(key))
        name = seen.metadata.get("report", "") if seen is not None else ""
        if seen is None or not name or seen.metadata.get("job") != self._task.unit_id:
            return None
        try:
            record = ChunkRecord.parse(self._small(name))
            _require_exact(chunk, record.frames, record.first_pts, record.last_pts)
            with self._store.open(key) as stream:
                sha256, size = sha256_stream(stream, self._lease.check)
        except (PartUnfit, SourceGone) as error:
            get_logger(job=self._job.job_id).warning("part_not_adopted", reason=str(error))
            return None
        if not self._is_this(record, seen, sha256, size):
            return None
        return RenditionRef(key=key, size=size, sha256=sha256, certificate_key=name), record.cpu_s

    def _is_this(self, record: ChunkRecord, seen: StoredObject, sha256: str, size: int) -> bool:
        same = (record.sha256, record.size, seen.sha256) == (sha256, size, sha256)
        mine = record.part_id == self._task.unit_id
        return same and mine and record.ffmpeg == self._context.encoder.version()


def _require_exact(chunk: Chunk, frames: int, first_pts: int, last_pts: int) -> None:
    """Raise PartUnfit unless the encode has exactly the frames of its chunk."""
    if (frames, first_pts, last_pts) != (chunk.frames, chunk.start_pts, chunk.last_pts):
        raise PartUnfit(
            f"Chunk {chunk.index} has {frames} frames from {first_pts} to {last_pts}, not "
            f"{chunk.frames} from {chunk.start_pts} to {chunk.last_pts}.",
            index=chunk.index,
        )
