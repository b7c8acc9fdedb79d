"""The short form of `make fidelity`: a few ordinary files end as its table says."""

import re
import subprocess
import threading

import pytest
from benchmarks.fidelity import ordinary
from benchmarks.fidelity.served import named
from benchmarks.fidelity.spliced import ffmpeg
from benchmarks.fidelity.trial import ENCODER, recipe, run_trial

from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan

CHEAP = {
    "camera-mjpeg.mov": "",
    "flash-h264.flv": "",
    "empty-second-video.mov": "left out",
    "dvd-rip.mkv": "deinterlaced",
    "recording-teletext.ts": "Stream 2 is left out: teletext (deu, fra)",
    "recording-changing-aac.ts": "audio in aac whose channels change becomes aac at 384 kbit/s",
    "recording-joined-cut.ts": "joined from 3 recordings, as its clock jumps at 0:00:02 and 0:00:04",
    "phone-spatial-sound.mov": "left out: audio in Apple's spatial sound (apac)",
    "windows-media.wmv": "audio in wmav2 becomes aac",
}
"""Clips with the profile hevc, and words of the notices or of the refusal: one of each way that only a whole
run shows."""


@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "said"),
    CHEAP.items(),
)
def test_an_ordinary_file_is_served_or_refused_as_its_table_says(name, said, tmp_path):
    clip = named(name)
    source = ordinary.make(clip, tmp_path)
    assert source is not None

    trial = run_trial(source, recipe("hevc"), tmp_path)

    assert (trial.outcome, trial.detail) == (clip.outcomes[0], trial.detail)
    assert said in trial.detail


@pytest.mark.media
def test_sound_that_overlaps_where_titles_were_joined_is_encoded_without_a_break(tmp_path):
    source = ordinary.make(named("dvd-joined-titles.vob"), tmp_path)
    assert source is not None

    trial = run_trial(source, recipe("720p"), tmp_path)

    assert (trial.outcome, "joined from 2 parts" in trial.detail) == ("encoded", True), trial.detail


@pytest.mark.media
@pytest.mark.parametrize(("name", "matrix"), [("720p", "bt709"), ("avi", "bt601")])
def test_a_screen_recording_in_rgb_keeps_its_colours(name, matrix, tmp_path):
    """In the matrix that players take; read by the other one it has 27 dB."""
    source = tmp_path / "screen.mov"
    picture = "testsrc2=size=320x192:rate=25:duration=0.4,gblur=sigma=8,format=rgb24"
    ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "png", source)

    trial = run_trial(source, recipe(name, video={"preset": "medium"}), tmp_path)

    assert (trial.outcome, trial.output is not None) == ("encoded", True), trial.detail
    shown = f"[1]scale=in_color_matrix={matrix}:in_range=limited,format=gbrp[b]"
    command = ["ffmpeg", "-i", str(source), "-i", str(trial.output), "-f", "null", "-"]
    command[5:5] = ["-lavfi", f"[0]format=gbrp[a];{shown};[a][b]psnr"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert float(re.findall(r"average:([0-9.]+)", done.stderr)[-1]) > 35


def test_an_old_camera_mov_without_a_brand_keeps_its_container_and_sound(tmp_path):
    source = ordinary.make(named("camera-mjpeg.mov"), tmp_path)
    assert source is not None
    content = source.read_bytes()
    assert content[4:8] == b"ftyp"
    source.write_bytes(content[:4] + b"free" + content[8:])

    plan = make_plan(recipe("hevc"), ENCODER.probe(str(source), stop=threading.Event()))

    assert isinstance(plan, EncodePlan)
    assert (plan.extension, [s.codec for s in plan.kept]) == ("mov", ["hevc", "pcm_u8"])
