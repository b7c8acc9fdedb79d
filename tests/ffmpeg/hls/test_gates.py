"""A clean set passes every gate; each kind of damage is refused by the gate that is there for it.

The command of a ladder, and what it makes: one decode, the same bytes as separate encodes.
"""

import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ffmpeg.hls.conftest import RUNGS, VERSION, encoded_set, recipe
from ffmpeg.hls.reading import listed, ranges, variants
from ffmpeg.hls.test_playlists import content
from ffmpeg.verify.conftest import ENCODER, complaints, ffmpeg
from hevcq.domain.certificate import Gate, GateResult, Outcome, require_passed
from hevcq.domain.media.facts import Measurement, MediaInfo, StreamKind, TrackMeasure
from hevcq.domain.profile import Profile
from hevcq.errors import EncoderFailed, Stopped
from hevcq.ffmpeg.containers.fragments import read_fragments
from hevcq.ffmpeg.hls import verify
from hevcq.ffmpeg.hls.command import set_command
from hevcq.ffmpeg.hls.segments import video_segments
from hevcq.ffmpeg.hls.verify import MediaFile, StoredSet, alignment_problems, read_set
from hevcq.ffmpeg.process.child import Finished
from hevcq.ports.encoder import StopEvent, VerifyRequest
from support.clips import ManualClock, media_clip
from support.media_facts import MKV, audio, media, video
from support.rendition import TOOLS, request_for

SOURCE_UNCHANGED = GateResult(gate=Gate.G0, outcome=Outcome.PASSED)


def refusal(results: tuple[GateResult, ...]) -> tuple[Gate, str]:
    """Return gate and detail of the only result that did not pass: the last."""
    last = results[-1]
    assert len(complaints(results)) == len(complaints((last,))) == 1, complaints(results)
    return last.gate, f"{last.file} {last.detail}".strip()


def changed(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text()
    assert re.search(old, text), f"{old} is not in {text}"
    path.write_text(re.sub(old, new, text, count=1))


def test_a_clean_set_passes_every_gate_and_each_rung_has_its_own(made):
    results = made.judge()
    assert complaints(results) == []
    require_passed([SOURCE_UNCHANGED, *results], of_set=True)
    for name in ("v180.mp4", "v90.mp4", "hevc90.mp4"):
        mine = {r.gate for r in results if r.file == name}
        assert {Gate.G1, Gate.G2, Gate.G3, Gate.G4, Gate.G5, Gate.G8} <= mine
    heard = {r.gate for r in results if r.file == "sound2.mp4"}
    assert heard == {Gate.G2, Gate.G4, Gate.G5, Gate.G8}


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    """Return a recording in which a picture stays for five seconds, as on slides."""
    path = tmp_path_factory.mktemp("slides") / "slides.mkv"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=12", "-f", "lavfi", "-i", "sine=d=12",
        "-vf", "select='not(between(t,4.1,9))'", "-fps_mode", "passthrough", "-preset", "ultrafast",
        path,
    )  # fmt: skip
    return path


def bred(profile: Profile) -> Profile:
    """Return the profile with a preset that makes B-frames."""
    return profile.model_copy(
        update={"video": profile.video.model_copy(update={"preset": "veryfast"})}
    )


def test_a_still_passage_is_decoded_where_it_is_shown(slides, tmp_path):
    made = encoded_set(slides, tmp_path, bred(recipe(hevc=True)))

    require_passed([SOURCE_UNCHANGED, *made.judge()], of_set=True)
    for path in made.folder.glob("*v*.mp4"):
        content = read_fragments(path)
        assert {f.shown - f.decoded for f in content.fragments} == {0}, path.name
        assert len(content.fragments) == 8, "one a second, and none during the passage"


