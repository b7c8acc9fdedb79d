"""Encode some seconds of a long video before all of it, and say whether the whole is bound to fail.

Only what cannot end well is stopped: samples all over the video that each come out too large by a
margin (G6), or one that is a wrong picture (G8). What cannot be sampled is encoded whole, and the
gates decide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import hypot
from pathlib import Path
from statistics import fmean

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.formats import SOFTWARE
from hevcq.domain.media.facts import StreamKind
from hevcq.domain.planning.encode_plan import Action
from hevcq.errors import EncoderFailed, LimitExceeded, OutOfMemory, PermanentError
from hevcq.ffmpeg.command.build import base_command, chunk_options, source_input
from hevcq.ffmpeg.command.thumbnails import source_graph, thumbnail_output
from hevcq.ffmpeg.inputs import (
    PROBE_DEADLINE_S,
    PROBE_LIMITS,
    UNINDEXED,
    UNTIMED,
    input_options,
    reading,
    seek_options,
)
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.run.messages import Pass, unexpected_lines
from hevcq.ffmpeg.run.runner import FfmpegRun, create_output, run_with_progress
from hevcq.ffmpeg.verify.decode import Decoded, decode_problems
from hevcq.ffmpeg.verify.frames import FrameComparison
from hevcq.ffmpeg.versions import KEYED, keyed
from hevcq.ports.encoder import EncodeReport, EncodeRequest, Estimate
from hevcq.util.text import timecode

SAMPLED_FROM_S = 600.0
"""Length of a video from which some seconds of it are encoded first."""
SAMPLE_S = 2.0
"""Seconds of a sample. A short encode costs half as much again for each second."""
EVERY_S = 200.0
LEAST, MOST = 3, 5
"""One sample for so many seconds, within these bounds. A sound video needs the first alone: half a
percent of ten minutes."""
MARGIN = 0.1
"""Share of the source's size by which every sample must be too large: a video is not all alike."""
GROUP_FRAMES = 250
"""Frames from one key frame to the next of the rendition at most, as the encoders have it; fewer make
it larger."""
UNKNOWN_SOUND = 64_000
"""Bits a second of a channel whose rate the header does not say."""
USUAL_SPREAD = 0.3
"""Share by which samples of one video differ: what counts as one more, as few may be alike by chance."""
SHORT_ENCODE = 1.5
"""How many times as much CPU a second of a sample takes as one of the whole (docs/quality.md)."""


@dataclass(slots=True)
class Sizes:
    """The bytes of one stream's packets in samples: of the key frames, and of the others."""

    keys: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)

    def whole(self, frames: int, keys: float) -> float:
        """Return the bytes of so many frames like these, so many of them key frames."""
        key = sum(self.keys) / len(self.keys)
        return keys * key + max(0.0, frames - keys) * sum(self.others) / len(self.others)


