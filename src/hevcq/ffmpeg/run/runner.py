"""Run ffmpeg on one video within the profile's bounds, follow its progress, and raise what its exit means."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.domain.formats import HARDWARE
from hevcq.errors import (
    DiskFull,
    EncoderFailed,
    HevcqError,
    LimitExceeded,
    OutOfMemory,
    SourceGone,
    SourceUnreadable,
    Unavailable,
    WorkerUnfit,
    is_full,
)
from hevcq.ffmpeg.command.build import QUIET, ROOM, cover_commands
from hevcq.ffmpeg.command.thumbnails import MAX_RATE, RECORD_BYTES, level_files, thumbnail_files
from hevcq.ffmpeg.inputs import (
    PROBE_DEADLINE_S,
    PROBE_LIMITS,
    FfmpegTools,
    access_to,
    display_name,
    input_options,
    with_read_access,
)
from hevcq.ffmpeg.process.child import Finished, run_child
from hevcq.ffmpeg.process.limits import StallWatchdog, limits_of
from hevcq.ffmpeg.run.messages import FfmpegExit, Pass, exit_error, split_messages, without_secrets
from hevcq.ports.encoder import EncodeProgress, EncodeReport, EncodeRequest, OnProgress

OUTPUT_SLACK = 64 * 2**20
MAX_OUTPUT_RATIO, MAX_LADDER_RATIO = 2.0, 8.0
"""An output may have this multiple of the source's bytes, plus the slack; a ladder has several files."""
RECOGNISED_BY_TEXT = (
    DiskFull, LimitExceeded, OutOfMemory, SourceGone, SourceUnreadable, Unavailable, WorkerUnfit,
)  # fmt: skip
"""Errors that ffmpeg's messages reveal and that the video's content does not cause."""
NEARLY_DONE = 0.97
"""Fraction of the encode from which a change of the file is progress: ffmpeg moves the index to the front."""


@dataclass(frozen=True, slots=True)
class FfmpegRun:
    """The request of a command, and the kind of run, which decides which messages are harmless."""

    tools: FfmpegTools
    request: EncodeRequest
    stop: threading.Event
    ffmpeg_pass: Pass = Pass.ENCODE


@contextlib.contextmanager
def new_output(request: EncodeRequest) -> Iterator[None]:
    create_output(request.output)
    try:
        yield
    except BaseException:
        for path in (request.output, *thumbnail_files(request), *level_files(request)):
            path.unlink(missing_ok=True)
        raise


def create_output(path: Path) -> None:
    """Create the empty file that ffmpeg will overwrite, because its sandbox lets it create none.

    Raises EncoderFailed if it exists, and DiskFull. ffmpeg itself reports any other problem.
    """
    try:
        path.touch(exist_ok=False)
    except FileExistsError as error:
        raise EncoderFailed(f"{path} exists already and is not overwritten.") from error
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"There is no room to create {path}.") from error


@contextlib.contextmanager
def extracted_covers(job: FfmpegRun) -> Iterator[list[Path]]:
    covers: list[Path] = []
    try:
        folder = job.request.output.parent
        for command, path in cover_commands(job.tools, job.request, folder):
            create_output(path)
            covers.append(path)
            run_bounded(job, command, writes=[path])
        yield covers
    finally:
        for path in covers:
            path.unlink(missing_ok=True)