def test_a_set_whose_decoding_times_lag_behind_a_still_passage_is_refused(
    slides, tmp_path, monkeypatch
):
    """hls.js would show all that follows the passage out of step with the sound."""
    monkeypatch.setattr(TrackMeasure, "has_still_passages", False)
    made = encoded_set(slides, tmp_path, bred(recipe()))

    gate, detail = refusal(made.judge())

    assert gate is Gate.H3
    assert "decoded much earlier than it is shown, at 9.0" in detail


V180, MASTER = f"{VERSION}/v180.m3u8", "master.m3u8"
DAMAGED_TEXTS = {
    "a range that is a byte too long": (V180, r"BYTERANGE:(\d+)@(\d+)\nv180.mp4\n#EXT-X-END",
        r"BYTERANGE:1\1@\2\nv180.mp4\n#EXT-X-END", Gate.H1),
    "an I-frame that is not there": (f"{VERSION}/v180-keys.m3u8",
        r"#EXTINF:1.000000,\n#EXT-X-BYTERANGE:[^\n]*\nv180.mp4\n", "", Gate.H1),
    "a segment said to be longer": (V180, "#EXTINF:2.000000", "#EXTINF:2.010000", Gate.H1),
    "an unknown tag": (V180, "#EXT-X-ENDLIST", "#EXT-X-DISCONTINUITY\n#EXT-X-ENDLIST", Gate.H1),
    "line ends of another kind": (V180, "#EXT-X-ENDLIST\n", "#EXT-X-ENDLIST\r\n", Gate.H1),
    "a playlist that leads out": (MASTER, rf"\n{VERSION}/v90.m3u8", r"\n../v90.m3u8", Gate.H4),
    "an unlisted rung": (MASTER, rf"#EXT-X-STREAM-INF[^\n]*\n{VERSION}/v90.m3u8\n", "", Gate.H4),
    "another codec": (MASTER, "avc1.......,", "avc1.640028,", Gate.H4),
    "a bit rate that is too low": (MASTER, r"BANDWIDTH=\d+", "BANDWIDTH=100000", Gate.H4),
    "no words": (f"{VERSION}/text1.vtt", r"(?s)\n\n.*", r"\n", Gate.H5),
}  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "gate"), DAMAGED_TEXTS.values(), ids=DAMAGED_TEXTS)
def test_a_damaged_playlist_is_refused(made, tmp_path, name, old, new, gate):
    spoilt = made.copy(tmp_path)
    changed(spoilt, name, old, new)
    assert refusal(made.judge(spoilt))[0] is gate


def test_a_file_that_is_missing_or_not_listed_is_refused(made, tmp_path):
    spoilt = made.copy(tmp_path)
    (spoilt / VERSION / "stranger.mp4").write_bytes(b"x")
    assert refusal(made.judge(spoilt)) == (
        Gate.H1,
        f"its files are not those listed: {VERSION}/stranger.mp4",
    )
    (spoilt / VERSION / "stranger.mp4").unlink()
    (spoilt / VERSION / "poster.jpg").unlink()
    assert refusal(made.judge(spoilt))[0] is Gate.H1
    bare = replace(made.report, files=())
    assert refusal(made.judge(tmp_path, report=bare))[0] is Gate.H1


@pytest.mark.parametrize(("rung", "kind"), [("v180", 0x21), ("hevc90", 21 << 1)])
def test_a_segment_that_begins_with_another_picture_is_refused(made, tmp_path, rung, kind):
    """A CRA picture is what x265 writes for a forced key frame unless its GOPs are closed."""
    spoilt = made.copy(tmp_path)
    path = spoilt / VERSION / f"{rung}.mp4"
    second = ranges((spoilt / VERSION / f"{rung}.m3u8").read_text())[1]
    fragment = next(f for f in read_fragments(path).fragments if f.start == second[0])
    data = bytearray(path.read_bytes())
    at = fragment.first_at
    while at < fragment.first_end:
        unit = data[at + 4]
        if (unit & 0x1F if rung == "v180" else unit >> 1) in {5, 19, 20}:
            data[at + 4] = kind
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    path.write_bytes(data)
    gate, detail = refusal(made.judge(spoilt))
    assert (gate, detail) == (Gate.H2, f"{rung}: segment 2 does not begin with an IDR picture")


