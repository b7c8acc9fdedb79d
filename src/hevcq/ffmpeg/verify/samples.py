"""Encode some seconds of a video before all of it, and say what the whole comes to.

The source says how much happens where: its frames' bytes, which cost one read of the file, lead the way.
Samples begin where they fall in its bytes rather than in its time, each becomes so many times as large as
its source, and the mean of that is the whole's (Hansen and Hurwitz, 1943). That needs half the samples that
as good a forecast needs by their mean alone.
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

WARM = 8
"""Frames of a sample that lean on its own key frame, which the whole has elsewhere: they say nothing of it."""
GROUP_FRAMES = 250
"""Frames from one key frame to the next of the rendition at most, as the encoders have it."""
UNKNOWN_SOUND = 64_000
"""Bits a second of a channel whose rate the header does not say."""
USUAL_SPREAD = 0.5
"""Share by which one more sample would differ from the others: few may be alike by chance."""
EDGES = 0.04
"""Standard error that no number of samples takes away: each begins and ends somewhere (docs/quality.md)."""
ENOUGH = 0.1
"""Share by which four of five forecasts miss at most, at which no more is sampled."""
FEW, USUAL = 4, 12
"""Samples whose spread says how many are needed, and how many mostly are."""
FLOOR = 0.1
"""Share of its mean frame by which the source's frames count for more: a still picture has none to speak of."""
GOLDEN = (5**0.5 - 1) / 2
SHORT_ENCODE = 1.5
"""How many times as much CPU a second of a sample takes as one of the whole (docs/quality.md)."""


@dataclass(slots=True)
class Sample:
    """What a sample came to: the bytes of its frames in the order shown, and CPU seconds.

    `keys` are the numbers of its key frames, `frames` those of the first of its source's frames and the
    one behind the last; (0, 0): unknown. Its place was drawn so often by the time, and by the source's
    bytes. `scores` are VMAF of each frame, where it was measured.
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
    """Return where samples begin, in seconds from the first frame: the middle first, then to both sides."""
    share = length_s / count
    begins = [(place + 0.5) * share - min(SAMPLE_S, share) / 2 for place in range(count)]
    return sorted(begins, key=lambda at: abs(at - begins[count // 2]))


def _may_be_sampled(job: FfmpegRun) -> bool:
    """Return whether a piece of the video is encoded like all of it."""
    request = job.request
    return (
        request.profile.video.encoder == (SOFTWARE,)
        and request.plan.ladder is None
        and not request.plan.video.rate
        # Its fields are counted from the first frame of the file.
        and not request.plan.video.telecine
        and not request.plan.video.retimed
        and request.plan.main_video.action is not Action.COPY
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
    stream = request.info.stream(video.source_index)
    # To the very frame: else several samples would begin at one key frame.
    early, trim = _early(request, at), begin_filter(request, at, seconds)
    begin = (stream.start_s or 0.0) + at - early
    seek = [each for each in seek_options(begin) if each != "-noaccurate_seek"]
    command = [*base_command(job.tools, threads), *seek, "-t", f"{early + seconds:g}"]
    command += [*source_input(request.location, request.info), *pictures]
    options = chunk_options(target, request.profile, tick=stream.tick, threads=threads, trim=trim)
    unset = {"-tag", "-filter" if pictures[0] == "-filter_complex" else ""}
    command += [word for n, v in options if n not in unset for word in (f"{n}:0", v)]
    command += ["-map_metadata", "-1", "-map_chapters", "-1", "-f", "matroska", f"file:{sample}"]
    return command


def begin_filter(request: EncodeRequest, at: float, seconds: float = SAMPLE_S) -> str:
    """Return the filter that drops what comes before a sample in a file that is entered early."""
    early = _early(request, at)
    # ffmpeg counts its own duration (-t) from the first frame that can be decoded.
    return f"trim=start={early - 0.001:.3f}:duration={seconds:g}" if early else "null"


def _early(request: EncodeRequest, at: float) -> float:
    """Return the seconds before a sample at which its file is entered: no index leads to a key frame."""
    demuxer = request.info.format_name.partition(",")[0]
    return min(at, PREROLL_S) if demuxer in UNINDEXED_FORMATS else 0.0


def estimate(job: FfmpegRun, count: int) -> Estimate | None:
    """Encode samples; see `Encoder.estimate`."""
    request, length_s = job.request, job.request.duration_s
    if not length_s or not _may_be_sampled(job) or len(request.plan.encoded(StreamKind.VIDEO)) > 1:
        return None
    until = job.tools.clock.monotonic() + request.max_seconds
    return whole_of(request, refined(job, (), max(1, count), until))


def refined(job: FfmpegRun, made: Sequence[Sample], most: int, until: float) -> list[Sample]:
    """Return some samples and at most so many more: until they say enough, or the time is over.

    Where as many as are still needed would cost what the whole does, and there is time, it is encoded whole.
    """
    found, clock, length_s = (
        [replace(each) for each in made],
        job.tools.clock,
        job.request.duration_s,
    )
    took_s, failed = 0.0, 0
    assert length_s is not None
    for at, by_bytes in _places(job, made, most):
        if by_bytes and (drawn := _at(job, found, at)) is not None:
            drawn.by_bytes += 1
            continue
        known = whole_of(job.request, found)
        missing = most - (len(found) - len(made))
        if known is not None:
            if known.within <= ENOUGH:
                break
            # The error shrinks with the root of the samples; that of few says little.
            needed = len(found) * (known.within / ENOUGH) ** 2 if len(found) >= FEW else USUAL
            missing = min(missing, math.ceil(needed) - len(found))
        left_s = until - clock.monotonic()
        if missing <= 0 or (found and left_s <= 0):
            break
        # The first sample says how long the whole takes.
        short = length_s <= SHORT_ENCODE * SAMPLE_S * missing
        in_time = length_s < 3 * SAMPLE_S or 0 < took_s * length_s < left_s * SAMPLE_S
        began = clock.monotonic()
        try:
            if short and in_time:
                found.append(sized(job, 0.0, length_s + SAMPLE_S))
                break
            one = sized(job, at)
            found.append(replace(one, by_time=int(not by_bytes), by_bytes=int(by_bytes)))
        except OutOfMemory:
            raise
        except (EncoderFailed, LimitExceeded, PermanentError):
            failed += 1
            if failed > len(found):
                break
        took_s = clock.monotonic() - began
    return found


def _places(job: FfmpegRun, made: Sequence[Sample], most: int) -> Iterator[tuple[float, bool]]:
    """Yield where samples may begin, and whether that is by the source's bytes."""
    track = _source(job.request)
    length_s = job.request.duration_s or 0.0
    if track is not None:
        yield from ((at, True) for at in places_by_bytes(track))
    elif not made:
        count = max(1, min(most, int(length_s / (2 * SAMPLE_S))))
        yield from ((at, False) for at in sample_times(length_s, count))