def run_bounded(
    job: FfmpegRun,
    command: list[str],
    *,
    writes: Iterable[Path],
    reads: Iterable[Path] = (),
    on_line: Callable[[str], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Finished:
    """Run one command within the profile's bounds.

    It may read the source and `reads`, and overwrite `writes`, which exist. It can create no file.

    Raises the error that its exit means (see `exit_error`), LimitExceeded, EncoderStalled or Stopped.
    """
    request = job.request
    thumbnails = int((request.duration_s or 0.0) * MAX_RATE) * RECORD_BYTES
    largest = max(max_output_bytes(request), thumbnails)
    access = access_to(job.tools, request.location, *(str(path) for path in reads), writes=writes)
    limits = replace(limits_of(request.profile.bounds, output_bytes=largest), access=access)
    encoder = request.plan.video.encoder
    if encoder in HARDWARE:
        # No memory limit: a driver maps the device's memory, far more than it uses.
        nodes = HARDWARE[encoder][0].nodes
        reached = replace(access, devices=nodes, drivers=job.tools.drivers)
        limits = replace(limits, access=reached, memory_mib=None)
    try:
        finished = run_child(
            command,
            stop=job.stop,
            limits=limits,
            on_line=on_line,
            deadline_s=request.max_seconds,
            check=check,
        )
    except LimitExceeded as error:
        raise LimitExceeded(f"{display_name(request.location)}: {error.message}") from error
    except EncoderFailed as error:
        if error.returncode is None:  # it stalled
            raise
        # Killed from outside: raise it again with the video's name and the command.
        memory_ran_out = isinstance(error, OutOfMemory)
        problem = _error_of_exit(
            job, command, error.returncode, error.tail, memory_ran_out=memory_ran_out
        )
        raise problem or error from error
    problem = _error_of_exit(job, command, finished.returncode, finished.stderr)
    if problem is not None:
        raise problem
    return replace(finished, stderr=without_secrets(finished.stderr, request.location))


def _error_of_exit(
    job: FfmpegRun,
    command: list[str],
    returncode: int,
    stderr: tuple[str, ...],
    *,
    memory_ran_out: bool = True,
) -> HevcqError | None:
    """Return the error that an exit means, without secrets in its text; None after success."""
    location = job.request.location
    run = FfmpegExit(
        command=without_secrets(command, location),
        location=location,
        info=job.request.info,
        returncode=returncode,
        stderr=without_secrets(stderr, location),
        ffmpeg_pass=job.ffmpeg_pass,
        memory_ran_out=memory_ran_out,
    )
    problem = exit_error(run)
    if returncode > 0 and isinstance(problem, RECOGNISED_BY_TEXT):
        return exit_error(replace(run, source_texts=_source_texts(job)))
    return problem


def _source_texts(job: FfmpegRun) -> frozenset[str]:
    """Return the messages that ffprobe prints when it only opens the source, as `split_messages` splits them.

    A tag may read like an error of this machine, and even contain line breaks. Called only after a
    failure; empty if the source cannot be opened.
    """
    location = job.request.location
    argv = [job.tools.ffprobe, *QUIET[-2:], *input_options(location)]
    try:
        opened = run_child(
            argv,
            stop=job.stop,
            limits=with_read_access(PROBE_LIMITS, job.tools, location),
            deadline_s=PROBE_DEADLINE_S,
        )
    except (EncoderFailed, LimitExceeded):
        return frozenset()
    lines = without_secrets(opened.stderr, location) if opened.returncode == 0 else ()
    return frozenset(split_messages(lines, location)[::2])  # every second part is a separator


def run_with_progress(
    job: FfmpegRun,
    command: list[str],
    duration_s: float | None,
    on_progress: OnProgress,
    *,
    reads: Iterable[Path] = (),
    writes: Iterable[Path] = (),
) -> EncodeReport:
    """Run a command that prints its progress; end it if it stalls or its output grows too large.

    `duration_s` is the expected length of the output. The command also reads `reads`, and overwrites
    `writes`, by default the request's output, thumbnails and levels. Raises what `run_bounded` raises.
    """
    request, reader = job.request, ProgressReader(duration_s)
    name, max_bytes = display_name(request.location), max_output_bytes(request)
    stall = StallWatchdog(request.profile.bounds.stall_s, job.tools.clock)

    def on_line(line: str) -> None:
        state = reader.feed(line)
        if state is None:
            return
        if state.size > max_bytes:
            raise LimitExceeded(
                f"The rendition of {name} grew past {max_bytes >> 20} MiB, far above its source."
            )
        on_progress(state)

    def check() -> None:
        last, file_state = reader.last, None
        if last.fraction >= NEARLY_DONE:
            with contextlib.suppress(OSError):
                facts = request.output.stat()
                file_state = (facts.st_size, facts.st_mtime_ns)
        state = (last.out_time_s, last.frame, file_state)
        stall.check(state, f"ffmpeg made no progress on {name}")

    written = tuple(writes) or (request.output, *thumbnail_files(request), *level_files(request))
    finished = run_bounded(job, command, writes=written, reads=reads, on_line=on_line, check=check)
    shown = [word.rstrip(".") if ROOM in word else word for word in command]
    return EncodeReport(
        arguments=without_secrets(shown, request.location),
        seconds=finished.seconds,
        cpu_s=finished.cpu_s,
        stderr=finished.stderr,
        frames=reader.last.frame,
    )


def max_output_bytes(request: EncodeRequest) -> int:
    """Return the size in bytes that the output may reach."""
    ratio = MAX_OUTPUT_RATIO if request.plan.ladder is None else MAX_LADDER_RATIO
    return int(request.source_size * ratio) + OUTPUT_SLACK


SPEED_AFTER_S = 2.0
"""Seconds of output until which ffmpeg's speed mostly shows how it fills its buffers."""


class ProgressReader:
    """Reads ffmpeg's progress lines; a block of them ends with `progress=continue` or `progress=end`.

    `duration_s` is the expected length of the output.
    """

    def __init__(self, duration_s: float | None) -> None:
        self._duration_s = duration_s if duration_s and duration_s > 0 else None
        self._block: dict[str, str] = {}
        self.last = EncodeProgress(fraction=0.0, out_time_s=0.0, frame=0, speed=None, size=0)

    def feed(self, line: str) -> EncodeProgress | None:
        """Parse one line; return the progress if the line ends a block. Values never decrease."""
        key, equals, value = line.strip().partition("=")
        if not equals or not key or " " in key:
            return None
        if key != "progress":
            self._block[key] = value.strip()
            return None
        block, last, has_ended = self._block, self.last, value.strip() == "end"
        self._block = {}
        out_time_s = max(last.out_time_s, _number(block.get("out_time_us")) / 1e6)
        speed = _number(block.get("speed", "").rstrip("x"))
        share = out_time_s / self._duration_s if self._duration_s is not None else 0.0
        self.last = EncodeProgress(
            fraction=1.0 if has_ended else min(1.0, max(last.fraction, share)),
            out_time_s=out_time_s,
            frame=max(last.frame, int(_number(block.get("frame")))),
            speed=(speed or None) if has_ended or out_time_s >= SPEED_AFTER_S else None,
            size=max(last.size, int(_number(block.get("total_size")))),
        )
        return self.last


def _number(text: str | None) -> float:
    try:
        number = float(text or "")
    except ValueError:
        return 0.0
    return number if 0 <= number < 1e18 else 0.0
