"""A join that went wrong is found: by the join itself, by the times of frames, or at a seam.

Dolby Vision metadata of every frame, over the joints of a video that is split.
"""

import re
import subprocess
import threading
from pathlib import Path

import pytest

from ffmpeg.chunking.numbered import ENCODER, PROFILE, Clip, ffmpeg, times
from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.chunking import ChunkPlan, chunks_at
from hevcq.domain.formats import Container
from hevcq.domain.planning.encode_plan import revise_plan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile_sections import Audio, VideoRecipe
from hevcq.errors import PartUnfit, Stopped
from support.dolby import FRAMES, make_film, need_dolby, spoil
from support.media_facts import profile

pytestmark = pytest.mark.media
HDR10 = (
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    ":max-cll=1000,400:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Clip:
    """Return 6 s of moving picture with sound, in an odd folder, key frames each 0.4 s."""
    folder = tmp_path_factory.mktemp("it's #1 ü?")
    source = folder / "a video.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=192x112:rate=25:duration=6,noise=alls=6",
        "-f", "lavfi", "-i", "sine=frequency=440:duration=6",
        "-c:v", "libx264", "-preset", "veryfast", "-crf", "16", "-g", "10", "-sc_threshold", "0",
        "-pix_fmt", "yuv420p", "-c:a", "aac", "-metadata", "title=A video", source,
    )  # fmt: skip
    return Clip(source, folder)


@pytest.fixture(scope="module")
def plan(video: Clip) -> ChunkPlan:
    return chunks_at(PROFILE, video.plan, video.index, (0, 5, 10))


def outcome(results: tuple[GateResult, ...]) -> tuple[Gate, Outcome]:
    return results[-1].gate, results[-1].outcome


def test_a_sound_join_passes_every_gate_and_carries_what_the_whole_carries(video, plan):
    report = video.join(plan, video.chunk_files(plan))
    results = video.verify(video.output(), report)

    assert all(r.outcome in {Outcome.PASSED, Outcome.OFF} for r in results), results
    assert outcome(results) == (Gate.G8, Outcome.PASSED)
    whole, _ = video.whole()
    joined, made = (ENCODER.probe(str(p), stop=threading.Event()) for p in (video.output(), whole))
    assert joined.tags == made.tags
    assert [s.codec_tag for s in joined.streams] == [s.codec_tag for s in made.streams]
    assert [s.dispositions for s in joined.streams] == [s.dispositions for s in made.streams]
    assert not list(video.folder.glob(".parts-*"))


def test_one_frame_of_another_place_is_found_at_its_seam(video, plan, tmp_path):
    first, second, third = video.chunk_files(plan)
    spoilt = tmp_path / "spoilt.mp4"
    # The part's first frame shows what is shown a second later
    freeze = "[0:v][1:v]freezeframes=first=0:last=0:replace=20"
    params = ["-preset", "ultrafast", "-crf", "20", "-x265-params", "log-level=error:pools=1"]
    ffmpeg(
        "-i", second, "-i", second, "-filter_complex", freeze,
        "-c:v", "libx265", *params, "-tag:v", "hvc1", "-fps_mode", "passthrough",
        "-enc_time_base", plan.time_base, spoilt,
    )  # fmt: skip
    report = video.join(plan, [first, spoilt, third], "spoilt")

    results = video.verify(video.output("spoilt"), report)

    assert outcome(results) == (Gate.G8, Outcome.FAILED), results
    assert re.search(r"frame \d+ .*is another picture", results[-1].detail)