def _source(request: EncodeRequest) -> TrackMeasure | None:
    """Return the source's picture, if the bytes of its frames are known."""
    track = request.measured.track(request.plan.main_video.source_index)
    return track if track is not None and any(track.sizes) else None


def places_by_bytes(track: TrackMeasure) -> Iterator[float]:
    """Yield where samples may begin, each byte of the source as likely; twice where there are many.

    Multiples of the golden section lie evenly, however many there are.
    """
    last_s = track.shown_s - SAMPLE_S
    mean = fmean(track.sizes)
    before = list(accumulate(_likelier(size, mean) for size in track.sizes))
    for turn in range(math.ceil(2 * max(0.0, last_s) / SAMPLE_S) + 1):
        number = bisect_left(before, (0.5 + turn * GOLDEN) % 1 * before[-1])
        shown_s = (track.times[number] - track.times[0]) * track.tick_s
        # Anywhere within the sample: that frame is often a key frame, and those come at an even pace.
        yield max(0.0, min(shown_s - (1.0 + turn * 2**0.5) % SAMPLE_S, last_s))


def _at(job: FfmpegRun, found: Sequence[Sample], at: float) -> Sample | None:
    """Return the sample that overlaps with one from there on: what it says need not be encoded again."""
    track = _source(job.request)
    assert track is not None
    number = number_at(track, at)
    overlapping = (e for e in found if abs(e.frames[0] - number) < e.frames[1] - e.frames[0])
    return next(overlapping, None)


def _likelier(size: float, mean: float) -> float:
    """Return how much more often frames of a size are sampled than those of the mean size."""
    return (size / mean + FLOOR) / (1 + FLOOR)


