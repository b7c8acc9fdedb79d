"""Gate G5: compare the measured packets and times of every track with the source's. Pure.

Headers are not used: a truncated file keeps the duration in its header.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hevcq.domain.media.facts import Measurement, MediaInfo, Stream, StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import Action, EncodePlan, StreamPlan
from hevcq.ffmpeg.verify.streams import output_streams

PADDING_SAMPLES = 2048
"""An audio encoder may start and end up to two frames of 1024 samples off the source."""
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

    @property
    def name(self) -> str:
        """The track's name in messages."""
        return f"{self.kept.kind.value} track {self.kept.position}"


@dataclass(frozen=True, slots=True)
class TimingInputs:
    """The inputs of G5; `frames` is the encoder's frame count of the video (0 if unknown).

    `drift_s` is the allowed difference of times in seconds.
    """

    plan: EncodePlan
    source: MediaInfo
    measured: Measurement
    output: MediaInfo
    made: Measurement
    frames: int
    drift_s: float


def time_problems(compared: TimingInputs) -> list[str]:
    """Return the differences between the source's packets and the output's, as clauses."""
    if compared.made.errors:
        return [f"reading it reports an error: {compared.made.errors[0]}"]
    pairs, problems = _pairs(compared)
    main = next((p for p in pairs if p.kept == compared.plan.main_video), None)
    if main is None or main.source.first_pts_s is None or main.made.first_pts_s is None:
        return [*problems, "the video's packets have no times"]
    shift = main.made.first_pts_s - main.source.first_pts_s
    for pair in pairs:
        found = [*_counts(compared, pair, pair is main), *_times(pair, shift, compared.drift_s)]
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
        origin = next(s for s in compared.source.streams if s.index == kept.source_index)
        pairs.append(TrackPair(kept=kept, origin=origin, source=before, made=after))
    return pairs, problems


def _counts(compared: TimingInputs, pair: TrackPair, is_main: bool) -> Iterator[str]:  # noqa: FBT001
    if pair.kept.action is Action.COPY:
        yield from _copied(compared, pair)
    elif pair.kept.kind is StreamKind.VIDEO:
        yield from _encoded_frames(pair, compared.frames if is_main else 0)
    if not pair.made.monotonic_dts and pair.kept.kind in {StreamKind.VIDEO, StreamKind.AUDIO}:
        yield "decoding times go backwards"


def _encoded_frames(pair: TrackPair, frames: int) -> Iterator[str]:
    made, source = pair.made.packets + pair.made.discarded, pair.source.packets
    if frames and made != frames:
        yield f"{made} frames, but {frames} were encoded"
    video = pair.origin.video
    fields = video is not None and video.interlaced and pair.origin.codec in _PAIRED_FIELDS
    fewest = (source + 1) // 2 if fields else source
    if not fewest <= made <= source:
        yield f"{made} frames of {source}"


def _copied(compared: TimingInputs, pair: TrackPair) -> Iterator[str]:
    """Compare a copied track: packets flagged discard may lose the flag or be dropped, no others."""
    if pair.source.content and pair.made.content and not pair.source.discarded:
        # Muxers cut PCM into packets of their own, so the samples are compared instead.
        if pair.source.content != pair.made.content:
            yield "its samples are not those of the source"
        return
    total = pair.made.packets + pair.made.discarded
    if not pair.source.packets <= total <= pair.source.packets + pair.source.discarded:
        yield f"{total} packets of {pair.source.packets}"
        return
    demuxer = compared.source.format_name.partition(",")[0]
    same_count = total == pair.source.packets + pair.source.discarded
    reframed = demuxer in _REFRAMED and not _plain(demuxer, pair.origin.codec)
    if same_count and not reframed and pair.origin.codec not in _REPACKED:
        if not pair.source.digest or not pair.made.digest:
            yield "its bytes could not be compared with the source"
        elif pair.source.digest != pair.made.digest:
            yield "its bytes are not those of the source"


def _plain(demuxer: str, codec: str) -> bool:
    return demuxer == "mpegts" and codec in _SELF_FRAMED


def _times(pair: TrackPair, shift: float, drift_s: float) -> Iterator[str]:
    """Compare first and last times after removing the shift of the main video."""
    if pair.kept.kind not in {StreamKind.VIDEO, StreamKind.AUDIO, StreamKind.SUBTITLE}:
        return
    allowed = drift_s
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
            yield f"its time is unknown where it {word}"
        elif abs(after - shift - before) > allowed:
            yield f"{word} at {after - shift:.3f} s, not {before:.3f} s"
