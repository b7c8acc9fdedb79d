"""A join that went wrong is found: by the join itself, by the times of frames, or at a seam."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from ffmpeg.chunking.numbered import ENCODER, PROFILE, Film, ffmpeg
from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.chunking.planner import ChunkPlan, chunks_at
from hevcq.errors import EncoderFailed, PartUnfit, Stopped

pytestmark = pytest.mark.media


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Film:
    """Return 6 s of moving picture with sound, in an odd folder, key frames each 0.4 s."""
    folder = tmp_path_factory.mktemp("it's #1 ü?")
    source = folder / "a film.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=192x112:rate=25:duration=6,noise=alls=6",
        "-f", "lavfi", "-i", "sine=frequency=440:duration=6",
        "-c:v", "libx264", "-preset", "veryfast", "-crf", "16", "-g", "10", "-sc_threshold", "0",
        "-pix_fmt", "yuv420p", "-c:a", "aac", "-metadata", "title=A film", source,
    )  # fmt: skip
    return Film(source, folder)


@pytest.fixture(scope="module")
def plan(film: Film) -> ChunkPlan:
    return chunks_at(PROFILE, film.plan, film.index, (0, 5, 10))


def outcome(results: tuple[GateResult, ...]) -> tuple[Gate, Outcome]:
    return results[-1].gate, results[-1].outcome


def test_a_sound_join_passes_every_gate_and_carries_what_the_whole_carries(film, plan):
    report = film.join(plan, film.parts(plan))
    results = film.verify(film.output(), report, plan)

    assert all(r.outcome in {Outcome.PASSED, Outcome.OFF} for r in results), results
    assert outcome(results) == (Gate.G8, Outcome.PASSED)
    whole, _ = film.whole()
    joined, made = (ENCODER.probe(str(p), stop=threading.Event()) for p in (film.output(), whole))
    assert joined.tags == made.tags
    assert [s.codec_tag for s in joined.streams] == [s.codec_tag for s in made.streams]
    assert [s.dispositions for s in joined.streams] == [s.dispositions for s in made.streams]
    assert not list(film.folder.glob(".parts-*"))


def test_parts_in_another_order_are_found_at_a_seam(film, plan):
    first, second, third = film.parts(plan)
    report = film.join(plan, [second, first, third], "swapped")

    results = film.verify(film.output("swapped"), report, plan)

    assert outcome(results) == (Gate.G8, Outcome.FAILED), results


def test_one_frame_of_another_place_is_found_at_its_seam(film, plan, tmp_path):
    first, second, third = film.parts(plan)
    spoilt = tmp_path / "spoilt.mp4"
    # The part's first frame shows what is shown a second later
    freeze = "[0:v][1:v]freezeframes=first=0:last=0:replace=20"
    params = ["-preset", "ultrafast", "-crf", "20", "-x265-params", "log-level=error:pools=1"]
    ffmpeg(
        "-i", second, "-i", second, "-filter_complex", freeze,
        "-c:v", "libx265", *params, "-tag:v", "hvc1", "-fps_mode", "passthrough",
        "-enc_time_base", "-1", spoilt,
    )  # fmt: skip
    report = film.join(plan, [first, spoilt, third], "spoilt")

    results = film.verify(film.output("spoilt"), report, plan)

    assert outcome(results) == (Gate.G8, Outcome.FAILED), results
    assert "seam" in results[-1].detail


def test_frames_at_other_times_are_found(film, plan, tmp_path):
    report = film.join(plan, film.parts(plan))
    late = tmp_path / "late.mp4"
    # All packets and both ends in place; in the middle, a frame is late by a third of a frame
    shift = "setts=ts=TS+if(eq(N\\,60)\\,170\\,0):pts=PTS+if(eq(N\\,60)\\,170\\,0)"
    ffmpeg("-i", film.output(), "-map", "0", "-c", "copy", "-bsf:v", shift, "-tag:v", "hvc1", late)

    results = film.verify(late, report, plan)

    assert outcome(results) == (Gate.G5, Outcome.FAILED), results
    assert "is shown" in results[-1].detail


def test_a_plan_for_another_film_is_found_by_its_frames(film, plan):
    report = film.join(plan, film.parts(plan))
    other = plan.model_copy(update={"frames": plan.frames + 1})

    results = film.verify(film.output(), report, other)

    assert outcome(results) == (Gate.G5, Outcome.FAILED)
    assert "planned" in results[-1].detail


def test_a_seam_elsewhere_than_planned_is_found(film, plan):
    report = film.join(plan, film.parts(plan))
    moved = plan.chunks[1].model_copy(update={"first_frame": plan.chunks[1].first_frame + 3})
    other = plan.model_copy(update={"chunks": (plan.chunks[0], moved, plan.chunks[2])})

    results = film.verify(film.output(), report, other)

    assert outcome(results) == (Gate.G5, Outcome.FAILED)
    assert "part 2 does not begin" in results[-1].detail


def test_a_missing_part_is_named_and_leaves_no_output(film, plan, tmp_path):
    first, _, third = film.parts(plan)

    with pytest.raises(PartUnfit, match="Part 2 is missing") as caught:
        film.join(plan, [first, tmp_path / "gone", third], "missing")

    assert caught.value.index == 1
    assert not film.output("missing").exists()


def test_too_few_parts_are_refused(film, plan):
    with pytest.raises(PartUnfit, match="2 parts"):
        film.join(plan, film.parts(plan)[:2], "few")
    assert not film.output("few").exists()


@pytest.mark.parametrize("content", [b"", b"not a part" * 99])
def test_a_part_that_is_none_is_refused(film, plan, tmp_path, content):
    first, _, third = film.parts(plan)
    broken = tmp_path / "broken"
    broken.write_bytes(content)

    with pytest.raises(PartUnfit, match="cannot be read"):
        film.join(plan, [first, broken, third], "broken")
    assert not film.output("broken").exists()


def test_a_part_with_other_headers_is_refused(film, plan, tmp_path):
    first, second, third = film.parts(plan)
    other = tmp_path / "other.mp4"
    ffmpeg("-i", second, "-c:v", "libx264", "-preset", "ultrafast", other)

    with pytest.raises(PartUnfit, match="in another way") as caught:
        film.join(plan, [first, other, third], "other")
    assert caught.value.index == 1


def test_a_part_given_twice_makes_too_many_frames_or_too_few(film, plan):
    short = chunks_at(PROFILE, film.plan, film.index, (0, 5, 12))
    first, second, _ = film.parts(short)

    with pytest.raises(PartUnfit, match=r"frames, not 150"):
        film.join(short, [first, second, first], "twice")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": 49}, "has 50 frames, not 49"),
        ({"times": 1}, "at other times"),
        ({"last_pts": 1}, "runs from"),
    ],
)
def test_a_part_that_is_not_what_the_plan_says_does_not_count(film, plan, change, words):
    wrong = plan.chunks[1].model_copy(update=change)
    output = film.folder / "wrong.part"

    with pytest.raises(PartUnfit, match=words) as caught:
        ENCODER.encode_chunk(
            film.request(output), plan, wrong, on_progress=lambda _: None, stop=threading.Event()
        )

    assert caught.value.index == 1
    assert not output.exists()


def test_a_seek_that_lands_too_late_is_found_by_the_frames(film, plan):
    late = plan.chunks[1].model_copy(update={"seek_s": 3.0})
    output = film.folder / "late.part"

    with pytest.raises(PartUnfit, match="frames, not 50"):
        ENCODER.encode_chunk(
            film.request(output), plan, late, on_progress=lambda _: None, stop=threading.Event()
        )
    assert not output.exists()


def test_a_part_that_is_there_already_is_not_overwritten(film, plan):
    output = film.folder / "there.part"
    output.write_bytes(b"mine")

    with pytest.raises(EncoderFailed, match="exists already"):
        ENCODER.encode_chunk(
            film.request(output),
            plan,
            plan.chunks[0],
            on_progress=lambda _: None,
            stop=threading.Event(),
        )
    assert output.read_bytes() == b"mine"


@pytest.mark.parametrize("step", ["chunk", "join", "keyframes"])
def test_a_stop_ends_each_step_and_leaves_nothing(film, plan, step):
    stop, output, parts = threading.Event(), film.output("stopped"), film.parts(plan)
    stop.set()
    asked, nothing = film.request(output), lambda _state: None

    steps = {
        "chunk": lambda: ENCODER.encode_chunk(
            asked, plan, plan.chunks[0], on_progress=nothing, stop=stop
        ),
        "join": lambda: ENCODER.join(asked, plan, parts, on_progress=nothing, stop=stop),
        "keyframes": lambda: ENCODER.keyframes(str(film.source), film.info, stop=stop),
    }

    with pytest.raises(Stopped):
        steps[step]()
    assert not output.exists()
    assert not list(film.folder.glob(".parts-*"))


def test_progress_is_that_of_the_chunk(film, plan):
    seen: list[float] = []
    output = film.folder / "progress.part"

    ENCODER.encode_chunk(
        film.request(output),
        plan,
        plan.chunks[2],
        on_progress=lambda state: seen.append(state.fraction),
        stop=threading.Event(),
    )

    assert seen[-1] == 1.0
    assert seen == sorted(seen)


def test_sound_stays_where_it_was_when_it_starts_before_the_picture(tmp_path):
    source = tmp_path / "late picture.mkv"
    ffmpeg(
        "-itsoffset", "0.32", "-f", "lavfi", "-i", "testsrc2=size=192x112:rate=25:duration=4",
        "-f", "lavfi", "-i", "sine=duration=4", "-c:v", "libx264", "-g", "10", "-bf", "2",
        "-pix_fmt", "yuv420p", "-c:a", "aac", source,
    )  # fmt: skip
    film = Film(source, tmp_path)
    plan = chunks_at(PROFILE, film.plan, film.index, (0, 3, 6))
    report = film.join(plan, film.parts(plan))
    whole, _ = film.whole()

    def starts(path: Path) -> list[str]:
        asked = ["ffprobe", "-v", "error", "-show_entries", "stream=start_time", "-of", "csv=p=0"]
        return subprocess.run(
            [*asked, path], check=True, capture_output=True, text=True, timeout=30
        ).stdout.split()

    assert starts(film.output()) == starts(whole)
    results = film.verify(film.output(), report, plan)
    assert outcome(results) == (Gate.G8, Outcome.PASSED), results


def test_the_whole_is_verified_as_before_without_a_plan(film):
    whole = film.folder / "plain.mp4"
    report = ENCODER.encode(film.request(whole), on_progress=lambda _: None, stop=threading.Event())

    assert outcome(film.verify(whole, report, None)) == (Gate.G8, Outcome.PASSED)
