"""Encode some seconds of a video before all of it, and say what the whole comes to."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import hypot
from pathlib import Path
from statistics import fmean

from hevcq.domain.formats import SOFTWARE
from hevcq.domain.media.facts import StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import Action
from hevcq.domain.quality import SIZE_SAMPLE_S, size_samples
from hevcq.errors import EncoderFailed, LimitExceeded, OutOfMemory, PermanentError
from hevcq.ffmpeg.command.build import base_command, chunk_options, source_input
from hevcq.ffmpeg.inputs import (
    KEYED,
    PROBE_DEADLINE_S,
    PROBE_LIMITS,
    UNINDEXED,
    UNTIMED,
    input_options,
    keyed,
    reading,
    seek_options,
)
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.run.runner import FfmpegRun, create_output, run_with_progress
from hevcq.ports.encoder import EncodeRequest, Estimate

SAMPLE_S = 2.0
"""Seconds of a sample. A short encode costs half as much again for each second."""
WHOLE_S = 20.0
"""Seconds up to which all of a video is encoded for its size: too few samples fit in it (docs/quality.md)."""
GROUP_FRAMES = 250
"""Frames from one key frame to the next of the rendition at most, as the encoders have it; fewer make
it larger."""
UNKNOWN_SOUND = 64_000
"""Bits a second of a channel whose rate the header does not say."""
USUAL_SPREAD = 0.3
"""Share by which samples of one video differ: what counts as one more, as few may be alike by chance."""
LIKE_ALL = 0.25
"""Share of the source's mean frame by which each sample counts like all of them."""
COLD = 1.04
"""How many times the bytes of a sample its frames have within the whole, where the encoder sees further
ahead: 3 % more, its key frames 30 %. Measured, as LIKE_ALL, on 15 films of many clips each."""
SHORT_ENCODE = 1.5
"""How many times as much CPU a second of a sample takes as one of the whole (docs/quality.md)."""


@dataclass(slots=True)
class Sample:
    """What a sample came to: the bytes of its key frames and of its others, and CPU seconds.

    `frames` are the first of its source's frames and the one behind the last, by number; (0, 0): unknown.
    `scores` are VMAF of each frame, where it was measured.
    """

    keys: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    frames: tuple[int, int] = (0, 0)
    seconds: float = SAMPLE_S
    cpu_s: float = 0.0
    scores: Sequence[float] = ()
    measured_s: float = 0.0


