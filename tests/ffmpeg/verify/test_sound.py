"""Sound that is encoded anew is compared with its source by its levels over time."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import PROFILE, Pair, encoded, ffmpeg, pair_once
from ffmpeg.verify.test_damage import caught
from hevcq.domain.certificate import Gate, Outcome
from hevcq.domain.media.facts import AudioFacts, Stream, StreamKind
from hevcq.domain.profile_sections import Audio, Preflight
from hevcq.errors import EncoderFailed, SourceDamaged
from hevcq.ffmpeg.command.levels import SoundShape, output_levels
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.verify.sound import SoundTrack, sound_problem
from hevcq.util.clock import SystemClock


def test_a_sound_is_as_loud_as_the_profile_wants_and_another_gain_is_refused(tmp_path):
    """Its two sounds: a tone of -21 LUFS, and noise whose peaks allow it less than it is to have."""
    audio = Audio(loudness=-14.0)
    source = Path(pair_once("source.mp4").request.location)
    pair = encoded(source, tmp_path, PROFILE.model_copy(update={"audio": audio}))
    planned = pair.request.plan.encoded(StreamKind.AUDIO)
    assert any("dB louder, from -" in notice for notice in pair.request.plan.notices)
    assert all(kept.gain_db > 1 for kept in planned)

    assert [r.detail for r in pair.judge() if r.outcome is Outcome.FAILED] == []
    for gain, said in ((-1.3, "LUFS, not"), (-6.0, "audio track 1 differs")):
        made = tmp_path / "spoilt.mp4"
        ffmpeg("-i", pair.good, "-map", "0:v", "-map", "0:a", "-map", "0:s", "-c", "copy",
               "-c:a:0", "aac", "-b:a:0", "128k",
               "-filter:a:0", f"volume={gain}dB", made)  # fmt: skip
        result = pair.judge(made)[-1]
        assert (result.gate, result.outcome) == (Gate.G8, Outcome.FAILED), result
        assert said in result.detail


STEREO, SURROUND = SoundShape(2, "stereo"), SoundShape(6, "5.1")
LEFT = (
    "aevalsrc='0.3*sin(2*PI*220*t)*exp(-3*mod(t,0.5))+0.2*sin(2*PI*1760*t)*exp(-5*mod(t,0.35))"
    "+0.05*sin(2*PI*5000*t)*exp(-4*mod(t,0.7))':s=48000:d=6"
)
RIGHT = "anoisesrc=c=pink:r=48000:a=0.3:d=6:seed=3,volume='0.2+0.8*mod(floor(t*7)*floor(t*3),5)/5':eval=frame"
BOTH = f"{LEFT},asplit[l][m];{RIGHT}[r];[m][r]amix=normalize=0[s];[l][s]join=inputs=2:channel_layout=stereo"
"""Two channels, of which one holds what is in the other as well."""
SIX = (
    f"{BOTH},asplit[a][b];[b]pan=quad|c0=0.5*c1|c1=c0+c1|c2=0.3*c0|c3=0.2*c1,lowpass=f=6000[c];"
    "[a][c]amerge=inputs=2,aformat=channel_layouts=5.1"
)


class Sounds:
    """The sounds of these tests as files of levels, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources, self.heard = {}, {}
        for shape, graph in ((STEREO, BOTH), (SURROUND, SIX)):
            path = folder / f"{shape.channels}.wav"
            ffmpeg("-filter_complex", graph, "-c:a", "pcm_f32le", path)
            self.sources[shape], self.heard[shape] = path, self.levels(path, shape)

    def levels(self, path: Path, shape: SoundShape) -> Path:
        """Decode a sound to its levels, as gate G4 does."""
        target = path.with_name(f"{path.name}.levels")
        facts = AudioFacts(channels=shape.channels, layout=shape.layout, sample_rate=48_000)
        stream = Stream(index=0, kind=StreamKind.AUDIO, codec="", audio=facts)
        ffmpeg("-i", path, *output_levels(stream, target))
        return target

    def problem(self, shape: SoundShape, graph: str, *options: str, suffix: str = "mp4") -> str:
        """Encode a sound through filters, and return what is found to be wrong with it."""
        made = self.folder / f"made.{suffix}"
        ffmpeg("-i", self.sources[shape], "-filter_complex", graph or "anull", *options, made)
        return sound_problem(self.heard[shape], self.levels(made, shape), SoundTrack(shape, suffix))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Sounds:
    return Sounds(tmp_path_factory.mktemp("sounds"))


