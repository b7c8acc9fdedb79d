"""Find where a video can be cut, encode its chunks, and join them with the source's other streams.

Cuts are at key frames, or on the segment grid of an HLS ladder.
"""

import contextlib
import os
import tempfile
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from hevcq.domain.chunking import Chunk, ChunkPlan, KeyFrame, KeyIndex, index_by_grid, times_sum
from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
from hevcq.domain.planning.encode_plan import Ladder
from hevcq.errors import PartUnfit, SourceDamaged, SourceUnreadable, WorkerUnfit
from hevcq.ffmpeg.command.build import (
    CHUNK_MUXER,
    JoinedVideo,
    base_command,
    chunk_options,
    dolby_vision_option,
    encode_command,
    microseconds,
    source_input,
)
from hevcq.ffmpeg.command.levels import level_outputs
from hevcq.ffmpeg.command.thumbnails import level_files
from hevcq.ffmpeg.inputs import (
    KEYED_BY_KIND,
    PROBE_DEADLINE_S,
    PROBE_LIMITS,
    FfmpegTools,
    display_name,
    input_options,
    parse_fields,
    with_read_access,
)
from hevcq.ffmpeg.inspect.measure import NO_TIME, Packets, frame_packets
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.run.messages import unexpected_lines
from hevcq.ffmpeg.run.runner import FfmpegRun, create_output, run_with_progress
from hevcq.ports.encoder import EncodeReport, EncodeRequest, OnProgress


def chunk_command(
    tools: FfmpegTools, request: EncodeRequest, plan: ChunkPlan, chunk: Chunk
) -> list[str]:
    """Return the command that encodes the frames of one chunk to `request.output`, starting at time 0.

    The seek only saves decoding; the trim by integer timestamps makes the cut exact. `-copyts` keeps the file's
    timestamps, and `-noaccurate_seek` leaves dropping frames to the trim.
    """
    profile, target = request.profile, request.plan.video
    threads = chunk_threads(request)
    command = chunk_input(tools, request, plan, chunk)
    command += ["-map", f"0:{plan.stream_index}", "-map_metadata", "-1", "-map_chapters", "-1"]
    trim = trim_filter(plan, chunk)
    for name, value in chunk_options(target, profile, tick=plan.tick, threads=threads, trim=trim):
        command += [f"{name}:0", value]
    command += dolby_vision_option(request.plan)
    return [*command, "-f", CHUNK_MUXER, f"file:{request.output}"]


def chunk_threads(request: EncodeRequest) -> int:
    return request.threads or request.profile.bounds.threads


def chunk_input(
    tools: FfmpegTools, request: EncodeRequest, plan: ChunkPlan, chunk: Chunk
) -> list[str]:
    """Return the first options of a chunk's command, which open the source at the key frame to decode from.

    An input offset shifts the chunk's first frame to 0: `setpts` would drop the frames' durations and rate from
    ffmpeg 6.1 to 7. Microseconds are exact in ticks of one microsecond or longer.
    """
    command = [*base_command(tools, chunk_threads(request)), "-copyts"]
    if chunk.seek_s is not None:
        command += ["-seek_timestamp", "1", "-noaccurate_seek", "-ss", f"{chunk.seek_s:.6f}"]
    if chunk.start_pts:
        command += ["-itsoffset", microseconds(-chunk.start_pts * plan.tick)]
    return [*command, *source_input(request.location, request.info)]


def trim_filter(plan: ChunkPlan, chunk: Chunk) -> str:
    borders = []
    if chunk.index > 0:
        borders.append("start_pts=0")
    if chunk.end_pts is not None:
        borders.append(f"end_pts={chunk.end_pts - chunk.start_pts}")
    trim = [f"trim={':'.join(borders)}"] if borders else []
    # Otherwise a filter may choose its own time base.
    return ",".join([f"settb={plan.time_base}", *trim])


