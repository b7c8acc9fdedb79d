"""One second, encoded and verified as a job would be, tells which profiles this ffmpeg can make."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from hevcq.domain.media.facts import StreamKind
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.errors import MediaRefused, Stopped, WorkerUnfit
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.inputs import require_able
from hevcq.settings.profile_files import installed_folder, load_profiles
from support.clips import ManualClock
from support.media_facts import media, video
from support.media_facts import profile as recipe

PROFILES = load_profiles(installed_folder())
HEVC = PROFILES["hevc"]
GREY = "-filter:0 lutyuv=y=128"
SILENT = "-an"


def encoder(program: str | Path = "ffmpeg", passes: Path | None = None) -> FfmpegEncoder:
    return FfmpegEncoder(str(program), "ffprobe", ManualClock(), sandboxed=False, passes=passes)


def script(folder: Path, body: str) -> Path:
    """Write a program that does `body` where a video is encoded by x265, and is ffmpeg elsewhere."""
    path, real = folder / "ffmpeg", shutil.which("ffmpeg")
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *libx265*) ;; *) exec {real} "$@";; esac\n'
        f'{body}\nexec {real} "$@"\n'
    )
    path.chmod(0o755)
    return path


def adding(options: str) -> str:
    """Return a body that adds options to the output."""
    return (
        "n=$#; while [ $n -gt 0 ]; do a=$1; shift; n=$((n-1))\n"
        f'[ "$a" = "-c:0" ] && set -- "$@" {options}; set -- "$@" "$a"; done'
    )


def run_test(ready: FfmpegEncoder, folder: Path, profile: Profile = HEVC, **options) -> bool:
    """Run a self-test; return whether it made anything."""
    place = folder / f"test-{len(list(folder.iterdir()))}"
    place.mkdir()
    ready.self_test(profile, place, stop=threading.Event(), **options)
    return any(place.iterdir())


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_each_profile_of_the_box_passes_here(profile, tmp_path):
    run_test(encoder(), tmp_path, profile)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo 'Unrecognized option enc_time_base.' >&2; exit 1", "Unrecognized option"),
        (adding(GREY), "G8"),
        (adding(SILENT), "G3"),
        ("kill -SEGV $$", "signal SIGSEGV"),
    ],
    ids=["it refuses an option", "its pictures are grey", "it drops the sound", "it crashes"],
)
def test_a_build_that_fails_is_named_with_the_reason_of_the_gate(tmp_path, body, why):
    broken = encoder(script(tmp_path, body))

    with pytest.raises(WorkerUnfit, match=why) as caught:
        run_test(broken, tmp_path)

    assert "cannot make the profile hevc on this machine" in caught.value.message
    assert caught.value.remedy


def test_a_stop_ends_a_self_test_without_a_finding(tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        encoder().self_test(HEVC, tmp_path, stop=stop)


def test_a_pass_is_remembered_by_all_processes_until_the_build_or_the_recipe_is_another(tmp_path):
    program = script(tmp_path, "")

    def runs(profile: Profile = HEVC) -> bool:
        """Return whether a new process encodes anything."""
        return run_test(encoder(program, tmp_path / "passes"), tmp_path, profile)

    assert runs()
    assert not runs()
    finer = HEVC.model_copy(update={"video": HEVC.video.model_copy(update={"crf": 20.0})})
    assert runs(finer)
    assert not runs()
    assert not runs(finer)
    os.utime(program, ns=(1, 1))
    assert runs()


def test_a_build_that_passed_and_fails_later_is_tested_again(tmp_path):
    switch = tmp_path / "broken"
    ready = encoder(script(tmp_path, f"[ -e {switch} ] && exit 1"), tmp_path / "passes")
    run_test(ready, tmp_path)
    switch.touch()
    with pytest.raises(WorkerUnfit):
        run_test(ready, tmp_path, again=True)

    with pytest.raises(WorkerUnfit):
        run_test(ready, tmp_path)


@pytest.mark.parametrize(
    ("name", "size"), [("hevc", (640, 360)), ("720p", (1706, 960))], ids=["as it is", "scaled"]
)
def test_a_test_clip_is_one_second_of_a_size_that_the_profile_changes(tmp_path, name, size):
    ready = encoder()

    ready.write_test_clip(tmp_path / "clip.mp4", PROFILES[name])

    info = ready.probe(str(tmp_path / "clip.mp4"), stop=threading.Event())
    (picture,) = info.of_kind(StreamKind.VIDEO)
    assert (picture.video.width, picture.video.height) == size
    assert len(info.of_kind(StreamKind.AUDIO)) == 1
    assert info.duration_s == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("body", ["echo 'no mpeg4' >&2; exit 1", "kill -KILL $$"])
def test_a_machine_that_makes_no_test_clip_is_unfit(tmp_path, body):
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    with pytest.raises(WorkerUnfit, match="cannot make a test clip on this machine"):
        encoder(program).write_test_clip(tmp_path / "clip.mp4", HEVC)


EIGHT = "    Supported pixel formats: yuv420p gray\nlibx265 AVOptions:"


def asked_of(said: str, bits: int, name: str = "hevc") -> list[str]:
    """Return which encoders are asked for their pixels, and each says so much."""
    pixels = "yuv420p" if bits == 8 else "yuv420p10le"
    found = media(video(codec="hevc", pixel_format=pixels, bit_depth=bits))
    plan = make_plan(recipe(name, video={"skip_codecs": []}, hls={"hevc": True}), found)
    encoders: list[str] = []
    require_able(lambda encoder: encoders.append(encoder) or said, plan)
    return encoders


def test_only_pictures_of_more_than_8_bits_ask_what_the_encoder_takes():
    assert asked_of(EIGHT, 8) == []
    assert asked_of(EIGHT.replace("gray", "yuv420p10le"), 10) == ["libx265"]
    assert asked_of("Codec 'libx265' is not recognized", 10) == ["libx265"]


@pytest.mark.parametrize("name", ["hevc", "hls"])
def test_an_encoder_that_does_not_name_the_planned_pixels_is_refused(name):
    with pytest.raises(MediaRefused, match="10 bits, which libx265 of this ffmpeg cannot write"):
        asked_of(EIGHT, 10, name)
