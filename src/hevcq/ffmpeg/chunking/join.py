"""Join encoded chunks: copy their picture, and take all other streams from the source."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from hevcq.domain.chunking.planner import ChunkPlan
from hevcq.errors import PartUnfit
from hevcq.ffmpeg.chunking.encode import chunk_headers, concat_list
from hevcq.ffmpeg.command.build import JoinedVideo, join_command
from hevcq.ffmpeg.inputs import display_name
from hevcq.ffmpeg.run.runner import FfmpegRun, run_with_progress
from hevcq.ports.encoder import EncodeReport, EncodeRequest, OnProgress


@dataclass(frozen=True, slots=True)
class Sidecars:
    """Files made of the source for the join: its covers, and a WebVTT file of each channel of captions."""

    covers: Sequence[Path]
    captions: Sequence[Path] = ()


def join(
    job: FfmpegRun,
    plan: ChunkPlan,
    chunk_files: Sequence[Path],
    sidecars: Sidecars,
    on_progress: OnProgress,
) -> EncodeReport:
    """Write `job.request.output` from the chunk files.

    Raises what `Encoder.encode` raises, and PartUnfit if a chunk is missing, the chunks' headers
    differ, or the frame count is not the plan's.
    """
    request = job.request
    name = display_name(request.location)
    if len(chunk_files) != len(plan.chunks):
        raise PartUnfit(f"{name} has {len(chunk_files)} chunk files, expected {len(plan.chunks)}.")
    require_same_headers(job, plan, chunk_files)
    with chunk_listing(
        request.output, concat_list(plan, [path.absolute() for path in chunk_files])
    ) as path:
        video = JoinedVideo(listing=path, offset_s=offset(plan, request))
        command = join_command(job.tools, request, sidecars.covers, video, sidecars.captions)
        report = run_with_progress(
            job,
            command,
            request.duration_s,
            on_progress,
            reads=[path, *chunk_files, *sidecars.covers, *sidecars.captions],
        )
    if report.frames != plan.frames:
        raise PartUnfit(
            f"The joined chunks of {name} have {report.frames} frames, expected {plan.frames}.",
            tail=report.stderr,
        )
    return report


def offset(plan: ChunkPlan, request: EncodeRequest) -> Fraction:
    """Return the time of the first frame, in seconds from the first one of what is mapped.

    ffmpeg shifts an input so that it starts at 0. The chunks start at 0 as well, so they need the
    delay of the picture within the source.
    """
    start_s = request.info.origin_s(request.plan.mapped)
    start = Fraction(round(start_s * 1_000_000), 1_000_000)
    return plan.chunks[0].start_pts * plan.tick - start


def require_same_headers(job: FfmpegRun, plan: ChunkPlan, chunk_files: Sequence[Path]) -> None:
    """Raise PartUnfit unless all chunks have the same headers: the join keeps only the first's."""
    first = ""
    for chunk, path in zip(plan.chunks, chunk_files, strict=True):
        if not path.is_file():
            raise PartUnfit(f"Chunk {chunk.index + 1} is missing.", index=chunk.index)
        headers = chunk_headers(job, path)
        first = first or headers
        if headers != first:
            raise PartUnfit(
                f"Chunk {chunk.index + 1} has other headers than chunk 1: {headers}, not {first}.",
                index=chunk.index,
            )


@contextlib.contextmanager
def chunk_listing(output: Path, content: bytes) -> Iterator[Path]:
    """Write the list to a uniquely named file beside the output, and remove it at the end."""
    descriptor, name = tempfile.mkstemp(prefix=".parts-", suffix=".ffconcat", dir=output.parent)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield path
    finally:
        path.unlink(missing_ok=True)