AAC, OPUS, VORBIS, MP3 = "-c:a aac", "-c:a libopus", "-c:a libvorbis -q:a 5", "-c:a libmp3lame"


@pytest.mark.parametrize(
    ("shape", "codec", "suffix"),
    [
        (STEREO, f"{AAC} -b:a 48k", "mp4"),
        (STEREO, f"{AAC} -b:a 96k -ar 32000", "mp4"),
        (STEREO, f"{OPUS} -b:a 64k", "webm"),
        (STEREO, VORBIS, "ogg"),
        (STEREO, f"{MP3} -b:a 128k", "avi"),
        (SURROUND, f"{AAC} -b:a 288k", "mp4"),
    ],
)
def test_an_honest_encode_sounds_like_its_source(sounds, shape, codec, suffix):
    assert sounds.problem(shape, "", *codec.split(), suffix=suffix) == ""


WRONG = {
    "silent": ("volume=0", "is silent at 0:00:00"),
    "muted from 3 s on": ("volume=0:enable='gt(t,3)'", "is silent at 0:00:03"),
    "right channel muted": ("pan=stereo|c0=c0|c1=0*c1", "is silent at 0:00:00.0 (channel 2)"),
    "ends after 5 s": ("atrim=end=5", "is silent at 0:00:05"),
    "12 dB quieter": ("volume=-12dB", "is 12 dB quieter"),
    "one channel 6 dB louder": ("pan=stereo|c0=c0|c1=2*c1", "is 6 dB louder at 0:00:0"),
    "reversed": ("areverse", ""),
    "channels swapped": ("pan=stereo|c0=c1|c1=c0", ""),
    "one polarity inverted": ("pan=stereo|c0=c0|c1=-1*c1", "do not go together"),
    "low-passed": ("lowpass=f=1500,lowpass=f=1500", "Hz"),
    "40 ms late": ("adelay=40:all=1", "s too late for the picture"),
    "1 % too slow": ("atempo=0.99", ""),
    "a second cut out": ("aselect='not(between(t,2,3))',asetpts=N/SR/TB", ""),
    "echo": ("aecho=0.8:0.8:120:0.6", ""),
    "noise": ("[0:a]volume=1[y];anoisesrc=a=0.3:r=48000:d=6[x];[y][x]amix=normalize=0", ""),
}


@pytest.mark.parametrize(("graph", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_sound_is_named(sounds, graph, words):
    problem = sounds.problem(STEREO, graph, "-c:a", "aac", "-b:a", "128k")
    assert problem
    assert words in problem


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ("c0=c0|c1=c1|c2=0*c2|c3=c3|c4=c4|c5=c5", "is silent at 0:00:00.0 (channel 3)"),
        ("c0=c0|c1=c2|c2=c1|c3=c5|c4=c3|c5=c4", ""),
        ("c0=c0|c1=c1|c2=c2|c3=c3|c4=0*c4|c5=0*c5", "(channel 5)"),
    ],
    ids=["centre muted", "channels in Vorbis's order", "surround lost"],
)
def test_a_wrong_surround_sound_is_named(sounds, channels, words):
    problem = sounds.problem(SURROUND, f"pan=5.1|{channels}", "-c:a", "aac", "-b:a", "384k")
    assert problem
    assert words in problem