def concat_list(plan: ChunkPlan, chunk_files: list[Path]) -> bytes:
    """Return the concat demuxer's list: each chunk file with its exact duration.

    ffmpeg adds the durations in microseconds. Each is the difference of two rounded boundaries, so that rounding
    errors do not accumulate. Raises WorkerUnfit if the list cannot represent the scratch folder's name.
    """
    first = plan.chunks[0].start_pts
    lines = ["ffconcat version 1.0"]
    for chunk, path in zip(plan.chunks, chunk_files, strict=True):
        begin = round((chunk.start_pts - first) * plan.tick * 1_000_000)
        end = round((chunk.start_pts + chunk.duration_ticks - first) * plan.tick * 1_000_000)
        lines.append(f"file {_quoted(path)}")
        lines.append(f"duration {microseconds(Fraction(end - begin, 1_000_000))}")
    return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")


def _quoted(path: Path) -> str:
    """Quote a path as av_get_token reads it; inside quotes a backslash has no special meaning."""
    text = f"file:{path}"
    if any(mark in text for mark in "\r\n\0"):
        raise WorkerUnfit(
            f"The name of the scratch folder {path.parent} contains a line break.",
            remedy="Set another scratch folder in the settings.",
        )
    return "'" + text.replace("'", "'\\''") + "'"


@dataclass(slots=True)
class EncodedChunk:
    """The measured content of an encoded chunk file.

    `pts` are presentation times in the file's ticks of `tick` seconds, `discarded` counts packets without a time
    or flagged discard, `headers` describes the decoder configuration.
    """

    pts: list[int] = field(default_factory=list)
    discarded: int = 0
    tick: Fraction = Fraction(0)
    headers: str = ""

    def line(self, text: str) -> None:
        kind, _, rest = text.partition("|")
        fields = parse_fields(rest)
        if kind == "packet":
            pts = fields.get("pts", "")
            if "D" in fields.get("flags", "") or not pts.lstrip("-").isdigit():
                self.discarded += 1
            else:
                self.pts.append(int(pts))
        elif kind == "stream" and ("extradata_hash" in fields or fields.get("codec_name") == "vp9"):
            # VP9 has no headers outside its frames.
            self.tick = Fraction(fields["time_base"])
            names = ("codec_name", "width", "height", "pix_fmt", "extradata_hash")
            headers = "|".join(fields[name] for name in names if name in fields)
            self.headers = f"{self.headers} {headers}".strip()


def encode_chunk(
    job: FfmpegRun, command: list[str], plan: ChunkPlan, chunk: Chunk, on_progress: OnProgress
) -> EncodeReport:
    """Run the command of a chunk, and compare each of its streams with the plan. Raises PartUnfit."""
    name = f"Chunk {chunk.index + 1} of {len(plan.chunks)} of {display_name(job.request.location)}"
    try:
        report = run_with_progress(job, command, plan.seconds(chunk), on_progress)
    except SourceDamaged as error:
        # A decoder that starts midstream may report damage in an intact source; only a whole encode can tell.
        raise PartUnfit(f"{name} cannot be encoded: {error.message}", index=chunk.index) from error
    complaints = unexpected_lines(report.stderr, job.ffmpeg_pass)
    if complaints:
        raise PartUnfit(
            f"ffmpeg reported an error while encoding {name[0].lower()}{name[1:]}: {complaints[0]}.",
            index=chunk.index,
            tail=report.stderr,
        )
    ladder = job.request.plan.ladder
    for stream in range(len(ladder.rungs) if ladder is not None else 1):
        encoded = _read_chunk(job, job.request.output, f"v:{stream}", packets=True)
        if problem := chunk_problem(encoded, plan, chunk):
            which = f", stream {stream}," if ladder is not None else ""
            raise PartUnfit(f"{name}{which} {problem}.", index=chunk.index, tail=report.stderr)
    first, last = chunk.start_pts, chunk.last_pts
    return replace(report, frames=chunk.frames, first_pts=first, last_pts=last)


def _read_chunk(job: FfmpegRun, path: Path, streams: str, *, packets: bool) -> EncodedChunk:
    """Read the headers and packets of some streams of a chunk file; raise PartUnfit if ffprobe cannot."""
    encoded = EncodedChunk()
    entries = "stream=codec_name,pix_fmt,width,height,time_base,extradata_hash"
    argv = [
        job.tools.ffprobe, "-v", "error", "-select_streams", streams, "-show_data_hash", "sha256",
        "-show_entries", f"packet=pts,flags:{entries}" if packets else entries,
        "-of", KEYED_BY_KIND, *input_options(str(path)),
    ]  # fmt: skip
    done = run_child(
        argv,
        stop=job.stop,
        limits=with_read_access(PROBE_LIMITS, job.tools, str(path)),
        on_line=encoded.line,
        deadline_s=PROBE_DEADLINE_S,
    )
    if done.returncode != 0 or done.stderr or not encoded.headers:
        why = done.stderr[0] if done.stderr else done.ending
        raise PartUnfit(f"The encoded chunk {path.name} cannot be read: {why}.", tail=done.stderr)
    return encoded


