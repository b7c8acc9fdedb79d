"""The command of a ladder, and what it makes: one decode, the same bytes as separate encodes."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ffmpeg.hls.conftest import RUNGS, VERSION, MadeSet, encoded_set, recipe
from ffmpeg.hls.reading import listed, variants
from ffmpeg.verify.conftest import ENCODER, ffmpeg
from hevcq.domain.certificate import Gate, GateResult, Outcome, require_passed
from hevcq.domain.media.facts import Measurement, MediaInfo, StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.errors import EncoderFailed, Stopped
from hevcq.ffmpeg.containers.fragments import read_fragments
from hevcq.ffmpeg.hls.command import set_command
from hevcq.ports.encoder import EncodeRequest
from support.clips import media_clip
from support.media_facts import MKV, audio, media, video
from support.rendition import TOOLS


def command(info: MediaInfo, begins_s: float = 0.0, **hls: object) -> list[str]:
    profile = recipe(h264_rungs={720: (22, 4500), 360: (23, 1100)}, **hls)
    plan = make_plan(profile, info)
    assert isinstance(plan, EncodePlan), plan
    request = EncodeRequest(
        profile=profile, plan=plan, info=info, location="/in.mkv",
        output=Path("/out"), duration_s=60.0, source_size=1, max_seconds=60, threads=2,
    )  # fmt: skip
    shown = TrackMeasure(index=0, kind=StreamKind.VIDEO, packets=1500, first_pts_s=begins_s)
    wanted = replace(request, measured=Measurement(tracks=(shown,)), version="v")
    return set_command(TOOLS, wanted)


def test_a_late_picture_begins_at_0_and_no_picture_of_it_is_dropped() -> None:
    """A time of ffprobe may be rounded up: the microsecond before it is asked for."""
    info = media(video(1280, 720, time_base="1/90000", start_s=1.9), audio(start_s=1.4))
    argv = command(info.model_copy(update={"start_s": 1.4}), begins_s=1.9)

    assert [argv[n + 1] for n, word in enumerate(argv) if word == "-ss"] == ["0.499999"] * 2


def test_pictures_shown_before_the_first_key_frame_of_a_recording_are_kept() -> None:
    """The header of AVCHD and of broadcasts has the time of the first key frame."""
    info = media(video(1280, 720, time_base="1/90000", start_s=1.48), audio(start_s=1.4))
    assert "-ss" not in command(info.model_copy(update={"start_s": 1.4}), begins_s=1.4)


@pytest.mark.parametrize(("form", "start_s", "led_in"), [("mpegts", 0.9, False),
                                                       ("mpegts", 1.1, True), (MKV, 0.9, True)])  # fmt: skip
def test_silence_leads_in_only_sound_that_may_begin_late(form, start_s, led_in) -> None:
    """The filters of a recording's sound begin anew in the middle where its channels change."""
    tracks = video(1280, 720, start_s=1.0), audio("ac3", 2, start_s=start_s)
    argv = command(media(*tracks, form=form, start_s=min(1.0, start_s)))

    assert (":first_pts=0" in next(w for w in argv if w.startswith("aresample"))) is led_in


def test_the_set_has_its_files_with_the_master_last(made: MadeSet) -> None:
    files = {file.name: file.content_type for file in made.report.files}
    assert list(files)[-1] == "master.m3u8"
    assert files["master.m3u8"] == files[f"{VERSION}/v180.m3u8"] == "application/vnd.apple.mpegurl"
    assert files[f"{VERSION}/v180.mp4"] == "video/mp4"
    assert files[f"{VERSION}/sound1.mp4"] == "audio/mp4"
    assert files[f"{VERSION}/text1.vtt"] == files[f"{VERSION}/storyboard.vtt"] == "text/vtt"
    assert files[f"{VERSION}/poster.jpg"] == "image/jpeg"
    chapters = json.loads((made.folder / "chapters.json").read_text())
    assert [each["titles"][0]["title"] for each in chapters] == ["One", "Two"]
    assert made.report.frames == 150
    assert len(made.report.thumbnails) == 3
    assert len(made.report.levels) == len(list(made.folder.glob("sound*.mp4")))


def test_poster_and_storyboard_are_pictures_of_the_right_size(made: MadeSet) -> None:
    shapes = {name: jpeg_size(made.folder / f"{name}.jpg") for name in ("poster", "storyboard1")}
    assert shapes == {"poster": (320, 180), "storyboard1": (5 * 160, 5 * 90)}
    index = (made.folder / "storyboard.vtt").read_text()
    assert index.count(" --> ") == 6
    assert "storyboard1.jpg#xywh=0,90,160,90" in index


def jpeg_size(path: Path) -> tuple[int, int]:
    """Return the size of a JPEG, from its frame header (ITU-T T.81, B.2.2)."""
    data = path.read_bytes()
    at = data.index(b"\xff\xc0")
    return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(
        data[at + 5 : at + 7], "big"
    )


