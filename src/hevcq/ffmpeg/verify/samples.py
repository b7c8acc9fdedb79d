"""Encode some seconds of a long video before all of it, and say whether the whole is bound to fail.

Only what cannot end well is stopped: samples all over the video that each come out too large by a
margin (G6), or one that is a wrong picture (G8). What cannot be sampled is encoded whole, and the
gates decide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import hypot
from pathlib import Path
from statistics import fmean

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.formats import SOFTWARE
from hevcq.domain.media.facts import Measurement, StreamKind, TrackMeasure
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
THINNED_KEYS = 500
"""Key frames from which a measurement may name every second one, or fourth, only."""


@dataclass(slots=True)
class Sizes:
    """The bytes of one stream's packets in samples: of the key frames, and of the others."""

    keys: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)

    def whole(self, frames: int, keys: float) -> float:
        """Return the bytes of so many frames like these, so many of them key frames."""
        key = sum(self.keys) / len(self.keys)
        return keys * key + max(0.0, frames - keys) * sum(self.others) / len(self.others)


@dataclass(frozen=True, slots=True)
class _Shares:
    """What a sample says of the whole rendition's size, as a share of the source's.

    `by_source`: by what it makes of its own source bytes. `by_frames`: by the bytes of its frames. The
    two differ where a source spends its bytes unevenly.
    """

    by_source: float
    by_frames: float


def sample_times(track: TrackMeasure) -> list[float]:
    """Return the key frames at which samples begin, in seconds: the middle first, then to both sides."""
    first, last = track.first_pts_s or 0.0, track.last_pts_s or 0.0
    count = min(MOST, max(LEAST, int((last - first) / EVERY_S)))
    keys = [key for key in track.keys_s if first <= key <= last - SAMPLE_S]
    if not keys:
        return []
    shares = sorted(((place + 0.5) / count for place in range(count)), key=lambda s: abs(s - 0.5))
    wanted = [first + share * (last - first) for share in shares]
    return list(dict.fromkeys(min(keys, key=lambda key: abs(key - at)) for at in wanted))