def whole_of(request: EncodeRequest, made: Sequence[Sample]) -> Estimate | None:
    """Return what some samples say of the whole rendition, with as many cuts as are in them."""
    made, length_s = [each for each in made if len(each.sizes) > WARM], request.duration_s
    if not (made and length_s):
        return None
    sounds = sum(_others(request)) * length_s / 8
    for each in made:
        if each.seconds > length_s:
            return Estimate(sum(each.sizes) + sounds, 0.0, each.cpu_s)
    total, parts = _parts(request, made)
    weights = [weight for _, _, weight in parts]
    became = sum(size * weight for size, _, weight in parts)
    ratio = became / (sum(source * weight for _, source, weight in parts) or 1.0)
    draws = [each.by_time + each.by_bytes for each in made]
    misses = [
        (size - ratio * source) * weight / drawn**0.5
        for (size, source, weight), drawn in zip(parts, draws, strict=True)
    ]
    spread = math.hypot(USUAL_SPREAD, *(miss * sum(draws) / (became or 1.0) for miss in misses))

    def mean(values: Sequence[float]) -> float:
        """Return a mean over time, whichever way the samples were chosen."""
        return sum(map(math.prod, zip(values, weights, strict=True))) / sum(weights)

    seconds = mean([min(each.seconds, length_s) for each in made])
    frames = length_s / seconds * mean([len(each.sizes) for each in made])
    # Each sample begins with a key frame anyway.
    cuts = mean([(len(each.keys) - 1) / (len(each.sizes) - 1) for each in made])
    # Key frames where no cut is for so long, if cuts come by chance.
    keys = frames * cuts / math.expm1(GROUP_FRAMES * cuts) if cuts else frames / GROUP_FRAMES
    key = mean([each.sizes[0] - fmean(each.sizes[1:]) for each in made])
    size = ratio * total + max(1.0, keys) * key + sounds
    cpu_s = length_s * mean([each.cpu_s for each in made]) / (SHORT_ENCODE * seconds)
    unseen = max(0.0, 1 - SAMPLE_S * len(made) / length_s)
    return Estimate(size, math.hypot(EDGES, spread / sum(draws) * unseen**0.5), cpu_s)


def _parts(
    request: EncodeRequest, made: Sequence[Sample]
) -> tuple[float, Sequence[tuple[float, float, float]]]:
    """Return what the whole source counts, and of each sample: bytes of a frame, what its source counts, weight.

    The source counts its bytes, or its frames where those are unknown. A sample weighs less the likelier
    its place was, over all the ways in which the places were chosen (Veach's balance heuristic).
    """
    track = _source(request)
    if track is None or not all(begin < end for begin, end in (e.frames for e in made)):
        frames = (request.duration_s or 0.0) * sum(len(each.sizes) for each in made)
        frames /= sum(min(each.seconds, request.duration_s or 0.0) for each in made)
        return frames, [(fmean(each.sizes[WARM:]), 1.0, 1.0) for each in made]
    mean, parts = fmean(track.sizes), list[tuple[float, float, float]]()
    by_time, by_bytes = (sum(each.by_time for each in made), sum(each.by_bytes for each in made))
    for each in made:
        begin, end = each.frames
        source = fmean(track.sizes[begin:end])
        likely = by_time + by_bytes * _likelier(source, mean)
        # Of the source all frames count: its key frames may lie at the pace of the samples.
        counted = fmean(each.sizes[WARM:]) * len(each.sizes) / (end - begin)
        parts.append((counted, source, (each.by_time + each.by_bytes) / likely))
    return float(sum(track.sizes)), parts


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


def packet_sizes(job: FfmpegRun, sample: Path, at: float, seconds: float = SAMPLE_S) -> Sample:
    """Return the packets' sizes of a sample, and which frames of the source it is of."""
    found = Sample(seconds=seconds)
    track = job.request.measured.track(job.request.plan.main_video.source_index)
    if track is not None and track.sizes:
        found.frames = number_at(track, at), number_at(track, at + seconds)

    packets = list[tuple[int, int, bool]]()

    def line(text: str) -> None:
        fields = parse_fields(text)
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
        on_line=line,
        deadline_s=PROBE_DEADLINE_S,
    )
    packets.sort()
    found.sizes = [size for _, size, _ in packets]
    found.keys = [number for number, (_, _, key) in enumerate(packets) if key]
    return found
