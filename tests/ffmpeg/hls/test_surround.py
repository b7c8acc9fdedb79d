"""5.1 as a second group of sounds: what players are offered, and what the gates find missing."""

from pathlib import Path

import pytest

from ffmpeg.hls.conftest import VERSION, MadeSet, encoded_set, recipe
from ffmpeg.hls.test_gates import changed, refusal
from ffmpeg.verify.conftest import ffmpeg
from hevcq.domain.certificate import Gate, GateResult, Outcome, require_passed
from hevcq.ffmpeg.containers.fragments import read_fragments
from hevcq.ffmpeg.hls.playlists import read_master

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


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> MadeSet:
    return surround_set(tmp_path_factory.mktemp("surround"), "ac3", "ac3")


def test_a_copied_sound_of_5_1_is_a_group_of_its_own_with_the_others_beside_it(
    copied: MadeSet,
) -> None:
    require_passed([SOURCE_UNCHANGED, *copied.judge()], of_set=True)
    master = read_master(copied.master)
    lines = [
        (r.attributes["GROUP-ID"], r.attributes["NAME"], r.attributes["CHANNELS"],
         r.attributes["DEFAULT"], Path(r.uri).stem)
        for r in master.renditions
    ]  # fmt: skip
    assert lines == [
        ("sound", "en", "2", "YES", "sound1"),
        ("sound", "Commentary", "1", "NO", "sound2"),
        ("surround", "en", "6", "YES", "surround1"),
        ("surround", "Commentary", "1", "NO", "sound2"),
    ]
    said = [(v.attributes["AUDIO"], v.attributes["CODECS"].split(",")[1:]) for v in master.variants]
    assert said == [
        ("sound", ["mp4a.40.2"]), ("surround", ["ac-3", "mp4a.40.2"]), ("sound", []),
    ]  # fmt: skip
    assert master.variants[0].number("BANDWIDTH") + 200_000 < master.variants[1].number("BANDWIDTH")
    content = read_fragments(copied.folder / "surround1.mp4")
    origin = copied.request.info.origin_s(copied.request.plan.mapped)  # ffmpeg 7: before 0
    begins = copied.request.measured.track(1).first_pts_s - origin
    assert begins == pytest.approx(0.3, abs=0.03)
    assert content.fragments[0].shown / content.timescale == pytest.approx(begins, abs=0.001)
    names = {f.name: f.content_type for f in copied.report.files}
    assert names[f"{VERSION}/surround1.mp4"] == "audio/mp4"


LINE = rf'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="surround"[^\n]*URI="{VERSION}/'
DAMAGE = [
    ("a group that lacks a member", rf"{LINE}sound2[^\n]*\n", "", Gate.H1),
    ("5.1 in the group of stereo", 'GROUP-ID="surround"', 'GROUP-ID="sound"', Gate.H1),
    ("another default", r'(GROUP-ID="surround"[^\n]*DEFAULT=)YES', r"\1NO", Gate.H5),
    ("codecs without the 5.1", ",ac-3", "", Gate.H5),
    ("a rung that is not offered with 5.1", 'AUDIO="surround"', 'AUDIO="sound"', Gate.H5),
    ("no variant without a picture", rf'#EXT-X-STREAM-INF:[^\n]*CODECS="mp4a.40.2"[^\n]*\n{VERSION}/sound1.m3u8\n',
     "", Gate.H5),
    ("another sound without a picture", rf"\n{VERSION}/sound1.m3u8", f"\n{VERSION}/sound2.m3u8", Gate.H5),
    ("a sound alone that takes more than is said", r'BANDWIDTH=\d+(,AVERAGE-BANDWIDTH=\d+,CODECS="mp4a.40.2")',
     r"BANDWIDTH=1\1", Gate.H6),
    ("a rate that leaves out the 5.1", r'BANDWIDTH=\d+(,AVERAGE[^\n]*AUDIO="surround")',
     r"BANDWIDTH=130000\1", Gate.H6),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "gate"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE]
)
def test_a_damaged_group_of_sounds_is_refused(
    copied: MadeSet, tmp_path: Path, old: str, new: str, gate: Gate
) -> None:
    spoilt = copied.copy(tmp_path)
    changed(spoilt, MASTER, old, new)
    assert refusal(copied.judge(spoilt))[0] is gate


@pytest.mark.parametrize(("crf", "rate"), [(33, 25), (20, 60)])
def test_the_lowest_rung_and_the_sound_alone_fit_a_slow_phone(
    crf: int, rate: int, tmp_path: Path
) -> None:
    """Noise in stereo is the dearest sound there is; a picture that needs more has no lowest rung."""
    source, noise = tmp_path / "source.mkv", FULL.replace("2.7", "5")
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=size=320x180:rate={rate}", "-f", "lavfi", "-i", noise, "-t", "5",
           "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-ac", "2", "-c:a", "flac",
           source)  # fmt: skip
    profile = recipe(h264_rungs={180: (26, 900), 144: (crf, 80)})
    medium = profile.video.model_copy(update={"preset": "medium"})
    made = encoded_set(source, tmp_path, profile.model_copy(update={"video": medium}))

    require_passed([SOURCE_UNCHANGED, *made.judge()], of_set=True)
    variants = read_master(made.master).variants
    listed = {Path(v.uri).stem: v.attributes["AUDIO"] for v in variants}
    if rate == 25:
        assert listed == {"v180": "sound", "v144": "low", "low1": "low"}
        assert variants[1].number("BANDWIDTH") <= 192_000
    else:
        assert listed == {"v180": "sound", "low1": "low"}
        assert made.report.notices == ("v144 is left out: 80 kbit/s are too few for this video.",)
    assert variants[-1].number("BANDWIDTH") < 64_000
