"""Gate G5: compare the measured packets and times of every track with the source's. Pure.

Headers are not used: a truncated file keeps the duration in its header.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import lcm

from hevcq.domain.media.containers import OGG, SEAMLESS
from hevcq.domain.media.facts import Measurement, MediaInfo, Stream, StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import FILM_TICK, Action, EncodePlan, StreamPlan
from hevcq.ffmpeg.inputs import FORMATS_WITHOUT_PTS
from hevcq.ffmpeg.verify.streams import output_streams
from hevcq.util.text import lateness, timecode

MAX_DRIFT_S = 0.1
"""Seconds by which a track's first or last time may change."""
COPIED_OFFSET_S = 0.012
"""Seconds by which copying may shift a track against the video: times are rounded to milliseconds, and
containers count Opus's pre-skip of 6.5 ms differently."""
PADDING_SAMPLES = 2048
"""An audio encoder may start and end up to two frames of 1024 samples off the source."""
ROUNDED_FRAMES = 2
"""Frames that a constant rate may add or remove: the first and last times are rounded to its ticks."""
LONGEST_HELD_S = 1.0
"""Seconds for which the last frame may be held at a constant rate, and at most the source's mean frame
duration: the last frame's own duration is not stored, and ffmpeg takes the mean."""
_PAIRED_FIELDS = frozenset({"h264", "mpeg2video", "vc1", "mpeg1video"})
"""Codecs that may store each field in a packet, so that two packets are one frame."""
_REFRAMED = frozenset({"mpegts", "mpeg", "aac", "h264", "hevc", "ogg", "asf", "rm", "flv", "avi"})
"""Demuxers whose packets contain framing that other containers omit (ADTS headers)."""
_SELF_FRAMED = frozenset({"mp2", "mp3", "ac3", "eac3", "dts"})
"""Codecs whose frames have the same bytes in every container, once parsed by the demuxer."""
_REPACKED = frozenset({"wavpack", "prores"})
"""Codecs whose headers Matroska removes and its readers restore."""


@dataclass(frozen=True, slots=True)
class TrackPair:
    """One kept track: its plan, its source stream, and the measurements of both files."""

    kept: StreamPlan
    origin: Stream
    source: TrackMeasure
    made: TrackMeasure
    made_tick: Fraction = Fraction(1, 1000)
    leaves_repeats: bool = False
    """Whether the output leaves out repeated frames; G8 then compares up to the source's last frame."""

    @property
    def name(self) -> str:
        """The name of the track in messages."""
        return f"{self.kept.kind.value} track {self.kept.position}"


@dataclass(frozen=True, slots=True)
class TimingInputs:
    """The inputs of G5; `frames` is the encoder's frame count of the video (0 if unknown)."""

    plan: EncodePlan
    source: MediaInfo
    measured: Measurement
    output: MediaInfo
    made: Measurement
    frames: int


def time_problems(compared: TimingInputs) -> list[str]:
    """Return the differences between the source's packets and the output's, as clauses."""
    if compared.made.errors:
        return [f"reading the new file reports an error: {compared.made.errors[0]}"]
    pairs, problems = _pairs(compared)
    main = next((p for p in pairs if p.kept == compared.plan.main_video), None)
    if main is None or main.source.first_pts_s is None or main.made.first_pts_s is None:
        return [*problems, "the video has no times that could be compared"]
    shift = main.made.first_pts_s - main.source.first_pts_s
    for pair in pairs:
        clauses = [
            *_count_problems(compared, pair, pair is main),
            *_first_and_last_problems(pair, shift),
        ]
        if not clauses:
            # Times that ffmpeg derives are off by the decoder's delay.
            timed = compared.source.format_name.partition(",")[0] not in FORMATS_WITHOUT_PTS
            timed = timed and compared.plan.muxer not in FORMATS_WITHOUT_PTS
            clauses = [*frame_time_problems(pair), *_offset_problems(pair, shift)] if timed else []
        problems += [f"{pair.name}: {problem}" for problem in clauses]
    return problems


def _pairs(compared: TimingInputs) -> tuple[list[TrackPair], list[str]]:
    streams = output_streams(compared.plan, compared.output)
    pairs, problems = [], []
    for kept, stream in zip(compared.plan.kept, streams, strict=False):
        if kept.kind is StreamKind.ATTACHMENT:
            continue
        before = compared.measured.track(kept.source_index)
        after = compared.made.track(stream.index)
        if before is None or before.packets + before.discarded == 0:
            continue
        if after is None or after.packets == 0:
            problems.append(f"{kept.kind.value} track {kept.position} is empty")
            continue
        origin = compared.source.stream(kept.source_index)
        before, origin = _as_inverse_telecined(kept, _with_lead_in(compared, kept, before), origin)
        before = before.keep_every(kept.video.every if kept.video is not None else 1)
        # Theora encodes a repeated frame as an empty packet, which ffmpeg's Ogg muxer leaves out.
        repeats = compared.plan.muxer == OGG and kept.kind is StreamKind.VIDEO
        pairs.append(TrackPair(kept, origin, before, after, stream.tick, repeats))
    return pairs, problems


