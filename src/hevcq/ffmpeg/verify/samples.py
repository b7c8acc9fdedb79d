"""Estimate size and CPU time of a rendition by encoding samples of the video.

The sizes of the source's frames, which cost one read of the file, show where the video is complex. So a
place is sampled with a probability proportional to the source's bytes there. The mean ratio of a sample's
size to its source's is then the ratio of the whole (Hansen and Hurwitz, 1943). This needs half the samples
of an equally good estimate from evenly chosen places.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from statistics import fmean

from hevcq.domain.formats import SOFTWARE
from hevcq.domain.media.facts import StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import Action
from hevcq.domain.quality import SAMPLE_S
from hevcq.errors import EncoderFailed, LimitExceeded, OutOfMemory, PermanentError
from hevcq.ffmpeg.command.build import base_command, chunk_options, source_input
from hevcq.ffmpeg.inputs import (
    KEYED,
    PREROLL_S,
    PROBE_DEADLINE_S,
    PROBE_LIMITS,
    UNINDEXED_FORMATS,
    input_options,
    parse_fields,
    seek_options,
    with_read_access,
)
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.run.runner import FfmpegRun, create_output, run_with_progress
from hevcq.ports.encoder import EncodeRequest, Estimate

WARM_UP_FRAMES = 8
"""First frames of a sample that are not counted: its own key frame shapes them, and the whole has none there."""
MAX_GROUP_FRAMES = 250
"""Largest distance of the rendition's key frames in frames, by the encoders' default."""
UNKNOWN_SOUND = 64_000
"""Bits per second assumed for a channel of a sound whose header names no bit rate."""
USUAL_SPREAD = 0.5
"""Relative difference assumed for one more sample, because a few samples may be alike by chance."""
EDGE_ERROR = 0.04
"""Relative standard error that more samples do not reduce: every sample has two ends (docs/quality.md)."""
TARGET_ERROR = 0.1
"""Relative error that four of five estimates stay below. Once it is reached no more samples are taken."""
FEW_SAMPLES, USUAL_SAMPLES = 4, 12
"""Samples from which their spread tells how many are needed, and how many are assumed before."""
WEIGHT_FLOOR = 0.1
"""Share of the mean frame's size that is added to each frame's weight: a still picture has hardly any bytes."""
GOLDEN = (5**0.5 - 1) / 2
SHORT_ENCODE_COST = 1.5
"""CPU time of a second of a sample, as a multiple of a second of the whole encode (docs/quality.md)."""


@dataclass(slots=True)
class Sample:
    """The result of a sample: the bytes of its frames in presentation order, and CPU seconds.

    `keys` are the numbers of its key frames. `frames` is the half-open range of its frames in the source;
    (0, 0) if unknown. `by_time` and `by_bytes` count how often its place was drawn evenly in time, and by
    the source's bytes. `scores` are the VMAF of its frames, if measured.
    """

    sizes: Sequence[int] = ()
    keys: Sequence[int] = (0,)
    frames: tuple[int, int] = (0, 0)
    seconds: float = SAMPLE_S
    by_time: int = 1
    by_bytes: int = 0
    cpu_s: float = 0.0
    scores: Sequence[float] = ()
    measured_s: float = 0.0


def sample_times(length_s: float, count: int) -> list[float]:
    """Return where samples begin, in seconds from the first frame: from the middle outwards."""
    share = length_s / count
    begins = [(place + 0.5) * share - min(SAMPLE_S, share) / 2 for place in range(count)]
    return sorted(begins, key=lambda at: abs(at - begins[count // 2]))


def _may_be_sampled(job: FfmpegRun) -> bool:
    """Whether a part of the video can be encoded exactly as in the whole."""
    request = job.request
    return (
        request.profile.video.encoder == (SOFTWARE,)
        and request.plan.ladder is None
        and not request.plan.video.rate
        # Inverse telecine counts fields from the first frame of the file.
        and not request.plan.video.telecine
        and not request.plan.video.retimed
        and request.plan.main_video.action is not Action.COPY
    )


def encode_for_size(job: FfmpegRun, at: float, seconds: float = SAMPLE_S) -> Sample:
    """Encode one sample to learn its size. Raises what an encode raises."""
    output = job.request.output
    try:
        create_output(output)
        video = job.request.plan.main_video.source_index
        command = sample_command(job, at, output, ["-map", f"0:{video}"], seconds)
        report = run_with_progress(job, command, seconds, lambda _: None, writes=(output,))
        return replace(packet_sizes(job, output, at, seconds), cpu_s=report.cpu_s)
    finally:
        output.unlink(missing_ok=True)


def sample_command(
    job: FfmpegRun, at: float, sample: Path, pictures: Sequence[str], seconds: float = SAMPLE_S
) -> list[str]:
    """Return the command that encodes `seconds` of the video from `at` on, with the options of the whole.

    `pictures` are the options that map the video. If they are a filter graph, it has all filters.
    """
    request, video = job.request, job.request.plan.main_video
    threads = request.threads or request.profile.bounds.threads
    target = video.video or request.plan.video
    stream = request.info.stream(video.source_index)
    margin_s, trim = _seek_margin_s(request, at), sample_trim_filter(request, at, seconds)
    begin = (stream.start_s or 0.0) + at - margin_s
    # Seek to the exact frame, or several samples could begin at the same key frame.
    seek = [each for each in seek_options(begin) if each != "-noaccurate_seek"]
    command = [*base_command(job.tools, threads), *seek, "-t", f"{margin_s + seconds:g}"]
    command += [*source_input(request.location, request.info), *pictures]
    options = chunk_options(target, request.profile, tick=stream.tick, threads=threads, trim=trim)
    unset = {"-tag", "-filter" if pictures[0] == "-filter_complex" else ""}
    command += [word for n, v in options if n not in unset for word in (f"{n}:0", v)]
    command += ["-map_metadata", "-1", "-map_chapters", "-1", "-f", "matroska", f"file:{sample}"]
    return command


def sample_trim_filter(request: EncodeRequest, at: float, seconds: float = SAMPLE_S) -> str:
    """Return the filter that drops the frames decoded before a sample's start."""
    margin_s = _seek_margin_s(request, at)
    # ffmpeg counts its own duration (-t) from the first frame that can be decoded.
    return f"trim=start={margin_s - 0.001:.3f}:duration={seconds:g}" if margin_s else "null"


