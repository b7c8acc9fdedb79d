"""One chunk to ffmpeg command, and the list that joins the parts: pure functions."""

from __future__ import annotations

from pathlib import Path

from hevcq.domain.chunks import Chunk, ChunkPlan
from hevcq.errors import WorkerUnfit
from hevcq.ffmpeg.command import PART_MUXER, microseconds, opening, source_input
from hevcq.ffmpeg.command_tracks import part_options
from hevcq.ffmpeg.tools import Tools
from hevcq.ports.encoder import EncodeRequest


def chunk_command(tools: Tools, request: EncodeRequest, plan: ChunkPlan, chunk: Chunk) -> list[str]:
    """Return the command that encodes the frames of one chunk to `request.output`, from time 0.

    The seek only saves decoding: what makes the cut exact is the trim by integer time stamps.
    `-copyts` keeps them as the file has them, and `-noaccurate_seek` leaves dropping to the trim.
    """
    profile, target = request.profile, request.plan.video
    threads = request.threads or profile.chunking.threads or profile.bounds.threads
    command = [*opening(tools, threads), "-copyts"]
    if chunk.seek_s is not None:
        command += ["-seek_timestamp", "1", "-noaccurate_seek", "-ss", f"{chunk.seek_s:.6f}"]
    command += source_input(request.location, request.info)
    command += ["-map", f"0:{plan.stream_index}", "-map_metadata", "-1", "-map_chapters", "-1"]
    trim = trim_filter(plan, chunk)
    for name, value in part_options(target, profile, threads=threads, trim=trim):
        command += [f"{name}:0", value]
    return [*command, "-f", PART_MUXER, f"file:{request.output}"]


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
