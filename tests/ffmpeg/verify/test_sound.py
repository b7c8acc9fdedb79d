"""Sound that is encoded anew is held against the source's by its loudness over time."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest

from ffmpeg.verify.conftest import PROFILE, Pair, encoded, ffmpeg
from ffmpeg.verify.test_damage import caught
from hevcq.domain.certificate import Gate, Outcome
from hevcq.domain.profile import Audio, Preflight
from hevcq.errors import EncoderFailed, SourceDamaged
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.verify.sound import BIN_S, WINDOW, offset_s
from hevcq.util.clock import SystemClock


def loudness(count: int, seed: int = 1) -> list[int]:
    """Make an envelope that changes as speech does: louder and softer several times a second."""
    chance = random.Random(seed)
    steps = [chance.randint(0, 9000) for _ in range(count // 20 + 1)]
    return [steps[place // 20] + chance.randint(0, 400) for place in range(count)]


SPEECH = loudness(4 * WINDOW)


@pytest.mark.parametrize("late", [0, 5, 16, -16])
def test_the_offset_is_found(late):
    made = [0] * late + SPEECH if late >= 0 else SPEECH[-late:]
    assert offset_s(SPEECH, made) == pytest.approx(late * BIN_S)


def test_what_moved_with_the_picture_is_not_late():
    assert offset_s(SPEECH, [0] * 10 + SPEECH, expected_s=10 * BIN_S) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("source", "made"),
    [([500] * 2000, [500] * 2000), (SPEECH, loudness(4 * WINDOW, seed=9)), ([], []), (SPEECH, [])],
    ids=["a steady tone", "another sound", "nothing", "no sound in the output"],
)
def test_what_has_no_place_in_time_is_not_told(source, made):
    assert offset_s(source, made) is None


@pytest.fixture(scope="module", params=["mkv", "mp4"])
def spoken(tmp_path_factory, request) -> Pair:
    """Encode a clip whose sound is encoded anew, and gets louder and softer."""
    folder = tmp_path_factory.mktemp("spoken")
    source = folder / f"source.{request.param}"
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
    assert caught(results) is Gate.G5
    assert "too late for the picture" in results[-1].detail


@pytest.mark.parametrize("broken", ["s16le", "rawvideo"])
def test_a_comparison_that_breaks_down_is_never_taken_for_a_match(spoken, tmp_path, broken):
    program = tmp_path / "ffmpeg-stand-in"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *"-f null"*) ;; '
        f'*"-f {broken}"*) echo "[error] it broke" >&2; exit 1;; esac\nexec ffmpeg "$@"\n'
    )
    program.chmod(0o755)
    encoder = FfmpegEncoder(str(program), "ffprobe", SystemClock(), sandboxed=False)
    request = replace(
        spoken.request, report=replace(spoken.request.report, thumbnails=())
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
