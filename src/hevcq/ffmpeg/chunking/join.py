"""Join the parts of a video: the picture copied, everything else taken from the source once."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from hevcq.domain.chunking.planner import ChunkPlan
from hevcq.domain.media.facts import MediaInfo
from hevcq.errors import PartUnfit
from hevcq.ffmpeg.chunking.encode import chunk_headers, concat_list
from hevcq.ffmpeg.command.build import JoinedVideo, join_command
from hevcq.ffmpeg.inputs import display_name
from hevcq.ffmpeg.run.runner import FfmpegRun, run_with_progress
from hevcq.ports.encoder import EncodeReport, OnProgress


def join(
    job: FfmpegRun,
    plan: ChunkPlan,
    parts: Sequence[Path],
    covers: Sequence[Path],
    on_progress: OnProgress,
) -> EncodeReport:
    """Make `job.request.output` of the parts; see ports.encoder."""
    request = job.request
    name = display_name(request.location)
    if len(parts) != len(plan.chunks):
        raise PartUnfit(f"{len(parts)} parts of {name} were given, not {len(plan.chunks)}.")
    _require_alike(job, plan, parts)
    with _listing(request.output, concat_list(plan, [part.absolute() for part in parts])) as path:
        video = JoinedVideo(listing=path, offset_s=offset(plan, request.info))
        command = join_command(job.tools, request, covers, video)
        report = run_with_progress(job, command, request.duration_s, on_progress)
    if report.frames != plan.frames:
        raise PartUnfit(
            f"The parts of {name} gave {report.frames} frames, not {plan.frames}.",
            tail=report.stderr,
        )
    return report


def offset(plan: ChunkPlan, info: MediaInfo) -> Fraction:
    """Return when the first frame is shown, in seconds from the start that ffmpeg gives the source.

    ffmpeg moves all times of an input so that it starts at 0; the parts, which start at 0
    themselves, must come as much later as the picture does.
    """
    start = Fraction(round((info.start_s or 0.0) * 1_000_000), 1_000_000)
    return plan.chunks[0].start_pts * plan.tick - start


def _require_alike(job: FfmpegRun, plan: ChunkPlan, parts: Sequence[Path]) -> None:
    """Raise PartUnfit unless all parts have the same headers: only the first's are kept."""
    first = ""
    for chunk, part in zip(plan.chunks, parts, strict=True):
        if not part.is_file():
            raise PartUnfit(f"Part {chunk.index + 1} is missing.", index=chunk.index)
        headers = chunk_headers(job, part)
        first = first or headers
        if headers != first:
            raise PartUnfit(
                f"Part {chunk.index + 1} was encoded in another way than part 1: {headers}, "
                f"not {first}.",
                index=chunk.index,
            )


@contextlib.contextmanager
def _listing(output: Path, content: bytes) -> Iterator[Path]:
    """Keep the list beside the output while it is needed, under a name that nobody else has."""
    descriptor, name = tempfile.mkstemp(prefix=".parts-", suffix=".ffconcat", dir=output.parent)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield path
    finally:
        path.unlink(missing_ok=True)
