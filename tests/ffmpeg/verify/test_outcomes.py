"""What the gates conclude from what each of them finds: first failure ends, unknown never passes."""

import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.media.facts import Measurement, StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import Action
from hevcq.domain.profile_sections import Gates
from hevcq.errors import SourceDamaged, SourceUnreadable, Stopped
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.verify import gates
from hevcq.ffmpeg.verify.frames import PictureFacts
from hevcq.ports.encoder import EncodeReport, VerifyRequest
from support.clips import ManualClock
from support.fakes.backend import HEVC
from support.fakes.encoder import INFO, fake_plan

MADE = Measurement(
    tracks=(
        TrackMeasure(index=0, kind=StreamKind.VIDEO, packets=250, first_pts_s=0.0),
        TrackMeasure(index=1, kind=StreamKind.AUDIO, packets=400, first_pts_s=0.0),
    )
)
FACTS = PictureFacts(frames=250, digest="aa", mean=0.5, worst=2.0, detail=0.9)


class Bench:
    """A request whose output is sound; a test spoils one of the things that a gate looks at."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.output = folder / "out.mp4"
        self.output.write_bytes(b"x" * 500)
        self.progress: list[float] = []
        self.request = VerifyRequest(
            profile=HEVC,
            plan=fake_plan(HEVC, INFO),
            location="/media/a.mp4",
            info=INFO,
            measured=MADE,
            source_size=1000,
            output=self.output,
            report=EncodeReport(arguments=(), seconds=1.0, cpu_s=1.0, stderr=(), frames=250),
            max_seconds=60.0,
        )
        self.compared = ("", FACTS)
        self.answer("probe", INFO)
        self.answer("plan_problems", [])
        self.answer("stream_problems", [])
        self.answer("measure", MADE)
        self.answer("time_problems", [])
        self.answer("sound_problem", "")
        self.set("level_files_of", lambda *_, **__: nullcontext([Path("levels")]))
        self.answer("decode_problems", [])
        self.answer("decode_complaints", [])
        self.set("source_thumbnails", lambda *_, **__: nullcontext(lambda _size: b""))
        self.set("FrameComparison", self._comparison)

    def _comparison(self, *_: object, **__: object) -> SimpleNamespace:
        problem, facts = self.compared
        return SimpleNamespace(
            feed=lambda _chunk: None, frames=125, close=lambda: problem, facts=lambda: facts
        )

    def set(self, name: str, function: object) -> None:
        self._patch.setattr(gates, name, function)

    def answer(self, name: str, found: object) -> None:
        self.set(name, lambda *_, **__: found)

    def gates(self, **changes: object) -> None:
        profile = HEVC.model_copy(update={"gates": Gates(**changes)})
        self.request = replace(self.request, profile=profile)

    def plan(self, **changes: object) -> None:
        self.request = replace(self.request, plan=self.request.plan.model_copy(update=changes))

    def encode_sound(self) -> None:
        picture, sound = self.request.plan.streams
        made = sound.model_copy(update={"action": Action.ENCODE, "encoder": "aac"})
        self.plan(streams=(picture, made))

    def verify(self) -> tuple[GateResult, ...]:
        tools = FfmpegTools("ffmpeg", "ffprobe", ManualClock(auto=True))
        told = lambda progress: self.progress.append(progress.fraction)  # noqa: E731
        return gates.verify(tools, self.request, told, threading.Event())

    def last(self) -> tuple[Gate, Outcome, str]:
        found = self.verify()[-1]
        return found.gate, found.outcome, found.detail


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_a_sound_output_passes_every_gate(bench: Bench) -> None:
    found = bench.verify()

    assert [each.gate for each in found] == [
        Gate.G1,
        Gate.G2,
        Gate.G3,
        Gate.G5,
        Gate.G6,
        Gate.G4,
        Gate.G8,
    ]
    assert {each.outcome for each in found} == {Outcome.PASSED}
    assert (found[-1].digest, found[-1].detail) == (
        "aa",
        "250 frames compared: brightness 0.50 of 255 off on average, 2.0 at worst, 90% of sharp detail kept",
    )
    assert found[4].detail == "50.0% of the source's size"


@pytest.mark.parametrize(
    ("looked_at", "gate"),
    [
        ("plan_problems", Gate.G2),
        ("stream_problems", Gate.G3),
        ("time_problems", Gate.G5),
        ("decode_problems", Gate.G4),
    ],
)
def test_the_first_gate_that_fails_is_the_last_that_runs(
    bench: Bench, looked_at: str, gate: Gate
) -> None:
    bench.answer(looked_at, ["one thing", "another"])
    assert bench.last() == (gate, Outcome.FAILED, "one thing (and 1 more)")


def test_a_line_that_the_encoder_printed_fails_before_anything_is_read(bench: Bench) -> None:
    report = replace(bench.request.report, stderr=("[h264 @ 0x1] broken picture",))
    bench.request = replace(bench.request, report=report)
    (only,) = bench.verify()
    assert (only.gate, only.outcome) == (Gate.G1, Outcome.FAILED)


def test_an_output_that_cannot_be_read_fails_and_a_stop_is_passed_on(bench: Bench) -> None:
    def unreadable(*_: object, **__: object) -> None:
        raise SourceUnreadable("no moov")

    def stopped(*_: object, **__: object) -> None:
        raise Stopped

    bench.set("measure", unreadable)
    assert bench.last() == (Gate.G5, Outcome.FAILED, "the new file cannot be read: no moov")
    bench.set("measure", stopped)
    with pytest.raises(Stopped):
        bench.verify()


def test_a_source_that_was_not_measured_is_unknown(bench: Bench) -> None:
    bench.request = replace(bench.request, measured=Measurement(tracks=()))
    assert bench.last() == (Gate.G5, Outcome.UNKNOWN, "the times of the source were not measured")


def test_sound_is_compared_where_no_picture_is(bench: Bench) -> None:
    bench.encode_sound()
    picture, sound = bench.request.plan.streams
    copied = picture.model_copy(update={"action": Action.COPY})
    bench.plan(streams=(copied, sound))
    assert bench.last() == (Gate.G8, Outcome.PASSED, "its sound compared throughout")
    bench.answer("sound_problem", "is 12 dB quieter at 0:00:00.0")
    assert bench.last()[1] is Outcome.FAILED


@pytest.mark.parametrize(
    ("before", "after", "rate", "moved_s"),
    [
        (1.0, 1.5, "", 0.5),
        (1.0, 1.5, "25/1", 1.5),
        (None, 1.5, "", 1.5),
        (1.0, None, "", -1.0),
    ],
)
def test_sound_is_compared_where_the_picture_went(
    bench: Bench, before: float | None, after: float | None, rate: str, moved_s: float
) -> None:
    def measured(first_s: float | None) -> Measurement:
        picture = MADE.tracks[0].model_copy(update={"first_pts_s": first_s})
        return MADE.model_copy(update={"tracks": (picture,)})

    given: list[float] = []
    bench.encode_sound()
    bench.plan(video=bench.request.plan.video.model_copy(update={"rate": rate}))
    bench.request = replace(bench.request, measured=measured(before))
    bench.answer("measure", measured(after))
    bench.set("sound_problem", lambda _a, _b, track: given.append(track.moved_s) or "")
    bench.verify()
    assert given == [moved_s]


@pytest.mark.parametrize(
    ("changes", "source", "size", "said"),
    [
        ({"minimum_saving": None}, 1000, 900, (Gate.G6, Outcome.OFF, "any size is welcome")),
        ({}, 0, 900, (Gate.G6, Outcome.UNKNOWN, "the source's size is unknown")),
        (
            {},
            1000,
            951,
            (Gate.G6, Outcome.NOT_SMALLER, "95.1% of the original's size, limit 95.0%"),
        ),
        ({}, 1000, 950, (Gate.G6, Outcome.PASSED, "95.0% of the source's size")),
    ],
)
def test_sizes_are_judged(
    bench: Bench, changes: dict, source: int, size: int, said: tuple[Gate, Outcome, str]
) -> None:
    bench.gates(**changes)
    bench.request = replace(bench.request, source_size=source)
    bench.output.write_bytes(b"x" * size)
    found = next(each for each in bench.verify() if each.gate is said[0])
    assert found.outcome is said[1]
    assert found.detail.startswith(said[2])


def test_copied_sound_that_does_not_decode_in_the_source_is_the_sources_damage(
    bench: Bench,
) -> None:
    bench.answer("decode_problems", ["[aac @ 0x1] channel element is not allocated"])
    bench.answer("decode_complaints", ["[aac @ 0x2] channel element is not allocated"])
    with pytest.raises(SourceDamaged, match=r"a\.mp4 is damaged: .*not allocated"):
        bench.verify()

    bench.answer("decode_complaints", ["[aac @ 0x2] something else"])
    assert bench.last()[:2] == (Gate.G4, Outcome.FAILED)
    bench.answer("decode_complaints", ["[aac @ 0x2] channel element is not allocated"])
    bench.encode_sound()
    assert bench.last()[:2] == (Gate.G4, Outcome.FAILED)
