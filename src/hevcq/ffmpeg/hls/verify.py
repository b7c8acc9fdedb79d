"""Run all gates over a set: H1 to H5 over the set, then G1 to G8 over each sound and rung.

Fail closed: a gate that cannot decide counts as failed (UNKNOWN). Cheap gates come first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.keys import MASTER
from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import Action, Rung, StreamPlan
from hevcq.errors import SourceGone, SourceUnreadable
from hevcq.ffmpeg.command.levels import levels_delay_s, planned_shape
from hevcq.ffmpeg.containers.fragments import FragmentedFile, read_fragments, starts_with_idr
from hevcq.ffmpeg.hls.command import (
    SetPaths,
    bare_info,
    encoded_sounds_of,
    kept_tracks,
    ladder_in,
    rung_plan,
    rung_profile,
    sounds_of,
)
from hevcq.ffmpeg.hls.playlists import set_playlists
from hevcq.ffmpeg.hls.segments import Segment, video_segments
from hevcq.ffmpeg.inputs import KEYED, PROBE_DEADLINE_S, FfmpegTools, parse_fields, with_read_access
from hevcq.ffmpeg.inspect.measure import measure
from hevcq.ffmpeg.probe.probe import probe
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import limits_of
from hevcq.ffmpeg.run.messages import message_text
from hevcq.ffmpeg.verify.decode import decode_problems, new_level_files, source_level_files
from hevcq.ffmpeg.verify.gates import Judgement, in_time, judgement, verify
from hevcq.ffmpeg.verify.sound import SoundTrack, sound_problem
from hevcq.ffmpeg.verify.timing import MAX_DRIFT_S, PADDING_SAMPLES
from hevcq.ports.encoder import EncodeProgress, OnProgress, VerifyRequest


def verify_set(
    tools: FfmpegTools, request: VerifyRequest, on_progress: OnProgress, stop: threading.Event
) -> tuple[GateResult, ...]:
    """Run all gates over the set in `request.output`; see ports.encoder.

    Raises what `verify` raises of one file.
    """
    return tuple(_SetGates(tools, request, on_progress, stop).results())


@dataclass(slots=True)
class _SetGates:
    """The gates of one set."""

    tools: FfmpegTools
    request: VerifyRequest
    on_progress: OnProgress
    stop: threading.Event
    in_time: Callable[[], VerifyRequest] = field(init=False)
    stored: StoredSet = field(init=False)
    sound_info: MediaInfo = field(init=False)
    """Facts of the sound that is judged; its gate G2 probes them."""

    def __post_init__(self) -> None:
        self.in_time = in_time(self.request, self.tools.clock, self.stop)

    def results(self) -> Iterator[GateResult]:
        """Yield the results up to the first gate that does not pass."""
        for result in chain(self._set_results(), self._sound_results(), self._rung_results()):
            yield result
            if result.outcome not in {Outcome.PASSED, Outcome.OFF}:
                return

    def _set_results(self) -> Iterator[GateResult]:
        for gate, judge in (
            (Gate.H1, self._stored_files),
            (Gate.H2, lambda: judgement(segment_start_problems(self.stored))),
            (Gate.H3, lambda: judgement(alignment_problems(self.stored))),
            (Gate.H4, self._master_playlist),
            (Gate.H5, self._player_reading),
        ):
            yield self._result(gate, judge)

    def _result(self, gate: Gate, judge: Callable[[], Judgement], file: str = "") -> GateResult:
        started = self.tools.clock.monotonic()
        try:
            outcome, detail = judge()
        except (SourceUnreadable, SourceGone) as error:
            outcome, detail = Outcome.FAILED, f"the output cannot be read: {error.message}"
        except (OSError, ValueError) as error:
            outcome, detail = Outcome.FAILED, str(error)
        seconds = self.tools.clock.monotonic() - started
        return GateResult(gate=gate, outcome=outcome, detail=detail, seconds=seconds, file=file)

    def _stored_files(self) -> Judgement:
        """H1: read the set; require the listed files, no others, and playlists that describe them exactly."""
        folder = self.request.output
        named = {file.name for file in self.request.report.files}
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        if named != there or not named:
            return Outcome.FAILED, f"its files are not those listed: {', '.join(named ^ there)}"
        self.stored = read_set(self.request)
        texts = [(name, text) for name, text in self.stored.playlists.items() if name != MASTER]
        return judgement(chain.from_iterable(_difference(folder / n, text) for n, text in texts))

    def _master_playlist(self) -> Judgement:
        """H4: require a master playlist that declares the files' codecs, sizes, rates and sounds."""
        return judgement(_difference(self.request.output / MASTER, self.stored.playlists[MASTER]))

    def _player_reading(self) -> Judgement:
        """H5: require that ffprobe, which reads playlists as players do, finds every packet."""
        stored = self.stored
        for media in (*(media for _, media in stored.rungs), *stored.sounds):
            playlist, samples = media.path.with_suffix(".m3u8"), media.content.samples
            answer = self._count_packets(playlist)
            if answer != str(samples):
                why = f"{playlist.name} reads as {answer or 'nothing'}, not {samples} packets"
                return Outcome.FAILED, why
        tracks = kept_tracks(self.request.plan, StreamKind.SUBTITLE)
        for track, path in zip(tracks, stored.texts, strict=True):
            measured = self.request.measured.track(track.source_index)
            words = path.read_text(encoding="utf-8")
            # In MP4 an empty subtitle packet is a gap; it has two bytes.
            has_cues = measured is not None and measured.bytes > 2 * measured.packets
            if not words.startswith("WEBVTT") or (has_cues and " --> " not in words):
                return Outcome.FAILED, f"{path.name} holds no subtitles"
        return Outcome.PASSED, ""

    def _count_packets(self, playlist: Path) -> str:
        """Return the number of packets that ffprobe counts, or its complaint."""
        argv = [
            self.tools.ffprobe, "-v", "error", "-protocol_whitelist", "file",
            "-format_whitelist", "hls,mov,mp4,m4a,3gp,3g2,mj2", "-f", "hls",
            "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", KEYED,
            "-i", f"file:{playlist}",
        ]  # fmt: skip
        limits = with_read_access(
            limits_of(self.request.profile.bounds), self.tools, str(playlist.parent)
        )
        done = run_child(argv, stop=self.stop, limits=limits, deadline_s=PROBE_DEADLINE_S)
        if done.returncode != 0 or done.stderr:
            return message_text(done.stderr[0]) if done.stderr else done.ending
        first = done.stdout.decode("ascii", "replace").partition("\n")[0]
        return parse_fields(first).get("nb_read_packets", "")

    def _rung_results(self) -> Iterator[GateResult]:
        """Run all gates of a single file over each rung."""
        rungs = self.stored.rungs
        for number, (rung, media) in enumerate(rungs):
            thumbnails = self.request.report.thumbnails[number : number + 1]

            def on_progress(state: EncodeProgress, done: int = number) -> None:
                share = (done + state.fraction) / len(rungs)
                self.on_progress(replace(state, fraction=share))

            request = replace(
                self.request,
                profile=rung_profile(self.request.profile, rung),
                plan=rung_plan(self.request.plan, rung),
                info=bare_info(self.request.info, self.request.plan.main_video.source_index),
                output=media.path,
                max_seconds=self.in_time().max_seconds,
                report=replace(self.request.report, thumbnails=thumbnails),
            )
            for result in verify(self.tools, request, on_progress, self.stop):
                yield result.model_copy(update={"file": media.path.name})

    def _sound_results(self) -> Iterator[GateResult]:
        """Run the gates of a sound over each sound; G8 only if it was encoded."""
        levels = self.request.report.levels
        by_sound = dict(zip(encoded_sounds_of(self.request.plan), levels, strict=False))
        tracks = sounds_of(self.request.plan).items()
        for (key, track), media in zip(tracks, self.stored.sounds, strict=True):
            name = media.path.name
            yield self._result(Gate.G2, partial(self._sound_format, track, media), name)
            yield self._result(Gate.G5, partial(self._sound_times, track, media), name)
            encoded = track.action is not Action.COPY
            with new_level_files(encoded, levels) as paths:
                yield self._result(Gate.G4, partial(self._sound_decodes, media, paths), name)
                if encoded:
                    files = paths[0], by_sound.get(key)
                    yield self._result(Gate.G8, partial(self._sound_likeness, track, files), name)

    def _sound_format(self, track: StreamPlan, media: MediaFile) -> Judgement:
        self.sound_info = probe(self.tools, str(media.path), self.stop, midstream=False)
        streams = self.sound_info.streams
        kinds = [(s.kind, s.codec, s.audio.channels if s.audio else 0) for s in streams]
        if kinds != [(StreamKind.AUDIO, track.codec, track.channels)]:
            return Outcome.FAILED, f"it is not one {track.codec} track of {track.channels} channels"
        return Outcome.PASSED, ""

    def _sound_times(self, track: StreamPlan, media: MediaFile) -> Judgement:
        """Require that a sound ends when the source's does."""
        request = self.request
        source = request.measured.track(track.source_index)
        if source is None or (source.packets and source.end_s is None):
            return Outcome.UNKNOWN, "the source's sound was not measured"
        made = measure(self.tools, str(media.path), self.sound_info, self.stop).tracks[0]
        stream = self.sound_info.streams[0]
        allowed = MAX_DRIFT_S
        allowed += PADDING_SAMPLES / max(1, stream.audio.sample_rate if stream.audio else 1)
        ends = (source.end_s or 0.0) - request.info.origin_s(request.plan.mapped)
        if made.end_s is None or abs(made.end_s - ends) > allowed:
            return Outcome.FAILED, f"it ends at {made.end_s} s, not {ends:.3f} s"
        return Outcome.PASSED, ""

    def _sound_decodes(self, media: MediaFile, paths: Sequence[Path]) -> Judgement:
        request = replace(self.in_time(), output=media.path)
        levels = [(self.sound_info.streams[0], path) for path in paths]
        return judgement(decode_problems(self.tools, request, self.stop, None, levels))

    def _sound_likeness(self, track: StreamPlan, files: tuple[Path, Path | None]) -> Judgement:
        """Compare a sound's levels with its source's, which the encode wrote (None: decode the source)."""
        request, (made, encoded) = self.in_time(), files
        source = request.info.stream(track.source_index)
        # ffmpeg moves a file that begins before 0 to 0, as AAC with its priming does.
        moved_s = -(self.sound_info.start_s or 0.0) - levels_delay_s(source)
        sound = SoundTrack(planned_shape(track, source, request.plan), request.plan.muxer, moved_s)
        written = [encoded] if encoded is not None else []
        with source_level_files(self.tools, request, [track], written, self.stop) as source_files:
            problem = sound_problem(source_files[0], made, sound)
        if problem:
            return Outcome.FAILED, f"it {problem}"
        return Outcome.PASSED, "its sound compared throughout"