def _seek_margin_s(request: EncodeRequest, at: float) -> float:
    """Return how many seconds before a sample decoding starts: a file without an index of key frames needs some."""
    demuxer = request.info.format_name.partition(",")[0]
    return min(at, PREROLL_S) if demuxer in UNINDEXED_FORMATS else 0.0


def estimate(job: FfmpegRun, count: int) -> Estimate | None:
    """Estimate the rendition from at most `count` samples; see `Encoder.estimate`."""
    request, length_s = job.request, job.request.duration_s
    if not length_s or not _may_be_sampled(job) or len(request.plan.encoded(StreamKind.VIDEO)) > 1:
        return None
    until = job.tools.clock.monotonic() + request.max_seconds
    return extrapolate(request, add_samples(job, (), max(1, count), until))


def add_samples(job: FfmpegRun, former: Sequence[Sample], most: int, until: float) -> list[Sample]:
    """Return the `former` samples and at most `most` more, until the estimate is good or the time is over.

    The whole video is encoded instead if that costs no more than the missing samples, and there is time.
    """
    samples, clock = [replace(each) for each in former], job.tools.clock
    length_s, took_s, failures = job.request.duration_s, 0.0, 0
    assert length_s is not None
    for at, by_bytes in _sample_places(job, former, most):
        if by_bytes and (drawn := _overlapping_sample(job, samples, at)) is not None:
            drawn.by_bytes += 1
            continue
        count, estimated = len(samples), extrapolate(job.request, samples)
        missing = most - (count - len(former))
        if estimated is not None:
            if estimated.within <= TARGET_ERROR:
                break
            # The error shrinks with the root of the number of samples; that of a few tells little.
            error = estimated.within / TARGET_ERROR
            needed = count * error**2 if count >= FEW_SAMPLES else USUAL_SAMPLES
            missing = min(missing, math.ceil(needed) - count)
        left_s = until - clock.monotonic()
        if missing <= 0 or (samples and left_s <= 0):
            break
        is_short = length_s <= SHORT_ENCODE_COST * SAMPLE_S * missing
        # The sample before shows how long the whole would take.
        has_time = length_s < 3 * SAMPLE_S or 0 < took_s * length_s < left_s * SAMPLE_S
        began = clock.monotonic()
        try:
            if is_short and has_time:
                samples.append(encode_for_size(job, 0.0, length_s + SAMPLE_S))
                break
            sample = encode_for_size(job, at)
            samples.append(replace(sample, by_time=int(not by_bytes), by_bytes=int(by_bytes)))
        except OutOfMemory:
            raise
        except (EncoderFailed, LimitExceeded, PermanentError):
            failures += 1
            if failures > len(samples):
                break
        took_s = clock.monotonic() - began
    return samples