def test_levels_that_are_missing_on_one_side_or_are_no_numbers_are_no_match(tmp_path):
    full, empty, broken = (tmp_path / name for name in ("full", "empty", "broken"))
    mono = SoundTrack(SoundShape(1, "mono"), "mp4")
    full.write_bytes(bytes(4 * 4 * 500))
    empty.touch()
    broken.write_bytes(b"\0\0\xc0\x7f" * 4 * 500)  # not a number
    assert sound_problem(full, full, mono) == sound_problem(empty, empty, mono) == ""
    assert "it is empty" in sound_problem(full, empty, mono)
    assert "it is empty" in sound_problem(empty, full, mono)
    assert "cannot be compared" in sound_problem(broken, broken, mono)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Pair:
    """Encode a clip whose sound is encoded anew, and gets louder and softer."""
    folder = tmp_path_factory.mktemp("spoken")
    source = folder / "source.mp4"
    sound = "anoisesrc=duration=4:seed=3,volume='0.2+0.8*mod(floor(t*7)*floor(t*3),5)/5':eval=frame"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25:duration=4", "-f", "lavfi", "-i", sound,
           "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "ac3",
           source)  # fmt: skip
    recipe = PROFILE.model_copy(update={"audio": Audio(policy="encode")})
    return encoded(source, folder, recipe)


def test_an_honest_encode_of_the_sound_is_no_problem(spoken):
    *_, last = spoken.judge()
    assert last.outcome is Outcome.PASSED, last.detail


@pytest.mark.parametrize("late", ["0.08", "0.03"])
def test_an_encoded_sound_that_is_late_is_caught(spoken, tmp_path, late):
    target = tmp_path / f"late{spoken.good.suffix}"
    ffmpeg("-i", spoken.good, "-itsoffset", late, "-i", spoken.good, "-map", "0:v", "-map", "1:a",
           "-c", "copy", target)  # fmt: skip
    results = spoken.judge(target)
    assert caught(results) is Gate.G8
    assert "too late for the picture" in results[-1].detail


@pytest.mark.parametrize("broken", ["f32le", "rawvideo"])
def test_a_comparison_that_breaks_down_is_never_taken_for_a_match(spoken, tmp_path, broken):
    program = tmp_path / "ffmpeg-stand-in"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *"-f null"*) ;; '
        f'*"-f {broken}"*) echo "[error] it broke" >&2; exit 1;; esac\nexec ffmpeg "$@"\n'
    )
    program.chmod(0o755)
    encoder = FfmpegEncoder(str(program), "ffprobe", SystemClock(), sandboxed=False)
    request = replace(
        spoken.request, report=replace(spoken.request.report, thumbnails=(), levels=())
    )  # as when two files are compared

    with pytest.raises(EncoderFailed, match="it broke"):
        encoder.verify(request, on_progress=lambda _: None, stop=threading.Event())


def test_truehd_whose_packets_are_shorter_than_a_tick_is_encoded_and_its_damage_found(tmp_path):
    source, bad = tmp_path / "source.mkv", tmp_path / "bad.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25:duration=3,noise=alls=12:allf=t",
           "-f", "lavfi", "-i", "sine=d=3:r=48000", "-ac", "6", "-c:v", "libx264", "-crf", "5",
           "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "truehd", "-strict", "-2",
           source)  # fmt: skip
    gates = PROFILE.gates.model_copy(update={"preflight": Preflight.DECODE})
    results = encoded(source, tmp_path, PROFILE.model_copy(update={"gates": gates})).judge()
    assert results[-1].outcome is Outcome.PASSED, results[-1].detail

    data = bytearray(source.read_bytes())
    place = data.index(b"\xf8\x72\x6f\xba", len(data) // 2)  # a major sync of TrueHD
    data[place + 30 : place + 50] = bytes(20)
    bad.write_bytes(data)
    with pytest.raises(SourceDamaged, match="its sound data cannot be decoded"):
        encoded(bad, tmp_path)
