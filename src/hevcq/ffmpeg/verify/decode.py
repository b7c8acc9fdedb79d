"""Gate G4: decode the whole output. The same decode makes the thumbnails and levels that G8 judges."""

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.domain.formats import VideoCodec
from hevcq.domain.media.facts import Stream, StreamKind
from hevcq.domain.planning.encode_plan import StreamPlan
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.command.build import source_input
from hevcq.ffmpeg.command.filters import uncropped_options
from hevcq.ffmpeg.command.levels import output_levels, source_levels
from hevcq.ffmpeg.command.thumbnails import output_graph, source_graph, thumbnail_output
from hevcq.ffmpeg.inputs import (
    DOLBY_OPTION,
    FINE_TICK,
    FfmpegTools,
    access_to,
    input_options,
    with_read_access,
)
from hevcq.ffmpeg.inspect.bars_and_loudness import run_filters
from hevcq.ffmpeg.process.child import Finished, run_child, stream_child
from hevcq.ffmpeg.process.limits import ChildLimits, limits_of
from hevcq.ffmpeg.run.messages import FfmpegExit, Pass, decode_errors, exit_error, without_secrets
from hevcq.ports.encoder import VerifyRequest

ONE_THREAD_PIXELS = 640 * 480
"""Frame size up to which one thread decodes. In 360p each further thread adds a fifth to the CPU time, and
one thread decodes 40 times as fast as the video plays."""
ONLY_RPU = "dovi_rpu=compression=none,filter_units=pass_types=62"
"""Keep only each frame's Dolby Vision metadata (HEVC's NAL type 62), in one normal form, so that two differ by
their content and not by the program that wrote them."""
_DISPLAY = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
AS_HEVC = [
    *("-vf", "scale=64:64", "-fps_mode", "passthrough", "-c", "libx265", "-preset", "ultrafast"),
    *(DOLBY_OPTION, "1", "-x265-params"),
    f"log-level=error:bframes=0:vbv-maxrate=20000:vbv-bufsize=20000:{_DISPLAY}",
]
"""Encode the frames as tiny HEVC pictures, which rewrites AV1's form of the metadata as HEVC's. x265 needs a
rate for it and, of films, a mastering display."""
DolbyMetadata = Sequence[tuple[int, str]]
"""Time and metadata digest of each frame that has Dolby Vision metadata, by time."""
MAX_LEVEL_BYTES = 1 << 30
"""Largest level file: one day of 5.1."""


@dataclass(frozen=True, slots=True)
class ThumbnailSink:
    """Receives the thumbnails of one video stream of the output while it is decoded."""

    stream: int
    on_bytes: Callable[[bytes], None]
    rate: str = ""
    """Frame rate at which the repeated frames that the file leaves out are restored; "" for none."""
    pixels: int = 0
    """Pixels of a frame; 0 if unknown."""


def decode_problems(
    tools: FfmpegTools,
    request: VerifyRequest,
    stop: threading.Event,
    thumbnails: ThumbnailSink | None,
    levels: Sequence[tuple[Stream, Path]] | None = (),
) -> list[str]:
    """G4: decode all video and audio of the output, and return the error lines.

    The same run writes thumbnails, and the levels of the given sounds to files that exist. With `levels`
    None it decodes only the video of the thumbnails.

    With x265's `hash=1` (encoder_params) each frame carries its MD5 and the decoder compares it, which
    finds a single flipped bit. Without it most flipped bits in HEVC decode to a wrong picture without
    an error.
    """
    is_small = thumbnails is not None and 0 < thumbnails.pixels <= ONE_THREAD_PIXELS
    argv = [
        tools.ffmpeg, "-v", "error", "-nostdin", "-nostats", "-xerror", "-y",
        # Handing out slices of thumbnails to more threads costs more than to filter them.
        "-err_detect:v", "crccheck", "-filter_threads", "1", *(["-threads", "1"] if is_small else []),
        *uncropped_options(request.info), *input_options(str(request.output)),
    ]  # fmt: skip
    if levels is not None:
        # Of video only: short sound packets (TrueHD: 0.8 ms) would have equal times, and a line for each.
        argv += ["-map", "0:v?", "-map", "0:a?", "-fps_mode", "passthrough"]
        argv += ["-enc_time_base:v", FINE_TICK, "-f", "null", "-"]
    if thumbnails is not None:
        argv += thumbnail_output(thumbnails.stream, output_graph(thumbnails.rate), "pipe:1")
    argv += [word for stream, path in levels or () for word in output_levels(stream, path)]
    done = stream_child(
        argv,
        stop=stop,
        limits=_write_limits(
            tools, request, str(request.output), [path for _, path in levels or ()]
        ),
        on_chunk=thumbnails.on_bytes if thumbnails is not None else lambda _chunk: None,
        deadline_s=request.max_seconds,
    )
    return list(decode_errors(done.stderr, done.returncode))