def _sample_places(
    job: FfmpegRun, former: Sequence[Sample], most: int
) -> Iterator[tuple[float, bool]]:
    """Yield where samples may begin, and whether the source's bytes chose the place."""
    track = _source_with_sizes(job.request)
    length_s = job.request.duration_s or 0.0
    if track is not None:
        yield from ((at, True) for at in places_by_bytes(track))
    elif not former:
        count = max(1, min(most, int(length_s / (2 * SAMPLE_S))))
        yield from ((at, False) for at in sample_times(length_s, count))


def _source_with_sizes(request: EncodeRequest) -> TrackMeasure | None:
    """Return the source's main video track, if the sizes of its frames are known."""
    track = request.measured.track(request.plan.main_video.source_index)
    return track if track is not None and any(track.sizes) else None


def places_by_bytes(track: TrackMeasure) -> Iterator[float]:
    """Yield where samples may begin; every byte of the source is equally likely.

    Multiples of the golden section are evenly spread, however many are taken.
    """
    last_s = track.shown_s - SAMPLE_S
    mean = fmean(track.sizes)
    before = list(accumulate(_selection_weight(size, mean) for size in track.sizes))
    for turn in range(math.ceil(2 * max(0.0, last_s) / SAMPLE_S) + 1):
        number = bisect_left(before, (0.5 + turn * GOLDEN) % 1 * before[-1])
        shown_s = (track.times[number] - track.times[0]) * track.tick_s
        # Put the frame anywhere within the sample: it is often a key frame, and those are evenly spaced.
        yield max(0.0, min(shown_s - (1.0 + turn * 2**0.5) % SAMPLE_S, last_s))


def _overlapping_sample(job: FfmpegRun, samples: Sequence[Sample], at: float) -> Sample | None:
    """Return a sample that overlaps with one that would begin at `at`: it counts again instead."""
    track = _source_with_sizes(job.request)
    assert track is not None
    number = number_at(track, at)
    overlapping = (e for e in samples if abs(e.frames[0] - number) < e.frames[1] - e.frames[0])
    return next(overlapping, None)


def _selection_weight(size: float, mean: float) -> float:
    """Return how many times as likely a frame of this size is sampled as one of the mean size."""
    return (size / mean + WEIGHT_FLOOR) / (1 + WEIGHT_FLOOR)


def extrapolate(request: EncodeRequest, samples: Sequence[Sample]) -> Estimate | None:
    """Estimate the whole rendition from samples, with as many scene cuts per frame as they have."""
    length_s = request.duration_s
    samples = [each for each in samples if len(each.sizes) > WARM_UP_FRAMES]
    if not (samples and length_s):
        return None
    sounds = sum(_other_bit_rates(request)) * length_s / 8
    for each in samples:
        if each.seconds > length_s:
            return Estimate(sum(each.sizes) + sounds, 0.0, each.cpu_s)
    total, parts = _sample_ratios(request, samples)
    weights = [weight for _, _, weight in parts]
    became = sum(size * weight for size, _, weight in parts)
    ratio = became / (sum(source * weight for _, source, weight in parts) or 1.0)
    draws = [each.by_time + each.by_bytes for each in samples]
    misses = [
        (size - ratio * source) * weight / drawn**0.5
        for (size, source, weight), drawn in zip(parts, draws, strict=True)
    ]
    spread = math.hypot(USUAL_SPREAD, *(miss * sum(draws) / (became or 1.0) for miss in misses))

    def mean(values: Sequence[float]) -> float:
        """Return the mean over time, corrected for how the samples were chosen."""
        return sum(map(math.prod, zip(values, weights, strict=True))) / sum(weights)

    seconds = mean([min(each.seconds, length_s) for each in samples])
    frames = length_s / seconds * mean([len(each.sizes) for each in samples])
    # Every sample begins with a key frame, cut or not.
    cuts = mean([(len(each.keys) - 1) / (len(each.sizes) - 1) for each in samples])
    # The key frames that the encoder adds between cuts, if cuts come at random.
    keys = (
        frames * cuts / math.expm1(MAX_GROUP_FRAMES * cuts) if cuts else frames / MAX_GROUP_FRAMES
    )
    key = mean([each.sizes[0] - fmean(each.sizes[1:]) for each in samples])
    size = ratio * total + max(1.0, keys) * key + sounds
    cpu_s = length_s * mean([each.cpu_s for each in samples]) / (SHORT_ENCODE_COST * seconds)
    unseen = max(0.0, 1 - SAMPLE_S * len(samples) / length_s)
    return Estimate(size, math.hypot(EDGE_ERROR, spread / sum(draws) * unseen**0.5), cpu_s)