def test_segments_that_are_not_aligned_are_refused():
    rung, files = SimpleNamespace(name="v90"), [content(0, 2, 4, end=6), content(0, 3, 4, end=6)]
    pairs = [(rung, MediaFile(Path("v90.mp4"), each, video_segments(each, 2))) for each in files]
    assert list(alignment_problems(StoredSet(tuple(pairs), (), (), {}))) == [
        "v90: its segments do not begin where those of the others do, at 2.000 s"
    ]


def test_a_ladder_without_its_last_segments_is_refused(made, tmp_path):
    """All rungs are cut and listed alike, so that only the source's length tells."""
    spoilt = made.copy(tmp_path)
    report = replace(made.report, frames=0)
    for rung in ("v180", "v90", "hevc90"):
        last = ranges((spoilt / VERSION / f"{rung}.m3u8").read_text())[-1]
        media = spoilt / VERSION / f"{rung}.mp4"
        media.write_bytes(media.read_bytes()[: last[0]])
    stored = read_set(replace(made.request, output=spoilt))
    for name, text in stored.playlists.items():
        (spoilt / name).write_text(text)
    gate, detail = refusal(made.judge(spoilt, report=report))
    assert gate is Gate.G5
    assert detail.startswith("v180.mp4 video track 0: it has 100 frames, the source 150")


def test_a_set_without_its_highest_rung_is_refused(made, tmp_path):
    spoilt = made.copy(tmp_path)
    (spoilt / VERSION / "v180.mp4").unlink()
    files = tuple(f for f in made.report.files if not f.name.endswith("v180.mp4"))
    found = refusal(made.judge(spoilt, report=replace(made.report, files=files)))
    assert found == (Gate.H1, "the rung v180 is missing")


def unmeasured(request: VerifyRequest) -> Measurement:
    """Return what was measured of the picture, and nothing of any sound."""
    return Measurement(tracks=request.measured.tracks[:1])


def cut_short(request: VerifyRequest) -> Measurement:
    tracks = [
        t.model_copy(update={"end_s": (t.end_s or 0) + 2 * t.index})
        for t in request.measured.tracks
    ]
    return Measurement(tracks=tuple(tracks))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: {"report": replace(r.report, frames=1)}, "it has 150 frames, but 1 were"),
        (lambda r: {"measured": unmeasured(r)}, "the source's sound was not measured"),
        (lambda r: {"measured": cut_short(r)}, "it ends at"),
    ],
    ids=["frames", "sound unmeasured", "sound cut short"],
)
def test_a_set_that_is_not_what_was_planned_and_measured_is_refused(
    made, monkeypatch, change, words
):
    monkeypatch.setattr(verify._SetGates, "_count_packets", counted)
    gate, detail = refusal(made.judge(**change(made.request)))
    assert gate is Gate.G5
    assert words in detail


def counted(_gates: object, place: Path) -> str:
    return str(read_fragments(place.with_suffix(".mp4")).samples)


@pytest.mark.parametrize(
    ("code", "out", "lines", "why"),
    [
        (0, b"nb_read_packets=3|\n", (), "3"),
        (0, b"nb_read_packets=150\n", ("[hls @ 0x1] bad",), "bad"),
        (9, b"", (), "exit code 9"),
    ],
)
def test_a_playlist_that_players_read_otherwise_is_refused(
    made, monkeypatch, code, out, lines, why
):
    ended = Finished(code, out, lines, 0, 0)
    monkeypatch.setattr(verify, "run_child", lambda *_, **__: ended)
    assert refusal(made.judge()) == (Gate.H5, f"v180.m3u8 reads as {why}, not 150 packets")