MAX_EARLY_S = 2
"""Seconds by which a segment's lead of decoding over presentation may exceed that of the first one."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """An encoded file of a set; `segments` are a rung's, as its playlist lists them."""

    path: Path
    content: FragmentedFile
    segments: Sequence[Segment] = ()


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A set on disk; `texts` are its subtitle files, `playlists` the texts that its playlists must have."""

    rungs: tuple[tuple[Rung, MediaFile], ...]
    sounds: tuple[MediaFile, ...]
    texts: tuple[Path, ...]
    playlists: dict[str, str]


def read_set(request: VerifyRequest) -> StoredSet:
    """Read the fragments of a set's files. Raises ValueError if one is damaged or a planned one is missing."""
    plan, output = request.plan, request.output
    version = request.report.files[0].name.partition("/")[0]
    paths, ladder = SetPaths(output / version, output), ladder_in(plan)
    rungs = []
    for rung in ladder.rungs:
        if (path := paths.rung(rung)).is_file():
            content = _fragments(path)
            rungs.append(
                (rung, MediaFile(path, content, video_segments(content, ladder.segment_s)))
            )
    _require_ends(ladder.rungs, [rung for rung, _ in rungs])
    sounds = {name: _fragments(paths.sound(name)) for name in sounds_of(plan)}
    contents = [(rung, media.content) for rung, media in rungs]
    return StoredSet(
        tuple(rungs),
        tuple(MediaFile(paths.sound(name), content) for name, content in sounds.items()),
        tuple(paths.text(n) for n, _ in enumerate(kept_tracks(plan, StreamKind.SUBTITLE), 1)),
        set_playlists(plan, request.info, version, contents, sounds),
    )


