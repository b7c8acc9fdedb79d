"""Encode all rungs of a ladder's chunk with one decode, and join the chunks to a set.

A chunk is one file with a stream for each rung, so it is stored and replaced like a chunk of any other
video. The join copies each stream to its rung's file. It makes everything else of the set from the
source, like a whole encode.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from hevcq.domain.chunking import Chunk, ChunkPlan
from hevcq.domain.planning.encode_plan import Rung
from hevcq.ffmpeg.chunking import chunk_input, chunk_listing, chunk_threads, trim_filter
from hevcq.ffmpeg.command.build import (
    CHUNK_MUXER,
    QUEUE_PACKETS,
    RISING_DTS,
    JoinedVideo,
    base_command,
    chunks_input,
    source_input,
)
from hevcq.ffmpeg.command.filters import picture_filter
from hevcq.ffmpeg.hls.command import (
    FRAGMENTS,
    NO_METADATA,
    feed_options,
    ladder_in,
    rung_options,
    set_paths,
    side_outputs,
    thumbnail_only_graph,
)
from hevcq.ffmpeg.hls.encode import new_set_files, package_set
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.run.runner import FfmpegRun, run_with_progress
from hevcq.ports.encoder import EncodeReport, EncodeRequest, OnProgress

MIN_SCALE = 10_000
"""ffmpeg gives an MP4 track the time scale of its time base, doubled until it reaches this value."""


def rungs_command(
    tools: FfmpegTools, request: EncodeRequest, plan: ChunkPlan, chunk: Chunk
) -> list[str]:
    """Return the command that encodes the frames of one chunk in every rung, from time 0.

    Key frames are forced at the plan's times: the expression of a whole encode counts from the start of
    the video.
    """
    rungs, threads = ladder_in(request.plan).rungs, chunk_threads(request)
    command = chunk_input(tools, request, plan, chunk)
    trim = trim_filter(plan, chunk)
    chains = [",".join(filter(None, [trim, picture_filter(rung.target)])) for rung in rungs]
    graphs = [f"{chain}[{rung.name}]" for chain, rung in zip(chains, rungs, strict=True)]
    command += feed_options(rungs, plan.stream_index, graphs)
    for number, rung in enumerate(rungs):
        command += ["-map", f"[{rung.name}]"]
        for name, value in rung_options(request, rung, threads):
            words = ",".join(_forced_times(plan, chunk)) if name == "-force_key_frames" else value
            command += [f"{name}:{number}", words]
    command += ["-map_metadata", "-1", "-map_chapters", "-1"]
    command += ["-max_muxing_queue_size", QUEUE_PACKETS]
    return [*command, "-f", CHUNK_MUXER, f"file:{request.output}"]


def _forced_times(plan: ChunkPlan, chunk: Chunk) -> Iterator[str]:
    """Yield the times of a chunk's key frames in seconds, rounded down to ffmpeg's microseconds.

    With a time that is rounded up, the frame itself would come before it, and the next frame be the key.
    """
    for pts in chunk.forced:
        moment = int((pts - chunk.start_pts) * plan.tick * 1_000_000)
        yield f"{moment // 1_000_000}.{moment % 1_000_000:06d}"


def join_command(job: FfmpegRun, video: JoinedVideo, tick: Fraction) -> list[str]:
    """Return the command that writes every rung from its chunks, and everything else from the source.

    The thumbnails for gate G8 come from a decode of the source from its start, so that they show what a
    chunk's decoder got wrong midstream. `tick` is the chunks' time base in seconds.
    """
    request, paths = job.request, set_paths(job.request)
    rungs, threads = ladder_in(request.plan).rungs, request.threads
    command = base_command(job.tools, threads or request.profile.bounds.threads)
    command += source_input(request.location, request.info, request.plan.mapped)
    command += chunks_input(video)
    stream = request.plan.main_video.source_index
    command += feed_options(rungs, stream, [thumbnail_only_graph(rung) for rung in rungs])
    for number, rung in enumerate(rungs):
        command += ["-map", f"1:{number}", "-c:0", "copy", f"{RISING_DTS[0]}:0", RISING_DTS[1]]
        command += ["-tag:0", rung.target.tag]
        command += [
            "-disposition:0",
            "0",
            "-video_track_timescale",
            str(_scale(tick, rung)),
            *NO_METADATA,
        ]
        command += ["-movflags", FRAGMENTS, "-f", "mp4", f"file:{paths.rung(rung)}"]
    return [*command, *side_outputs(request)]


def _scale(tick: Fraction, rung: Rung) -> int:
    """Return the time scale that a whole encode gives a rung's file."""
    scale = (tick / rung.target.frames_per_frame).denominator
    while scale < MIN_SCALE:
        scale *= 2
    return scale


def join_set(
    job: FfmpegRun, plan: ChunkPlan, chunk_files: Sequence[Path], on_progress: OnProgress
) -> EncodeReport:
    """Join the chunks of a ladder to the set in the request's folder; see ports.encoder.

    Raises PartUnfit for a chunk that does not fit, and EncoderFailed.
    """
    with chunk_listing(job, plan, chunk_files) as path, new_set_files(job.request) as files:
        command = join_command(job, JoinedVideo(path, Fraction(0)), plan.tick)
        reads, length_s = [path, *chunk_files], job.request.duration_s
        report = run_with_progress(job, command, length_s, on_progress, reads=reads, writes=files)
        return package_set(job, report)
