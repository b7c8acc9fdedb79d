"""5.1 as a second group of sounds: what players are offered, and what the gates find missing."""

from pathlib import Path

import pytest

from ffmpeg.hls.conftest import VERSION, MadeSet, encoded_set, recipe
from ffmpeg.hls.reading import listed, variants
from ffmpeg.hls.test_gates import changed, refusal
from ffmpeg.verify.conftest import ffmpeg
from hevcq.domain.certificate import Gate, GateResult, Outcome, require_passed
from hevcq.ffmpeg.containers.fragments import read_fragments
from support.once import folder_once

SOURCE_UNCHANGED = GateResult(gate=Gate.G0, outcome=Outcome.PASSED)
MASTER = "master.m3u8"
FULL = "anoisesrc=duration=2.7:amplitude=0.2:seed=3:sample_rate=48000,volume=0.7+0.6*sin(5*t):eval=frame"


def surround_set(folder: Path, wanted: str, codec: str) -> MadeSet:
    """Make a ladder of one rung from a video with 5.1 that begins late, and a commentary in mono."""
    source = folder / "source.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25:duration=3", "-itsoffset", "0.3",
           "-f", "lavfi", "-i", FULL, "-f", "lavfi", "-i", "sine=duration=3:sample_rate=48000",
           "-map", "0", "-map", "1", "-map", "2", "-c:v", "libx264", "-preset", "ultrafast",
           "-filter:a:0", "aformat=channel_layouts=5.1", "-c:a", codec,
           "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "title=Commentary", source)  # fmt: skip
    return encoded_set(source, folder, recipe(h264_rungs={90: (28, 200)}, surround=wanted))


@pytest.fixture
def copied() -> MadeSet:
    return folder_once("surround", lambda folder: surround_set(folder, "ac3", "ac3"))


def test_a_copied_sound_of_5_1_is_a_group_of_its_own_with_the_others_beside_it(copied):
    require_passed([SOURCE_UNCHANGED, *copied.judge()], of_set=True)
    lines = [
        (r.attributes["GROUP-ID"], r.attributes["NAME"], r.attributes["CHANNELS"],
         r.attributes["DEFAULT"], Path(r.uri).stem)
        for r in listed(copied.master, "MEDIA")
    ]  # fmt: skip
    assert lines == [
        ("sound", "en", "2", "YES", "sound1"),
        ("sound", "Commentary", "1", "NO", "sound2"),
        ("surround", "en", "6", "YES", "surround1"),
        ("surround", "Commentary", "1", "NO", "sound2"),
    ]
    offered = variants(copied.master)
    said = [(v.attributes["AUDIO"], v.attributes["CODECS"].split(",")[1:]) for v in offered]
    assert said == [
        ("sound", ["mp4a.40.2"]), ("surround", ["ac-3", "mp4a.40.2"]), ("sound", []),
    ]  # fmt: skip
    assert offered[0].number("BANDWIDTH") + 200_000 < offered[1].number("BANDWIDTH")
    content = read_fragments(copied.folder / "surround1.mp4")
    origin = copied.request.info.origin_s(copied.request.plan.mapped)  # ffmpeg 7: before 0
    begins = copied.request.measured.track(1).first_pts_s - origin
    assert begins == pytest.approx(0.3, abs=0.03)
    assert content.fragments[0].shown / content.timescale == pytest.approx(begins, abs=0.001)
    names = {f.name: f.content_type for f in copied.report.files}
    assert names[f"{VERSION}/surround1.mp4"] == "audio/mp4"


def test_a_set_that_does_not_list_all_of_a_group_is_refused(copied, tmp_path):
    spoilt = copied.copy(tmp_path)
    line = rf'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="surround"[^\n]*URI="{VERSION}/'
    changed(spoilt, MASTER, rf"{line}sound2[^\n]*\n", "")
    assert refusal(copied.judge(spoilt))[0] is Gate.H4


@pytest.mark.parametrize(("crf", "rate"), [(33, 25), (20, 60)])
def test_the_lowest_rung_and_the_sound_alone_fit_a_slow_phone(crf, rate, tmp_path):
    """Noise in stereo is the dearest sound there is; a picture that needs more has no lowest rung."""
    source, noise = tmp_path / "source.mkv", FULL.replace("2.7", "5")
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=size=320x180:rate={rate}", "-f", "lavfi", "-i", noise, "-t", "5",
           "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-ac", "2", "-c:a", "flac",
           source)  # fmt: skip
    profile = recipe(h264_rungs={180: (26, 900), 144: (crf, 80)})
    medium = profile.video.model_copy(update={"preset": "medium"})
    made = encoded_set(source, tmp_path, profile.model_copy(update={"video": medium}))

    require_passed([SOURCE_UNCHANGED, *made.judge()], of_set=True)
    offered = variants(made.master)
    groups = {Path(v.uri).stem: v.attributes["AUDIO"] for v in offered}
    if rate == 25:
        assert groups == {"v180": "sound", "v144": "low", "low1": "low"}
        assert offered[1].number("BANDWIDTH") <= 192_000
    else:
        assert groups == {"v180": "sound", "low1": "low"}
        assert made.report.notices == ("v144 is left out: 80 kbit/s are too few for this video.",)
    assert offered[-1].number("BANDWIDTH") < 64_000