@contextmanager
def source_thumbnails(
    tools: FfmpegTools, request: VerifyRequest, kept: StreamPlan, stop: threading.Event
) -> Iterator[Callable[[int], bytes]]:
    """Yield a reader of the source's thumbnails.

    The encode wrote them. When two files are compared there was no encode, so the source is decoded.
    """
    place = request.plan.encoded(StreamKind.VIDEO).index(kept)
    files: tuple[Path, ...] = request.report.thumbnails
    if place < len(files) and files[place].is_file():
        with files[place].open("rb", buffering=1 << 16) as file:
            yield file.read
        return
    with tempfile.TemporaryFile() as file:
        target = kept.video or request.plan.video
        argv = [
            tools.ffmpeg, "-v", "error", "-nostdin", "-nostats",
            *source_input(request.location, request.info),
            *thumbnail_output(kept.source_index, source_graph(target), "pipe:1"),
        ]  # fmt: skip
        done = stream_child(
            argv,
            stop=stop,
            limits=with_read_access(limits_of(request.profile.bounds), tools, request.location),
            on_chunk=file.write,
            deadline_s=request.max_seconds,
        )
        require_success(argv, done, request, request.location)
        file.seek(0)
        yield file.read


@contextmanager
def new_level_files(count: int, written: Sequence[Path] = ()) -> Iterator[list[Path]]:
    """Yield `count` empty level files, and remove them at the end.

    They are beside those that the encode has `written`: the system's folder may be in memory.
    """
    place = written[0].parent if written else None
    with tempfile.TemporaryDirectory(prefix="hevcq-levels-", dir=place) as folder:
        paths = [Path(folder) / str(number) for number in range(count)]
        for path in paths:
            path.touch()
        yield paths


@contextmanager
def source_level_files(
    tools: FfmpegTools,
    request: VerifyRequest,
    tracks: Sequence[StreamPlan],
    written: Sequence[Path],
    stop: threading.Event,
) -> Iterator[Sequence[Path]]:
    """Yield the level files of the source's sounds: those that the encode has `written`, or new ones.

    When two files are compared there was no encode, so the source is decoded.
    """
    if len(written) == len(tracks) and all(path.is_file() for path in written):
        yield written
        return
    with new_level_files(len(tracks)) as paths:
        argv = [
            tools.ffmpeg, "-v", "error", "-nostdin", "-nostats", "-y",
            *source_input(request.location, request.info, request.plan.mapped),
        ]  # fmt: skip
        for track, path in zip(tracks, paths, strict=True):
            argv += source_levels(track, request.plan, request.info, path)
        limits = _write_limits(tools, request, request.location, paths)
        done = run_child(argv, stop=stop, limits=limits, deadline_s=request.max_seconds)
        require_success(argv, done, request, request.location)
        yield paths


def _write_limits(
    tools: FfmpegTools, request: VerifyRequest, location: str, paths: Sequence[Path]
) -> ChildLimits:
    limits = limits_of(request.profile.bounds, output_bytes=MAX_LEVEL_BYTES if paths else 0)
    return replace(limits, access=access_to(tools, location, writes=paths))


def require_success(
    argv: Sequence[str], done: Finished, request: VerifyRequest, location: str
) -> None:
    """Raise the error of a failed decode of `location`: half a comparison proves nothing."""
    if done.returncode == 0:
        return
    run = FfmpegExit(
        command=without_secrets(argv, location),
        location=location,
        info=request.info,
        returncode=done.returncode,
        stderr=without_secrets(done.stderr, location),
        ffmpeg_pass=Pass.DECODE,
    )
    if (error := exit_error(run)) is not None:
        raise error


def dolby_metadata(
    tools: FfmpegTools, location: str, stream: Stream, profile: Profile, stop: threading.Event
) -> DolbyMetadata | None:
    """Return the Dolby Vision metadata of a stream's frames; None if it cannot be read."""
    how = AS_HEVC if stream.codec == VideoCodec.AV1 else ["-c", "copy"]
    words = [*input_options(location), "-map", f"0:{stream.index}", *how, "-bsf", ONLY_RPU]
    words += ["-f", "framehash", "-hash", "md5", "-"]
    done = run_filters(tools, location, words, profile, stop)
    if done.returncode != 0:
        return None
    rows = (
        line.split(",")
        for line in done.stdout.decode("ascii", "replace").splitlines()
        if not line.startswith("#")
    )
    return sorted((int(row[2]), row[5].strip()) for row in rows)


def dolby_problem(before: DolbyMetadata | None, after: DolbyMetadata | None, frames: int) -> str:
    """Return how the metadata of a rendition with `frames` frames differs from its source's, or "".

    An edit list may hide frames of the source at both ends. Hidden ones at the start have times below 0;
    at the end more are left.
    """
    if before is None or after is None:
        return "its Dolby Vision metadata cannot be read"
    if not frames or len(after) != frames:
        return f"{len(after)} of its {frames} frames have Dolby Vision metadata"
    shown = [digest for time, digest in before if time >= 0]
    if len(shown) < frames:
        return (
            f"{len(shown)} frames of the source have Dolby Vision metadata, and {frames} of its own"
        )
    for number, ((_, made), source) in enumerate(zip(after, shown, strict=False)):
        if made != source:
            return f"the Dolby Vision metadata of frame {number} is not the source's"
    return ""
