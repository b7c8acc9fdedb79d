"""Black bars are cropped where they stay over the whole video, and nothing of the picture ever is."""

import threading
from pathlib import Path

import pytest

from ffmpeg.chunking.numbered import ENCODER, PROFILE, Clip, ffmpeg
from ffmpeg.verify.conftest import encoded
from hevcq.domain.certificate import Gate, Outcome
from hevcq.domain.chunking import chunks_at
from hevcq.domain.planning.encode_plan import revise_plan
from hevcq.domain.planning.planner import make_plan
from support.media_facts import profile
from support.rendition import RECIPE, probed

pytestmark = pytest.mark.media
CROP = {"video": {"crop": "auto"}}


def boxed(folder: Path, *, bars: str = "pad=320:240:0:30", extra: tuple[str, ...] = ()) -> Path:
    """Make 4 s of a moving picture, 320x180, in whatever bars."""
    clip = folder / "boxed.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=4", "-vf", bars, "-c:v",
           "libx264", "-preset", "ultrafast", "-crf", "18", "-pix_fmt", "yuv420p", *extra, clip)  # fmt: skip
    return clip


@pytest.mark.parametrize(
    ("bars", "size"),
    [
        ("pad=320:240:0:30", (320, 180)),
        ("pad=426:180:53:0", (322, 180)),  # 53 columns: 52 go
        ("pad=320:240:0:20", (320, 200)),  # 20 above, 40 below: 20 of each
        ("pad=320:240:0:30,transpose=clock", (180, 320)),
        ("pad=320:240:0:30,format=yuv420p10le,colorspace=all=bt709:iall=bt709", (320, 180)),
        ("pad=320:240:0:30,setsar=4/3", (320, 180)),
        ("pad=320:240:0:30,noise=alls=6", (320, 180)),  # as coding leaves it
    ],
)
def test_steady_bars_are_cropped(tmp_path, bars, size):
    clip, recipe = boxed(tmp_path, bars=bars), profile(**CROP)
    info = probed(clip)

    measured = ENCODER.preflight(str(clip), info, recipe, stop=threading.Event())
    _, plan = revise_plan(make_plan, recipe, (info, make_plan(recipe, info)), measured)

    assert (plan.video.width, plan.video.height) == size
    assert plan.video.sample_aspect == info.streams[0].video.sample_aspect


@pytest.mark.parametrize(
    ("bars", "said"),
    [
        ("null", ""),
        ("pad=320:184:0:2", ""),  # too narrow to be worth another size
        ("pad=320:240:0:0", ""),  # below only
        # A picture that fills the frame for a moment, which the samples miss, and a logo in a bar.
        ("pad=320:240:0:30,drawbox=0:0:320:240:red:fill:enable='between(n,55,56)'", "not steady"),
        (
            "pad=320:240:0:30,drawbox=300:222:10:10:gray:fill:enable='between(n,58,59)'",
            "not steady",
        ),
    ],
)
def test_bars_that_are_not_steady_stay_and_that_is_said(tmp_path, bars, said):
    clip = boxed(tmp_path, bars=bars)
    info = probed(clip)

    measured = ENCODER.preflight(str(clip), info, profile(**CROP), stop=threading.Event())

    assert measured.bars is None
    assert [said in notice for notice in measured.notices] == [True] * bool(said)


def test_a_rendition_that_is_cropped_otherwise_is_refused(tmp_path):
    recipe = profile(video={**RECIPE, "crop": "auto"}, gates={"minimum_saving": None})
    pair = encoded(boxed(tmp_path), tmp_path, recipe)
    assert pair.judge()[-1].outcome is Outcome.PASSED

    for crop, gate in (("320:180:0:26", Gate.G8), ("320:176:0:30", Gate.G2)):
        made = tmp_path / "spoilt.mkv"
        ffmpeg("-i", pair.request.location, "-vf", f"crop={crop}", "-c:v", "libx265", "-preset",
               "ultrafast", "-x265-params", "log-level=error:hash=1", made)  # fmt: skip
        result = pair.judge(made)[-1]
        assert (result.gate, result.outcome) == (gate, Outcome.FAILED), result


def test_a_split_video_is_cropped_as_a_whole_one(tmp_path):
    recipe = PROFILE.model_copy(update={"video": PROFILE.video.model_copy(update={"crop": "auto"})})
    clip = Clip(boxed(tmp_path, extra=("-g", "10", "-sc_threshold", "0")), tmp_path, recipe)
    measured = ENCODER.preflight(str(clip.source), clip.info, recipe, stop=threading.Event())
    clip.info, clip.plan = revise_plan(make_plan, recipe, (clip.info, clip.plan), measured)
    plan = chunks_at(recipe, clip.plan, clip.index, (0, 4, 8))

    report = clip.join(plan, clip.chunk_files(plan))

    assert clip.plan.video.crop == "320:180:0:30"
    results = clip.verify(clip.output(), report)
    assert all(r.outcome in {Outcome.PASSED, Outcome.OFF} for r in results), results
