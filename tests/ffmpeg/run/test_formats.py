"""Each format that comes as a profile: made, checked by every gate, and refused where it was spoilt."""

import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from benchmarks.fidelity import ordinary

from ffmpeg.verify import conftest
from ffmpeg.verify.conftest import complaints
from hevcq.domain.certificate import Gate, Outcome
from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.domain.planning.metadata import found_mark
from support.media_facts import profile
from support.once import folder_once, made_once
from support.rendition import ENCODER, build

pytestmark = pytest.mark.media

FORMATS = ("webm", "av1", "mkv", "ogg", "avi")
LOOSE = {"minimum_saving": None}
FASTEST: dict[str, dict[str, Any]] = {
    "webm": {"preset": "8"},
    "av1": {"preset": "13"},
    "mkv": {"preset": "ultrafast"},
}
AGAIN = {
    "webm": ("-c:v", "libvpx-vp9", "-crf", "31", "-b:v", "0", "-cpu-used", "8"),
    "av1": ("-c:v", "libsvtav1", "-crf", "35", "-preset", "13"),
    "ogg": ("-c:v", "libtheora", "-q:v", "7", "-enc_time_base:v", "1:25"),
    "avi": ("-c:v", "mpeg4", "-q:v", "4", "-bf", "0", "-enc_time_base:v", "1:25"),
    "mkv": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:hash=1"),
}
"""The same encoder once more, for a rendition of other pictures."""


def ffmpeg(*words: object) -> None:
    """Run ffmpeg to make a file for a test."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, words)]
    subprocess.run(command, check=True, timeout=120, env={"SVT_LOG": "1", "PATH": "/usr/bin:/bin"})


def make_source(target: Path, *options: str, rate: int = 25) -> Path:
    """Make 3 s of moving picture with 5.1 sound as AC-3 decodes: its side channels are named so."""
    picture = f"testsrc2=size=192x112:rate={rate}:duration=3,noise=alls=4"
    sound = "anoisesrc=duration=3:amplitude=0.4:sample_rate=48000,volume='0.3+0.7*gt(mod(t,0.7),0.3)':eval=frame"
    ffmpeg(
        "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound,
        "-c:v", "libx264", "-preset", "ultrafast", "-crf", "12", "-pix_fmt", "yuv420p",
        "-c:a", "ac3", "-ac", "6", "-metadata", "title=A title", "-metadata:s:a:0", "language=eng",
        *options, target,
    )  # fmt: skip
    return target


class Made(conftest.Pair):
    """A source and its rendition, and what the gates want of both."""

    @property
    def output(self) -> MediaInfo:
        return ENCODER.probe(str(self.request.output), stop=threading.Event())


def encoded(name: str, source: Path, folder: Path, **parts: Any) -> Made:
    """Encode a source by a profile, with the fastest preset."""
    changed = {"video": FASTEST.get(name, {}), "gates": LOOSE} | parts
    place = folder / name
    place.mkdir(exist_ok=True)
    return Made(conftest.encoded(source, place, profile(name, **changed)).request)


@pytest.fixture
def source() -> Path:
    return made_once("formats", make_source, ".mkv")


@pytest.fixture
def made(name: str, source: Path) -> Made:
    """The source in the format `name`, made once for all testers."""
    return folder_once(("format", name), lambda folder: encoded(name, source, folder))


@pytest.mark.parametrize("name", FORMATS)
def test_a_video_with_surround_sound_becomes_it_and_passes_every_gate(name, made):
    """Without `aformat` libopus refuses 5.1(side); without SVT_LOG=1 gate G1 refuses every AV1."""
    one = made

    assert complaints(one.judge()) == []
    output = one.output
    assert found_mark(output) == f"{name}/{one.request.profile.revision}"
    (sound,) = output.of_kind(StreamKind.AUDIO)
    assert sound.audio is not None
    assert sound.audio.channels == one.request.plan.kept[1].channels
    assert one.request.report.stderr == ()


@pytest.mark.parametrize(("name", "container"), [("mkv", "mkv"), ("av1", "mp4")])
def test_bits_and_container_are_those_that_the_profile_names(name, container, source, tmp_path):
    picture = FASTEST[name] | {"pixel_format": "yuv420p10"}

    one = encoded(name, source, tmp_path, video=picture, container=container)

    assert complaints(one.judge()) == []
    assert one.output.format_name.startswith({"mkv": "matroska", "mp4": "mov"}[container])
    (video,) = one.output.of_kind(StreamKind.VIDEO)
    assert video.codec == {"mkv": "hevc", "av1": "av1"}[name]
    assert (video.video.pixel_format, video.video.bit_depth) == ("yuv420p10le", 10)


@pytest.mark.parametrize("name", ["webm", "ogg"])
def test_sound_in_an_odd_layout_is_encoded_in_a_usual_one(name, tmp_path):
    source = make_source(tmp_path / "odd.mov", "-c:a", "pcm_s16le", "-channel_layout", "hexagonal")

    assert complaints(encoded(name, source, tmp_path).judge()) == []


def test_floats_over_full_scale_are_clipped_as_players_do(tmp_path):
    """ffmpeg's AAC encoder lowers all that is around them."""
    loud = ("-c:a", "pcm_f32le", "-ac", "1", "-af", "lowpass=f=900,volume=24dB")
    source = make_source(tmp_path / "loud.mkv", *loud)

    one = encoded("720p", source, tmp_path, video={"preset": "ultrafast"})

    assert complaints(one.judge()) == []
    assert "clipped where it is over full scale" in one.request.plan.notices[0]