def _as_inverse_telecined(
    kept: StreamPlan, track: TrackMeasure, origin: Stream
) -> tuple[TrackMeasure, Stream]:
    """Return the track and its stream with the frames and times that inverse telecine must produce."""
    if kept.video is None or not kept.video.telecine or track.first_pts_s is None:
        return track, origin
    # `decimate` drops one of every five frames, and none of an incomplete five.
    frames = track.packets - track.packets // 5
    step = 1 / (Fraction(kept.video.telecine) * FILM_TICK)
    times = tuple(int(step * number) for number in range(frames))
    last = track.first_pts_s + float(times[-1] * FILM_TICK) if times else track.first_pts_s
    facts = {"packets": frames, "times": times, "last_pts_s": last}
    progressive = None
    if origin.video is not None:
        progressive = origin.video.model_copy(update={"field_order": "progressive"})
    stream = {"time_base": str(FILM_TICK), "video": progressive}
    return track.model_copy(update=facts), origin.model_copy(update=stream)


def _with_lead_in(compared: TimingInputs, kept: StreamPlan, track: TrackMeasure) -> TrackMeasure:
    """Move the track's start to the file's start if its first frame is held, or silence precedes its sound.

    This is so where times are made even, and for encoded sound in containers in which no track can begin late.
    """
    start = compared.source.origin_s(compared.plan.mapped)
    evened = kept.video is not None and bool(kept.video.rate)
    sound = kept.kind is StreamKind.AUDIO and kept.action is not Action.COPY
    silent = sound and compared.plan.muxer in SEAMLESS
    if not (evened or silent) or track.first_pts_s is None:
        return track
    return track.model_copy(update={"first_pts_s": min(start, track.first_pts_s)})


def _count_problems(compared: TimingInputs, pair: TrackPair, is_main: bool) -> Iterator[str]:  # noqa: FBT001
    if pair.kept.action is Action.COPY:
        yield from _copy_problems(compared, pair)
    elif pair.kept.kind is StreamKind.VIDEO:
        yield from _frame_count_problems(pair, compared.frames if is_main else 0)
    if not pair.made.monotonic_dts and pair.kept.kind in {StreamKind.VIDEO, StreamKind.AUDIO}:
        yield "the times at which it is decoded go backwards"


def _frame_count_problems(pair: TrackPair, frames: int) -> Iterator[str]:
    made, source = pair.made.packets + pair.made.discarded, pair.source.packets
    rate = Fraction(pair.kept.video.rate or 0) if pair.kept.video is not None else Fraction(0)
    if frames and made != frames and not (pair.leaves_repeats and made < frames):
        yield f"it has {made} frames, but {frames} were encoded"
    if rate:
        yield from _even_rate_problems(
            pair, rate, frames if pair.leaves_repeats and frames else made
        )
        return
    video = pair.origin.video
    fields = video is not None and video.marked_interlaced and pair.origin.codec in _PAIRED_FIELDS
    fewest = (source + 1) // 2 if fields else source
    # Deinterlacing to full rate makes a frame of each field.
    times = pair.kept.video.frames_per_frame if pair.kept.video is not None else 1
    if not fewest * times <= made <= source * times or made % times:
        promised = f", and {times} are made of each" if times > 1 else ""
        yield f"it has {made} frames, the source {source}{promised}"


def _even_rate_problems(pair: TrackPair, rate: Fraction, made: int) -> Iterator[str]:
    """Require the number of frames that a constant rate has from the source's first frame to its last.

    The last frame may be held for the source's mean frame duration.
    """
    source, times = pair.source, pair.kept.video.frames_per_frame if pair.kept.video else 1
    if made == source.packets * times or source.first_pts_s is None or source.last_pts_s is None:
        return
    expected = round((source.last_pts_s - source.first_pts_s) * float(rate)) + 1
    held = int(_max_hold_s(pair) * rate) + 1
    if not expected - ROUNDED_FRAMES <= made <= expected + max(ROUNDED_FRAMES, held):
        yield f"it has {made} frames; at {float(rate):.6g} a second it should have {expected}"


def _max_hold_s(pair: TrackPair) -> Fraction:
    """Return for how many seconds the last frame may be held: at a constant rate only, else 0."""
    source = pair.source
    evened = pair.kept.video is not None and bool(pair.kept.video.rate)
    if not evened or source.first_pts_s is None or source.last_pts_s is None or source.packets < 2:
        return Fraction(0)
    mean = (source.last_pts_s - source.first_pts_s) / (source.packets - 1)
    return Fraction(max(0.0, min(mean, LONGEST_HELD_S)))


