"""Run the gates G1 to G8 over one output, in order of cost, up to the first that fails.

Fail closed: what cannot be determined counts as failed (UNKNOWN). An error that is not about the
output itself (a stop, a missing program) is passed on, never swallowed.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.formats import keeps_detail
from hevcq.domain.media.containers import OGG
from hevcq.domain.media.facts import Measurement, MediaInfo, Stream, StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import Action, StreamPlan, too_large_sentence
from hevcq.errors import SourceGone, SourceUnreadable
from hevcq.ffmpeg.command.levels import levels_late_s, planned_shape
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.inspect.measure import look, measure
from hevcq.ffmpeg.inspect.preflight import decode_errors_of
from hevcq.ffmpeg.process.limits import held_s
from hevcq.ffmpeg.run.messages import (
    Pass,
    damaged,
    message_text,
    unexpected_lines,
)
from hevcq.ffmpeg.verify.decode import (
    Decoded,
    decode_problems,
    dolby_problem,
    level_files_of,
    metadata_of,
    new_level_files,
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
from hevcq.util.text import counted, timecode

Judged = tuple[Outcome, str]
PASSED: Judged = (Outcome.PASSED, "")

OGG_REPEATS = (
    "; ffmpeg 6.0 to 7.1 loses repeated pictures in Ogg: another version or WebM keeps them"
)


def verify(
    tools: FfmpegTools, request: VerifyRequest, on_progress: OnProgress, stop: threading.Event
) -> tuple[GateResult, ...]:
    """Run the gates; nothing follows the result of the first gate that did not pass.

    Raises Stopped, WorkerUnfit, LimitExceeded past `request.max_seconds`, or SourceDamaged if what does
    not decode was copied from the source like that.
    """
    gates = _Gates(tools, request, on_progress, stop)
    order: tuple[tuple[Gate, Callable[[], Judged]], ...] = (
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


def _judged(problems: list[str]) -> Judged:
    if not problems:
        return PASSED
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Outcome.FAILED, message_text(problems[0]) + more


def _described(facts: PictureFacts) -> str:
    return (
        f"{counted(facts.frames, 'frame')} compared: brightness {facts.mean:.2f} of 255 off on average,"
        f" {facts.worst:.1f} at worst, {facts.detail:.0%} of sharp detail kept"
    )


@dataclass(slots=True)
class _Gates:
    """One method per gate; the results of a gate are kept for those after it."""

    tools: FfmpegTools
    request: VerifyRequest
    on_progress: OnProgress
    stop: threading.Event
    began: float = field(init=False)
    held_before: float = field(init=False)
    output: MediaInfo = field(init=False)
    looked: Measurement | None = field(init=False, default=None)
    made: Measurement = field(init=False)
    unlike: list[str] | None = field(init=False, default=None)
    compared: list[tuple[str, PictureFacts]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.began, self.held_before = self.tools.clock.monotonic(), held_s(self.stop)

    def clean_encode(self) -> Judged:
        """G1: require that the encode printed no error-level line but known harmless ones."""
        return _judged(list(unexpected_lines(self.request.report.stderr, Pass.ENCODE)))

    def fresh_probe(self) -> Judged:
        """G2: probe the output and compare it with the plan."""
        output = str(self.request.output)
        self.output, self.looked = look(self.tools, output, self.stop, midstream=False)
        return _judged(plan_problems(self.request.plan, self.output))

    def stream_ledger(self) -> Judged:
        """G3: require every stream, chapter and title that the plan keeps, and nothing else."""
        return _judged(stream_problems(self.request.plan, self.request.info, self.output))

    def measured_times(self) -> Judged:
        """G5: compare measured packets and times of every track with the source's."""
        request = self.request
        if not request.measured.tracks:
            return Outcome.UNKNOWN, "the times of the source were not measured"
        output = str(request.output)
        self.made = self.looked or measure(self.tools, output, self.output, self.stop)
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
        return _judged(problems or self._wrong_captions() or self._wrong_dolby())

    def _wrong_dolby(self) -> list[str]:
        """Return how Dolby Vision metadata of the pictures differs from the source's."""
        request, made = self.request, output_streams(self.request.plan, self.output)
        kept = [s for s in request.plan.kept if s.video is not None and s.video.dolby_vision]
        if not kept:
            return []
        problems = []
        for each in kept:
            stream = made[each.position or 0]
            track = self.made.track(stream.index)
            source = request.info.stream(each.source_index)
            files = (request.location, source), (str(request.output), stream)
            before, after = (
                metadata_of(self.tools, place, found, request.profile, self.stop)
                for place, found in files
            )
            problems.append(dolby_problem(before, after, track.packets if track else 0))
        return list(filter(None, problems))

    def _wrong_captions(self) -> list[str]:
        """Return how the text of captions differs from the source's captions."""
        request = self.request
        if not request.plan.captions:
            return []
        from hevcq.ffmpeg.inspect.texts import CaptionedVideo, caption_problems

        before = request.measured.track(request.plan.main_video.source_index)
        after = self.made.track(self._video().index)
        if before is None or after is None:
            return ["the times of captions cannot be compared"]
        made = caption_streams(request.plan, self.output)
        numbers = {name: each.index for name, each in zip(request.plan.captions, made, strict=True)}
        start_s = request.info.start_s or 0.0
        shift_s = (after.first_pts_s or 0.0) - ((before.first_pts_s or 0.0) - start_s)
        index = request.plan.main_video.source_index
        video = CaptionedVideo(request.location, request.info, index)
        return list(
            caption_problems(self.tools, video, str(request.output), numbers, shift_s, self.stop)
        )

    def subtitles_beside(self) -> Judged:
        """T1: compare the cues of the files beside the rendition with those of the source's tracks."""
        from hevcq.ffmpeg.inspect.texts import sidecar_problems

        return _judged(list(sidecar_problems(self.tools, self.request, self.stop)))

    def _picture_moved_s(self) -> float:
        """Return by how many seconds the picture begins later in the output than in the source."""
        request = self.request
        before = request.measured.track(request.plan.main_video.source_index)
        after = self.made.track(self._video().index)
        if before is None or after is None:
            return 0.0
        there = (before.first_pts_s or 0.0) - request.info.origin_s(request.plan.mapped)
        if request.plan.video.rate:
            there = 0.0  # its first frame is held from the start of the file
        return (after.first_pts_s or 0.0) - (self.output.start_s or 0.0) - there

    def _video(self) -> Stream:
        """Return the video's stream in the output; G3 found it there."""
        made = output_streams(self.request.plan, self.output)
        return made[self.request.plan.main_video.position or 0]

    def smaller(self) -> Judged:
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

    def full_decode(self) -> Judged:
        """G4: decode all video and audio of the output without an error.

        The thumbnails of its pictures, and the levels of its sounds, are compared with the source's on
        the way, for G8.
        """
        sounds = self.request.plan.encoded(StreamKind.AUDIO)
        made = output_streams(self.request.plan, self.output)
        with new_level_files(len(sounds), self.request.report.levels) as paths:
            problems = self._decoded(
                [(made[kept.position or 0], path) for kept, path in zip(sounds, paths, strict=True)]
            )
            if not problems and sounds:
                self.unlike = list(self._unlike_sounds(paths))
        return _judged(problems)

    def _decoded(self, levels: Sequence[tuple[Stream, Path]]) -> list[str]:
        videos = self.request.plan.encoded(StreamKind.VIDEO)
        if not videos:
            problems = decode_problems(
                self.tools, self.request, self.stop, None, deadline_s=self._left(), levels=levels
            )
            self._report(1.0)
            return problems
        for number, kept in enumerate(videos):
            problems = self._compared_decode(kept, levels if number == 0 else None)
            if problems:
                self._blame_source(problems)
                return problems
            self._report((number + 1) / len(videos))
        return []

    def _unlike_sounds(self, made: Sequence[Path]) -> Iterator[str]:
        """Yield how the sounds that were encoded anew differ from the source's."""
        request, sounds = self.request, self.request.plan.encoded(StreamKind.AUDIO)
        streams = {stream.index: stream for stream in request.info.streams}
        moved_s = self._picture_moved_s()
        with level_files_of(
            self.tools, request, sounds, request.report.levels, self.stop, deadline_s=self._left()
        ) as files:
            for kept, there, here in zip(sounds, files, made, strict=True):
                source = streams[kept.source_index]
                shape = planned_shape(kept, source, request.plan)
                late_s = moved_s - levels_late_s(source)
                track = SoundTrack(shape, request.plan.muxer, late_s, kept.gain_db)
                problem = sound_problem(there, here, track)
                if not problem and request.profile.audio.loudness is not None:
                    from hevcq.ffmpeg.inspect.bars_and_loudness import loudness_problem

                    made_index = output_streams(request.plan, self.output)[kept.position or 0].index
                    problem = loudness_problem(self.tools, request, (kept, made_index), self.stop)
                if problem:
                    yield f"audio track {kept.position} {problem}"

    def _blame_source(self, problems: list[str]) -> None:
        """Raise SourceDamaged if the copied sound, whose bytes G5 compared, does not decode there either."""
        request = self.request
        copied = [
            word
            for kept in request.plan.kept
            if kept.kind is StreamKind.AUDIO and kept.action is Action.COPY
            for word in ("-map", f"0:{kept.source_index}")
        ]
        if not copied:
            return
        there = decode_errors_of(
            self.tools, request.location, request.profile, self.stop, tuple(copied)
        )
        texts = {message_text(line) for line in there}
        if texts and message_text(problems[0]) in texts:
            raise damaged(request.location, problems[0])

    def _compared_decode(
        self, kept: StreamPlan, levels: Sequence[tuple[Stream, Path]] | None
    ) -> list[str]:
        """Decode the output once, and compare one video's pictures on the way.

        With `levels` everything else is decoded as well, and these are written.
        """
        stream = output_streams(self.request.plan, self.output)[kept.position or 0]
        target = kept.video or self.request.plan.video
        track = self.made.track(stream.index)
        expected = max(1, track.packets if track is not None else 1)
        with source_thumbnails(
            self.tools, self.request, kept, self.stop, deadline_s=self._left()
        ) as read:
            video = self.request.profile.video
            repeats = self.request.plan.muxer == OGG
            comparison = FrameComparison(
                read,
                target.width * target.height,
                judges_detail=keeps_detail(
                    video.codec, video.crf if target.crf is None else target.crf
                ),
                holds_last=repeats,
                when=self._when(track, stream),
            )

            def on_bytes(chunk: bytes) -> None:
                comparison.feed(chunk)
                if not self.compared:
                    self._report(min(1.0, comparison.frames / expected))

            problems = decode_problems(
                self.tools,
                self.request,
                self.stop,
                Decoded(
                    stream.index,
                    on_bytes,
                    target.rate if repeats else "",
                    target.width * target.height,
                ),
                deadline_s=self._left(),
                levels=levels,
            )
            self.compared.append((comparison.close(), comparison.facts()))
        return problems

    @staticmethod
    def _when(track: TrackMeasure | None, stream: Stream) -> Callable[[int], str]:
        """Return a function that names the time of a frame by its number, "" where it is unknown."""
        times = track.times if track is not None else ()

        def when(frame: int) -> str:
            return timecode(times[frame] * float(stream.tick)) if frame < len(times) else ""

        return when

    def _report(self, fraction: float) -> None:
        out_time_s = fraction * (self.output.duration_s or 0.0)
        self.on_progress(EncodeProgress(fraction, out_time_s, frame=0, speed=None, size=0))

    def likeness(self) -> Judged:
        """G8: require every picture and every sound that was encoded anew to be like the source's."""
        sounds = len(self.request.plan.encoded(StreamKind.AUDIO))
        if sounds and self.unlike is None:
            return Outcome.UNKNOWN, "the sound was not compared"
        if self.unlike:
            return _judged(self.unlike)
        outcome, detail = self._picture()
        if not sounds or outcome not in {Outcome.PASSED, Outcome.OFF}:
            return outcome, detail
        heard = "its sound compared throughout" if sounds == 1 else f"{sounds} sounds compared"
        return Outcome.PASSED, "; ".join(filter(None, [detail, heard]))

    def _picture(self) -> Judged:
        """Judge every frame."""
        if not self.compared:
            return Outcome.OFF, ""
        in_ogg = OGG_REPEATS if self.request.plan.muxer == OGG else ""
        for problem, _ in self.compared:
            if problem:
                return Outcome.FAILED, problem + in_ogg
        return Outcome.PASSED, "; ".join(_described(facts) for _, facts in self.compared)

    def _left(self) -> float:
        stood_still = held_s(self.stop) - self.held_before
        spent = self.tools.clock.monotonic() - self.began - stood_still
        return max(1.0, self.request.max_seconds - spent)