@pytest.mark.parametrize(
    "name", ["recording-changing-sound.ts", "recording-teletext.ts", "dvd-interlaced.vob"]
)
def test_recordings_fit_an_avi(name, tmp_path):
    """Sound may change its channels, other tracks begin earlier, a last picture have no time."""
    (clip,) = (each for each in ordinary.ORDINARY if each.name == name)
    path = ordinary.make(clip, tmp_path)
    assert path is not None

    assert complaints(encoded("avi", path, tmp_path).judge()) == []


@pytest.mark.parametrize(("codec", "start_s"), [("aac", 2.2), ("mp2", 0)])
def test_sound_that_an_mp4_hides_or_misnames_is_right_in_matroska(codec, start_s, tmp_path):
    """A phone's cut keeps the sound since the key frame; layer 2 is called layer 3."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    make_source(whole, "-g", "75", "-c:a", codec, "-ac", "2")
    ffmpeg("-ss", start_s, "-i", whole, "-c", "copy", cut)

    assert complaints(encoded("mkv", cut, tmp_path).judge()) == []


def spoilt(one: Made, name: str, folder: Path, kind: str) -> Path:
    """Return a copy of a rendition in which something is wrong."""
    good, target = one.request.output, folder / f"spoilt{one.request.output.suffix}"
    if kind == "cut":
        content = good.read_bytes()
        target.write_bytes(content[: int(len(content) * 0.6)])
        return target
    pictures = {
        "a lost second": "select='not(between(n,30,54))',settb=1/25,setpts=N",
        "a swapped picture": "drawbox=color=white:t=fill:enable='between(n,40,40)'",
    }
    if kind in pictures:
        again = ["-filter:v", pictures[kind], *AGAIN[name], "-fps_mode", "passthrough"]
        ffmpeg("-i", good, "-map", "0", "-c", "copy", *again, "-pix_fmt", "yuv420p", target)
    elif kind == "no sound":
        ffmpeg("-i", good, "-map", "0:v", "-c", "copy", target)
    elif kind == "late sound" and name == "avi":
        # Copied into an AVI it would not be late: the container has no place for that.
        late = ("-af", "adelay=300:all=1", "-c:a", "libmp3lame", "-t", "3.0")
        ffmpeg("-i", good, "-map", "0", "-c", "copy", *late, target)
    elif kind == "late sound":
        delay = ("-itsoffset", "0.3", "-i", good, "-map", "0:v", "-map", "1:a")
        ffmpeg("-i", good, *delay, "-c", "copy", target)
    return target


DAMAGE = {
    "cut": {Gate.G2, Gate.G3, Gate.G4, Gate.G5},
    "a lost second": {Gate.G5, Gate.G8},
    "a swapped picture": {Gate.G8},
    "no sound": {Gate.G3},
    "late sound": {Gate.G5, Gate.G8},
}
COSTLY = {"late sound"}
SLOW = {"av1", "mkv"}
"""Formats whose damage is planted by the long tests: Matroska's is planted elsewhere as well."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[pytest.mark.slow] * (name in SLOW or kind in COSTLY))
        for name in FORMATS
        for kind in DAMAGE
    ],
)
def test_a_spoilt_rendition_is_refused(name, kind, made, tmp_path):
    results = made.judge(spoilt(made, name, tmp_path, kind))

    assert results[-1].outcome is Outcome.FAILED, results
    assert results[-1].gate in DAMAGE[kind], results[-1]


