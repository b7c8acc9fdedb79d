"""Measure VMAF of some seconds of a video: to search the CRF for it, and to check what was made.

The measuring program only measures: another ffmpeg's x265 makes other pictures than the samples promised.
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
from hevcq.ffmpeg.command.filters import encoder_filters, picture_filter, steady_filters, uncropped
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
    begin_filter,
    number_at,
    packet_sizes,
    refined,
    sample_command,
    sample_times,
    whole_of,
)
from hevcq.ffmpeg.verify.streams import output_streams
from hevcq.ports.encoder import EncodeRequest, Estimate, VerifyRequest

MAX_LOG = 16 << 20
"""Bytes of the measuring program's log: about 700 a frame."""
EMPTY = 2048
"""Bytes below which a Matroska file has no frame."""
LARGE = 2160
"""Lines from which the model for 4K is meant."""
NO_METRIC = "No program measures VMAF, which video.quality needs."
INSTALL = (
    "Run `pipx inject hevcq imageio-ffmpeg` (68 MB; `pip install` it where pip installed hevcq), or set"
    " metric_ffmpeg to an ffmpeg with libvmaf."
)
_LOSSLESS = (
    "-c:v", "ffvhuff", "-fps_mode", "passthrough", "-enc_time_base", "1:1000", "-f", "matroska",
)  # fmt: skip
"""To write and read FFV1, which is smaller, took a quarter of a search's CPU."""
NUMBERED = "settb=1/1000,setpts=N"
MANY = 1000
"""Samples for the size that no forecast needs."""
LATEST = 9
"""Videos of a kind whose CRF the search for the next one starts from."""


