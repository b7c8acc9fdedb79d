"""Run all gates over a set: G1 to G8 over each rung's file, H1 to H5 over the set.

Fail closed: what cannot be determined counts as failed (UNKNOWN). The cheap ones come first.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import zip_longest
from pathlib import Path

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.keys import MASTER
from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import Action, Rung, StreamPlan
from hevcq.errors import SourceGone, SourceUnreadable
from hevcq.ffmpeg.command.levels import levels_late_s, planned_shape
from hevcq.ffmpeg.containers.fragments import FragmentedFile, read_fragments, starts_with_idr
from hevcq.ffmpeg.hls.command import (
    SetPaths,
    bare_info,
    encoded_sounds_of,
    ladder_in,
    of_kind,
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
from hevcq.ffmpeg.verify.decode import decode_problems, level_files_of, new_level_files
from hevcq.ffmpeg.verify.gates import verify
from hevcq.ffmpeg.verify.sound import SoundTrack, sound_problem
from hevcq.ffmpeg.verify.timing import MAX_DRIFT_S, PADDING_SAMPLES
from hevcq.ports.encoder import EncodeProgress, OnProgress, VerifyRequest

_CUE = " --> "
Judged = tuple[Outcome, str]


def verify_set(
    tools: FfmpegTools,
    request: VerifyRequest,
    on_progress: OnProgress,
    stop: threading.Event,
) -> tuple[GateResult, ...]:
    """Run all gates over the set in `request.output`; see ports.encoder.

    Raises what `verify` raises of one file.
    """
    return tuple(_SetGates(tools, request, on_progress, stop).results())


@dataclass(slots=True)
class _SetGates:
    """The gates of one set, up to the first that fails."""

    tools: FfmpegTools
    request: VerifyRequest
    on_progress: OnProgress
    stop: threading.Event
    began: float = field(init=False)
    stored: StoredSet = field(init=False)
    heard: MediaInfo = field(init=False)
    """The facts of the sound that is judged; G2 finds them."""

    def __post_init__(self) -> None:
        self.began = self.tools.clock.monotonic()

    def results(self) -> Iterator[GateResult]:
        """Yield the results; the last is the first that did not pass, if one did not."""
        for gate, judge in (
            (Gate.H1, self._files),
            (Gate.H2, lambda: _judged(independent(self.stored))),
            (Gate.H3, lambda: _judged(aligned(self.stored))),
            (Gate.H4, lambda: _judged(declared(self.stored, self.request.output))),
            (Gate.H5, self._read_by_players),
        ):
            found = self._result(gate, judge)
            yield found
            if found.has_failed:
                return
        for found in itertools.chain(self._sounds(), self._rungs()):
            yield found
            if found.outcome not in {Outcome.PASSED, Outcome.OFF}:
                return

    def _result(self, gate: Gate, judge: Callable[[], Judged], file: str = "") -> GateResult:
        started = self.tools.clock.monotonic()
        try:
            outcome, detail = judge()
        except (SourceUnreadable, SourceGone) as error:
            outcome, detail = Outcome.FAILED, f"the output cannot be read: {error.message}"
        except (OSError, ValueError) as error:
            outcome, detail = Outcome.FAILED, str(error)
        seconds = self.tools.clock.monotonic() - started
        return GateResult(gate=gate, outcome=outcome, detail=detail, seconds=seconds, file=file)

    def _files(self) -> Judged:
        """H1, which reads the set: what is not there, or not listed as it is, fails here."""
        folder = self.request.output
        named = {file.name for file in self.request.report.files}
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        if named != there or not named:
            return Outcome.FAILED, f"its files are not those listed: {', '.join(named ^ there)}"
        self.stored = read_set(self.request)
        return _judged(listed(self.stored, folder))

    def _read_by_players(self) -> Judged:
        """H5: ffprobe, which reads the playlists as players do, finds every packet of every file."""
        stored = self.stored
        for media in (*(media for _, media in stored.rungs), *stored.sounds):
            place = media.path.with_suffix(".m3u8")
            found = self._packets(place)
            if found != str(media.content.samples):
                why = found or "nothing"
                return (
                    Outcome.FAILED,
                    f"{place.name} reads as {why}, not {media.content.samples} packets",
                )
        tracks = of_kind(self.request.plan, StreamKind.SUBTITLE)
        for track, path in zip(tracks, stored.texts, strict=True):
            measured = self.request.measured.track(track.source_index)
            words = path.read_text(encoding="utf-8")
            # An empty packet of MP4's text is a gap: two bytes that say "no characters".
            spoken = measured is not None and measured.bytes > 2 * measured.packets
            if not words.startswith("WEBVTT") or (spoken and _CUE not in words):
                return Outcome.FAILED, f"{path.name} holds no subtitles"
        return Outcome.PASSED, ""

    def _packets(self, place: Path) -> str:
        argv = [
            self.tools.ffprobe, "-v", "error", "-protocol_whitelist", "file",
            "-format_whitelist", "hls,mov,mp4,m4a,3gp,3g2,mj2", "-f", "hls",
            "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", KEYED,
            "-i", f"file:{place}",
        ]  # fmt: skip
        limits = with_read_access(
            limits_of(self.request.profile.bounds), self.tools, str(place.parent)
        )
        done = run_child(argv, stop=self.stop, limits=limits, deadline_s=PROBE_DEADLINE_S)
        if done.returncode != 0 or done.stderr:
            return message_text(done.stderr[0]) if done.stderr else done.ending
        first = done.stdout.decode("ascii", "replace").partition("\n")[0]
        return parse_fields(first).get("nb_read_packets", "")

    def _rungs(self) -> Iterator[GateResult]:
        """Run the gates of one file over each rung."""
        rungs = self.stored.rungs
        for number, (rung, media) in enumerate(rungs):
            thumbnails = self.request.report.thumbnails[number : number + 1]

            def on_progress(state: EncodeProgress, done: int = number) -> None:
                share = (done + state.fraction) / len(rungs)
                self.on_progress(replace(state, fraction=share))

            report = replace(self.request.report, thumbnails=thumbnails)
            request = replace(self._rung_request(rung, media.path), report=report)
            for result in verify(self.tools, request, on_progress, self.stop):
                yield result.model_copy(update={"file": media.path.name})

    def _rung_request(self, rung: Rung, path: Path) -> VerifyRequest:
        request = self.request
        video = request.plan.main_video.source_index
        return replace(
            request,
            profile=rung_profile(request.profile, rung),
            plan=rung_plan(request.plan, rung),
            info=bare_info(request.info, video),
            output=path,
            max_seconds=self._left(),
        )

    def _sounds(self) -> Iterator[GateResult]:
        """Run the gates of one file over each sound; G8 if it was encoded anew."""
        written = dict(
            zip(encoded_sounds_of(self.request.plan), self.request.report.levels, strict=False)
        )
        tracks = sounds_of(self.request.plan).items()
        for (key, track), media in zip(tracks, self.stored.sounds, strict=True):
            name = media.path.name
            yield self._result(Gate.G2, partial(self._sound_format, track, media), name)
            yield self._result(Gate.G5, partial(self._sound_times, track, media), name)
            encoded = track.action is not Action.COPY
            with new_level_files(encoded, self.request.report.levels) as paths:
                yield self._result(Gate.G4, partial(self._sound_decodes, media, paths), name)
                if encoded:
                    files = paths[0], written.get(key)
                    yield self._result(Gate.G8, partial(self._sound_like, track, files), name)

    def _sound_format(self, track: StreamPlan, media: Media) -> Judged:
        self.heard = probe(self.tools, str(media.path), self.stop, midstream=False)
        streams = self.heard.streams
        kinds = [(s.kind, s.codec, s.audio.channels if s.audio else 0) for s in streams]
        if kinds != [(StreamKind.AUDIO, track.codec, track.channels)]:
            return Outcome.FAILED, f"it is not one {track.codec} track of {track.channels} channels"
        return Outcome.PASSED, ""

    def _sound_times(self, track: StreamPlan, media: Media) -> Judged:
        """Require that a sound begins with the file, ends as the source's, and lies where it did."""
        request = self.request
        source = request.measured.track(track.source_index)
        if source is None or (source.packets and source.end_s is None):
            return Outcome.UNKNOWN, "the source's sound was not measured"
        made = measure(self.tools, str(media.path), self.heard, self.stop).tracks[0]
        stream = self.heard.streams[0]
        allowed = MAX_DRIFT_S
        allowed += PADDING_SAMPLES / max(1, stream.audio.sample_rate if stream.audio else 1)
        ends = (source.end_s or 0.0) - request.info.origin_s(request.plan.mapped)
        if made.end_s is None or abs(made.end_s - ends) > allowed:
            return Outcome.FAILED, f"it ends at {made.end_s} s, not {ends:.3f} s"
        return Outcome.PASSED, ""

    def _sound_decodes(self, media: Media, paths: Sequence[Path]) -> Judged:
        request = replace(self.request, output=media.path)
        found = decode_problems(
            self.tools,
            request,
            self.stop,
            None,
            deadline_s=self._left(),
            levels=[(self.heard.streams[0], path) for path in paths],
        )
        return _judged(message_text(line) for line in found)

    def _sound_like(self, track: StreamPlan, files: tuple[Path, Path | None]) -> Judged:
        """Compare the levels of a sound, and of its source as it was encoded (None: decode it for them)."""
        request, (made, written) = self.request, files
        source = request.info.stream(track.source_index)
        # ffmpeg moves a file to 0 that begins before it, as AAC with its priming does.
        moved_s = -(self.heard.start_s or 0.0) - levels_late_s(source)
        heard = SoundTrack(planned_shape(track, source, request.plan), request.plan.muxer, moved_s)
        known = [written] if written is not None else []
        with level_files_of(
            self.tools, request, [track], known, self.stop, deadline_s=self._left()
        ) as there:
            problem = sound_problem(there[0], made, heard)
        if problem:
            return Outcome.FAILED, f"it {problem}"
        return Outcome.PASSED, "its sound compared throughout"

    def _left(self) -> float:
        spent = self.tools.clock.monotonic() - self.began
        return max(1.0, self.request.max_seconds - spent)


