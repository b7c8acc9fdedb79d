"""Measure VMAF on parts of a video: to search the CRF for a target, and to check the rendition.

The measuring program encodes nothing: the x265 of another ffmpeg would encode other pictures than the
worker's.
Frames are paired by their number: a rounded time would pair some with their neighbours, which cost
45 points of the 5th percentile on one file (measured with setpts=N/25/TB).
"""

import importlib
import json
import math
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median_high

from hevcq.domain.media.facts import TrackMeasure
from hevcq.domain.planning.encode_plan import Action, VideoTarget
from hevcq.domain.planning.video import HDR_TRANSFERS
from hevcq.domain.quality import (
    NOT_FOR_HDR,
    SAMPLE_S,
    SCALES,
    USUAL_PROBES,
    Aim,
    Probe,
    Score,
    enough_probes,
    sample_count,
    score_of,
    search,
    size_samples,
    worst_twentieth,
)
from hevcq.errors import (
    EncoderFailed,
    LimitExceeded,
    MediaRefused,
    OutOfMemory,
    PermanentError,
    WorkerUnfit,
)
from hevcq.ffmpeg.command.filters import (
    decoding_options,
    encoder_filters,
    picture_filter,
    uncropped_options,
)
from hevcq.ffmpeg.inputs import (
    FROM_START_S,
    PREROLL_S,
    UNINDEXED_FORMATS,
    FfmpegTools,
    access_to,
    input_options,
    seek_options,
)
from hevcq.ffmpeg.inspect.measure import measure
from hevcq.ffmpeg.probe.probe import probe
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import limits_of
from hevcq.ffmpeg.run.runner import FfmpegRun, create_output, run_with_progress
from hevcq.ffmpeg.verify.samples import (
    Sample,
    add_samples,
    extrapolate,
    number_at,
    packet_sizes,
    sample_command,
    sample_times,
    sample_trim_filter,
)
from hevcq.ffmpeg.verify.streams import output_streams
from hevcq.ports.encoder import EncodeRequest, Estimate, VerifyRequest

MAX_LOG = 16 << 20
"""Largest log of the measuring program in bytes; a frame takes about 700."""
EMPTY_FILE_BYTES = 2048
"""A Matroska file with fewer bytes has no frame."""
UHD_LINES = 2160
"""Lines from which the model for 4K is meant."""
NO_METRIC = "No program measures VMAF, which video.quality needs."
INSTALL = (
    "Run `pipx inject hevcq imageio-ffmpeg` (68 MB; `pip install` it where pip installed hevcq), or set"
    " metric_ffmpeg to an ffmpeg with libvmaf."
)
_LOSSLESS = (
    "-c:v", "ffvhuff", "-fps_mode", "passthrough", "-enc_time_base", "1:1000", "-f", "matroska",
)  # fmt: skip
"""Not FFV1: it is smaller, but writing and reading it took a quarter of a search's CPU time."""
BY_FRAME_NUMBER = "settb=1/1000,setpts=N"
MANY_SAMPLES = 1000
"""More samples than any forecast needs."""
KEPT_CRFS = 9
"""CRFs kept for each kind of video; the next search starts from their median."""