def test_time_for_which_programs_stand_still_is_not_taken_from_a_set(made, monkeypatch):
    clock, stop, left = ManualClock(), StopEvent(), []

    def hold(gates: object, playlist: Path) -> str:
        clock.advance(5000)
        stop.held_s += 5000
        return counted(gates, playlist)

    monkeypatch.setattr(verify._SetGates, "_count_packets", hold)
    monkeypatch.setattr(verify, "verify", lambda _, rung, *__: left.append(rung.max_seconds) or ())
    tools = replace(TOOLS, clock=clock)

    results = verify.verify_set(tools, made.request, lambda _: None, stop)

    assert complaints(results) == []
    assert left == [made.request.max_seconds] * 3


def test_a_sound_of_another_kind_is_refused(made, monkeypatch):
    monkeypatch.setattr(verify._SetGates, "_count_packets", counted)
    monkeypatch.setattr(verify, "probe", lambda *_, **__: SimpleNamespace(streams=()))
    found = refusal(made.judge())
    assert found == (Gate.G2, "sound1.mp4 it is not one aac track of 1 channels")


def test_a_rung_with_damaged_pictures_is_refused_by_its_name(made, tmp_path):
    spoilt = made.copy(tmp_path)
    path = spoilt / VERSION / "v180.mp4"
    data = bytearray(path.read_bytes())
    third = read_fragments(path).fragments[3]
    for at in range(third.first_end - 400, third.first_end - 10):
        data[at] ^= 0x5A
    path.write_bytes(data)
    gate, detail = refusal(made.judge(spoilt))
    assert gate in {Gate.G4, Gate.G8}
    assert detail.startswith("v180.mp4 ")


def test_a_sound_where_the_source_is_silent_is_refused_by_its_name(made, tmp_path):
    first, second = made.request.report.levels
    silent = tmp_path / "levels"
    silent.write_bytes(bytes(second.stat().st_size))
    report = replace(made.request.report, levels=(first, silent))
    gate, detail = refusal(made.judge(report=report))
    assert gate is Gate.G8
    assert re.match(r"sound2.mp4 it (is|differs) .* at 0:00:00.0", detail)


def command(info: MediaInfo, begins_s: float = 0.0, **hls: object) -> list[str]:
    profile = recipe(h264_rungs={720: (22, 4500), 360: (23, 1100)}, **hls)
    shown = TrackMeasure(index=0, kind=StreamKind.VIDEO, packets=1500, first_pts_s=begins_s)
    facts = {"threads": 2, "measured": Measurement(tracks=(shown,)), "version": "v"}
    return set_command(TOOLS, request_for(profile, info, **facts))


def test_a_late_picture_begins_at_0_and_no_picture_of_it_is_dropped():
    """A time of ffprobe may be rounded up: the microsecond before it is asked for."""
    info = media(video(1280, 720, time_base="1/90000", start_s=1.9), audio(start_s=1.4))
    argv = command(info.model_copy(update={"start_s": 1.4}), begins_s=1.9)

    assert [argv[n + 1] for n, word in enumerate(argv) if word == "-ss"] == ["0.499999"] * 2


def test_pictures_shown_before_the_first_key_frame_of_a_recording_are_kept():
    """The header of AVCHD and of broadcasts has the time of the first key frame."""
    info = media(video(1280, 720, time_base="1/90000", start_s=1.48), audio(start_s=1.4))
    assert "-ss" not in command(info.model_copy(update={"start_s": 1.4}), begins_s=1.4)


@pytest.mark.parametrize(("form", "start_s", "led_in"), [("mpegts", 0.9, False),
                                                       ("mpegts", 1.1, True), (MKV, 0.9, True)])  # fmt: skip
