"""The encoder port by ffmpeg: probe, measure, check, encode, verify."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hevcq.clock import Clock
from hevcq.domain.certificate import GateResult
from hevcq.domain.media import Measurement, MediaInfo
from hevcq.domain.profile import Profile
from hevcq.errors import EncoderFailed, LimitExceeded, WorkerUnfit
from hevcq.ffmpeg.command import cover_commands, encode_command
from hevcq.ffmpeg.doctor import INSTALL, examine
from hevcq.ffmpeg.failure import Ended, failure, without_secrets
from hevcq.ffmpeg.process import ChildLimits, Finished, run_child
from hevcq.ffmpeg.progress import ProgressReader, StallWatch
from hevcq.ffmpeg.tools import Tools, name_of
from hevcq.ports.encoder import (
    Check,
    Encoder,
    EncodeReport,
    EncodeRequest,
    OnProgress,
    VerifyRequest,
)

OUTPUT_SLACK = 64 * 2**20
"""What an output may be beyond max_output_ratio, in bytes; see domain/profile.py Bounds."""
NEARLY_DONE = 0.97
"""From here on the file's own growth counts as progress: the index is being moved to the front."""
QUESTION_S = 30.0


class FfmpegEncoder(Encoder):
    """Encodes with the `ffmpeg` and `ffprobe` programs; one object serves any number of threads."""

    def __init__(self, ffmpeg: str, ffprobe: str, clock: Clock) -> None:
        self._tools = Tools(ffmpeg=ffmpeg, ffprobe=ffprobe, clock=clock)
        self._version = ""

    def version(self) -> str:
        """Return the first line of `ffmpeg -version`; raise WorkerUnfit if it cannot run."""
        if not self._version:
            self._version = self._ask(self._tools.ffmpeg, "-version").partition("\n")[0].strip()
        return self._version

    def doctor(self) -> list[Check]:
        """Return what works and what does not, with a remedy for each."""
        return examine(self._tools, self._ask)

    def probe(self, location: str, *, stop: threading.Event) -> MediaInfo:
        """Return the typed facts of a file; see ports.encoder."""
        from hevcq.ffmpeg.probe import probe

        return probe(self._tools, location, stop)

    def measure(self, location: str, info: MediaInfo, *, stop: threading.Event) -> Measurement:
        """Read every packet once and count what is really there."""
        from hevcq.ffmpeg.measure import measure

        return measure(self._tools, location, info, stop)

    def preflight(
        self, location: str, info: MediaInfo, profile: Profile, *, stop: threading.Event
    ) -> Measurement:
        """Check the source as the profile asks, and measure it; see ports.encoder."""
        from hevcq.ffmpeg.preflight import preflight

        return preflight(self._tools, location, info, profile, stop)

    def encode(
        self, request: EncodeRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> EncodeReport:
        """Encode to `request.output`; on any error the output is removed; see ports.encoder."""
        if request.output.exists():
            raise EncoderFailed(f"{request.output} exists already and is not overwritten.")
        covers: list[Path] = []
        try:
            for command, path in cover_commands(self._tools, request, request.output.parent):
                covers.append(path)
                self._run(request, command, stop)
            return self._encode(request, covers, on_progress, stop)
        except BaseException:
            request.output.unlink(missing_ok=True)
            raise
        finally:
            for path in covers:
                path.unlink(missing_ok=True)

    def verify(
        self, request: VerifyRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> tuple[GateResult, ...]:
        """Run gates G1 to G8 over the output; see ports.encoder."""
        from hevcq.ffmpeg.verify import verify

        return verify(self._tools, request, on_progress, stop)

    def _encode(
        self,
        request: EncodeRequest,
        covers: list[Path],
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> EncodeReport:
        command = encode_command(self._tools, request, covers)
        reader = ProgressReader(request.duration_s)
        watch = _Watch(request, reader, self._tools.clock)

        def on_line(line: str) -> None:
            state = reader.feed(line)
            if state is not None:
                watch.check_size()
                on_progress(state)

        finished = self._run(request, command, stop, on_line=on_line, check=watch.check)
        return EncodeReport(
            arguments=without_secrets(command, request.location),
            seconds=finished.seconds,
            cpu_s=finished.cpu_s,
            stderr=finished.stderr,
            frames=reader.last.frame,
        )

    def _run(
        self,
        request: EncodeRequest,
        command: list[str],
        stop: threading.Event,
        *,
        on_line: Callable[[str], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> Finished:
        """Run one command within the profile's bounds, and raise what its ending means."""
        bounds = request.profile.bounds
        limits = ChildLimits(
            nice=bounds.nice,
            memory_mib=bounds.memory_mib,
            output_bytes=_most_bytes(request),
        )
        try:
            finished = run_child(
                command,
                stop=stop,
                limits=limits,
                on_line=on_line,
                deadline_s=request.max_seconds,
                check=check,
            )
        except LimitExceeded as error:
            raise LimitExceeded(f"{name_of(request.location)}: {error.message}") from error
        finished = replace(finished, stderr=without_secrets(finished.stderr, request.location))
        problem = failure(
            Ended(
                command=without_secrets(command, request.location),
                location=request.location,
                info=request.info,
                returncode=finished.returncode,
                stderr=finished.stderr,
            )
        )
        if problem is not None:
            raise problem
        return finished

    def _ask(self, program: str, *question: str) -> str:
        """Return what a program prints about itself; raise WorkerUnfit if it cannot."""
        answer = run_child(
            [program, *question],
            stop=threading.Event(),
            deadline_s=QUESTION_S,
        )
        if answer.returncode != 0:
            why = answer.stderr[-1] if answer.stderr else f"exit code {answer.returncode}"
            raise WorkerUnfit(f"{program} cannot run: {why}.", remedy=INSTALL)
        return answer.stdout.decode("utf-8", "replace")


class _Watch:
    """Looks at a running encode twice a second: does it move, is it too large?"""

    def __init__(self, request: EncodeRequest, reader: ProgressReader, clock: Clock) -> None:
        self._output = request.output
        self._name = name_of(request.location)
        self._most = _most_bytes(request)
        self._reader = reader
        self._stall = StallWatch(request.profile.bounds.stall_s, clock)

    def check(self) -> None:
        """Raise EncoderStalled if nothing moved for too long."""
        last = self._reader.last
        written = None
        if last.fraction >= NEARLY_DONE:
            with contextlib.suppress(OSError):
                found = self._output.stat()
                written = (found.st_size, found.st_mtime_ns)
        self._stall.check((last.out_time_s, last.frame, written), self._name)

    def check_size(self) -> None:
        """Raise LimitExceeded if the output grew past its bound."""
        if self._reader.last.size > self._most:
            raise LimitExceeded(
                f"The rendition of {self._name} grew past {self._most >> 20} MiB "
                "(bounds.max_output_ratio)."
            )


def _most_bytes(request: EncodeRequest) -> int:
    return int(request.source_size * request.profile.bounds.max_output_ratio) + OUTPUT_SLACK
