"""Gate G4: decode the whole output; the same decode yields the thumbnails that G8 judges."""

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
from hevcq.ffmpeg.command.filters import uncropped
from hevcq.ffmpeg.command.levels import output_levels, source_levels
from hevcq.ffmpeg.command.thumbnails import (
    output_graph,
    source_graph,
    thumbnail_output,
)
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
"""Pictures up to which one thread decodes: of 360 lines each further one adds a fifth of CPU time, and
one alone decodes them 40 times as fast as they play."""
ALONE = "dovi_rpu=compression=none,filter_units=pass_types=62"
"""Leave each picture's metadata alone of a stream (HEVC's NAL type 62), written in one way: by its contents
two differ then, and not by what writes them."""
_DISPLAY = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
REWRITTEN = [
    *("-vf", "scale=64:64", "-fps_mode", "passthrough", "-c", "libx265", "-preset", "ultrafast"),
    *(DOLBY_OPTION, "1", "-x265-params"),
    f"log-level=error:bframes=0:vbv-maxrate=20000:vbv-bufsize=20000:{_DISPLAY}",
]
"""Decode, and encode pictures of a stamp's size: each one's metadata is written as HEVC then, which AV1
wraps in another way. x265 asks for a rate and, of films, for a display."""
Metadata = Sequence[tuple[int, str]]
"""The time of each picture that has some, and its digest, by time."""
EVERYTHING = ("-map", "0:v?", "-map", "0:a?")
MAX_LEVEL_BYTES = 1 << 30
"""Size up to which a file of levels is written: a day of 5.1."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Where the thumbnails of one video stream of the output go as it is decoded."""

    stream: int
    on_bytes: Callable[[bytes], None]
    rate: str = ""
    """Frame rate at which repeated pictures, which the file leaves out, are put back."""
    pixels: int = 0
    """Pixels of a picture; 0 if they are not known."""


def decode_problems(
    tools: FfmpegTools,
    request: VerifyRequest,
    stop: threading.Event,
    decoded: Decoded | None,
    *,
    deadline_s: float,
    levels: Sequence[tuple[Stream, Path]] | None = (),
) -> list[str]:
    """G4: decode all video and audio of the output; every error line is a problem.

    The levels of some of its sounds are written on the way, to files that exist. With None for them
    nothing is decoded but the video of the thumbnails.

    With x265's `hash=1` (encoder_params) each picture carries its MD5, and the decoder compares it:
    a single flipped bit in any picture is found. Without it most flips in HEVC decode to a wrong
    picture without an error.
    """
    argv = [
        tools.ffmpeg, "-v", "error", "-nostdin", "-nostats", "-xerror", "-y",
        "-err_detect:v", "crccheck", *_threads(decoded),
        *uncropped(request.info), *input_options(str(request.output)),
    ]  # fmt: skip
    if levels is not None:
        # Not for sound: in a container's ticks short packets (TrueHD: 0.8 ms) have equal times, a line each.
        argv += [
            *EVERYTHING,
            "-fps_mode",
            "passthrough",
            "-enc_time_base:v",
            FINE_TICK,
            "-f",
            "null",
            "-",
        ]
    if decoded is not None:
        argv += thumbnail_output(decoded.stream, output_graph(decoded.rate), "pipe:1")
    argv += [word for stream, path in levels or () for word in output_levels(stream, path)]
    done = stream_child(
        argv,
        stop=stop,
        limits=_writing(tools, request, str(request.output), [path for _, path in levels or ()]),
        on_chunk=decoded.on_bytes if decoded is not None else lambda _chunk: None,
        deadline_s=deadline_s,
    )
    return list(decode_errors(done.stderr, done.returncode))


def _threads(decoded: Decoded | None) -> list[str]:
    """Return how many threads decode and filter; slices of thumbnails cost more to hand out than to filter."""
    small = decoded is not None and 0 < decoded.pixels <= ONE_THREAD_PIXELS
    return ["-filter_threads", "1", *(["-threads", "1"] if small else [])]


@contextmanager
def source_thumbnails(
    tools: FfmpegTools,
    request: VerifyRequest,
    kept: StreamPlan,
    stop: threading.Event,
    *,
    deadline_s: float,
) -> Iterator[Callable[[int], bytes]]:
    """Yield a reader of the thumbnails of the source's pictures.

    They are those that the encode wrote, or else the source is decoded for them: no encode is known
    when two files are compared.
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
            deadline_s=deadline_s,
        )
        require_success(argv, done, request, request.location)
        file.seek(0)
        yield file.read


@contextmanager
def new_level_files(count: int, written: Sequence[Path] = ()) -> Iterator[list[Path]]:
    """Yield so many empty files for levels, and remove them at the end.

    Beside those that the encode has written: the system's own folder may lie in memory.
    """
    place = written[0].parent if written else None
    with tempfile.TemporaryDirectory(prefix="hevcq-levels-", dir=place) as folder:
        paths = [Path(folder) / str(number) for number in range(count)]
        for path in paths:
            path.touch()
        yield paths


@contextmanager
def level_files_of(
    tools: FfmpegTools,
    request: VerifyRequest,
    tracks: Sequence[StreamPlan],
    written: Sequence[Path],
    stop: threading.Event,
    *,
    deadline_s: float,
) -> Iterator[Sequence[Path]]:
    """Yield the files of levels of the source's sounds: those that the encode has `written`, or new ones.

    No encode is known when two files are compared.
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
        limits = _writing(tools, request, request.location, paths)
        done = run_child(argv, stop=stop, limits=limits, deadline_s=deadline_s)
        require_success(argv, done, request, request.location)
        yield paths


def _writing(
    tools: FfmpegTools, request: VerifyRequest, location: str, paths: Sequence[Path]
) -> ChildLimits:
    limits = limits_of(request.profile.bounds, output_bytes=MAX_LEVEL_BYTES if paths else 0)
    return replace(limits, access=access_to(tools, location, writes=paths))


def require_success(
    argv: Sequence[str], done: Finished, request: VerifyRequest, location: str
) -> None:
    """Raise what a failed decode of `location` means: half a comparison proves nothing."""
    if done.returncode == 0:
        return
    ended = FfmpegExit(
        command=without_secrets(argv, location),
        location=location,
        info=request.info,
        returncode=done.returncode,
        stderr=without_secrets(done.stderr, location),
        ffmpeg_pass=Pass.DECODE,
    )
    if (error := exit_error(ended)) is not None:
        raise error


def metadata_of(
    tools: FfmpegTools, location: str, stream: Stream, profile: Profile, stop: threading.Event
) -> Metadata | None:
    """Return the metadata of a stream's pictures; None if it cannot be read."""
    how = REWRITTEN if stream.codec == VideoCodec.AV1 else ["-c", "copy"]
    words = [*input_options(location), "-map", f"0:{stream.index}", *how, "-bsf", ALONE]
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


def dolby_problem(before: Metadata | None, after: Metadata | None, frames: int) -> str:
    """Return how the metadata of a rendition of so many frames differs from its source's, or "".

    An edit list hides pictures at both ends, which are before 0 there, or are left over.
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
    for number, ((_, made), wanted) in enumerate(zip(after, shown, strict=False)):
        if made != wanted:
            return f"the Dolby Vision metadata of frame {number} is not the source's"
    return ""
