"""Run the gates G1 to G8 over one output, in order of cost, up to the first that does not pass.

Fail closed: a gate that cannot decide counts as failed (UNKNOWN). Errors that are not about the output
itself (a stop, a missing program) are raised, never swallowed.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.formats import keeps_detail
from hevcq.domain.media.containers import OGG
from hevcq.domain.media.facts import Measurement, MediaInfo, Stream, StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import Action, StreamPlan, too_large_sentence
from hevcq.errors import SourceGone, SourceUnreadable
from hevcq.ffmpeg.command.levels import levels_delay_s, planned_shape
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.inspect.measure import measure, probe_and_measure
from hevcq.ffmpeg.inspect.preflight import decode_errors_of
from hevcq.ffmpeg.process.limits import held_s
from hevcq.ffmpeg.run.messages import Pass, damage_error, message_text, unexpected_lines
from hevcq.ffmpeg.verify.decode import (
    ThumbnailSink,
    decode_problems,
    dolby_metadata,
    dolby_problem,
    new_level_files,
    source_level_files,
    source_thumbnails,
)
from hevcq.ffmpeg.verify.frames import FrameComparison, PictureFacts
from hevcq.ffmpeg.verify.sound import SoundTrack, sound_problem
from hevcq.ffmpeg.verify.streams import (
    caption_streams,
    output_streams,
    plan_problems,
    stream_problems,
)
from hevcq.ffmpeg.verify.timing import TimingInputs, time_problems
from hevcq.ports.encoder import EncodeProgress, OnProgress, VerifyRequest
from hevcq.util.clock import Clock
from hevcq.util.text import counted, timecode

Judgement = tuple[Outcome, str]
PASSED: Judgement = (Outcome.PASSED, "")

OGG_REPEATS = (
    "; ffmpeg 6.0 to 7.1 loses repeated pictures in Ogg: another version or WebM keeps them"
)


def verify(
    tools: FfmpegTools, request: VerifyRequest, on_progress: OnProgress, stop: threading.Event
) -> tuple[GateResult, ...]:
    """Run the gates, and return the results up to the first gate that does not pass.

    Raises Stopped, WorkerUnfit, LimitExceeded past `request.max_seconds`, or SourceDamaged if copied sound
    does not decode in the source either.
    """
    gates = _Gates(tools, request, on_progress, stop)
    order: tuple[tuple[Gate, Callable[[], Judgement]], ...] = (
        (Gate.G1, gates.clean_encode),
        (Gate.G2, gates.fresh_probe),
        (Gate.G3, gates.stream_ledger),
        (Gate.G5, gates.measured_times),
        (Gate.G6, gates.smaller),
        (Gate.G4, gates.full_decode),
        (Gate.G8, gates.likeness),
        *([(Gate.T1, gates.subtitles_beside)] if request.plan.sidecars else ()),
    )
    results: list[GateResult] = []
    for gate, judge in order:
        began = tools.clock.monotonic()
        try:
            outcome, detail = judge()
        except (SourceUnreadable, SourceGone) as error:
            outcome, detail = Outcome.FAILED, f"the new file cannot be read: {error.message}"
        seconds = tools.clock.monotonic() - began
        digest = gates.compared[0][1].digest if gate is Gate.G8 and gates.compared else ""
        results.append(
            GateResult(gate=gate, outcome=outcome, detail=detail, seconds=seconds, digest=digest)
        )
        if outcome not in {Outcome.PASSED, Outcome.OFF}:
            break
    return tuple(results)


def judgement(problems: Iterable[str]) -> Judgement:
    """Return PASSED, or FAILED with the first of the problems and the number of the others."""
    clauses = list(problems)
    if not clauses:
        return PASSED
    more = f" (and {len(clauses) - 1} more)" if len(clauses) > 1 else ""
    return Outcome.FAILED, message_text(clauses[0]) + more


def _summary(facts: PictureFacts) -> str:
    return (
        f"{counted(facts.frames, 'frame')} compared: brightness {facts.mean:.2f} of 255 off on average,"
        f" {facts.worst:.1f} at worst, {facts.detail:.0%} of sharp detail kept"
    )


def in_time(
    request: VerifyRequest, clock: Clock, stop: threading.Event
) -> Callable[[], VerifyRequest]:
    """Return a function that returns the request with the seconds that are left of `max_seconds`.

    They run from now on, except while programs are suspended.
    """
    began, held_before = clock.monotonic(), held_s(stop)

    def request_in_time() -> VerifyRequest:
        spent = clock.monotonic() - began - (held_s(stop) - held_before)
        return replace(request, max_seconds=max(1.0, request.max_seconds - spent))

    return request_in_time


@dataclass(slots=True)
class _Gates:
    """One method for each gate. Each keeps what later gates need."""

    tools: FfmpegTools
    request: VerifyRequest
    on_progress: OnProgress
    stop: threading.Event
    in_time: Callable[[], VerifyRequest] = field(init=False)
    output: MediaInfo = field(init=False)
    probed_measure: Measurement | None = field(init=False, default=None)
    made: Measurement = field(init=False)
    sound_clauses: list[str] | None = field(init=False, default=None)
    compared: list[tuple[str, PictureFacts]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.in_time = in_time(self.request, self.tools.clock, self.stop)

    def clean_encode(self) -> Judgement:
        """G1: require an encode without error-level lines, except known harmless ones."""
        return judgement(list(unexpected_lines(self.request.report.stderr, Pass.ENCODE)))

    def fresh_probe(self) -> Judgement:
        """G2: probe the output and compare it with the plan."""
        output = str(self.request.output)
        self.output, self.probed_measure = probe_and_measure(
            self.tools, output, self.stop, midstream=False
        )
        return judgement(plan_problems(self.request.plan, self.output))

    def stream_ledger(self) -> Judgement:
        """G3: require every stream, chapter and title that the plan keeps, and nothing else."""
        return judgement(stream_problems(self.request.plan, self.request.info, self.output))

    def measured_times(self) -> Judgement:
        """G5: compare the measured packets and times of every track with the source's."""
        request = self.request
        if not request.measured.tracks:
            return Outcome.UNKNOWN, "the times of the source were not measured"
        output = str(request.output)
        self.made = self.probed_measure or measure(self.tools, output, self.output, self.stop)
        problems = time_problems(
            TimingInputs(
                plan=request.plan,
                source=request.info,
                measured=request.measured,
                output=self.output,
                made=self.made,
                frames=request.report.frames,
            )
        )
        return judgement(problems or self._caption_problems() or self._dolby_problems())

    def _dolby_problems(self) -> list[str]:
        """Return how the frames' Dolby Vision metadata differs from the source's."""
        request, problems = self.request, []
        for kept in request.plan.kept:
            if kept.video is None or not kept.video.dolby_vision:
                continue
            stream, source = self._stream(kept), request.info.stream(kept.source_index)
            track = self.made.track(stream.index)
            before, after = (
                dolby_metadata(self.tools, location, video, request.profile, self.stop)
                for location, video in ((request.location, source), (str(request.output), stream))
            )
            problems.append(dolby_problem(before, after, track.packets if track else 0))
        return list(filter(None, problems))

    def _caption_problems(self) -> list[str]:
        """Return how the text tracks made from captions differ from the source's captions."""
        request = self.request
        if not request.plan.captions:
            return []
        from hevcq.ffmpeg.inspect.texts import CaptionedVideo, caption_problems

        index = request.plan.main_video.source_index
        before, after = request.measured.track(index), self._made_video()
        if before is None or after is None:
            return ["the times of captions cannot be compared"]
        captions = caption_streams(request.plan, self.output)
        indexes = (stream.index for stream in captions)
        numbers = dict(zip(request.plan.captions, indexes, strict=True))
        start_s = request.info.start_s or 0.0
        shift_s = (after.first_pts_s or 0.0) - ((before.first_pts_s or 0.0) - start_s)
        video = CaptionedVideo(request.location, request.info, index)
        return list(
            caption_problems(self.tools, video, str(request.output), numbers, shift_s, self.stop)
        )

    def subtitles_beside(self) -> Judgement:
        """T1: compare the cues of the subtitle files beside the rendition with the source's tracks."""
        from hevcq.ffmpeg.inspect.texts import sidecar_problems

        return judgement(sidecar_problems(self.tools, self.request, self.stop))

    def _picture_shift_s(self) -> float:
        """Return by how many seconds the video begins later in the output than in the source."""
        request = self.request
        before = request.measured.track(request.plan.main_video.source_index)
        after = self._made_video()
        if before is None or after is None:
            return 0.0
        start_s = (before.first_pts_s or 0.0) - request.info.origin_s(request.plan.mapped)
        if request.plan.video.rate:
            start_s = 0.0  # the first frame is held from the start of the file
        return (after.first_pts_s or 0.0) - (self.output.start_s or 0.0) - start_s

    def _stream(self, kept: StreamPlan) -> Stream:
        """Return the output's stream of a kept track, which G3 has found."""
        return output_streams(self.request.plan, self.output)[kept.position or 0]

    def _made_video(self) -> TrackMeasure | None:
        return self.made.track(self._stream(self.request.plan.main_video).index)

    def smaller(self) -> Judgement:
        """G6: require the saving that the profile asks for."""
        saving = self.request.profile.gates.minimum_saving
        before, after = self.request.source_size, self.request.output.stat().st_size
        if saving is None:
            return Outcome.OFF, "any size is welcome"
        if before <= 0:
            return Outcome.UNKNOWN, "the source's size is unknown"
        share = after / before
        if share > 1 - saving:
            return Outcome.NOT_SMALLER, too_large_sentence(share, saving)
        return Outcome.PASSED, f"{share:.1%} of the source's size"

    def full_decode(self) -> Judgement:
        """G4: decode all video and audio of the output without an error.

        On the way the thumbnails and the sounds' levels are compared with the source's, for G8.
        """
        sounds = self.request.plan.encoded(StreamKind.AUDIO)
        with new_level_files(len(sounds), self.request.report.levels) as paths:
            problems = self._decode_output(list(zip(map(self._stream, sounds), paths, strict=True)))
            if not problems and sounds:
                self.sound_clauses = list(self._sound_problems(paths))
        return judgement(problems)

    def _decode_output(self, levels: Sequence[tuple[Stream, Path]]) -> list[str]:
        videos = self.request.plan.encoded(StreamKind.VIDEO)
        if not videos:
            problems = decode_problems(self.tools, self.in_time(), self.stop, None, levels)
            self._report_progress(1.0)
            return problems
        for number, kept in enumerate(videos):
            problems = self._decode_and_compare(kept, levels if number == 0 else None)
            if problems:
                self._blame_source(problems)
                return problems
            self._report_progress((number + 1) / len(videos))
        return []

    def _sound_problems(self, made: Sequence[Path]) -> Iterator[str]:
        """Yield how the encoded sounds differ from the source's."""
        request, sounds = self.in_time(), self.request.plan.encoded(StreamKind.AUDIO)
        moved_s, levels = self._picture_shift_s(), request.report.levels
        with source_level_files(self.tools, request, sounds, levels, self.stop) as files:
            for kept, before, after in zip(sounds, files, made, strict=True):
                source = request.info.stream(kept.source_index)
                shape = planned_shape(kept, source, request.plan)
                late_s = moved_s - levels_delay_s(source)
                track = SoundTrack(shape, request.plan.muxer, late_s, kept.gain_db)
                problem = sound_problem(before, after, track)
                if not problem and request.profile.audio.loudness is not None:
                    from hevcq.ffmpeg.inspect.bars_and_loudness import loudness_problem

                    track_pair = (kept, self._stream(kept).index)
                    problem = loudness_problem(self.tools, request, track_pair, self.stop)
                if problem:
                    yield f"audio track {kept.position} {problem}"

    def _blame_source(self, problems: list[str]) -> None:
        """Raise SourceDamaged if copied sound, whose bytes G5 compared, does not decode in the source either."""
        request = self.request
        copied = [
            word
            for kept in request.plan.kept
            if kept.kind is StreamKind.AUDIO and kept.action is Action.COPY
            for word in ("-map", f"0:{kept.source_index}")
        ]
        if not copied:
            return
        complaints = decode_errors_of(
            self.tools, request.location, request.profile, self.stop, tuple(copied)
        )
        if message_text(problems[0]) in map(message_text, complaints):
            raise damage_error(request.location, problems[0])

    def _decode_and_compare(
        self, kept: StreamPlan, levels: Sequence[tuple[Stream, Path]] | None
    ) -> list[str]:
        """Decode the output, and compare one video's frames on the way.

        With `levels` all other streams are decoded too, and the levels are written; see `decode_problems`.
        """
        stream, target = self._stream(kept), kept.video or self.request.plan.video
        video, pixels = self.request.profile.video, target.width * target.height
        leaves_repeats = self.request.plan.muxer == OGG
        track = self.made.track(stream.index)
        expected, times = (max(1, track.packets), track.times) if track is not None else (1, ())

        def when(frame: int) -> str:
            return timecode(times[frame] * float(stream.tick)) if frame < len(times) else ""

        with source_thumbnails(self.tools, self.in_time(), kept, self.stop) as read:
            crf = video.crf if target.crf is None else target.crf
            comparison = FrameComparison(
                read,
                pixels,
                judges_detail=keeps_detail(video.codec, crf),
                holds_last=leaves_repeats,
                when=when,
            )

            def on_bytes(chunk: bytes) -> None:
                comparison.feed(chunk)
                if not self.compared:
                    self._report_progress(min(1.0, comparison.frames / expected))

            rate = target.rate if leaves_repeats else ""
            sink = ThumbnailSink(stream.index, on_bytes, rate, pixels)
            problems = decode_problems(self.tools, self.in_time(), self.stop, sink, levels)
            self.compared.append((comparison.close(), comparison.facts()))
        return problems

    def _report_progress(self, fraction: float) -> None:
        out_time_s = fraction * (self.output.duration_s or 0.0)
        self.on_progress(EncodeProgress(fraction, out_time_s, frame=0, speed=None, size=0))

    def likeness(self) -> Judgement:
        """G8: require every encoded frame and every encoded sound to be like the source's."""
        sounds = len(self.request.plan.encoded(StreamKind.AUDIO))
        if sounds and self.sound_clauses is None:
            return Outcome.UNKNOWN, "the sound was not compared"
        if self.sound_clauses:
            return judgement(self.sound_clauses)
        outcome, detail = self._picture_likeness()
        if not sounds or outcome not in {Outcome.PASSED, Outcome.OFF}:
            return outcome, detail
        heard = "its sound compared throughout" if sounds == 1 else f"{sounds} sounds compared"
        return Outcome.PASSED, "; ".join(filter(None, [detail, heard]))

    def _picture_likeness(self) -> Judgement:
        if not self.compared:
            return Outcome.OFF, ""
        in_ogg = OGG_REPEATS if self.request.plan.muxer == OGG else ""
        for problem, _ in self.compared:
            if problem:
                return Outcome.FAILED, problem + in_ogg
        return Outcome.PASSED, "; ".join(_summary(facts) for _, facts in self.compared)