def test_silence_leads_in_only_sound_that_may_begin_late(form, start_s, led_in):
    """The filters of a recording's sound begin anew in the middle where its channels change."""
    tracks = video(1280, 720, start_s=1.0), audio("ac3", 2, start_s=start_s)
    argv = command(media(*tracks, form=form, start_s=min(1.0, start_s)))

    assert (":first_pts=0" in next(w for w in argv if w.startswith("aresample"))) is led_in


def test_the_set_has_its_files_with_the_master_last(made):
    files = {file.name: file.content_type for file in made.report.files}
    assert list(files)[-1] == "master.m3u8"
    assert files["master.m3u8"] == files[f"{VERSION}/v180.m3u8"] == "application/vnd.apple.mpegurl"
    assert files[f"{VERSION}/v180.mp4"] == "video/mp4"
    assert files[f"{VERSION}/sound1.mp4"] == "audio/mp4"
    assert files[f"{VERSION}/text1.vtt"] == files[f"{VERSION}/storyboard.vtt"] == "text/vtt"
    assert "FORCED=YES" in made.master
    assert files[f"{VERSION}/poster.jpg"] == "image/jpeg"
    chapters = json.loads((made.folder / "chapters.json").read_text())
    assert [each["titles"][0]["title"] for each in chapters] == ["One", "Two"]
    assert made.report.frames == 150
    assert len(made.report.thumbnails) == 3
    assert len(made.report.levels) == len(list(made.folder.glob("sound*.mp4")))


def test_poster_and_storyboard_are_pictures_of_the_right_size(made):
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


def test_a_scene_cut_just_before_the_grid_does_not_take_its_key_frame_away(tmp_path):
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


def test_a_picture_that_begins_later_than_the_sound_stays_in_time(tmp_path):
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
    assert complaints(late.judge()) == []


def test_a_picture_that_avi_shows_late_because_of_b_frames_stays_in_time(tmp_path):
    source = tmp_path / "reordered.avi"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25:duration=2", "-f", "lavfi", "-i",
           "sine=duration=2", "-c:v", "mpeg4", "-bf", "2", "-pix_fmt", "yuv420p", "-g", "25", "-c:a",
           "libmp3lame", source)  # fmt: skip

    made = encoded_set(source, tmp_path, recipe(h264_rungs={90: (28, 200)}))

    assert complaints(made.judge()) == []
    content = read_fragments(made.folder / "v90.mp4")
    assert content.fragments[0].shown / content.timescale == pytest.approx(0.04)


def test_a_folder_that_exists_is_not_overwritten_and_a_stop_leaves_nothing(made, tmp_path):
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


def test_a_video_of_one_picture_makes_a_set_that_passes_every_gate(tmp_path):
    clip = media_clip("made-one-frame.mp4")
    done = encoded_set(clip, tmp_path, recipe(h264_rungs={90: RUNGS[90]}))
    assert complaints(done.judge()) == []
    assert "RESOLUTION=160x90" in done.master


def test_hdr_is_kept_in_hevc_beside_an_h264_ladder_for_other_screens(tmp_path):
    source = tmp_path / "source.mkv"
    colour = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=256x144:rate=25:duration=3", "-c:v", "libx265",
           "-pix_fmt", "yuv420p10le", "-x265-params", f"log-level=error:{colour}", source)  # fmt: skip
    profile = recipe(h264_rungs={144: (26, 300)}, hevc_rungs={144: (28, 300)}, hevc=True,
                     policies={"hdr": "keep", "metadata": "drop"})  # fmt: skip
    made = encoded_set(source, tmp_path, profile)

    require_passed([SOURCE_UNCHANGED, *made.judge()], of_set=True)
    seen = [v.attributes for v in variants(made.master) if "RESOLUTION" in v.attributes]
    ranges = [(each["CODECS"].partition(".")[0], each["VIDEO-RANGE"]) for each in seen]
    assert ranges == [("avc1", "SDR"), ("hvc1", "PQ")]
    assert len(listed(made.master, "I-FRAME-STREAM-INF")) == 2