def chunk_problem(encoded: EncodedChunk, plan: ChunkPlan, chunk: Chunk) -> str:
    if encoded.discarded:
        return f"has {encoded.discarded} frames without a display time"
    if len(encoded.pts) != chunk.frames:
        return f"has {len(encoded.pts)} frames, expected {chunk.frames}"
    ratio = encoded.tick / plan.tick
    offsets = [pts * ratio for pts in encoded.pts]
    if any(offset.denominator != 1 for offset in offsets):
        return "has frame times that are not multiples of the source's time base"
    ticks = [chunk.start_pts + int(offset) for offset in offsets]
    if min(ticks) != chunk.start_pts or max(ticks) != chunk.last_pts:
        return f"spans {min(ticks)} to {max(ticks)}, expected {chunk.start_pts} to {chunk.last_pts}"
    if times_sum(ticks) != chunk.times:
        return "has frame times that differ from the source's"
    return ""


def join(
    job: FfmpegRun,
    plan: ChunkPlan,
    chunk_files: Sequence[Path],
    covers: Sequence[Path],
    captions: Sequence[Path],
    on_progress: OnProgress,
) -> EncodeReport:
    """Write `job.request.output` from the chunk files and the source's extracted covers and captions.

    Raises what `Encoder.encode` raises, and PartUnfit if a chunk is missing, the chunks' headers
    differ, or the frame count is not the plan's.
    """
    request = job.request
    with chunk_listing(job, plan, chunk_files) as path:
        video = JoinedVideo(listing=path, offset_s=picture_delay_s(plan, request))
        command = encode_command(job.tools, request, covers, captions, video)
        for levels in level_files(request):
            create_output(levels)
        if level_files(request):
            command += level_outputs(request)
        report = run_with_progress(
            job,
            command,
            request.duration_s,
            on_progress,
            reads=[path, *chunk_files, *covers, *captions],
        )
    if report.frames != plan.frames:
        raise PartUnfit(
            f"The joined chunks of {display_name(request.location)} have {report.frames} frames,"
            f" expected {plan.frames}.",
            tail=report.stderr,
        )
    return report


def picture_delay_s(plan: ChunkPlan, request: EncodeRequest) -> Fraction:
    """Return how many seconds after the start of the mapped streams the first frame is shown.

    ffmpeg shifts the source so that it starts at 0. The chunks start at 0 as well, so they must be delayed by
    this time.
    """
    start_s = request.info.origin_s(request.plan.mapped)
    start = Fraction(round(start_s * 1_000_000), 1_000_000)
    return plan.chunks[0].start_pts * plan.tick - start


def _require_same_headers(job: FfmpegRun, plan: ChunkPlan, chunk_files: Sequence[Path]) -> None:
    """Raise PartUnfit unless all chunks have the same headers: the join keeps those of the first chunk."""
    first = ""
    for chunk, path in zip(plan.chunks, chunk_files, strict=True):
        if not path.is_file():
            raise PartUnfit(f"Chunk {chunk.index + 1} is missing.", index=chunk.index)
        headers = _read_chunk(job, path, "v", packets=False).headers
        first = first or headers
        if headers != first:
            raise PartUnfit(
                f"Chunk {chunk.index + 1} has other headers than chunk 1: {headers}, not {first}.",
                index=chunk.index,
            )


@contextlib.contextmanager
def chunk_listing(job: FfmpegRun, plan: ChunkPlan, chunk_files: Sequence[Path]) -> Iterator[Path]:
    """Yield the concat list of all chunks; raise PartUnfit if one is missing or has other headers."""
    output, name = job.request.output, display_name(job.request.location)
    if len(chunk_files) != len(plan.chunks):
        raise PartUnfit(f"{name} has {len(chunk_files)} chunk files, expected {len(plan.chunks)}.")
    _require_same_headers(job, plan, chunk_files)
    content = concat_list(plan, [path.absolute() for path in chunk_files])
    descriptor, name = tempfile.mkstemp(prefix=".parts-", suffix=".ffconcat", dir=output.parent)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield path
    finally:
        path.unlink(missing_ok=True)


