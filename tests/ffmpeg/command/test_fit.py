"""Pictures of several sizes and aspects are fitted into one, undistorted, and none is lost unnamed."""

import subprocess
import threading
from pathlib import Path

import pytest
from benchmarks.fidelity import spliced

from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import VideoRecipe
from hevcq.errors import MediaRefused
from hevcq.ffmpeg.command.filters import decoding_options, fit_filter, picture_filter
from support.media_facts import audio, media, profile, video
from support.rendition import ENCODER

STOP = threading.Event()
PROFILE = Profile(name="p", description="d", video=VideoRecipe(codec="hevc", crf=28))
WIDE, NARROW, TALL = ("64x48", "4/3"), ("32x48", "8/3"), ("48x48", "1/1")


def changing(folder: Path, *shapes: tuple[str, str]) -> Path:
    """Return white pictures of each size and aspect, twenty of each."""
    path, parts = folder / "changing.ts", []
    for number, (size, aspect) in enumerate(shapes):
        parts.append(folder / f"{number}.ts")
        spliced.ffmpeg("-f", "lavfi", "-i", f"color=white:size={size}:rate=25:duration=0.8", "-vf",
                       f"setsar={aspect}", "-c:v", "mpeg2video", "-g", "5", "-bf", "2", parts[-1])  # fmt: skip
    listing = folder / "parts.txt"
    listing.write_text("".join(f"file '{part}'\n" for part in parts))
    spliced.ffmpeg("-f", "concat", "-safe", "0", "-i", listing, "-c", "copy", path)
    return path


@pytest.mark.parametrize("one_aspect", [False, True])
def test_each_picture_keeps_its_shape_between_black_bars(tmp_path, one_aspect):
    """Also where its size must tell the aspect, as a build gives all pictures their track's."""
    source = changing(tmp_path, WIDE, NARROW, TALL)
    info = ENCODER.probe(str(source), stop=STOP)
    info = losing_aspects(info) if one_aspect else info
    plan = make_plan(PROFILE, info)
    assert isinstance(plan, EncodePlan)
    assert plan.video.fit.startswith("64x48 4:3")
    assert (plan.video.width, plan.video.height) == (64, 48)
    assert any("is fitted into 64x48 4:3, undistorted" in notice for notice in plan.notices)

    squeezed = "setsar=1," if one_aspect else ""
    command = ["ffmpeg", "-v", "error", *decoding_options(info), "-i", str(source), "-vf"]
    command += [f"{squeezed}{picture_filter(plan.video)},format=gray", "-fps_mode", "passthrough"]
    done = subprocess.run(
        [*command, "-f", "rawvideo", "-"], check=True, capture_output=True, timeout=60
    )
    pictures = [done.stdout[at : at + 64 * 48] for at in range(0, len(done.stdout), 64 * 48)]
    assert len(pictures) == 58, "20 of each, without the last before each change"
    for picture, shown in ((pictures[2], 64), (pictures[25], 64), (pictures[50], 36)):
        row = picture[24 * 64 : 25 * 64]
        white = [column for column, value in enumerate(row) if value > 128]
        assert len(white) == shown
        assert white[0] == (64 - shown) // 2
    ENCODER.preflight(str(source), info, PROFILE, stop=STOP)


@pytest.mark.parametrize("seen", [True, False])
def test_what_its_size_does_not_tell_is_refused_where_the_build_loses_it(tmp_path, seen):
    """Also where only a look at all pictures finds the second aspect of a size."""
    source = changing(tmp_path, WIDE, NARROW, (WIDE[0], "1/1"))
    info = losing_aspects(ENCODER.probe(str(source), stop=STOP))
    if not seen:
        info = losing_aspects(info, becomes="32x48 8:3 yuv420p")

    with pytest.raises(MediaRefused, match="the shape of its picture changes on the way"):
        ENCODER.preflight(str(source), info, PROFILE, stop=STOP)


def losing_aspects(info: MediaInfo, **facts: object) -> MediaInfo:
    """Return the facts as a build finds them that gives all pictures one aspect."""
    (stream,) = info.streams
    assert stream.video is not None
    changed = stream.video.model_copy(update={"one_aspect": True, **facts})
    return info.model_copy(update={"streams": (stream.model_copy(update={"video": changed}),)})


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_what_the_decoder_cannot_show_is_counted_and_said(suffix, tmp_path):
    """Also of a rip whose file says one aspect for all its pictures."""
    sizes = ("64x48", "32x48", "48x48") if suffix == "ts" else ("64x48",) * 3
    source = changing(tmp_path, *zip(sizes, ("1", "4/3", "1"), strict=True))
    if suffix == "mkv":
        source, recording = tmp_path / "rip.mkv", source
        spliced.ffmpeg("-i", recording, "-c", "copy", source)
    info = ENCODER.probe(str(source), stop=STOP)

    measured = ENCODER.preflight(str(source), info, PROFILE, stop=STOP)

    assert measured.tracks[0].packets == 58
    assert any("2 of 60 pictures, the last before a change" in each for each in measured.notices)


def test_fields_are_scaled_apart():
    stream = video(field_order="tt", becomes="544x576 16:15 yuv420p")
    plan = make_plan(profile("hevc"), media(stream, audio()))

    assert isinstance(plan, EncodePlan)
    assert picture_filter(plan.video).startswith("scale=")
    assert "interl=1" in fit_filter(plan.video)