def sample_times(length_s: float, count: int) -> list[float]:
    """Return where samples begin, in seconds from the first frame: the middle first, then to both sides."""
    share = length_s / count
    begins = [(place + 0.5) * share - min(SAMPLE_S, share) / 2 for place in range(count)]
    return sorted(begins, key=lambda at: abs(at - begins[count // 2]))


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


def sized(job: FfmpegRun, at: float, seconds: float = SAMPLE_S) -> Sample:
    """Encode one sample for its size alone. Raises what an encode raises."""
    output = job.request.output
    try:
        create_output(output)
        video = job.request.plan.main_video.source_index
        command = sample_command(job, at, output, ["-map", f"0:{video}"], seconds)
        report = run_with_progress(job, command, seconds, lambda _: None, writes=(output,))
        found = packet_sizes(job, output, at, seconds)
        found.cpu_s = report.cpu_s
        return found
    finally:
        output.unlink(missing_ok=True)


def sample_command(
    job: FfmpegRun, at: float, sample: Path, pictures: Sequence[str], seconds: float = SAMPLE_S
) -> list[str]:
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
    command = [*base_command(job.tools, threads), *seek, "-t", f"{seconds:g}"]
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
    made = list[Sample]()
    count = max(1, min(count, int(length_s / (2 * SAMPLE_S))))
    until = job.tools.clock.monotonic() + request.max_seconds
    whole = length_s <= WHOLE_S
    for at in [0.0] if whole else sample_times(length_s, count):
        try:
            made.append(sized(job, at, WHOLE_S if whole else SAMPLE_S))
        except OutOfMemory:
            raise
        except (EncoderFailed, LimitExceeded, PermanentError):
            break
        if job.tools.clock.monotonic() >= until:
            break
    return whole_of(request, made)


def whole_of(request: EncodeRequest, made: Sequence[Sample]) -> Estimate | None:
    """Return what some samples say of the whole rendition, with as many cuts as are in them."""
    made, length_s = [each for each in made if each.others], request.duration_s
    keys = [size for each in made for size in each.keys]
    if not (keys and made and length_s):
        return None
    sounds = sum(_others(request)) * length_s / 8
    for each in made:
        if each.seconds >= max(length_s, WHOLE_S):
            return Estimate(sum(each.keys) + sum(each.others) + sounds, 0.0, each.cpu_s)
    times = length_s / _seconds(made, length_s)
    frames = times * sum(len(each.keys) + len(each.others) for each in made)
    cuts = times * (len(keys) - len(made))  # each sample begins with a key frame anyway
    key_frames = max(1 + cuts, frames / GROUP_FRAMES)
    other, error = _other_frames(request, made)
    size = COLD * (key_frames * fmean(keys) + max(0.0, round(frames) - key_frames) * other)
    size += sounds
    # The shortest ones cost more a second.
    usual = [each for each in made if each.seconds == SAMPLE_S]
    cpu_s = (
        length_s * sum(each.cpu_s for each in usual) / (SHORT_ENCODE * _seconds(usual, length_s))
    )
    return Estimate(size, error * max(0.0, 1 - 1 / times) ** 0.5, cpu_s)


def _seconds(made: Sequence[Sample], length_s: float) -> float:
    return sum(min(each.seconds, length_s) for each in made) or 1.0


def _other_frames(request: EncodeRequest, made: Sequence[Sample]) -> tuple[float, float]:
    """Return the bytes of a frame that is no key frame, all over the video, and their standard error as a share.

    What took many bytes in the source does so in the rendition: each part of the source is multiplied by
    what became of the nearest sample, and a little by what became of all, as one may be of a still picture.
    """
    rates = [fmean(each.others) for each in made]
    mean = sum(sum(each.others) for each in made) / sum(len(each.others) for each in made)
    misses = [rate - mean for rate in rates]
    track = request.measured.track(request.plan.main_video.source_index)
    before = [0, *accumulate(track.sizes if track is not None else ())]
    frames = len(before) - 1
    sources = [(before[end] - before[begin]) / (end - begin) for begin, end in _spans(made, before)]
    if sum(sources):
        usual = mean / fmean(sources)
        misses = [rate - usual * of for rate, of in zip(rates, sources, strict=True)]
        weight = LIKE_ALL * before[-1] / frames
        ratios = [
            (rate + usual * weight) / (of + weight) for rate, of in zip(rates, sources, strict=True)
        ]
        parts = sorted(zip((sum(each.frames) // 2 for each in made), ratios, strict=True))
        ends = [(one + other) // 2 for (one, _), (other, _) in pairwise(parts)]
        borders = pairwise([0, *ends, frames])
        whole = (
            (before[end] - before[begin]) * ratio
            for (begin, end), (_, ratio) in zip(borders, parts, strict=True)
        )
        mean = sum(whole) / frames
    return mean, hypot(USUAL_SPREAD, *(miss / fmean(rates) for miss in misses)) / len(rates)


def _spans(made: Sequence[Sample], before: Sequence[int]) -> Sequence[tuple[int, int]]:
    """Return which frames of the source each sample is of; () if that or their bytes are unknown."""
    known = all(0 <= begin < end < len(before) for begin, end in (each.frames for each in made))
    return [each.frames for each in made] if known else ()


def number_at(track: TrackMeasure, at: float) -> int:
    """Return which frame is shown at so many seconds from the first one."""
    found = bisect_left(track.times, track.times[0] + at / track.tick_s)
    return min(max(found, 0), len(track.times) - 1)


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


def size_places(track: TrackMeasure, begins: Sequence[float], probes: int) -> Iterator[float]:
    """Yield where samples for the size alone begin, all over the video and apart from those at `begins`.

    In each part of the video it is where the source has about as many bytes as in the mean of that part.
    """
    length, before = length_s(track), [0, *accumulate(track.sizes)]
    count = size_samples(length, probes) if track.sizes else 0

    def rate(begin: float, end: float) -> float:
        first, last = number_at(track, begin), number_at(track, end)
        return (before[last] - before[first]) / max(1, last - first)

    for part in range(count):
        begin, end = part * length / count, (part + 1) * length / count
        free = [
            begin + SIZE_SAMPLE_S * n
            for n in range(int((end - begin) / SIZE_SAMPLE_S))
            if all(
                not at - SIZE_SAMPLE_S < begin + SIZE_SAMPLE_S * n < at + SAMPLE_S for at in begins
            )
        ]
        mean = rate(begin, end)
        if free:
            yield min(free, key=lambda at: abs(rate(at, at + SIZE_SAMPLE_S) - mean))


def length_s(track: TrackMeasure) -> float:
    return (track.last_pts_s or 0.0) - (track.first_pts_s or 0.0)


def packet_sizes(job: FfmpegRun, sample: Path, at: float, seconds: float = SAMPLE_S) -> Sample:
    """Return the packets' sizes of a sample, and which frames of the source it is of."""
    found = Sample(seconds=seconds)
    track = job.request.measured.track(job.request.plan.main_video.source_index)
    if track is not None and track.sizes:
        found.frames = number_at(track, at), number_at(track, at + seconds)

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
