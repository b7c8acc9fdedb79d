"""Implement the encoder port with the ffmpeg and ffprobe programs."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hevcq.domain.certificate import GateResult, Sidecar
from hevcq.domain.chunking import Chunk, ChunkPlan, KeyIndex
from hevcq.domain.formats import SOFTWARE
from hevcq.domain.media.facts import Chapter, Measurement, MediaInfo
from hevcq.domain.planning.encode_plan import Ladder
from hevcq.domain.planning.metadata import needs_carrying
from hevcq.domain.profile import Profile
from hevcq.domain.quality import Aim
from hevcq.errors import SourceDamaged, SourceGone, SourceUnreadable, WorkerUnfit
from hevcq.ffmpeg import self_test
from hevcq.ffmpeg.chunking import chunk_command, encode_chunk, join, keyframes
from hevcq.ffmpeg.command.build import encode_command
from hevcq.ffmpeg.command.levels import level_outputs
from hevcq.ffmpeg.command.thumbnails import level_files, thumbnail_files, thumbnail_outputs
from hevcq.ffmpeg.inputs import (
    FfmpegTools,
    require_encoder_support,
    with_aspect_support,
    with_dolby_support,
    with_read_access,
)
from hevcq.ffmpeg.inspect.damage import locate_damage
from hevcq.ffmpeg.inspect.joined import prepare_recording
from hevcq.ffmpeg.inspect.measure import measure, probe_and_measure
from hevcq.ffmpeg.inspect.preflight import preflight
from hevcq.ffmpeg.inspect.texts import (
    copy_sample,
    extracted_captions,
    read_sidecars,
    read_still,
    read_texts,
)
from hevcq.ffmpeg.probe.probe import probe
from hevcq.ffmpeg.process.child import Finished, run_child
from hevcq.ffmpeg.process.limits import NO_LIMITS
from hevcq.ffmpeg.run.messages import Pass
from hevcq.ffmpeg.run.runner import (
    FfmpegRun,
    create_output,
    extracted_covers,
    new_output,
    run_with_progress,
)
from hevcq.ffmpeg.self_test import INSTALL, LET_OUT, SelfTestRecord
from hevcq.ports.catalog import Spot
from hevcq.ports.encoder import (
    TRIMMED,
    Encoder,
    EncodeReport,
    EncodeRequest,
    Estimate,
    FramePairs,
    OnProgress,
    TextTrack,
    TrimmedSource,
    VerifyRequest,
)
from hevcq.util.clock import Clock

if TYPE_CHECKING:
    from hevcq.ffmpeg.hardware import Devices
    from hevcq.ffmpeg.verify.quality import LearnedCrfs

MIN_LEFT_S = 1.0
"""Shortest time in seconds for a forecast's quality search, even when reading the file used up its time limit."""
QUESTION_S = 30.0
"""Time limit in seconds for a program to list its version, encoders or filters."""