def _fragments(path: Path) -> FragmentedFile:
    try:
        return read_fragments(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.stem}: {error}") from error


def _require_ends(planned: Sequence[Rung], found: Sequence[Rung]) -> None:
    """Require the highest and lowest rung of each codec. Others, and all low rungs, may have been left out."""
    for codec in dict.fromkeys(rung.target.codec for rung in planned):
        family = [rung for rung in planned if rung.target.codec == codec]
        family = [rung for rung in family if not rung.is_low] or family
        for needed in (family[0], family[-1]):
            if needed not in found:
                raise ValueError(f"the rung {needed.name} is missing")


def _difference(path: Path, text: str) -> Iterator[str]:
    content = path.read_bytes() if path.is_file() else b""
    if content != text.encode():
        lines = zip_longest(content.split(b"\n"), text.encode().split(b"\n"))
        line = next(n for n, (own, due) in enumerate(lines, 1) if own != due)
        yield f"line {line} of {path.name} is not what the files hold"


def segment_start_problems(stored: StoredSet) -> Iterator[str]:
    """H2: require an IDR picture, from which any player can start, at the beginning of every segment."""
    for rung, media in stored.rungs:
        by_start = {fragment.start: fragment for fragment in media.content.fragments}
        with media.path.open("rb") as file:
            for number, segment in enumerate(media.segments, 1):
                first = by_start[segment.start]
                if not first.sync or not starts_with_idr(file, first, media.content.codec):
                    yield f"{rung.name}: segment {number} does not begin with an IDR picture"
                    break


def alignment_problems(stored: StoredSet) -> Iterator[str]:
    """H3: require segments that begin at the same times in all rungs, and are decoded when they are shown.

    hls.js 1.7 places a segment by its decoding time. After a still passage it may lie much earlier than
    the presentation time, and everything that follows would be out of step with the sound.
    """
    expected: list[Fraction] | None = None
    for rung, media in stored.rungs:
        scale = media.content.timescale
        begins = {fragment.start: fragment for fragment in media.content.fragments}
        early = [s.shown - begins[s.start].decoded for s in media.segments]
        late = [n for n, ticks in enumerate(early) if ticks - early[0] > MAX_EARLY_S * scale]
        if late:
            moment = media.segments[late[0]].shown / scale
            yield f"{rung.name}: it is decoded much earlier than it is shown, at {moment:.3f} s"
        times = [Fraction(segment.shown, scale) for segment in media.segments]
        if expected is None:
            expected = times
        elif times != expected:
            pairs = zip(times, expected, strict=False)
            at = next((float(b) for a, b in pairs if a != b), float(expected[-1]))
            yield f"{rung.name}: its segments do not begin where those of the others do, at {at:.3f} s"