def test_hdr10_metadata_and_times_of_a_split_video_are_those_of_the_whole(tmp_path):
    source = tmp_path / "hdr10.mkv"
    params = f"log-level=error:keyint=12:scenecut=0:{HDR10}"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=192x112:rate=24:duration=2", "-pix_fmt",
        "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", params,
        "-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc", source,
    )  # fmt: skip
    video = Clip(source, tmp_path)
    assert video.plan.video.mastering_display is not None
    assert video.plan.video.light_level is not None
    plan = chunks_at(PROFILE, video.plan, video.index, (0, 2))

    report = video.join(plan, video.chunk_files(plan))

    whole, made = video.whole()
    assert report.frames == made.frames == video.index.frames
    assert times(video.output()) == times(whole)
    results = video.verify(video.output(), report)
    assert all(r.outcome in {Outcome.PASSED, Outcome.OFF} for r in results), results


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 0, 2)], ids=["swapped", "doubled"])
def test_chunks_in_another_order_are_found(video, plan, order):
    files = video.chunk_files(plan)
    report = video.join(plan, [files[n] for n in order], "order")

    results = video.verify(video.output("order"), report)

    assert outcome(results) == (Gate.G8, Outcome.FAILED), results


def test_frames_at_other_times_are_found(video, plan, tmp_path):
    report = video.join(plan, video.chunk_files(plan))
    late = tmp_path / "late.mp4"
    # All packets and both ends in place; in the middle, a frame is late by a third of a frame
    shift = "setts=ts=TS+if(eq(N\\,60)\\,170\\,0):pts=PTS+if(eq(N\\,60)\\,170\\,0)"
    ffmpeg("-i", video.output(), "-map", "0", "-c", "copy", "-bsf:v", shift, "-tag:v", "hvc1", late)

    results = video.verify(late, report)

    assert outcome(results) == (Gate.G5, Outcome.FAILED), results
    assert "is shown" in results[-1].detail


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("gone", "Chunk 2 is missing"),
        ("empty", "cannot be read"),
        ("no video", "cannot be read"),
        ("of h264", "Chunk 2 has other headers than chunk 1"),
    ],
)
def test_a_part_that_does_not_fit_is_named_and_leaves_no_output(video, plan, tmp_path, kind, said):
    first, second, third = video.chunk_files(plan)
    other = tmp_path / "other.mp4"
    if kind == "of h264":
        ffmpeg("-i", second, "-c:v", "libx264", "-preset", "ultrafast", other)
    elif kind != "gone":
        other.write_bytes(b"not a part" * 99 * (kind == "no video"))

    with pytest.raises(PartUnfit, match=said) as caught:
        video.join(plan, [first, other, third], "other")
    assert caught.value.index == (None if "read" in said else 1)
    assert not video.output("other").exists()


@pytest.mark.parametrize("step", ["chunk", "join", "keyframes"])
def test_a_stop_ends_each_step_and_leaves_nothing(video, plan, step):
    stop, output, parts = threading.Event(), video.output("stopped"), video.chunk_files(plan)
    stop.set()
    asked, nothing = video.request(output), lambda _state: None

    steps = {
        "chunk": lambda: ENCODER.encode_chunk(
            asked, plan, plan.chunks[0], on_progress=nothing, stop=stop
        ),
        "join": lambda: ENCODER.join(asked, plan, parts, on_progress=nothing, stop=stop),
        "keyframes": lambda: ENCODER.keyframes(str(video.source), video.info, stop=stop),
    }

    with pytest.raises(Stopped):
        steps[step]()
    assert not output.exists()
    assert not list(video.folder.glob(".parts-*"))


def test_sound_stays_where_it_was_when_it_starts_before_the_picture(tmp_path):
    source = tmp_path / "late picture.mkv"
    ffmpeg(
        "-itsoffset", "0.32", "-f", "lavfi", "-i", "testsrc2=size=192x112:rate=25:duration=4",
        "-f", "lavfi", "-i", "sine=duration=4", "-c:v", "libx264", "-g", "10", "-bf", "2",
        "-pix_fmt", "yuv420p", "-c:a", "aac", source,
    )  # fmt: skip
    video = Clip(source, tmp_path)
    plan = chunks_at(PROFILE, video.plan, video.index, (0, 3, 6))
    report = video.join(plan, video.chunk_files(plan))
    whole, _ = video.whole()

    def starts(path: Path) -> list[str]:
        asked = ["ffprobe", "-v", "error", "-show_entries", "stream=start_time", "-of", "csv=p=0"]
        return subprocess.run(
            [*asked, path], check=True, capture_output=True, text=True, timeout=30
        ).stdout.split()

    assert starts(video.output()) == starts(whole)
    results = video.verify(video.output(), report)
    assert outcome(results) == (Gate.G8, Outcome.PASSED), results