def test_full_range_and_hdr10_are_in_the_bitstream_of_av1(tmp_path):
    phone = make_source(
        tmp_path / "phone.mp4",
        *("-vf", "scale=out_range=full:out_color_matrix=bt709,format=yuvj420p", "-t", "0.5"),
        *("-pix_fmt", "yuvj420p", "-colorspace", "bt709", "-c:a", "aac"),
    )
    hdr = tmp_path / "hdr.mkv"
    ffmpeg(
        *("-i", phone, "-t", "0.4", "-an", "-pix_fmt", "yuv420p10le", "-c:v", "libx265"),
        *("-vf", "scale=out_range=tv", "-preset", "ultrafast", "-x265-params"),
        "log-level=error:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:max-cll=1000,400:"
        "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)",
        hdr,
    )

    bright, dark = encoded("av1", phone, tmp_path), encoded("av1", hdr, tmp_path)

    assert complaints(bright.judge()) == []
    assert complaints(dark.judge()) == []
    picture = dark.output.streams[0].video
    assert bright.output.streams[0].video.colour.range == "pc"
    assert picture is not None
    assert picture.mastering_display is not None
    assert picture.light_level is not None


def still(target: Path) -> Path:
    """Make 3 s of which many pictures repeat the one before, the last half second too."""
    moves = "fps=5,fps=25,tpad=stop_mode=clone:stop_duration=0.5"
    return make_source(target, "-vf", moves, "-t", "3.4")


def test_repeated_pictures_that_theora_leaves_out_are_put_back_before_they_are_compared(tmp_path):
    one = encoded("ogg", still(tmp_path / "still.mkv"), tmp_path)

    packets = ENCODER.measure(str(one.request.output), one.output, stop=threading.Event())
    source = one.request.measured.track(0)
    (made, *_) = packets.tracks
    assert source is not None
    assert made.packets < source.packets
    found = complaints(one.judge())
    if build()[0] == 7:  # its muxer loses the empty packets, and no wrong rendition passes
        assert [each.partition(":")[0] for each in found] == ["G8 picture"]
        assert "ffmpeg 6.0 to 7.1 loses repeated pictures in Ogg" in found[0]
    else:
        assert found == []


def test_a_phones_clock_of_600_in_the_header_is_no_rate_that_av1_refuses(tmp_path):
    """SVT-AV1 refuses more than 240, though its rate steers nothing at constant quality."""
    one = encoded("av1", make_source(tmp_path / "clock.mkv", "-t", "0.2", rate=600), tmp_path)

    assert complaints(one.judge()) == []


@pytest.mark.parametrize("name", [pytest.param("ogg", marks=pytest.mark.slow), "avi"])
def test_uneven_times_are_put_on_one_clock_and_said_to_be(name, tmp_path):
    """Passed through, 61 frames with a hole of 2 s would play on without it."""
    uneven = tmp_path / "uneven.mkv"
    make_source(
        uneven, "-vf", "select='not(between(n,20,50))',settb=1/1000", "-fps_mode", "passthrough"
    )

    one = encoded(name, uneven, tmp_path)

    lost = name == "ogg" and build()[0] == 7  # as above: the hole is filled with repeated pictures
    assert lost or complaints(one.judge()) == []
    (said,) = one.request.measured.notices
    assert "uneven times; put at 25 frames per second" in said
    assert one.output.streams[0].video.nominal_rate == "25/1"
    assert one.output.duration_s == pytest.approx(3.0, abs=0.15)


@pytest.mark.parametrize("name", ["avi", pytest.param("ogg", marks=pytest.mark.slow)])
def test_a_short_gap_in_the_sound_is_filled_before_it_is_heard(name, tmp_path):
    """Left to itself ffmpeg fills gaps of 0.1 s and more only, and what follows comes early."""
    holed = tmp_path / "holed.mkv"
    sound = ("anoisesrc=duration=12:amplitude=0.4:sample_rate=48000,"
             "volume='0.3+0.7*gt(mod(t,0.7),0.3)':eval=frame,asetpts='PTS+0.06*gt(T,1)/TB'")  # fmt: skip
    picture = "testsrc2=size=64x48:rate=5:duration=12"
    ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-c:v", "libx264", "-preset",
           "ultrafast", "-c:a", "flac", holed)  # fmt: skip

    assert complaints(encoded(name, holed, tmp_path).judge()) == []