class LearnedCrfs:
    """The CRFs that searches found, by kind of video (recipe, shorter side); stored in `folder`, if given.

    If a file cannot be read or written, the next search needs some more probes.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._crfs = folder, dict[str, Sequence[float]]()

    def crfs(self, kind: str) -> Sequence[float]:
        """Return the latest CRFs, the newest last."""
        if self._folder is not None:
            with suppress(OSError, UnicodeDecodeError):
                text = (self._folder / kind).read_text("utf-8")
                return [float(each) for each in re.findall(r"\d+\.\d", text)][-KEPT_CRFS:]
        return self._crfs.get(kind, ())

    def note(self, kind: str, crf: float) -> None:
        self._crfs[kind] = [*self.crfs(kind), crf][-KEPT_CRFS:]
        if self._folder is not None:
            with suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                text = "".join(f"{each:.1f}\n" for each in self._crfs[kind])
                (self._folder / kind).write_text(text, "utf-8")


def metric_program(tools: FfmpegTools, filters: Callable[[str], str]) -> str:
    """Return the program that measures: the settings', imageio-ffmpeg's, or else ffmpeg itself.

    `filters(program)` lists a program's filters. Raises WorkerUnfit if none measures.
    """
    programs = [tools.metric] if tools.metric else [tools.ffmpeg]
    if not tools.metric:
        with suppress(ImportError, RuntimeError):
            programs.insert(0, str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()))
    for program in programs:
        if " libvmaf " in filters(program):
            return program
    which = f"{tools.metric} has no libvmaf." if tools.metric else NO_METRIC
    raise WorkerUnfit(which, remedy=INSTALL)


def reason_not_searched(request: EncodeRequest) -> str:
    """Return why the CRF of a video is not searched, as a clause; "" if it is."""
    plan = request.plan
    if plan.main_video.action is Action.COPY or plan.ladder is not None:
        return "its picture is not encoded by a CRF"
    if plan.video.colour.transfer in HDR_TRANSFERS:
        return NOT_FOR_HDR
    if plan.video.rate or plan.video.telecine or plan.video.retimed:
        return "its frames get other times"
    track = request.measured.track(plan.main_video.source_index)
    if track is None or len(track.times) < 2:
        return "the times of its frames are unknown"
    return ""


def find_quality(
    job: FfmpegRun, metric: str, former: Sequence[float] = (), *, exact: bool = False
) -> tuple[Aim | str, Estimate | None]:
    """Search the largest CRF whose samples reach the profile's quality; see `next_crf`.

    The search starts at the median of `former`, the CRFs of videos of the same kind. After `max_seconds`
    it starts no sample, and the best CRF tried by then is the result. The estimate of the whole rendition
    rests on that CRF's samples and on further ones for the size alone, with `exact` as many as needed.
    Returns a clause instead if no sample can be encoded: a decoder that starts midstream may report an
    intact source as damaged, so this is left to the whole encode.

    Raises what else an encode raises.
    """
    # A short file's lossless samples may be larger than the file.
    size = max(job.request.source_size, _raw_bytes(job.request.plan.video))
    request, video = replace(job.request, source_size=size), job.request.profile.video
    target, scale = video.quality, SCALES[video.codec]
    track = request.measured.track(request.plan.main_video.source_index)
    assert target is not None
    assert track is not None
    until = job.tools.clock.monotonic() + request.max_seconds
    trials = _Trials(replace(job, request=request), metric, sample_begins(track, 0), until)
    enough = enough_probes(track.shown_s, len(former))
    start = median_high(former) if former else video.crf
    crf, tried = search(trials.score, start, target, scale, enough)
    if not tried:
        return "no sample of it could be encoded", None
    whole = trials.whole(crf, track, exact=exact)
    aim = Aim(
        target=target,
        crf=crf,
        sampled=round(tried[crf].worst, 2),
        probes=tuple(trials.probes),
        cpu_s=round(trials.cpu_s, 1),
        within=round(whole.within, 3) if whole else None,
        metric=vmaf_model(request.plan.video),
    )
    return aim, whole


@dataclass(slots=True)
class _Trials:
    """Samples of one video at several CRFs. Only the first sample may begin after `until`."""

    job: FfmpegRun
    metric: str
    begins: Sequence[float]
    until: float
    probes: list[Probe] = field(default_factory=list)
    samples: dict[float, Sequence[Sample]] = field(default_factory=dict)
    cpu_s: float = 0.0

    def score(self, crf: float) -> Score | None:
        """Encode and measure the samples at a CRF; return None if too few of them succeed."""
        samples = list[Sample]()
        for at in self.begins:
            if (samples or self.probes) and self.job.tools.clock.monotonic() >= self.until:
                break
            samples.append(_encode_sample(self._at(crf), at, self.metric))
            if on_share := self.job.request.on_share:
                probes = len(self.probes) + len(samples) / len(self.begins)
                on_share(min(1.0, probes / USUAL_PROBES))
        self.cpu_s += sum(each.cpu_s + each.measured_s for each in samples)
        frames = [each.scores for each in samples if each.scores]
        if not frames or (self.probes and len(samples) < len(self.begins)):
            return None
        score, whole = score_of(frames), extrapolate(self.job.request, samples)
        self.samples[crf] = samples
        size = int(whole.size) if whole else None
        self.probes.append(Probe(crf=crf, vmaf=round(score.worst, 2), size=size))
        return score

    def whole(self, crf: float, track: TrackMeasure, *, exact: bool) -> Estimate | None:
        """Encode more samples at the chosen CRF, for the size alone; return the estimate from all of them.

        The sizes of the other CRFs are corrected by the same factor.
        """
        seen = self.samples.get(crf, ())
        most = MANY_SAMPLES if exact else size_samples(track.shown_s, len(self.probes))
        samples = add_samples(self._at(crf), seen, most, self.until)
        self.cpu_s += sum(each.cpu_s for each in samples[len(seen) :])
        before, after = (extrapolate(self.job.request, each) for each in (seen, samples))
        if before is None or after is None:
            return None
        for number, tried in enumerate(self.probes):
            size = tried.size and int(tried.size * after.size / before.size)
            self.probes[number] = tried.model_copy(update={"size": size})
        return after

    def _at(self, crf: float) -> FfmpegRun:
        request = self.job.request
        return replace(self.job, request=replace(request, plan=request.plan.with_crf(crf)))


def check_quality(
    tools: FfmpegTools, request: VerifyRequest, metric: str, stop: threading.Event
) -> float | None:
    """Return the VMAF of a rendition's worst twentieth of frames, in places that the search did not sample.

    None if no frame can be read there.
    """
    source, made = compared_tracks(tools, request, stop)
    frames = list[float]()
    for at in sample_begins(source, 1):
        with frame_pair(tools, request, (source, made, at), request.output.parent, stop) as files:
            if files:
                target = request.plan.main_video.video or request.plan.video
                frames += measure_vmaf(tools, request, target, files, (metric, stop))[0]
    return round(worst_twentieth(frames), 2) if frames else None


def compared_tracks(
    tools: FfmpegTools, request: VerifyRequest, stop: threading.Event
) -> tuple[TrackMeasure, TrackMeasure]:
    """Measure the times of the source's and the rendition's frames. Raises MediaRefused if sizes differ."""
    kept = request.plan.main_video
    source = request.measured.track(kept.source_index)
    if source is None or not source.times:  # they are not stored for a joined video
        source = measure(tools, request.location, request.info, stop).track(kept.source_index)
    output = probe(tools, str(request.output), stop)
    made_streams = output_streams(request.plan, output)
    place = kept.position or 0
    stream = made_streams[place] if place < len(made_streams) else None
    target = kept.video or request.plan.video
    shown = stream.video if stream else None
    if (
        stream is None
        or shown is None
        or (shown.width, shown.height) != (target.width, target.height)
    ):
        what = f"{shown.width}x{shown.height}" if shown else "no picture"
        raise MediaRefused(
            f"{request.output} has {what}, but {request.profile.name} makes {target.width}x{target.height}"
            f" of {request.location}.",
            remedy="Name a video and what was made of it; --profile says how it was made.",
        )
    made = measure(tools, str(request.output), output, stop).track(stream.index)
    assert source is not None
    assert made is not None
    return source, made


def sample_begins(track: TrackMeasure, more: int) -> list[float]:
    """Return where samples begin, in seconds from the first frame.

    `more` samples than usual lie in other places. A video too short for more is sampled whole.
    """
    length, count = track.shown_s, sample_count(track.shown_s, more)
    if more and count == sample_count(track.shown_s):
        return [place * SAMPLE_S for place in range(max(1, math.ceil(length / SAMPLE_S)))]
    return sorted(sample_times(length, count))


def _encode_sample(job: FfmpegRun, at: float, metric: str) -> Sample:
    """Encode one sample and a lossless reference of it, and measure it; return an empty sample on failure."""
    request = job.request
    with _scratch_files(request.output.parent, "sample", "reference") as files:
        command = _sample_command(job, at, *files)
        try:
            report = run_with_progress(job, command, SAMPLE_S, lambda _: None, writes=files)
        except OutOfMemory:
            raise
        except (EncoderFailed, LimitExceeded, PermanentError):
            return Sample()
        if not report.frames:
            return Sample(cpu_s=report.cpu_s)
        target, sample = request.plan.video, packet_sizes(job, files[0], at)
        scores, measured_s = measure_vmaf(job.tools, request, target, files, (metric, job.stop))
        return replace(sample, cpu_s=report.cpu_s, scores=scores, measured_s=measured_s)


def _sample_command(job: FfmpegRun, at: float, sample: Path, reference: Path) -> list[str]:
    video = job.request.plan.main_video
    filters = encoder_filters(video.video or job.request.plan.video) or "null"
    filters = f"{sample_trim_filter(job.request, at)},{filters}"
    # One graph for both outputs, so that they have the same frames.
    graph = (
        f"[0:{video.source_index}]{filters},split[picture][same];[same]{BY_FRAME_NUMBER}[reference]"
    )
    command = sample_command(job, at, sample, ["-filter_complex", graph, "-map", "[picture]"])
    return [*command, "-map", "[reference]", *_LOSSLESS, f"file:{reference}"]


@contextmanager
def frame_pair(
    tools: FfmpegTools,
    request: VerifyRequest,
    where: tuple[TrackMeasure, TrackMeasure, float],
    folder: Path,
    stop: threading.Event,
    most: int | None = None,
) -> Iterator[Sequence[Path]]:
    """Yield two lossless files with frames of a rendition and of its source, or () if none can be read.

    `where` are both tracks and the seconds from which frames are taken; `most` is the number of the
    source's frames, by default those of a sample.
    """
    source, made, at = where
    kept = request.plan.main_video
    target = kept.video or request.plan.video
    tick_s = source.tick_s
    number = number_at(source, at)
    # Begin half a frame earlier, so that rounded timestamps make no difference.
    ahead = (source.times[number] - source.times[number - 1]) / 2 if number else 0.0
    begin = (source.times[number] - ahead - source.times[0]) * tick_s
    last = bisect_left(source.times, source.times[number] + SAMPLE_S / tick_s)
    frames = (most or last - number) * (2 if target.field_rate else 1)
    sides = (
        (request.location, source, decoding_options(request.info), picture_filter(target)),
        (str(request.output), made, uncropped_options(request.info), ""),
    )
    with _scratch_files(folder, "source", "made") as files:
        argv = [tools.ffmpeg, "-v", "error", "-nostdin", "-y", "-copyts"]
        for location, track, options, _ in sides:
            argv += [*seek_options(_seek_target_s(request, location, track, begin)), *options]
            argv += input_options(location)
        graphs = [
            f"[{place}:{track.index}]{filters or 'null'},trim=start={(track.first_pts_s or 0.0) + begin:.6f},"
            f"trim=end_frame={frames},{BY_FRAME_NUMBER}[p{place}]"
            for place, (_, track, _, filters) in enumerate(sides)
        ]
        argv += ["-filter_complex", ";".join(graphs)]
        for place, path in enumerate(files):
            argv += ["-map", f"[p{place}]", *_LOSSLESS, f"file:{path}"]
        access = access_to(tools, request.location, str(request.output), writes=files)
        limits = limits_of(request.profile.bounds, output_bytes=_raw_bytes(target))
        limits = replace(limits, access=access)
        done = run_child(argv, stop=stop, limits=limits, deadline_s=request.max_seconds)
        if done.returncode != 0 or min(path.stat().st_size for path in files) < EMPTY_FILE_BYTES:
            yield ()
        else:
            yield files[1], files[0]


def _seek_target_s(
    request: VerifyRequest, location: str, track: TrackMeasure, begin: float
) -> float:
    """Return the time to seek to for frames from `begin` on, in seconds; 0.0 to read from the start."""
    first = track.first_pts_s or 0.0
    demuxer = request.info.format_name.partition(",")[0] if location == request.location else ""
    entry = first + begin - (PREROLL_S if demuxer in UNINDEXED_FORMATS else 0.0)
    return entry if entry > first + FROM_START_S else 0.0


def measure_vmaf(
    tools: FfmpegTools,
    request: EncodeRequest | VerifyRequest,
    target: VideoTarget,
    files: Sequence[Path],
    by: tuple[str, threading.Event],
) -> tuple[list[float], float]:
    """Return the VMAF of each frame of the first file against the second, and the CPU seconds spent.

    Both have the same frames. `by` is the measuring program and the stop event. Raises WorkerUnfit.
    """
    metric, stop = by
    with _scratch_files(files[0].parent, "vmaf") as (log,):
        sides = [f"[{n}:v:0]{BY_FRAME_NUMBER},format=yuv420p[p{n}]" for n in range(2)]
        measured = f"libvmaf=model=version={vmaf_model(target)}:shortest=1:log_fmt=json:n_threads=2"
        graph = ";".join([*sides, f"[p0][p1]{measured}:log_path={_escaped(log)}"])
        argv = [metric, "-v", "error", "-nostdin"]
        argv += [word for path in files for word in ("-i", f"file:{path}")]
        argv += ["-filter_complex", graph, "-fps_mode", "passthrough"]
        argv += ["-enc_time_base", "1:1000", "-f", "null", "-"]
        access = access_to(tools, *map(str, files), writes=(log,))
        limits = replace(limits_of(request.profile.bounds), access=access, output_bytes=MAX_LOG)
        done = run_child(argv, stop=stop, limits=limits, deadline_s=request.max_seconds)
        try:
            frames = json.loads(log.read_text(encoding="utf-8"))["frames"]
            return [float(frame["metrics"]["vmaf"]) for frame in frames], done.cpu_s
        except (ValueError, KeyError, TypeError) as error:
            why = done.stderr[-1] if done.stderr else done.ending
            raise WorkerUnfit(f"{metric} could not measure VMAF: {why}.", remedy=INSTALL) from error


def _raw_bytes(target: VideoTarget) -> int:
    """Return an upper bound of a sample's size in bytes: raw 16-bit frames, 120 a second."""
    return int(target.width * target.height * 6 * SAMPLE_S * 120)


def vmaf_model(target: VideoTarget) -> str:
    return "vmaf_4k_v0.6.1" if min(target.width, target.height) >= UHD_LINES else "vmaf_v0.6.1"


def _escaped(path: Path) -> str:
    """Escape a path for a filter's option, which ffmpeg parses twice."""
    once = "".join(f"\\{c}" if c in "\\':" else c for c in str(path))
    return "".join(f"\\{c}" if c in "\\'[],;" else c for c in once)


@contextmanager
def _scratch_files(folder: Path, *names: str) -> Iterator[tuple[Path, ...]]:
    """Create empty files in a folder, and remove them at the end."""
    files = tuple(folder / f"quality-{name}.mkv" for name in names)
    try:
        for path in files:
            create_output(path)
        yield files
    finally:
        for path in files:
            path.unlink(missing_ok=True)
