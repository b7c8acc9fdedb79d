"""Encode all rungs of a chunk of a ladder with one decode, and join such chunks to a set.

A chunk is one file with a stream for each rung, so it is stored, found again and replaced like the
chunk of any other video. The join copies each stream to its rung's file; everything else of the set
is made from the source, as by a whole encode.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from hevcq.domain.chunking import Chunk, ChunkPlan
from hevcq.domain.planning.encode_plan import Rung
from hevcq.ffmpeg.chunking import (
    checked_chunk,
    chunk_input,
    chunk_listing,
    chunk_threads,
    run_chunk,
    trim_filter,
)
from hevcq.ffmpeg.command.build import (
    CHUNK_MUXER,
    QUEUE_PACKETS,
    RISING,
    JoinedVideo,
    base_command,
    chunks_input,
    source_input,
)
from hevcq.ffmpeg.command.filters import picture_filter
from hevcq.ffmpeg.hls.command import (
    BARE,
    FRAGMENTS,
    SetPaths,
    fed,
    ladder_in,
    rung_options,
    set_paths,
    side_outputs,
    thumbnail_graph,
    written,
)
from hevcq.ffmpeg.hls.encode import new_folder, packaged
from hevcq.ffmpeg.hls.storyboard import Images
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.run.runner import FfmpegRun, create_output, run_with_progress
from hevcq.ports.encoder import (
    EncodeReport,
    EncodeRequest,
    OnProgress,
)

MIN_SCALE = 10_000
"""The time scale that ffmpeg gives an MP4 track is its time base's, doubled until it is this fine."""


def rungs_command(
    tools: FfmpegTools, request: EncodeRequest, plan: ChunkPlan, chunk: Chunk
) -> list[str]:
    """Return the command that encodes the frames of one chunk in every rung, from time 0.

    Key frames are forced at the times of the plan, because the expression of a whole encode counts
    from the start of the video.
    """
    rungs, threads = ladder_in(request.plan).rungs, chunk_threads(request)
    command = chunk_input(tools, request, plan, chunk)
    trim = trim_filter(plan, chunk)
    chains = [",".join(filter(None, [trim, picture_filter(rung.target)])) for rung in rungs]
    graphs = [f"{chain}[{rung.name}]" for chain, rung in zip(chains, rungs, strict=True)]
    command += fed(rungs, plan.stream_index, graphs)
    for number, rung in enumerate(rungs):
        command += ["-map", f"[{rung.name}]"]
        for name, value in rung_options(request, rung, threads):
            words = ",".join(_moments(plan, chunk)) if name == "-force_key_frames" else value
            command += [f"{name}:{number}", words]
    command += ["-map_metadata", "-1", "-map_chapters", "-1"]
    command += ["-max_muxing_queue_size", QUEUE_PACKETS]
    return [*command, "-f", CHUNK_MUXER, f"file:{request.output}"]


def _moments(plan: ChunkPlan, chunk: Chunk) -> Iterator[str]:
    """Yield the times of a chunk's key frames in seconds, rounded down to ffmpeg's microseconds.

    Rounded up, the picture itself would come before its time, and the next one would be the key.
    """
    for pts in chunk.forced:
        moment = int((pts - chunk.start_pts) * plan.tick * 1_000_000)
        yield f"{moment // 1_000_000}.{moment % 1_000_000:06d}"


def encode_rungs(
    job: FfmpegRun, plan: ChunkPlan, chunk: Chunk, on_progress: OnProgress
) -> EncodeReport:
    """Encode one chunk of a ladder to `job.request.output`.

    Raises what `chunking.encode.encode_chunk` raises.
    """
    command = rungs_command(job.tools, job.request, plan, chunk)
    report = run_chunk(job, command, plan, chunk, on_progress)
    rungs = ladder_in(job.request.plan).rungs
    return checked_chunk(job, report, plan, chunk, streams=len(rungs))


def join_command(job: FfmpegRun, paths: SetPaths, video: JoinedVideo, tick: Fraction) -> list[str]:
    """Return the command that writes every rung from its chunks, and all else from the source.

    The thumbnails of gate G8 come from a decode of the source from its start, so that what a chunk's
    decoder got wrong in the middle is seen. `tick` is the seconds of one unit of the chunks' times.
    """
    request = job.request
    rungs, threads = ladder_in(request.plan).rungs, request.threads
    command = base_command(job.tools, threads or request.profile.bounds.threads)
    command += source_input(request.location, request.info, request.plan.mapped)
    command += chunks_input(video)
    stream = request.plan.main_video.source_index
    command += fed(rungs, stream, [thumbnail_graph(rung) for rung in rungs])
    for number, rung in enumerate(rungs):
        command += ["-map", f"1:{number}", "-c:0", "copy", f"{RISING[0]}:0", RISING[1]]
        command += ["-tag:0", rung.target.tag]
        command += ["-disposition:0", "0", "-video_track_timescale", str(_scale(tick, rung)), *BARE]
        command += ["-movflags", FRAGMENTS, "-f", "mp4", f"file:{paths.rung(rung)}"]
    return [*command, *side_outputs(request, paths)]


def _scale(tick: Fraction, rung: Rung) -> int:
    """Return the time scale of a rung's file, as a whole encode gives it."""
    scale = (tick / rung.target.frames_per_frame).denominator
    while scale < MIN_SCALE:
        scale *= 2
    return scale


def join_set(
    job: FfmpegRun,
    plan: ChunkPlan,
    chunk_files: Sequence[Path],
    on_progress: OnProgress,
) -> EncodeReport:
    """Join the chunks of a ladder to the set in the request's folder; see ports.encoder.

    Raises PartUnfit for a chunk that does not fit, and EncoderFailed.
    """
    request, paths = job.request, set_paths(job.request)
    with chunk_listing(job, plan, chunk_files) as path, new_folder(request.output, paths):
        files = written(request, paths)
        for file in files:
            create_output(file)
        command = join_command(job, paths, JoinedVideo(path, Fraction(0)), plan.tick)
        report = run_with_progress(
            job, command, request.duration_s, on_progress, reads=[path, *chunk_files], writes=files
        )
        return packaged(request, paths, report, Images(job.tools, request.profile, job.stop))