def _judged(problems: Iterator[str]) -> Judged:
    found = list(problems)
    if not found:
        return Outcome.PASSED, ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return Outcome.FAILED, found[0] + more


MAX_EARLY_S = 2
"""Seconds that a segment may be decoded earlier before it is shown than the first one is."""


@dataclass(frozen=True, slots=True)
class Media:
    """An encoded file of a set; `segments` are those of a rung, as its playlist lists them."""

    path: Path
    content: FragmentedFile
    segments: Sequence[Segment] = ()


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A set as it is on disk; `texts` are the files of its subtitles, `playlists` what is to be listed."""

    rungs: tuple[tuple[Rung, Media], ...]
    sounds: tuple[Media, ...]
    texts: tuple[Path, ...]
    playlists: dict[str, str]


def read_set(request: VerifyRequest) -> StoredSet:
    """Read the boxes of a set's files.

    Raises ValueError with a clause if one is not sound, or a planned track is missing.
    """
    plan, output = request.plan, request.output
    version = request.report.files[0].name.partition("/")[0]
    paths, ladder = SetPaths(output / version, output), ladder_in(plan)
    rungs = []
    for rung in ladder.rungs:
        if (path := paths.rung(rung)).is_file():
            content = _content(path)
            rungs.append((rung, Media(path, content, video_segments(content, ladder.segment_s))))
    _require_ends(ladder.rungs, [rung for rung, _ in rungs])
    sounds = {name: _content(paths.sound(name)) for name in sounds_of(plan)}
    contents = [(rung, media.content) for rung, media in rungs]
    return StoredSet(
        tuple(rungs),
        tuple(Media(paths.sound(name), content) for name, content in sounds.items()),
        tuple(paths.text(n) for n, _ in enumerate(of_kind(plan, StreamKind.SUBTITLE), 1)),
        set_playlists(plan, request.info, version, contents, sounds),
    )


def _content(path: Path) -> FragmentedFile:
    try:
        return read_fragments(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.stem}: {error}") from error


def _require_ends(planned: Sequence[Rung], found: Sequence[Rung]) -> None:
    """Require the highest and the lowest rung of each codec; others may have been left out, as low ones."""
    for codec in dict.fromkeys(rung.target.codec for rung in planned):
        family = [rung for rung in planned if rung.target.codec == codec]
        family = [rung for rung in family if not rung.is_low] or family
        for needed in (family[0], family[-1]):
            if needed not in found:
                raise ValueError(f"the rung {needed.name} is missing")


def listed(stored: StoredSet, folder: Path) -> Iterator[str]:
    """H1: the playlists name the ranges, times and key frames of their files, and nothing else."""
    for name, text in stored.playlists.items():
        if name != MASTER:
            yield from _differing(folder / name, text)


def declared(stored: StoredSet, folder: Path) -> Iterator[str]:
    """H4: the master playlist declares the codecs, sizes, rates and sounds of the files."""
    yield from _differing(folder / MASTER, stored.playlists[MASTER])


def _differing(path: Path, text: str) -> Iterator[str]:
    found = path.read_bytes() if path.is_file() else b""
    if found != text.encode():
        lines = zip_longest(found.split(b"\n"), text.encode().split(b"\n"))
        line = next(n for n, (own, due) in enumerate(lines, 1) if own != due)
        yield f"line {line} of {path.name} is not what the files hold"


def independent(stored: StoredSet) -> Iterator[str]:
    """H2: every segment begins with an IDR picture, from which any player can start."""
    for rung, media in stored.rungs:
        by_start = {fragment.start: fragment for fragment in media.content.fragments}
        with media.path.open("rb") as file:
            for number, segment in enumerate(media.segments, 1):
                first = by_start[segment.start]
                if not first.sync or not starts_with_idr(file, first, media.content.codec):
                    yield f"{rung.name}: segment {number} does not begin with an IDR picture"
                    break


def aligned(stored: StoredSet) -> Iterator[str]:
    """H3: segments begin at the same times in all rungs, and where decoding is at their beginning.

    hls.js 1.7 places a segment by its decoding time: one that begins much earlier than it is shown, as
    a picture behind a still passage may, puts all that follows out of step with the sound.
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