def _sample_ratios(
    request: EncodeRequest, samples: Sequence[Sample]
) -> tuple[float, Sequence[tuple[float, float, float]]]:
    """Return the source's total, and for each sample: bytes of a frame, its source's measure, and its weight.

    The source is measured in bytes, or in frames where sizes are unknown. The likelier a sample's place
    was, over both ways of choosing places, the smaller its weight (Veach's balance heuristic).
    """
    track = _source_with_sizes(request)
    if track is None or not all(begin < end for begin, end in (e.frames for e in samples)):
        frames = (request.duration_s or 0.0) * sum(len(each.sizes) for each in samples)
        frames /= sum(min(each.seconds, request.duration_s or 0.0) for each in samples)
        return frames, [(fmean(each.sizes[WARM_UP_FRAMES:]), 1.0, 1.0) for each in samples]
    mean, parts = fmean(track.sizes), list[tuple[float, float, float]]()
    by_time = sum(each.by_time for each in samples)
    by_bytes = sum(each.by_bytes for each in samples)
    for each in samples:
        begin, end = each.frames
        source = fmean(track.sizes[begin:end])
        likely = by_time + by_bytes * _selection_weight(source, mean)
        # All of the source's frames count: its key frames may be as far apart as the samples.
        counted = fmean(each.sizes[WARM_UP_FRAMES:]) * len(each.sizes) / (end - begin)
        parts.append((counted, source, (each.by_time + each.by_bytes) / likely))
    return float(sum(track.sizes)), parts


def number_at(track: TrackMeasure, at: float) -> int:
    """Return the number of the frame that is shown `at` seconds after the first one."""
    number = bisect_left(track.times, track.times[0] + at / track.tick_s)
    return min(number, len(track.times) - 1)


def _other_bit_rates(request: EncodeRequest) -> Iterator[float]:
    """Yield the bits per second of the other tracks: measured if copied, or else planned or from the header."""
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


def packet_sizes(job: FfmpegRun, sample: Path, at: float, seconds: float = SAMPLE_S) -> Sample:
    """Return a sample with the sizes of its packets and the range of its frames in the source."""
    track = job.request.measured.track(job.request.plan.main_video.source_index)
    frames, packets = (0, 0), list[tuple[int, int, bool]]()
    if track is not None and track.sizes:
        frames = number_at(track, at), number_at(track, at + seconds)

    def on_line(line: str) -> None:
        fields = parse_fields(line)
        shown, size, flags = (fields.get(n, "") for n in ("pts", "size", "flags"))
        if size.isdigit() and shown.isdigit():
            packets.append((int(shown), int(size), "K" in flags))

    path = str(sample)
    argv = [
        job.tools.ffprobe, "-v", "error", "-show_entries", "packet=pts,size,flags",
        "-of", KEYED, *input_options(path),
    ]  # fmt: skip
    run_child(
        argv,
        stop=job.stop,
        limits=with_read_access(PROBE_LIMITS, job.tools, path),
        on_line=on_line,
        deadline_s=PROBE_DEADLINE_S,
    )
    packets.sort()
    return Sample(
        sizes=[size for _, size, _ in packets],
        keys=[number for number, (_, _, key) in enumerate(packets) if key],
        frames=frames,
        seconds=seconds,
    )
