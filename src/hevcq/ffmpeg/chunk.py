"""Encode one chunk, and look at the part that came of it before it counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from hevcq.domain.chunks import Chunk, ChunkPlan, times_sum
from hevcq.errors import PartUnfit, SourceDamaged
from hevcq.ffmpeg.chunk_command import chunk_command
from hevcq.ffmpeg.harmless import suspicious
from hevcq.ffmpeg.process import run_child
from hevcq.ffmpeg.run import Job, run_watched
from hevcq.ffmpeg.tools import PROBE_DEADLINE_S, PROBE_LIMITS, Tools, input_options, name_of
from hevcq.ports.encoder import ChunkReport, OnProgress


@dataclass(slots=True)
class Part:
    """What a part really holds: frame times in its own ticks, and a digest of its headers."""

    pts: list[int] = field(default_factory=list)
    discarded: int = 0
    tick: Fraction = Fraction(0)
    headers: str = ""

    def line(self, text: str) -> None:
        """Take `packet,pts,flags` or `stream,codec,pixel format,width,height,time base,hash`."""
        fields = text.split(",")
        if fields[0] == "packet" and len(fields) >= 3:
            if "D" in fields[2] or not fields[1].lstrip("-").isdigit():
                self.discarded += 1
            else:
                self.pts.append(int(fields[1]))
        elif fields[0] == "stream" and len(fields) >= 7:
            self.tick = Fraction(fields[5])
            self.headers = "|".join([*fields[1:5], fields[6]])


def encode_chunk(job: Job, plan: ChunkPlan, chunk: Chunk, on_progress: OnProgress) -> ChunkReport:
    """Encode one chunk to `job.request.output`; see ports.encoder."""
    request = job.request
    command = chunk_command(job.tools, request, plan, chunk)
    name = f"Part {chunk.index + 1} of {len(plan.chunks)} of {name_of(request.location)}"
    try:
        report = run_watched(job, command, plan.seconds(chunk), on_progress)
    except SourceDamaged as error:
        # To a decoder that begins midway a sound source may look damaged; only the whole tells.
        raise PartUnfit(f"{name} cannot be made: {error.message}", index=chunk.index) from error
    complaints = suspicious(report.stderr, job.where)
    if complaints:
        raise PartUnfit(
            f"{name} was encoded with a complaint: {complaints[0]}.",
            index=chunk.index,
            tail=report.stderr,
        )
    part = look_at_part(job, request.output)
    problem = part_problem(part, plan, chunk)
    if problem:
        raise PartUnfit(f"{name} {problem}.", index=chunk.index, tail=report.stderr)
    return ChunkReport(
        arguments=report.arguments,
        seconds=report.seconds,
        cpu_s=report.cpu_s,
        stderr=report.stderr,
        frames=len(part.pts),
        first_pts=chunk.start_pts,
        last_pts=chunk.last_pts,
        size=request.output.stat().st_size,
        headers=part.headers,
    )


def look_at_part(job: Job, path: Path) -> Part:
    """Read the packets of a part; raise PartUnfit if it is no part at all."""
    return _look(job.tools, job, path, packets=True)


def headers_of(job: Job, path: Path) -> str:
    """Return the digest of a part's headers, without reading its packets."""
    return _look(job.tools, job, path, packets=False).headers


def _look(tools: Tools, job: Job, path: Path, *, packets: bool) -> Part:
    part = Part()
    entries = "stream=codec_name,pix_fmt,width,height,time_base,extradata_hash"
    argv = [
        tools.ffprobe, "-v", "error", "-select_streams", "v:0", "-show_data_hash", "sha256",
        "-show_entries", f"packet=pts,flags:{entries}" if packets else entries,
        "-of", "csv=p=1:nk=1", *input_options(str(path)),
    ]  # fmt: skip
    done = run_child(
        argv,
        stop=job.stop,
        limits=PROBE_LIMITS,
        on_line=part.line,
        deadline_s=PROBE_DEADLINE_S,
    )
    if done.returncode != 0 or done.stderr or not part.headers:
        why = done.stderr[0] if done.stderr else f"exit code {done.returncode}"
        raise PartUnfit(f"The part {path.name} cannot be read: {why}.", tail=done.stderr)
    return part


def part_problem(part: Part, plan: ChunkPlan, chunk: Chunk) -> str:
    """Return how a part differs from its chunk, as half a sentence, or ""."""
    if part.discarded:
        return f"has {part.discarded} frames that would not be shown"
    if len(part.pts) != chunk.frames:
        return f"has {len(part.pts)} frames, not {chunk.frames}"
    ratio = part.tick / plan.tick
    exact = [at * ratio for at in part.pts]
    if any(at.denominator != 1 for at in exact):
        return "has times that the source's time base cannot hold"
    ticks = [chunk.start_pts + int(at) for at in exact]
    if min(ticks) != chunk.start_pts or max(ticks) != chunk.last_pts:
        return f"runs from {min(ticks)} to {max(ticks)}, not {chunk.start_pts} to {chunk.last_pts}"
    if times_sum(ticks) != chunk.times:
        return "shows its frames at other times than the source"
    return ""