SEEKS_BY_PTS = frozenset({"mov"})
"""Demuxers that seek by presentation time (AVFMT_SEEK_TO_PTS)."""
REORDERED_S = 3 / 23
"""Seconds by which ffmpeg seeks earlier in other demuxers if a stream has reordered frames
(`ffmpeg_opt.c`, open_input_file)."""


def keyframes(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    ladder: Ladder | None,
    stop: threading.Event,
) -> KeyIndex:
    video = next(iter(info.of_kind(StreamKind.VIDEO)), None)
    if video is None:
        raise SourceUnreadable(f"{display_name(location)} has no video stream.")
    packets, problems = frame_packets(tools, location, video.index, stop)
    index = build_key_index(video, info, packets, problems)
    if ladder is None:
        return index
    sizes = _sizes_by_pts(packets)
    return index_by_grid(index, sorted(sizes), sizes, ladder)


def _sizes_by_pts(packets: Packets) -> dict[int, int]:
    """Return the bytes of each displayed frame by its presentation time."""
    timed = (number for number in packets.shown if packets.pts[number] != NO_TIME)
    return {packets.pts[number]: packets.sizes[number] for number in timed}


def build_key_index(
    video: Stream, info: MediaInfo, packets: Packets, problems: tuple[str, ...] = ()
) -> KeyIndex:
    """Return the key-frame index of a video's packets; `problems` are ffprobe's errors."""
    demuxer = info.format_name.partition(",")[0]
    shown = sorted(packets.pts[number] for number in packets.shown)
    missing = shown.count(NO_TIME)
    del shown[:missing]
    margin_s = 0.0 if demuxer in SEEKS_BY_PTS or not packets.reordered else REORDERED_S
    return KeyIndex(
        stream_index=video.index,
        time_base=video.time_base,
        keys=_cut_points(packets, shown, video.tick, margin_s),
        end_pts=packets.end or 0,
        frames=len(shown),
        problem="missing_times" if missing else _index_problem(packets, shown, problems),
    )


def _index_problem(packets: Packets, shown: list[int], problems: tuple[str, ...]) -> str:
    """Return why times or key frames cannot be trusted, in a word for the log, or ""."""
    unique = all(before < after for before, after in pairwise(shown))
    if problems or not unique or min(packets.steps(), default=1) <= 0:
        return "broken_times"
    starts_with_key = bool(packets.keys) and packets.pts[packets.keys[0]] in shown[:1]
    # Its key frame may also be hidden by an edit list.
    return "no_first_key" if shown and not starts_with_key and 0 not in packets.hidden else ""


def _cut_points(
    packets: Packets, shown: list[int], tick: Fraction, margin_s: float
) -> tuple[KeyFrame, ...]:
    """Return the key frames in display order, each with the frames up to the next one.

    Leaves out key frames where no cut is possible: those stored before a key frame that is displayed earlier,
    and those among the first frames after an edit list's start. ffmpeg seeks `margin_s` earlier than asked, and
    then back to a key frame. So each seek is `margin_s` later than its key frame, but before the next one.
    """
    if not shown:
        return ()
    starts = [shown[0]]
    for number in packets.keys:
        if packets.pts[number] > starts[-1]:
            starts.append(packets.pts[number])
    sizes = _sizes_by_pts(packets)
    borders = [bisect_left(shown, pts) for pts in starts] + [len(shown)]
    keys = []
    for place, (first, end) in enumerate(pairwise(borders)):
        frames, pts = shown[first:end], starts[place]
        delay_s = margin_s
        if end < len(shown):
            delay_s = min(margin_s, float((starts[place + 1] - pts) * tick) / 2)
        keys.append(
            KeyFrame(
                pts=pts,
                bytes_until_next=sum(sizes[frame] for frame in frames),
                frames_until_next=len(frames),
                last_pts=frames[-1],
                times=times_sum(frames),
                seek_s=float(pts * tick) + delay_s,
            )
        )
    return tuple(keys)
