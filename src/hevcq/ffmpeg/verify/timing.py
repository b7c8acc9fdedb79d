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
"""Seconds by which copying may move a track against the picture: roundings to milliseconds, and Opus's
pre-skip of 6.5 ms, which containers count differently."""
PADDING_SAMPLES = 2048
"""An audio encoder may start and end up to two frames of 1024 samples off the source."""
EVENED_FRAMES = 2
"""Frames more or fewer at a constant rate: the first and the last one are rounded to its ticks."""
LONGEST_HELD_S = 1.0
"""Seconds for which the last picture may be held at a constant rate, at most its source's mean frame:
how long a last picture stays is not stored, and ffmpeg takes the mean for it."""
_PAIRED_FIELDS = frozenset({"h264", "mpeg2video", "vc1", "mpeg1video"})
"""Codecs that may store each field in its own packet: two packets then make one frame."""
_REFRAMED = frozenset({"mpegts", "mpeg", "aac", "h264", "hevc", "ogg", "asf", "rm", "flv", "avi"})
"""Demuxers whose packets carry framing that other containers omit (ADTS headers)."""
_SELF_FRAMED = frozenset({"mp2", "mp3", "ac3", "eac3", "dts"})
"""Codecs whose frames have the same bytes in every container, once parsed by the demuxer."""
_REPACKED = frozenset({"wavpack", "prores"})
"""Codecs whose headers Matroska strips and its readers restore."""


@dataclass(frozen=True, slots=True)
class TrackPair:
    """One kept track: its plan, its source stream, and both measurements."""

    kept: StreamPlan
    origin: Stream
    source: TrackMeasure
    made: TrackMeasure
    made_tick: Fraction = Fraction(1, 1000)
    leaves_repeats: bool = False
    """Whether repeated pictures are left out, so that each picture is compared by G8 until the end."""

    @property
    def name(self) -> str:
        """The track's name in messages."""
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
        found = [*_counts(compared, pair, pair is main), *_times(pair, shift)]
        if not found:
            # Guessed times of the picture are off by the decoder's delay.
            timed = compared.source.format_name.partition(",")[0] not in FORMATS_WITHOUT_PTS
            timed = timed and compared.plan.muxer not in FORMATS_WITHOUT_PTS
            found = [*frame_time_problems(pair), *_offset(pair, shift)] if timed else []
        problems += [f"{pair.name}: {problem}" for problem in found]
    return problems


def _pairs(compared: TimingInputs) -> tuple[list[TrackPair], list[str]]:
    made = output_streams(compared.plan, compared.output)
    pairs, problems = [], []
    for kept, stream in zip(compared.plan.kept, made, strict=False):
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
        before, origin = _restored(kept, _led_in(compared, kept, before), origin)
        before = before.keep_every(kept.video.every if kept.video is not None else 1)
        # Theora makes an empty packet of a repeated picture, which ffmpeg's Ogg muxer leaves out.
        repeats = compared.plan.muxer == OGG and kept.kind is StreamKind.VIDEO
        pairs.append(TrackPair(kept, origin, before, after, stream.tick, repeats))
    return pairs, problems


def _restored(kept: StreamPlan, track: TrackMeasure, origin: Stream) -> tuple[TrackMeasure, Stream]:
    """Return the track as inverting its telecine must leave it: so many frames, at these times."""
    if kept.video is None or not kept.video.telecine or track.first_pts_s is None:
        return track, origin
    # Of five frames decimate leaves one out; a rest of less stays.
    restored, step = (
        track.packets - track.packets // 5,
        1 / (Fraction(kept.video.telecine) * FILM_TICK),
    )
    times = tuple(int(step * number) for number in range(restored))
    last = track.first_pts_s + float(times[-1] * FILM_TICK) if times else track.first_pts_s
    made = {"packets": restored, "times": times, "last_pts_s": last}
    progressive = None
    if origin.video is not None:
        progressive = origin.video.model_copy(update={"field_order": "progressive"})
    stream = {"time_base": str(FILM_TICK), "video": progressive}
    return track.model_copy(update=made), origin.model_copy(update=stream)


def _led_in(compared: TimingInputs, kept: StreamPlan, track: TrackMeasure) -> TrackMeasure:
    """Return the track as it begins where no track can begin late: held or silent from the start."""
    start = compared.source.origin_s(compared.plan.mapped)
    evened = kept.video is not None and bool(kept.video.rate)
    sound = kept.kind is StreamKind.AUDIO and kept.action is not Action.COPY
    silent = sound and compared.plan.muxer in SEAMLESS
    if not (evened or silent) or track.first_pts_s is None:
        return track
    return track.model_copy(update={"first_pts_s": min(start, track.first_pts_s)})


def _counts(compared: TimingInputs, pair: TrackPair, is_main: bool) -> Iterator[str]:  # noqa: FBT001
    if pair.kept.action is Action.COPY:
        yield from _copied(compared, pair)
    elif pair.kept.kind is StreamKind.VIDEO:
        yield from _encoded_frames(pair, compared.frames if is_main else 0)
    if not pair.made.monotonic_dts and pair.kept.kind in {StreamKind.VIDEO, StreamKind.AUDIO}:
        yield "the times at which it is decoded go backwards"