@pytest.mark.parametrize("name", ["webm", "av1"])
def test_chunks_of_newer_codecs_join_to_what_passes_every_gate(name, video, tmp_path):
    """The parts are MP4, the rendition is WebM or Matroska: each part decodes from its first frame."""
    loose = {"minimum_saving": None}
    fast = {"webm": {"preset": "8"}, "av1": {"preset": "13"}}[name]
    chunking = {"mode": "always", "target_s": 1.5}
    recipe = profile(name, video=fast, gates=loose, chunking=chunking)
    clip = Clip(video.source, tmp_path, recipe)
    plan = chunks_at(recipe, clip.plan, clip.index, (0, 5, 10))

    report = clip.join(plan, clip.chunk_files(plan))

    results = clip.verify(clip.output(), report)
    assert all(r.outcome in {Outcome.PASSED, Outcome.OFF} for r in results), results


def test_the_sound_of_a_split_video_gets_the_gain_that_the_whole_would(video, tmp_path):
    clip = Clip(video.source, tmp_path, PROFILE.model_copy(update={"audio": Audio(loudness=-16)}))
    stop = threading.Event()
    measured = ENCODER.preflight(str(clip.source), clip.info, clip.profile, stop=stop)
    known = clip.info, clip.plan
    clip.info, clip.plan = revise_plan(make_plan, clip.profile, known, measured)
    plan = chunks_at(clip.profile, clip.plan, clip.index, (0, 5, 10))

    report = clip.join(plan, clip.chunk_files(plan))

    assert clip.plan.streams[1].gain_db > 1
    results = clip.verify(clip.output(), report)
    assert all(r.outcome in {Outcome.PASSED, Outcome.OFF} for r in results), results


@pytest.fixture(scope="module", params=["hevc in mkv", "hevc in mp4", "av1 in mp4"])
def film(request, tmp_path_factory) -> Clip:
    folder, (codec, _, container) = tmp_path_factory.mktemp("film"), request.param.split()
    need_dolby("libx265" if codec == "hevc" else "libsvtav1")
    video = VideoRecipe(codec=codec, preset="12" if codec == "av1" else "ultrafast", crf=24)
    recipe = PROFILE.model_copy(update={"container": Container(container), "video": video})
    return Clip(make_film(folder / "film.mkv"), folder, recipe)


@pytest.fixture(scope="module")
def film_plan(film: Clip) -> ChunkPlan:
    return chunks_at(film.profile, film.plan, film.index, (0, 2, 4))


def test_a_split_film_keeps_the_metadata_of_every_frame(film, film_plan):
    report = film.join(film_plan, film.chunk_files(film_plan))

    results = film.verify(film.output(), report)

    assert film.plan.video.dolby_vision
    assert report.frames == FRAMES
    assert [r.detail for r in results if r.outcome not in {Outcome.PASSED, Outcome.OFF}] == []


@pytest.mark.parametrize("how", ["one dropped", "two swapped", "shifted"])
def test_a_part_with_other_metadata_is_refused_in_the_joined_film(film, film_plan, how):
    if film.profile.video.codec != "hevc":
        pytest.skip("of AV1 the source is spoilt, where a whole video is verified")
    first, second, third = film.chunk_files(film_plan)
    report = film.join(
        film_plan, [first, spoil(second, film.folder / "spoilt", how), third], "worse"
    )

    results = film.verify(film.output("worse"), report)

    assert (results[-1].gate, results[-1].outcome) == (Gate.G5, Outcome.FAILED)
    assert "Dolby Vision metadata" in results[-1].detail