def test_a_scene_cut_just_before_the_grid_does_not_take_its_key_frame_away(tmp_path) -> None:
    """x265 writes a plain I picture there unless it is told to force IDR pictures."""
    source = tmp_path / "cut.mkv"
    cut = (
        "testsrc2=size=160x90:rate=25:duration=1.5,format=yuv420p,negate[a];"
        "gradients=size=160x90:rate=25:seed=1:c0=white:c1=yellow:duration=1.5,format=yuv420p[b];[a][b]concat"
    )
    ffmpeg("-f", "lavfi", "-i", cut, "-c:v", "libx264", "-preset", "ultrafast", source)
    profile = recipe(h264_rungs={90: RUNGS[90]}, hevc=True, segment_s=4)
    slower = profile.video.model_copy(update={"preset": "superfast"})
    done = encoded_set(source, tmp_path, profile.model_copy(update={"video": slower}))
    content = read_fragments(done.folder / "hevc90.mp4")
    begins = [fragment.shown / content.timescale for fragment in content.fragments]
    assert begins == [0, 1.52, 2], "the cut begins a group of pictures of its own"


def test_a_picture_that_begins_later_than_the_sound_stays_in_time(tmp_path) -> None:
    """ffmpeg would write an edit list with a gap, which browsers ignore."""
    source = tmp_path / "late.mkv"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=3", "-itsoffset", "0.5", "-f", "lavfi",
           "-i", "testsrc2=size=160x90:rate=25:duration=2.5", "-map", "1:v", "-map", "0:a",
           "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", source)  # fmt: skip
    late = encoded_set(source, tmp_path, recipe(h264_rungs={90: (28, 200)}))
    picture, sound = (read_fragments(late.folder / f"{n}.mp4") for n in ("v90", "sound1"))
    begins = picture.fragments[0].shown / picture.timescale
    there = late.request.measured.track(0).first_pts_s - late.request.info.start_s
    assert there > 0.5
    assert begins == pytest.approx(there, abs=0.001)
    assert sound.fragments[0].shown / sound.timescale == pytest.approx(-0.02, abs=0.01)
    assert all(r.outcome in {Outcome.PASSED, Outcome.OFF} for r in late.judge())


def test_a_picture_that_avi_shows_late_because_of_b_frames_stays_in_time(tmp_path) -> None:
    source = tmp_path / "reordered.avi"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25:duration=2", "-f", "lavfi", "-i",
           "sine=duration=2", "-c:v", "mpeg4", "-bf", "2", "-pix_fmt", "yuv420p", "-g", "25", "-c:a",
           "libmp3lame", source)  # fmt: skip

    made = encoded_set(source, tmp_path, recipe(h264_rungs={90: (28, 200)}))

    fine = {Outcome.PASSED, Outcome.OFF}
    assert [g.detail for g in made.judge() if g.outcome not in fine] == []
    content = read_fragments(made.folder / "v90.mp4")
    assert content.fragments[0].shown / content.timescale == pytest.approx(0.04)


def test_a_folder_that_exists_is_not_overwritten_and_a_stop_leaves_nothing(made, tmp_path) -> None:
    encode = made.again(tmp_path / "set")
    (tmp_path / "set").mkdir()
    with pytest.raises(EncoderFailed, match="not overwritten"):
        ENCODER.encode(encode, on_progress=lambda _: None, stop=threading.Event())
    stop = threading.Event()
    stop.set()
    elsewhere = replace(encode, output=tmp_path / "other")
    with pytest.raises(Stopped):
        ENCODER.encode(elsewhere, on_progress=lambda _: None, stop=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_video_of_one_picture_makes_a_set_that_passes_every_gate(tmp_path) -> None:
    clip = media_clip("made-one-frame.mp4")
    done = encoded_set(clip, tmp_path, recipe(h264_rungs={90: RUNGS[90]}))
    bad = [r for r in done.judge() if r.outcome not in {Outcome.PASSED, Outcome.OFF}]
    assert not bad, [(r.gate, r.file, r.detail) for r in bad]
    assert "RESOLUTION=160x90" in done.master


def test_hdr_is_kept_in_hevc_beside_an_h264_ladder_for_other_screens(tmp_path: Path) -> None:
    source, colour = (
        tmp_path / "source.mkv",
        "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc",
    )
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=256x144:rate=25:duration=3", "-c:v", "libx265",
           "-pix_fmt", "yuv420p10le", "-x265-params", f"log-level=error:{colour}", source)  # fmt: skip
    profile = recipe(h264_rungs={144: (26, 300)}, hevc_rungs={144: (28, 300)}, hevc=True,
                     policies={"hdr": "keep", "metadata": "drop"})  # fmt: skip
    made = encoded_set(source, tmp_path, profile)

    unchanged = GateResult(gate=Gate.G0, outcome=Outcome.PASSED)
    require_passed([unchanged, *made.judge()], of_set=True)
    seen = [v.attributes for v in variants(made.master) if "RESOLUTION" in v.attributes]
    ranges = [(each["CODECS"].partition(".")[0], each["VIDEO-RANGE"]) for each in seen]
    assert ranges == [("avc1", "SDR"), ("hvc1", "PQ")]
    assert len(listed(made.master, "I-FRAME-STREAM-INF")) == 2