class FfmpegEncoder(Encoder):
    """Encodes with the `ffmpeg` and `ffprobe` programs. Thread-safe."""

    def __init__(
        self,
        ffmpeg: str,
        ffprobe: str,
        clock: Clock,
        *,
        sandboxed: bool = True,
        passes: Path | None = None,
        metric: str = "",
    ) -> None:
        """Use these programs.

        The folder `passes` keeps which profiles passed their self-test, and the CRFs that searches found. All
        processes of a machine share it. `metric` is an ffmpeg that measures VMAF, if the settings name one.
        """
        self._tools = FfmpegTools(ffmpeg, ffprobe, clock, sandboxed, metric)
        self._self_tests = SelfTestRecord(passes)
        self._passes = passes
        self._files: tuple[str, ...] = ()
        self._version_output = ""

    def with_drivers(self, drivers: Mapping[str, str]) -> Self:
        """Let these environment variables choose the driver of graphics hardware; return this encoder."""
        self._tools = replace(self._tools, drivers=tuple(drivers.items()))
        return self

    def version(self) -> str:
        """Return the first line of `ffmpeg -version`; raise WorkerUnfit if it cannot run or is too old."""
        return self._local_version()

    def _local_version(self) -> str:
        """Return the version of this machine's ffmpeg, even if another machine encodes."""
        FfmpegEncoder.build(self)
        return self._version_output.partition("\n")[0].strip()

    def build(self) -> str:
        """Return the identity of both programs: their files, and the output of `ffmpeg -version`."""
        files = tuple(map(_file_identity, (self._tools.ffmpeg, self._tools.ffprobe)))
        if not self._version_output or files != self._files:
            output = self._ask(self._tools.ffmpeg, "-version")
            self_test.require_supported_version(output.partition("\n")[0].strip())
            self._files, self._version_output = files, output
        return "\n".join((*files, f"sandboxed: {self._tools.sandboxed}", self._version_output))

    def checks(self) -> Mapping[str, Callable[[], str]]:
        return {**self_test.checks(self._tools, self._ask), "quality": self._quality_check}

    def _quality_check(self) -> str:
        try:
            return f"VMAF is measured by {self._metric}"
        except WorkerUnfit as error:
            if self._tools.metric:
                raise
            return f"{error.message} {error.remedy}"

    def write_test_clip(self, target: Path) -> None:
        self_test.write_test_clip(self._tools, target)

    def still(self, location: str, *, width: int, stop: threading.Event) -> bytes:
        return read_still(self._tools, location, width, stop)

    def cut_sample(
        self, location: str, target: Path, *, at_s: float, seconds: float, stop: threading.Event
    ) -> None:
        copy_sample(self._tools, location, target, (at_s, seconds), stop)

    def texts(
        self, location: str, *, stop: threading.Event
    ) -> tuple[Sequence[TextTrack], Sequence[Chapter]]:
        return read_texts(self._tools, location, stop)

    def read_sidecars(
        self, request: EncodeRequest, *, stop: threading.Event
    ) -> tuple[Sidecar, ...]:
        return read_sidecars(self._tools, request, stop)

    def self_test(
        self, profile: Profile, folder: Path, *, stop: threading.Event, again: bool = False
    ) -> None:
        self.require_metric(profile)
        build = self.build()
        if not again and self._self_tests.has_passed(profile, build):
            return
        try:
            self_test.self_test(self, profile, folder, stop)
        except WorkerUnfit:
            self._self_tests.forget(profile, build)
            raise
        self._self_tests.add(profile, build)

    def proven(self, profiles: Iterable[Profile]) -> tuple[Profile, ...]:
        build = self.build()  # once, because it searches the PATH for two programs
        return tuple(each for each in profiles if self._self_tests.has_passed(each, build))

    def probe(self, location: str, *, stop: threading.Event, quick: bool = False) -> MediaInfo:
        with self._tested_on_error(stop):
            return self._with_build_support(probe(self._tools, location, stop, quick=quick))

    def look(self, location: str, *, stop: threading.Event) -> tuple[MediaInfo, Measurement | None]:
        with self._tested_on_error(stop):
            info, measured = probe_and_measure(self._tools, location, stop)
            return self._with_build_support(info), measured

    def _with_build_support(self, info: MediaInfo) -> MediaInfo:
        return with_dolby_support(self._help, with_aspect_support(self._local_version, info))

    def trim_recording(
        self,
        location: str,
        info: MediaInfo,
        folder: Path,
        *,
        stop: threading.Event,
    ) -> TrimmedSource | None:
        if info.format_name not in TRIMMED:
            return None
        return prepare_recording(self._tools, location, info, folder, stop)

    def measure(self, location: str, info: MediaInfo, *, stop: threading.Event) -> Measurement:
        with self._tested_on_error(stop):
            return measure(self._tools, location, info, stop)

    def preflight(
        self,
        location: str,
        info: MediaInfo,
        profile: Profile,
        *,
        stop: threading.Event,
        looked: Measurement | None = None,
    ) -> Measurement:
        with self._tested_on_error(stop):
            return preflight(self._tools, location, info, profile, stop, looked)

    def locate_damage(self, location: str, *, stop: threading.Event) -> tuple[Spot, ...]:
        return locate_damage(self._tools, location, stop)

    def find_quality(
        self, request: EncodeRequest, *, stop: threading.Event, exact: bool = False
    ) -> Aim | str:
        return self._search_quality(request, stop, exact=exact)[0]

    def _search_quality(
        self, request: EncodeRequest, stop: threading.Event, *, exact: bool
    ) -> tuple[Aim | str, Estimate | None]:
        """Return the aim, or why none was searched, and the samples' estimate of the whole at its CRF."""
        from hevcq.ffmpeg.verify import quality

        reason = quality.reason_not_searched(request)
        if reason:
            return reason, None
        require_encoder_support(self._help, request.plan)
        job = FfmpegRun(self._tools, request, stop, Pass.MIDSTREAM)
        target = request.plan.video
        kind = f"crfs-{request.profile.revision}-{min(target.width, target.height)}"
        crfs = self._learned.crfs(kind)
        aim, estimated = quality.find_quality(job, self._metric, crfs, exact=exact)
        if isinstance(aim, Aim) and not aim.out_of_reach:
            self._learned.note(kind, aim.crf)
        return aim, estimated

    @cached_property
    def _learned(self) -> LearnedCrfs:
        from hevcq.ffmpeg.verify.quality import LearnedCrfs

        return LearnedCrfs(self._passes)

    def estimate(
        self, request: EncodeRequest, count: int, *, stop: threading.Event
    ) -> Estimate | None:
        from hevcq.ffmpeg.verify.samples import estimate

        clock = self._tools.clock
        until = clock.monotonic() + request.max_seconds
        if not request.measured.tracks:
            measured = self.measure(request.location, request.info, stop=stop)
            left_s = max(MIN_LEFT_S, until - clock.monotonic())
            request = replace(request, measured=measured, max_seconds=left_s)
            if request.profile.video.quality is not None:
                aim, estimated = self._search_quality(request, stop, exact=True)
                left_s = until - clock.monotonic()
                if isinstance(aim, Aim) or left_s <= 0:
                    return estimated
                request = replace(request, max_seconds=left_s)
        return estimate(FfmpegRun(self._tools, request, stop, Pass.MIDSTREAM), count)

    def check_quality(self, request: VerifyRequest, *, stop: threading.Event) -> float | None:
        from hevcq.ffmpeg.verify.quality import check_quality

        return check_quality(self._tools, request, self._metric, stop)

    def frame_pairs(self, request: VerifyRequest, *, stop: threading.Event) -> FramePairs:
        from hevcq.ffmpeg.verify.compare import MeasuredPairs
        from hevcq.ffmpeg.verify.quality import compared_tracks

        metric = ""
        with suppress(WorkerUnfit):
            metric = self._metric
        return MeasuredPairs(
            self._tools, request, metric, *compared_tracks(self._tools, request, stop)
        )

    def require_metric(self, profile: Profile) -> None:
        if profile.video.quality is not None:
            _ = self._metric

    @cached_property
    def _metric(self) -> str:
        from hevcq.ffmpeg.verify.quality import metric_program

        return metric_program(
            self._tools, lambda program: self._ask(program, "-hide_banner", "-filters")
        )

    def encode(
        self, request: EncodeRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> EncodeReport:
        if request.plan.ladder is not None:
            from hevcq.ffmpeg.hls.encode import encode_set

            require_encoder_support(self._help, request.plan)
            return encode_set(self._tools, request, on_progress, stop)
        if request.profile.video.encoder == (SOFTWARE,):
            return self._encode(request, on_progress, stop)
        from hevcq.ffmpeg.hardware import encode_on_device

        return encode_on_device(
            self._devices, request, lambda each: self._encode(each, on_progress, stop), stop
        )

    @cached_property
    def _devices(self) -> Devices:
        from hevcq.ffmpeg.hardware import Devices, trial

        return Devices(lambda name, stop: trial(self._tools, name, stop), self._tools.clock)

    def _encode(
        self, request: EncodeRequest, on_progress: OnProgress, stop: threading.Event
    ) -> EncodeReport:
        require_encoder_support(self._help, request.plan)
        job = FfmpegRun(self._tools, request, stop)
        with (
            new_output(request),
            extracted_covers(job) as covers,
            extracted_captions(self._tools, request, stop) as captions,
        ):
            command = encode_command(self._tools, request, covers, captions)
            thumbnails, levels = thumbnail_files(request), level_files(request)
            for path in (*thumbnails, *levels):
                create_output(path)
            command += [*(level_outputs(request) if levels else ()), *thumbnail_outputs(request)]
            reads = [*covers, *captions]
            report = run_with_progress(job, command, request.duration_s, on_progress, reads=reads)
            _carry_metadata(request)
            return replace(report, thumbnails=thumbnails, levels=levels)

    def keyframes(
        self,
        location: str,
        info: MediaInfo,
        *,
        stop: threading.Event,
        ladder: Ladder | None = None,
    ) -> KeyIndex:
        with self._tested_on_error(stop):
            return keyframes(self._tools, location, info, ladder, stop)

    def encode_chunk(
        self,
        request: EncodeRequest,
        chunk_plan: ChunkPlan,
        chunk: Chunk,
        *,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> EncodeReport:
        require_encoder_support(self._help, request.plan)
        job = FfmpegRun(
            self._tools, request, stop, Pass.ENCODE if chunk.seek_s is None else Pass.MIDSTREAM
        )
        with new_output(request):
            if request.plan.ladder is None:
                command = chunk_command(self._tools, request, chunk_plan, chunk)
            else:
                from hevcq.ffmpeg.hls.chunks import rungs_command

                command = rungs_command(self._tools, request, chunk_plan, chunk)
            return encode_chunk(job, command, chunk_plan, chunk, on_progress)

    def join(
        self,
        request: EncodeRequest,
        chunk_plan: ChunkPlan,
        chunk_files: Sequence[Path],
        *,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> EncodeReport:
        job = FfmpegRun(self._tools, request, stop)
        if request.plan.ladder is not None:
            from hevcq.ffmpeg.hls.chunks import join_set

            return join_set(job, chunk_plan, chunk_files, on_progress)
        with (
            new_output(request),
            extracted_covers(job) as covers,
            extracted_captions(self._tools, request, stop) as captions,
        ):
            report = join(job, chunk_plan, chunk_files, covers, captions, on_progress)
            _carry_metadata(request)
            return replace(report, levels=level_files(request))

    def verify(
        self, request: VerifyRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> tuple[GateResult, ...]:
        if request.plan.ladder is not None:
            from hevcq.ffmpeg.hls.verify import verify_set as verify
        else:
            from hevcq.ffmpeg.verify.gates import verify

        with self._tested_on_error(stop):
            gates = verify(self._tools, request, on_progress, stop)
        if any(gate.has_failed for gate in gates):
            self_test.require_working_tools(self._tools, stop)
        if request.report.device:
            from hevcq.ffmpeg.hardware import require_passed_on_device

            require_passed_on_device(self._devices, request, gates)
        return gates

    @contextmanager
    def _tested_on_error(self, stop: threading.Event) -> Iterator[None]:
        """Test ffmpeg and ffprobe themselves before an error of the block blames a video.

        Raises WorkerUnfit instead of SourceGone, SourceUnreadable or SourceDamaged if they do not work.
        """
        try:
            yield
        except (SourceGone, SourceUnreadable, SourceDamaged):
            self_test.require_working_tools(self._tools, stop)
            raise

    def _help(self, encoder: str) -> str:
        return self._ask(self._tools.ffmpeg, "-h", f"encoder={encoder}")

    def _ask(self, program: str, *question: str) -> str:
        """Return a program's output about itself; raise WorkerUnfit if it cannot run."""
        answer = _run_query(self._tools, program, question)
        if answer.returncode != 0:
            why = answer.stderr[-1] if answer.stderr else answer.ending
            unsandboxed = replace(self._tools, sandboxed=False)
            if self._tools.sandboxed and not _run_query(unsandboxed, program, question).returncode:
                raise WorkerUnfit(f"{program} cannot run in the sandbox: {why}.", remedy=LET_OUT)
            raise WorkerUnfit(f"{program} cannot run: {why}.", remedy=INSTALL)
        return answer.stdout.decode("utf-8", "replace")


def _file_identity(program: str) -> str:
    """Return path, size and modification time of a program's file; only the path if there is no file."""
    path = Path(shutil.which(program) or program).resolve()
    try:
        stat = path.stat()
    except OSError:
        return str(path)
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _carry_metadata(request: EncodeRequest) -> None:
    plan = request.plan
    if needs_carrying(plan.muxer, request.info, plan.streams):
        from hevcq.ffmpeg.run.carry import carry_metadata

        carry_metadata(request)


def _run_query(tools: FfmpegTools, program: str, question: Sequence[str]) -> Finished:
    limits = with_read_access(NO_LIMITS, tools)
    stop = threading.Event()
    return run_child([program, *question], stop=stop, limits=limits, deadline_s=QUESTION_S)
