"""One chunk to ffmpeg command, and the list that joins the parts: pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from hevcq.domain.chunking.planner import Chunk, ChunkPlan, times_sum
from hevcq.errors import PartUnfit, SourceDamaged, WorkerUnfit
from hevcq.ffmpeg.command.build import CHUNK_MUXER, base_command, microseconds, source_input
from hevcq.ffmpeg.command.streams import chunk_options
from hevcq.ffmpeg.inputs import (
    PROBE_DEADLINE_S,
    PROBE_LIMITS,
    FfmpegTools,
    display_name,
    input_options,
)
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.run.known_messages import unexpected_lines
from hevcq.ffmpeg.run.runner import FfmpegRun, run_with_progress
from hevcq.ports.encoder import ChunkReport, EncodeRequest, OnProgress


def chunk_command(
    tools: FfmpegTools, request: EncodeRequest, plan: ChunkPlan, chunk: Chunk
) -> list[str]:
    """Return the command that encodes the frames of one chunk to `request.output`, from time 0.

    The seek only saves decoding: what makes the cut exact is the trim by integer time stamps.
    `-copyts` keeps them as the file has them, and `-noaccurate_seek` leaves dropping to the trim.
    """
    profile, target = request.profile, request.plan.video
    threads = request.threads or profile.chunking.threads or profile.bounds.threads
    command = [*base_command(tools, threads), "-copyts"]
    if chunk.seek_s is not None:
        command += ["-seek_timestamp", "1", "-noaccurate_seek", "-ss", f"{chunk.seek_s:.6f}"]
    command += source_input(request.location, request.info)
    command += ["-map", f"0:{plan.stream_index}", "-map_metadata", "-1", "-map_chapters", "-1"]
    trim = trim_filter(plan, chunk)
    for name, value in chunk_options(target, profile, threads=threads, trim=trim):
        command += [f"{name}:0", value]
    return [*command, "-f", CHUNK_MUXER, f"file:{request.output}"]


def trim_filter(plan: ChunkPlan, chunk: Chunk) -> str:
    """Return the filter that lets the chunk's frames through, and counts their times from 0."""
    borders = []
    if chunk.index > 0:
        borders.append(f"start_pts={chunk.start_pts}")
    if chunk.end_pts is not None:
        borders.append(f"end_pts={chunk.end_pts}")
    trim = [f"trim={':'.join(borders)}"] if borders else []
    # The time base is named, so that no filter's own can slip in between.
    return ",".join([f"settb={plan.time_base}", *trim, "setpts=PTS-STARTPTS"])


def concat_list(plan: ChunkPlan, parts: list[Path]) -> bytes:
    """Return the concat demuxer's list: each part with the exact time until the next one.

    ffmpeg adds the times up in microseconds; each is the difference of two rounded borders, so
    that roundings do not add up too. Raises WorkerUnfit for a folder whose name the list cannot
    hold.
    """
    first = plan.chunks[0].start_pts
    lines = ["ffconcat version 1.0"]
    for chunk, part in zip(plan.chunks, parts, strict=True):
        begin = round((chunk.start_pts - first) * plan.tick * 1_000_000)
        end = round((chunk.start_pts + chunk.duration_ticks - first) * plan.tick * 1_000_000)
        lines.append(f"file {_quoted(part)}")
        lines.append(f"duration {microseconds_of(end - begin)}")
    return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")


def microseconds_of(count: int) -> str:
    """Return a number of microseconds in seconds, exactly."""
    from fractions import Fraction

    return microseconds(Fraction(count, 1_000_000))


def _quoted(part: Path) -> str:
    """Quote a path as av_get_token reads it; within quotes a backslash is only itself."""
    text = f"file:{part}"
    if any(mark in text for mark in "\r\n\0"):
        raise WorkerUnfit(
            f"The scratch folder {part.parent} has a line break in its name.",
            remedy="Name another folder in the settings.",
        )
    return "'" + text.replace("'", "'\\''") + "'"


@dataclass(slots=True)
class EncodedChunk:
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


def encode_chunk(
    job: FfmpegRun, plan: ChunkPlan, chunk: Chunk, on_progress: OnProgress
) -> ChunkReport:
    """Encode one chunk to `job.request.output`; see ports.encoder."""
    request = job.request
    command = chunk_command(job.tools, request, plan, chunk)
    name = f"Part {chunk.index + 1} of {len(plan.chunks)} of {display_name(request.location)}"
    try:
        report = run_with_progress(job, command, plan.seconds(chunk), on_progress)
    except SourceDamaged as error:
        # To a decoder that begins midway a sound source may look damaged; only the whole tells.
        raise PartUnfit(f"{name} cannot be made: {error.message}", index=chunk.index) from error
    complaints = unexpected_lines(report.stderr, job.ffmpeg_pass)
    if complaints:
        raise PartUnfit(
            f"{name} was encoded with a complaint: {complaints[0]}.",
            index=chunk.index,
            tail=report.stderr,
        )
    part = read_chunk_file(job, request.output)
    problem = chunk_problem(part, plan, chunk)
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


def read_chunk_file(job: FfmpegRun, path: Path) -> EncodedChunk:
    """Read the packets of a part; raise PartUnfit if it is no part at all."""
    return _read_chunk(job.tools, job, path, packets=True)


def chunk_headers(job: FfmpegRun, path: Path) -> str:
    """Return the digest of a part's headers, without reading its packets."""
    return _read_chunk(job.tools, job, path, packets=False).headers


def _read_chunk(tools: FfmpegTools, job: FfmpegRun, path: Path, *, packets: bool) -> EncodedChunk:
    part = EncodedChunk()
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


def chunk_problem(part: EncodedChunk, plan: ChunkPlan, chunk: Chunk) -> str:
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