def _encoded_frames(pair: TrackPair, frames: int) -> Iterator[str]:
    made, source = pair.made.packets + pair.made.discarded, pair.source.packets
    rate = Fraction(pair.kept.video.rate or 0) if pair.kept.video is not None else Fraction(0)
    if frames and made != frames and not (pair.leaves_repeats and made < frames):
        yield f"it has {made} frames, but {frames} were encoded"
    if rate:
        yield from _evened_frames(pair, rate, frames if pair.leaves_repeats and frames else made)
        return
    video = pair.origin.video
    fields = video is not None and video.marked_interlaced and pair.origin.codec in _PAIRED_FIELDS
    fewest = (source + 1) // 2 if fields else source
    # Deinterlaced to full rate, each field of a frame becomes a frame.
    times = pair.kept.video.frames_per_frame if pair.kept.video is not None else 1
    if not fewest * times <= made <= source * times or made % times:
        promised = f", and {times} are made of each" if times > 1 else ""
        yield f"it has {made} frames, the source {source}{promised}"


def _evened_frames(pair: TrackPair, rate: Fraction, made: int) -> Iterator[str]:
    """Require as many frames as a constant rate has from the first of the source to its last.

    The last may be held as long as a frame of the source stays in the mean.
    """
    source, times = pair.source, pair.kept.video.frames_per_frame if pair.kept.video else 1
    if made == source.packets * times or source.first_pts_s is None or source.last_pts_s is None:
        return
    wanted = round((source.last_pts_s - source.first_pts_s) * float(rate)) + 1
    held = int(_held_s(pair) * rate) + 1
    if not wanted - EVENED_FRAMES <= made <= wanted + max(EVENED_FRAMES, held):
        yield f"it has {made} frames; at {float(rate):.6g} a second it should have {wanted}"


def _held_s(pair: TrackPair) -> Fraction:
    """Return for how many seconds the last picture may be held where times are made even; else 0."""
    source = pair.source
    evened = pair.kept.video is not None and bool(pair.kept.video.rate)
    if not evened or source.first_pts_s is None or source.last_pts_s is None or source.packets < 2:
        return Fraction(0)
    mean = (source.last_pts_s - source.first_pts_s) / (source.packets - 1)
    return Fraction(max(0.0, min(mean, LONGEST_HELD_S)))


def _copied(compared: TimingInputs, pair: TrackPair) -> Iterator[str]:
    """Compare a copied track: packets flagged discard may lose the flag or be dropped, no others."""
    if pair.source.content and pair.made.content and not pair.source.discarded:
        # Muxers cut PCM, and merge PGS, into packets of their own, so the bytes are compared instead.
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
    """Compare the presentation time of every frame with the source's, from the first one on.

    Each is rounded once to the ticks of the output. Where two fields were stored apart, the frames'
    times are some of the source's.
    """
    before, after = pair.source.times, pair.made.times
    if pair.kept.kind is not StreamKind.VIDEO or not before or not after:
        return
    if pair.kept.video is not None and pair.kept.video.rate:
        return  # times were made even: their number is that of the rate, and G8 compares each picture
    tick, made_tick = pair.origin.tick, pair.made_tick
    if pair.kept.video is not None and pair.kept.video.field_rate:
        before, tick = field_times(before, len(after)), tick / 2
    # One scale for both, so that the comparison is of whole numbers.
    scale = lcm(tick.denominator, made_tick.denominator)
    step, made_step = int(tick * scale), int(made_tick * scale)
    allowed = 0 if step % made_step == 0 else made_step
    place = 0
    for frame, time in enumerate(after):
        found = (time - after[0]) * made_step
        if len(before) != len(after):
            while place < len(before) - 1 and (before[place] - before[0]) * step < found - allowed:
                place += 1
        else:
            place = frame
        late = found - (before[place] - before[0]) * step
        if abs(late) > allowed:
            at = timecode(before[place] * step / scale)
            yield f"frame {frame} (at {at}) is shown {lateness(late / scale, 4)}"
            return


def field_times(frames: Sequence[int], shown: int) -> tuple[int, ...]:
    """Return the times of the fields of frames in half ticks, given how many frames are `shown`.

    The second field of a frame is shown midway to the next frame. Where each field was stored in its
    own packet, `frames` are fields already.
    """
    times = tuple(2 * time for time in frames)
    if shown == len(frames):
        return times
    after = 2 * times[-1] - times[-2] if len(times) > 1 else times[-1]
    midway = [(one + other) // 2 for one, other in pairwise([*times, after])]
    return tuple(sorted({*times, *midway}))


def _offset(pair: TrackPair, shift: float) -> Iterator[str]:
    """Require that a copied track lies against the picture as it did; its packets are the same."""
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


def _times(pair: TrackPair, shift: float) -> Iterator[str]:
    """Compare first and last times after removing the shift of the main video."""
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
        elif not _lies_well(pair, word, after - shift - before, allowed):
            made, wanted = timecode(after - shift, 3), timecode(before, 3)
            yield f"{word} at {made}, in the source at {wanted}"


def _lies_well(pair: TrackPair, word: str, late: float, allowed: float) -> bool:
    """Return whether a first or last time may be so late, or early; all in seconds."""
    if word == "ends":
        held = float(_held_s(pair))
        return late <= allowed + held and (pair.leaves_repeats or late >= -allowed)
    return abs(late) <= allowed