class Learned:
    """The CRFs that searches found for videos of a kind (recipe, shorter side), in `folder` if there is one.

    A note that cannot be read or written costs the next search some probes.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._here = folder, dict[str, Sequence[float]]()

    def crfs(self, kind: str) -> Sequence[float]:
        """Return the latest ones, the last one last."""
        if self._folder is not None:
            with suppress(OSError, UnicodeDecodeError):
                text = (self._folder / kind).read_text("utf-8")
                return [float(each) for each in re.findall(r"\d+\.\d", text)][-LATEST:]
        return self._here.get(kind, ())

    def note(self, kind: str, crf: float) -> None:
        self._here[kind] = [*self.crfs(kind), crf][-LATEST:]
        if self._folder is not None:
            with suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                text = "".join(f"{each:.1f}\n" for each in self._here[kind])
                (self._folder / kind).write_text(text, "utf-8")


def metric_program(tools: FfmpegTools, filters: Callable[[str], str]) -> str:
    """Return the program that measures: the settings', imageio-ffmpeg's, or else ffmpeg itself.

    `filters(program)` returns what a program says of its filters. Raises WorkerUnfit if none measures.
    """
    named = [tools.metric] if tools.metric else [_packaged(), tools.ffmpeg]
    for program in filter(None, named):
        if " libvmaf " in filters(program):
            return program
    which = f"{tools.metric} has no libvmaf." if tools.metric else NO_METRIC
    raise WorkerUnfit(which, remedy=INSTALL)


def _packaged() -> str:
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return ""


def why_not(request: EncodeRequest) -> str:
    """Return why the quality of a video is not searched, in a clause; "" if it is."""
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
    """Search the largest CRF whose samples are as good as the profile asks; see `next_crf`.

    It starts at the median of `former`, which was found for videos of the same kind, and begins nothing
    after `max_seconds`: the best CRF tried by then is the answer. With it comes what its samples say of
    the whole, and some for the size alone at that CRF: with `exact` as many as it takes. Returns a
    clause if no sample can be encoded: a decoder that starts midstream may call an intact source
    damaged, which the whole encode decides.
    Raises what else an encode raises.
    """
    # A short file's samples without loss may be larger than it.
    size = max(job.request.source_size, _raw_bytes(job.request.plan.video))
    request, video = replace(job.request, source_size=size), job.request.profile.video
    target, scale = video.quality, SCALES[video.codec]
    track = request.measured.track(request.plan.main_video.source_index)
    assert target is not None
    assert track is not None
    until = job.tools.clock.monotonic() + request.max_seconds
    trials = _Trials(replace(job, request=request), metric, places(track, 0), until)
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
        metric=model(request.plan.video),
    )
    return aim, whole


@dataclass(slots=True)
class _Trials:
    """Samples of one video at several CRFs; none begins after `until`, but a first one."""

    job: FfmpegRun
    metric: str
    begins: Sequence[float]
    until: float
    probes: list[Probe] = field(default_factory=list)
    found: dict[float, Sequence[Sample]] = field(default_factory=dict)
    cpu_s: float = 0.0

    def score(self, crf: float) -> Score | None:
        """Encode and measure the samples at a CRF; return None if too few of them can be."""
        made = list[Sample]()
        for at in self.begins:
            if (made or self.probes) and self._is_over():
                break
            made.append(_sampled(self._at(crf), at, self.metric))
            if tell := self.job.request.on_share:
                probes = len(self.probes) + len(made) / len(self.begins)
                tell(min(1.0, probes / USUAL_PROBES))
        self.cpu_s += sum(each.cpu_s + each.measured_s for each in made)
        frames = [each.scores for each in made if each.scores]
        if not frames or (self.probes and len(made) < len(self.begins)):
            return None
        score, whole = score_of(frames), whole_of(self.job.request, made)
        self.found[crf] = made
        size = int(whole.size) if whole else None
        self.probes.append(Probe(crf=crf, vmaf=round(score.worst, 2), size=size))
        return score

    def whole(self, crf: float, track: TrackMeasure, *, exact: bool) -> Estimate | None:
        """Take more samples at the CRF that was found, for the size alone; return what all say.

        What they change is as true of the other CRFs.
        """
        seen = self.found.get(crf, ())
        most = MANY if exact else size_samples(track.shown_s, len(self.probes))
        made = refined(self._at(crf), seen, most, self.until)
        self.cpu_s += sum(each.cpu_s for each in made[len(seen) :])
        before, after = (whole_of(self.job.request, each) for each in (seen, made))
        if before is None or after is None:
            return None
        for place, tried in enumerate(self.probes):
            size = tried.size and int(tried.size * after.size / before.size)
            self.probes[place] = tried.model_copy(update={"size": size})
        return after

    def _at(self, crf: float) -> FfmpegRun:
        request = self.job.request
        return replace(self.job, request=replace(request, plan=request.plan.with_crf(crf)))

    def _is_over(self) -> bool:
        return self.job.tools.clock.monotonic() >= self.until


def check_quality(
    tools: FfmpegTools, request: VerifyRequest, metric: str, stop: threading.Event
) -> float | None:
    """Return VMAF of the worst twentieth of a rendition's frames, in places the search did not see.

    None if no frame can be read there.
    """
    source, made = tracks(tools, request, stop)
    frames = list[float]()
    for at in places(source, 1):
        with pair(tools, request, (source, made, at), request.output.parent, stop) as files:
            if files:
                target = request.plan.main_video.video or request.plan.video
                frames += vmaf(tools, request, target, files, (metric, stop))[0]
    return round(worst_twentieth(frames), 2) if frames else None


def tracks(
    tools: FfmpegTools, request: VerifyRequest, stop: threading.Event
) -> tuple[TrackMeasure, TrackMeasure]:
    """Return the source's and the rendition's main video with the times of their frames."""
    kept = request.plan.main_video
    source = request.measured.track(kept.source_index)
    if source is None or not source.times:  # of a joined video: they are not stored
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


def places(track: TrackMeasure, more: int) -> list[float]:
    """Return where samples begin, in seconds from the first frame; `more` moves them all.

    Where a video is too short for more samples, those are the whole of it.
    """
    length, count = track.shown_s, sample_count(track.shown_s, more)
    if more and count == sample_count(track.shown_s):
        return [place * SAMPLE_S for place in range(max(1, math.ceil(length / SAMPLE_S)))]
    return sorted(sample_times(length, count))


def _sampled(job: FfmpegRun, at: float, metric: str) -> Sample:
    """Encode one sample, and what it is encoded from without loss; measure it, if it can be."""
    request = job.request
    with _scratch(request.output.parent, "sample", "reference") as files:
        command = _sample_command(job, at, *files)
        try:
            made = run_with_progress(job, command, SAMPLE_S, lambda _: None, writes=files)
        except OutOfMemory:
            raise
        except (EncoderFailed, LimitExceeded, PermanentError):
            return Sample()
        if not made.frames:
            return Sample(cpu_s=made.cpu_s)
        target, found = request.plan.video, packet_sizes(job, files[0], at)
        scores, measured_s = vmaf(job.tools, request, target, files, (metric, job.stop))
        return replace(found, cpu_s=made.cpu_s, scores=scores, measured_s=measured_s)


def _sample_command(job: FfmpegRun, at: float, sample: Path, reference: Path) -> list[str]:
    video = job.request.plan.main_video
    filters = encoder_filters(video.video or job.request.plan.video) or "null"
    filters = f"{begin_filter(job.request, at)},{filters}"
    # One graph for both, so that they have the same frames.
    graph = f"[0:{video.source_index}]{filters},split[picture][same];[same]{NUMBERED}[reference]"
    command = sample_command(job, at, sample, ["-filter_complex", graph, "-map", "[picture]"])
    return [*command, "-map", "[reference]", *_LOSSLESS, f"file:{reference}"]


@contextmanager
def pair(
    tools: FfmpegTools,
    request: VerifyRequest,
    where: tuple[TrackMeasure, TrackMeasure, float],
    folder: Path,
    stop: threading.Event,
    most: int | None = None,
) -> Iterator[Sequence[Path]]:
    """Yield some frames of a rendition and of its source as files, from `where`'s seconds on.

    `most` frames of the source, or those of a sample. Yields () if no frame can be read there.
    """
    source, made, at = where
    kept = request.plan.main_video
    target = kept.video or request.plan.video
    tick_s = source.tick_s
    number = number_at(source, at)
    # Half a frame ahead, where no rounding of a container's times matters.
    ahead = (source.times[number] - source.times[number - 1]) / 2 if number else 0.0
    begin = (source.times[number] - ahead - source.times[0]) * tick_s
    last = bisect_left(source.times, source.times[number] + SAMPLE_S / tick_s)
    frames = (most or last - number) * (2 if target.field_rate else 1)
    sides = (
        (request.location, source, steady_filters(request.info), picture_filter(target)),
        (str(request.output), made, uncropped(request.info), ""),
    )
    with _scratch(folder, "source", "made") as files:
        argv = [tools.ffmpeg, "-v", "error", "-nostdin", "-y", "-copyts"]
        for location, track, options, _ in sides:
            argv += [*seek_options(_entry(request, location, track, begin)), *options]
            argv += input_options(location)
        graphs = [
            f"[{place}:{track.index}]{filters or 'null'},trim=start={(track.first_pts_s or 0.0) + begin:.6f},"
            f"trim=end_frame={frames},{NUMBERED}[p{place}]"
            for place, (_, track, _, filters) in enumerate(sides)
        ]
        argv += ["-filter_complex", ";".join(graphs)]
        for place, path in enumerate(files):
            argv += ["-map", f"[p{place}]", *_LOSSLESS, f"file:{path}"]
        access = access_to(tools, request.location, str(request.output), writes=files)
        limits = limits_of(request.profile.bounds, output_bytes=_raw_bytes(target))
        limits = replace(limits, access=access)
        done = run_child(argv, stop=stop, limits=limits, deadline_s=request.max_seconds)
        if done.returncode != 0 or min(path.stat().st_size for path in files) < EMPTY:
            yield ()
        else:
            yield files[1], files[0]


def _entry(request: VerifyRequest, location: str, track: TrackMeasure, begin: float) -> float:
    """Return the time in seconds at which a file is entered: at a key frame before `begin`."""
    first = track.first_pts_s or 0.0
    demuxer = request.info.format_name.partition(",")[0] if location == request.location else ""
    entry = first + begin - (PREROLL_S if demuxer in UNINDEXED_FORMATS else 0.0)
    return entry if entry > first + FROM_START_S else 0.0


def vmaf(
    tools: FfmpegTools,
    request: EncodeRequest | VerifyRequest,
    target: VideoTarget,
    files: Sequence[Path],
    by: tuple[str, threading.Event],
) -> tuple[list[float], float]:
    """Return each frame's VMAF of the first file against the second, which has the same frames, and CPU seconds."""
    metric, stop = by
    with _scratch(files[0].parent, "vmaf") as (log,):
        sides = [f"[{n}:v:0]{NUMBERED},format=yuv420p[p{n}]" for n in range(2)]
        measured = f"libvmaf=model=version={model(target)}:shortest=1:log_fmt=json:n_threads=2"
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
            said = done.stderr[-1] if done.stderr else done.ending
            raise WorkerUnfit(
                f"{metric} could not measure VMAF: {said}.", remedy=INSTALL
            ) from error


def _raw_bytes(target: VideoTarget) -> int:
    """Return more bytes than a sample has as raw pictures of 16 bits, 120 a second."""
    return int(target.width * target.height * 6 * SAMPLE_S * 120)


def model(target: VideoTarget) -> str:
    return "vmaf_4k_v0.6.1" if min(target.width, target.height) >= LARGE else "vmaf_v0.6.1"


def _escaped(path: Path) -> str:
    """Return a path as a value of a filter's option, which is parsed twice."""
    once = "".join(f"\\{c}" if c in "\\':" else c for c in str(path))
    return "".join(f"\\{c}" if c in "\\'[],;" else c for c in once)


@contextmanager
def _scratch(folder: Path, *names: str) -> Iterator[tuple[Path, ...]]:
    """Create empty files in a folder, which are removed afterwards."""
    files = tuple(folder / f"quality-{name}.mkv" for name in names)
    try:
        for path in files:
            create_output(path)
        yield files
    finally:
        for path in files:
            path.unlink(missing_ok=True)