def sample_times(length_s: float, count: int) -> list[float]:
    """Return where samples begin, in seconds from the first frame: the middle first, then to both sides."""
    share = length_s / count
    begins = [(place + 0.5) * share - min(SAMPLE_S, share) / 2 for place in range(count)]
    return sorted(begins, key=lambda at: abs(at - begins[count // 2]))


def try_samples(job: FfmpegRun) -> tuple[GateResult, ...]:
    """Return the gate that the whole video would not pass; () if it may, or if nothing is known.

    `job.request.output` is a file that does not exist yet; it is removed again. Raises Stopped,
    OutOfMemory, DiskFull and WorkerUnfit, as the whole encode would.
    """
    request = job.request
    length_s = request.duration_s or 0.0
    if not length_s or not _may_be_sampled(job):
        return ()
    saving = request.profile.gates.minimum_saving
    most = float("inf") if saving is None else 1 - saving
    began, made, share = job.tools.clock.monotonic(), list[Sizes](), 0.0
    for at in sample_times(length_s, min(MOST, max(LEAST, int(length_s / EVERY_S)))):
        try:
            found = _sampled(job, at)
        except OutOfMemory:
            raise
        except (EncoderFailed, LimitExceeded, PermanentError):
            return ()
        seconds = job.tools.clock.monotonic() - began
        if isinstance(found, str):
            detail = f"a trial encode of {SAMPLE_S:g} s at {timecode(at, 0)} went wrong: {found}"
            wrong = GateResult(gate=Gate.G8, outcome=Outcome.FAILED, detail=detail, seconds=seconds)
            return (wrong,)
        made += [] if found is None else [found]
        whole = whole_of(request, made)
        share = whole.size / max(1, request.source_size) if whole else 0.0
        if whole is None or share * (1 - whole.error) <= most + MARGIN:
            return ()
    if len(made) < LEAST:
        return ()
    detail = (
        f"about {share:.0%} of the original's size by {len(made)} trial encodes of {SAMPLE_S:g} s,"
        f" limit {most:.1%}"
    )
    large = GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER, detail=detail, seconds=seconds)
    return (large,)


def _may_be_sampled(job: FfmpegRun) -> bool:
    """Return whether a piece of the video is encoded like all of it, and can be found by its time."""
    request = job.request
    demuxer = request.info.format_name.partition(",")[0]
    return (
        request.profile.video.encoder == (SOFTWARE,)
        and request.plan.ladder is None
        and not request.plan.video.rate
        # Its fields are counted from the first frame of the file.
        and not request.plan.video.telecine
        and not request.plan.video.retimed
        and request.plan.main_video.action is not Action.COPY
        and demuxer not in UNINDEXED | UNTIMED
    )


def _sampled(job: FfmpegRun, at: float) -> str | Sizes | None:
    """Encode one sample; return what is wrong with its pictures, or the sizes of its packets."""
    request, video = job.request, job.request.plan.main_video
    thumbnails = request.output.with_name(f"{request.output.name}.thumbnails")
    try:
        for path in (request.output, thumbnails):
            create_output(path)
        graph = source_graph(video.video or request.plan.video)
        command = sample_command(job, at, request.output, ["-map", f"0:{video.source_index}"])
        command += thumbnail_output(video.source_index, graph, f"file:{thumbnails}")
        writes = (request.output, thumbnails)
        report = run_with_progress(job, command, SAMPLE_S, lambda _: None, writes=writes)
        if any(unexpected_lines(report.stderr, Pass.MIDSTREAM)):
            return None
        problem = _picture_problem(job, report, thumbnails)
        return problem or packet_sizes(job, request.output)
    finally:
        for path in (request.output, thumbnails):
            path.unlink(missing_ok=True)


def sample_command(job: FfmpegRun, at: float, sample: Path, pictures: Sequence[str]) -> list[str]:
    """Return the command that encodes a sample as all of the video would be, from so many seconds on.

    `pictures` maps them, and the filters are its own if it begins with a graph.
    """
    request, video = job.request, job.request.plan.main_video
    threads = request.threads or request.profile.bounds.threads
    target = video.video or request.plan.video
    stream = next(s for s in request.info.streams if s.index == video.source_index)
    # To the very frame: else several samples would begin at one key frame.
    seek = [
        each for each in seek_options((stream.start_s or 0.0) + at) if each != "-noaccurate_seek"
    ]
    command = [*base_command(job.tools, threads), *seek, "-t", f"{SAMPLE_S:g}"]
    command += [*source_input(request.location, request.info), *pictures]
    options = chunk_options(target, request.profile, tick=stream.tick, threads=threads, trim="null")
    unset = {"-tag", "-filter" if pictures[0] == "-filter_complex" else ""}
    command += [word for n, v in options if n not in unset for word in (f"{n}:0", v)]
    command += ["-map_metadata", "-1", "-map_chapters", "-1", "-f", "matroska", f"file:{sample}"]
    return command


def estimate(job: FfmpegRun, count: int) -> Estimate | None:
    """Encode samples; see `Encoder.estimate`. The header is believed: to read all of a file takes too long."""
    request, length_s = job.request, job.request.duration_s
    if not length_s or not _may_be_sampled(job) or len(request.plan.encoded(StreamKind.VIDEO)) > 1:
        return None
    made, cpu_s = list[Sizes](), 0.0
    video = request.plan.main_video.source_index
    count = max(1, min(count, int(length_s / (2 * SAMPLE_S))))
    until = job.tools.clock.monotonic() + request.max_seconds
    for at in sample_times(length_s, count):
        try:
            create_output(request.output)
            command = sample_command(job, at, request.output, ["-map", f"0:{video}"])
            writes = (request.output,)
            report = run_with_progress(job, command, SAMPLE_S, lambda _: None, writes=writes)
            sizes = packet_sizes(job, request.output)
        except OutOfMemory:
            raise
        except (EncoderFailed, LimitExceeded, PermanentError):
            break
        finally:
            request.output.unlink(missing_ok=True)
        if sizes.keys and sizes.others:
            made.append(sizes)
            cpu_s += report.cpu_s
        if job.tools.clock.monotonic() >= until:
            break
    return whole_of(request, made, cpu_s)


def whole_of(request: EncodeRequest, made: Sequence[Sizes], cpu_s: float = 0.0) -> Estimate | None:
    """Return what some samples of SAMPLE_S say of the whole rendition, with as many cuts as are in them."""
    made, length_s = [each for each in made if each.others], request.duration_s
    keys = [size for each in made for size in each.keys]
    others = [size for each in made for size in each.others]
    if not (keys and others and length_s):
        return None
    times = length_s / (min(SAMPLE_S, length_s) * len(made))
    frames = times * (len(keys) + len(others))
    rates = [fmean(each.others) for each in made]
    error = hypot(USUAL_SPREAD, *(rate / fmean(rates) - 1 for rate in rates)) / len(rates)
    cuts = times * (len(keys) - len(made))  # each sample begins with a key frame anyway
    video = Sizes(keys, others).whole(round(frames), max(1 + cuts, frames / GROUP_FRAMES))
    size = video + sum(_others(request)) * length_s / 8
    return Estimate(size, error * max(0.0, 1 - 1 / times) ** 0.5, times * cpu_s / SHORT_ENCODE)


def _others(request: EncodeRequest) -> Iterator[float]:
    """Yield the bits a second of the other tracks, as measured, or else as far as the header says."""
    streams = {each.index: each for each in request.info.streams}
    for kept in request.plan.kept:
        source, track = streams[kept.source_index], request.measured.track(kept.source_index)
        if kept.kind in {StreamKind.VIDEO, StreamKind.ATTACHMENT}:
            continue
        if kept.action is Action.COPY and track is not None and request.duration_s:
            yield track.bytes * 8 / request.duration_s
        else:
            unknown = UNKNOWN_SOUND * source.audio.channels if source.audio else 0
            yield kept.bit_rate or source.bit_rate or unknown


def _picture_problem(job: FfmpegRun, report: EncodeReport, thumbnails: Path) -> str:
    """Compare every picture of the sample with its source's, as G8 does; return what is wrong."""
    request, target = job.request, job.request.plan.video
    asked = request.to_verify(report)
    pixels = target.width * target.height
    with thumbnails.open("rb") as file:
        # Sharp detail is judged over a whole video.
        comparison = FrameComparison(file.read, pixels, judges_detail=False)
        decoded = Decoded(0, comparison.feed, "", pixels)
        deadline_s = request.max_seconds
        decode = decode_problems(
            job.tools, asked, job.stop, decoded, deadline_s=deadline_s, levels=None
        )
        return comparison.close() if not decode else ""


def packet_sizes(job: FfmpegRun, sample: Path) -> Sizes:
    """Return the packets' sizes of a sample."""
    found = Sizes()

    def line(text: str) -> None:
        fields = keyed(text)
        size, flags = (fields.get(n, "") for n in ("size", "flags"))
        if size.isdigit():
            (found.keys if "K" in flags else found.others).append(int(size))

    path = str(sample)
    argv = [
        job.tools.ffprobe, "-v", "error", "-show_entries", "packet=size,flags",
        "-of", KEYED, *input_options(path),
    ]  # fmt: skip
    run_child(
        argv,
        stop=job.stop,
        limits=reading(PROBE_LIMITS, job.tools, path),
        on_line=line,
        deadline_s=PROBE_DEADLINE_S,
    )
    return found