def _copy_problems(compared: TimingInputs, pair: TrackPair) -> Iterator[str]:
    """Compare a copied track. Only packets with the discard flag may be dropped, or lose the flag."""
    if pair.source.content and pair.made.content and not pair.source.discarded:
        # Muxers divide PCM and merge PGS into other packets, so the content is compared instead.
        if pair.source.content != pair.made.content:
            yield "it was copied, but its content is not that of the source"
        return
    total = pair.made.packets + pair.made.discarded
    if not pair.source.packets <= total <= pair.source.packets + pair.source.discarded:
        yield f"it was copied, but has {total} data packets, the source {pair.source.packets}"
        return
    demuxer = compared.source.format_name.partition(",")[0]
    same_count = total == pair.source.packets + pair.source.discarded
    framed = demuxer == "mpegts" and pair.origin.codec in _SELF_FRAMED
    reframed = demuxer in _REFRAMED and not framed
    if same_count and not reframed and pair.origin.codec not in _REPACKED:
        if not pair.source.digest or not pair.made.digest:
            yield "it was copied, but its bytes could not be compared with the source's"
        elif pair.source.digest != pair.made.digest:
            yield "it was copied, but its bytes are not those of the source"


def frame_time_problems(pair: TrackPair) -> Iterator[str]:
    """Compare the presentation time of every frame with the source's, relative to the first frame.

    Each time is rounded once to the output's ticks. If the source stored fields in their own packets, the
    frames have a subset of the source's times.
    """
    before, after = pair.source.times, pair.made.times
    if pair.kept.kind is not StreamKind.VIDEO or not before or not after:
        return
    if pair.kept.video is not None and pair.kept.video.rate:
        return  # at a constant rate the number of frames is checked, and G8 compares each frame
    tick, made_tick = pair.origin.tick, pair.made_tick
    if pair.kept.video is not None and pair.kept.video.field_rate:
        before, tick = field_times(before, len(after)), tick / 2
    # One time scale for both, so that integers are compared.
    scale = lcm(tick.denominator, made_tick.denominator)
    step, made_step = int(tick * scale), int(made_tick * scale)
    allowed = 0 if step % made_step == 0 else made_step
    place = 0
    for frame, time in enumerate(after):
        shown = (time - after[0]) * made_step
        if len(before) != len(after):
            while place < len(before) - 1 and (before[place] - before[0]) * step < shown - allowed:
                place += 1
        else:
            place = frame
        late = shown - (before[place] - before[0]) * step
        if abs(late) > allowed:
            at = timecode(before[place] * step / scale)
            yield f"frame {frame} (at {at}) is shown {lateness(late / scale, 4)}"
            return


def field_times(frames: Sequence[int], shown: int) -> tuple[int, ...]:
    """Return the times of fields in half ticks, given how many frames are `shown`.

    The second field of a frame is shown midway to the next frame. If each field was stored in a packet,
    `frames` already holds the fields' times.
    """
    times = tuple(2 * time for time in frames)
    if shown == len(frames):
        return times
    after = 2 * times[-1] - times[-2] if len(times) > 1 else times[-1]
    midway = [(one + other) // 2 for one, other in pairwise([*times, after])]
    return tuple(sorted({*times, *midway}))


def _offset_problems(pair: TrackPair, shift: float) -> Iterator[str]:
    """Require that copied sound with the same packets has the same offset to the video as in the source."""
    source, made = pair.source, pair.made
    if pair.kept.action is not Action.COPY or pair.kept.kind is not StreamKind.AUDIO:
        return
    if source.packets + source.discarded != made.packets + made.discarded:
        return
    for word, before, after in (
        ("starts", source.first_stored_s, made.first_stored_s),
        ("ends", source.last_stored_s, made.last_stored_s),
    ):
        if before is not None and after is not None:
            late = after - shift - before
            if abs(late) > COPIED_OFFSET_S:
                yield f"{word} {lateness(late, 3)} for the picture"
                return


def _first_and_last_problems(pair: TrackPair, shift: float) -> Iterator[str]:
    """Compare a track's first and last times, after subtracting the shift of the main video."""
    if pair.kept.kind not in {StreamKind.VIDEO, StreamKind.AUDIO, StreamKind.SUBTITLE}:
        return
    allowed = MAX_DRIFT_S
    if pair.origin.audio is not None:
        allowed += PADDING_SAMPLES / max(1, pair.origin.audio.sample_rate)
    checked = [("starts", pair.source.first_pts_s, pair.made.first_pts_s)]
    if pair.kept.kind is StreamKind.AUDIO:
        checked.append(("ends", pair.source.end_s, pair.made.end_s))
    elif pair.kept.action is Action.COPY or pair.kept.kind is StreamKind.VIDEO:
        checked.append(("ends", pair.source.last_pts_s, pair.made.last_pts_s))
    else:
        # Converted subtitles gain or lose the empty packets that fill their gaps.
        checked = [("ends", pair.source.end_s, pair.made.end_s)]
        allowed += 1.0
    for word, before, after in checked:
        if before is None:
            continue
        if after is None:
            yield f"the time at which it {word} is unknown"
        elif not _is_in_time(pair, word, after - shift - before, allowed):
            yield f"{word} at {timecode(after - shift, 3)}, in the source at {timecode(before, 3)}"


def _is_in_time(pair: TrackPair, word: str, late: float, allowed: float) -> bool:
    """Whether a first or last time may be `late` by so many seconds (negative: early)."""
    if word == "ends":
        held = float(_max_hold_s(pair))
        return late <= allowed + held and (pair.leaves_repeats or late >= -allowed)
    return abs(late) <= allowed