def try_samples(job: FfmpegRun, measured: Measurement) -> tuple[GateResult, ...]:
    """Return the gate that the whole video would not pass; () if it may, or if nothing is known.

    `job.request.output` is a file that does not exist yet; it is removed again. Raises Stopped,
    OutOfMemory, DiskFull and WorkerUnfit, as the whole encode would.
    """
    request = job.request
    track = measured.track(request.plan.main_video.source_index)
    if track is None or not _may_be_sampled(job):
        return ()
    saving = request.profile.gates.minimum_saving
    most = float("inf") if saving is None else 1 - saving
    began, shares = job.tools.clock.monotonic(), []
    for at in sample_times(track):
        try:
            found = _sampled(job, measured, track, at)
        except OutOfMemory:
            raise
        except (EncoderFailed, LimitExceeded, PermanentError):
            return ()
        seconds = job.tools.clock.monotonic() - began
        if isinstance(found, str):
            detail = f"a trial encode of {SAMPLE_S:g} s at {timecode(at, 0)} went wrong: {found}"
            wrong = GateResult(gate=Gate.G8, outcome=Outcome.FAILED, detail=detail, seconds=seconds)
            return (wrong,)
        if found is None or found.by_source <= most + MARGIN:
            return ()
        shares.append(found)
    share = sum(each.by_frames for each in shares) / max(1, len(shares))
    if len(shares) < LEAST or share <= most + MARGIN:
        return ()
    share = min(share, sum(each.by_source for each in shares) / len(shares))
    detail = (
        f"about {share:.0%} of the original's size by {len(shares)} trial encodes of {SAMPLE_S:g} s,"
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


def _sampled(
    job: FfmpegRun, measured: Measurement, track: TrackMeasure, at: float
) -> str | _Shares | None:
    """Encode one sample; return what is wrong with its pictures, or what it says of the whole's size."""
    request = job.request
    thumbnails = request.output.with_name(f"{request.output.name}.thumbnails")
    try:
        for path in (request.output, thumbnails):
            create_output(path)
        report = run_with_progress(
            job,
            _command(job, at, thumbnails),
            SAMPLE_S,
            lambda _: None,
            writes=(request.output, thumbnails),
        )
        if any(unexpected_lines(report.stderr, Pass.MIDSTREAM)):
            return None
        problem = _picture_problem(job, measured, report, thumbnails)
        return problem or _shares(job, measured, track)
    finally:
        for path in (request.output, thumbnails):
            path.unlink(missing_ok=True)


def _command(job: FfmpegRun, at: float, thumbnails: Path) -> list[str]:
    """Return the command that writes a sample beside its source's packets, and its thumbnails."""
    video = job.request.plan.main_video
    both = [*["-map", f"0:{video.source_index}"] * 2, "-c:1", "copy"]
    graph = source_graph(video.video or job.request.plan.video)
    return [
        *sample_command(job, at, job.request.output, both),
        *thumbnail_output(video.source_index, graph, f"file:{thumbnails}"),
    ]


def sample_command(job: FfmpegRun, at: float, sample: Path, pictures: Sequence[str]) -> list[str]:
    """Return the command that encodes a sample as all of the video would be.

    `pictures` maps them, and the filters are its own if it begins with a graph.
    """
    request, video = job.request, job.request.plan.main_video
    threads = request.threads or request.profile.bounds.threads
    target = video.video or request.plan.video
    command = [*base_command(job.tools, threads), *seek_options(at), "-t", f"{SAMPLE_S:g}"]
    command += [*source_input(request.location, request.info), *pictures]
    tick = next(s.tick for s in request.info.streams if s.index == video.source_index)
    options = chunk_options(target, request.profile, tick=tick, threads=threads, trim="null")
    # A source's packets of any codec need Matroska, which has no tag.
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
    first_s = next(s.start_s for s in request.info.streams if s.index == video) or 0.0
    count = max(1, min(count, int(length_s / (2 * SAMPLE_S))))
    sampled_s, until = min(SAMPLE_S, length_s), job.tools.clock.monotonic() + request.max_seconds
    for place in sorted(range(count), key=lambda n: abs(n - count // 2)):  # time may end it early
        at = first_s + (place + 0.5) * length_s / count - sampled_s / 2
        try:
            create_output(request.output)
            command = sample_command(job, at, request.output, ["-map", f"0:{video}"])
            # Else several would begin at one key frame.
            command = [word for word in command if word != "-noaccurate_seek"]
            writes = (request.output,)
            report = run_with_progress(job, command, SAMPLE_S, lambda _: None, writes=writes)
            sizes = packet_sizes(job, request.output)[0]
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
    if not made:
        return None
    times = length_s / (sampled_s * len(made))
    frames = times * sum(len(each.keys) + len(each.others) for each in made)
    rates = [each.whole(GROUP_FRAMES, 1) for each in made]
    mean = fmean(rates)
    error = hypot(USUAL_SPREAD, *(rate / mean - 1 for rate in rates)) / len(rates)
    key_frames = max(1.0, frames / GROUP_FRAMES)
    everything = Sizes([k for s in made for k in s.keys], [o for s in made for o in s.others])
    size = everything.whole(round(frames), key_frames) + _sound(request) * length_s / 8
    return Estimate(size, error * max(0.0, 1 - 1 / times) ** 0.5, times * cpu_s / SHORT_ENCODE)


def _sound(request: EncodeRequest) -> float:
    """Return the bits a second of a rendition's sound, as far as the header says."""
    sounds = {s.index: (s.bit_rate, s.audio) for s in request.info.streams if s.audio}
    return sum(
        kept.bit_rate or rate or UNKNOWN_SOUND * audio.channels
        for kept in request.plan.kept
        for rate, audio in [sounds.get(kept.source_index, (None, None))]
        if audio
    )


def _picture_problem(
    job: FfmpegRun, measured: Measurement, report: EncodeReport, thumbnails: Path
) -> str:
    """Compare every picture of the sample with its source's, as G8 does; return what is wrong."""
    request, target = job.request, job.request.plan.video
    asked = replace(request, measured=measured).to_verify(report)
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


def _shares(job: FfmpegRun, measured: Measurement, track: TrackMeasure) -> _Shares | None:
    """Return the rendition's size if all of the video is like its samples; None if nothing is known.

    Rather too small: the tracks that are copied, and the video with the fewest key frames.
    """
    made, there = packet_sizes(job, job.request.output)
    if not (made.keys and made.others and there.keys and there.others):
        return None
    frames, keys = track.packets, float(len(track.keys_s))
    if len(track.keys_s) >= THINNED_KEYS:
        seen = len(there.keys) + len(there.others)
        keys = max(keys, frames * len(there.keys) / seen)
    video, size = made.whole(frames, frames / GROUP_FRAMES), max(1, job.request.source_size)
    same = sum(copied(job, measured))
    like_source = track.bytes * video / max(1.0, there.whole(frames, keys))
    return _Shares((same + like_source) / size, (same + video) / size)


def copied(job: FfmpegRun, measured: Measurement) -> Iterator[int]:
    """Yield the bytes of the tracks that the rendition holds as they are."""
    for kept in job.request.plan.kept:
        track = measured.track(kept.source_index)
        if kept.action is Action.COPY and kept.kind is not StreamKind.ATTACHMENT and track:
            yield track.bytes


def packet_sizes(job: FfmpegRun, sample: Path) -> tuple[Sizes, Sizes]:
    """Return the packets' sizes of the encoded stream of a sample, and of its source."""
    found = (Sizes(), Sizes())

    def line(text: str) -> None:
        fields = keyed(text)
        stream, size, flags = (fields.get(n, "") for n in ("stream_index", "size", "flags"))
        if stream in {"0", "1"} and size.isdigit():
            sizes = found[int(stream)]
            (sizes.keys if "K" in flags else sizes.others).append(int(size))

    path = str(sample)
    argv = [
        job.tools.ffprobe, "-v", "error", "-show_entries", "packet=stream_index,size,flags",
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
