"""Hardware encoders: found by trial, set aside when they fail, and never the reason a video is lost.

Nothing here runs on hardware: a stand-in fails as drivers do (`support.gpu`).

One second, encoded and verified as a job would be, tells which profiles this ffmpeg can make.
"""

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hevcq.domain.certificate import Outcome
from hevcq.domain.chunking import KeyFrame, KeyIndex, why_not_split
from hevcq.domain.formats import FAMILIES, quality_options
from hevcq.domain.media.facts import Colour, LightLevel
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.domain.verdict import FailureClass, classify
from hevcq.errors import MediaRefused, WorkerUnfit
from hevcq.ffmpeg import hardware as trials
from hevcq.ffmpeg.command.build import encode_command
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.hardware import DEVICE_SET_ASIDE_S, Devices
from hevcq.ffmpeg.inputs import FfmpegTools, access_to, require_encoder_support
from hevcq.ports.encoder import VerifyRequest
from hevcq.settings.profile_files import installed_folder, load_profiles
from hevcq.util.clock import SystemClock
from support.clips import ManualClock, make_clip
from support.gpu import gpu_ffmpeg, set_mode
from support.media_facts import media, profile, video
from support.rendition import TOOLS, request_for, request_of

STOP = threading.Event()
LOOSE = {"minimum_saving": None}
NVENC = {"encoder": ["hevc_nvenc"], "preset": "ultrafast", "encoder_params": {}}
FOUND: dict[str, str] = {
    "hevc_nvenc": "-c:0 hevc_nvenc -rc:0 vbr -cq:0 20 -b:0 0 -preset:0 p5 -tune:0 hq "
    "-spatial-aq:0 1 -pix_fmt:0 {8} -fps_mode:0 passthrough -enc_time_base:0 1/1000",
    "hevc_qsv": "-c:0 hevc_qsv -global_quality:0 20 -preset:0 slower -fps_mode:0 passthrough "
    "-enc_time_base:0 1/1000 -filter:0 format={nv},hwupload=extra_hw_frames=64",
    "hevc_vaapi": "-c:0 hevc_vaapi -rc_mode:0 CQP -global_quality:0 20 -fps_mode:0 passthrough "
    "-enc_time_base:0 1/1000 -filter:0 format={nv},hwupload",
}


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("name", FOUND)
def test_the_whole_picture_of_each_family_is_commanded(name, bits):
    deep = {"pixel_format": "yuv420p10le", "bit_depth": 10} if bits == 10 else {}
    recipe, info = profile("hevc", video={"encoder": [name]}), media(video(**deep))
    request = request_for(recipe, info)

    words = encode_command(TOOLS, replace(request, plan=request.plan.with_encoder(name)))

    nv = {8: "nv12", 10: "p010le"}[bits]
    wanted = FOUND[name].replace("{8}", {8: "yuv420p", 10: "p010le"}[bits]).replace("{nv}", nv)
    begin = words.index("-c:0")
    assert " ".join(words[begin : words.index("-tag:0")]) == wanted
    device = FAMILIES[name.partition("_")[2]].device
    assert " ".join(device) in " ".join(words[: words.index("-i")])
    assert "-x265-params:0" not in words


@pytest.mark.parametrize(
    ("name", "crf", "option"),
    [
        ("hevc_nvenc", 24, ("-cq", "20")),
        ("hevc_vaapi", 2, ("-global_quality", "1")),
        ("av1_nvenc", 35, ("-cq", "31")),  # to 63, as libsvtav1
        ("av1_qsv", 35, ("-global_quality", "25")),  # to 51
        ("av1_vaapi", 35, ("-global_quality", "125")),  # to 255
    ],
)
def test_a_quality_is_asked_of_hardware_that_makes_up_for_its_need_of_bits(name, crf, option):
    assert option in quality_options(name, crf)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ("h264_nvenc", "makes h264, not hevc"),
        ("hevc_omx", "none of software, auto"),
        (["auto", "hevc_nvenc"], "auto stands alone"),
        ([], "names none"),
    ],
)
def test_a_wrong_list_of_encoders_is_refused_with_the_profile(encoder, said):
    with pytest.raises(ValidationError, match=said):
        profile("hevc", video={"encoder": encoder})


def plan_of(**parts: Any) -> tuple[Profile, EncodePlan]:
    recipe = profile("hevc", video={"encoder": "auto"})
    plan = make_plan(recipe, media(video(**parts)))
    assert isinstance(plan, EncodePlan), plan
    return recipe, plan


def test_a_trial_is_made_once_and_a_device_that_failed_is_tried_again_after_an_hour():
    clock, tried = ManualClock(), []
    problems = {"hevc_nvenc": "no device"}

    def trial(name: str, _stop: threading.Event) -> str:
        tried.append(name)
        return problems.get(name, "")

    devices = Devices(trial, clock)
    assert devices.choose(*plan_of(), STOP) == "hevc_qsv"
    assert devices.choose(*plan_of(), STOP) == "hevc_qsv"
    assert tried == ["hevc_nvenc", "hevc_qsv"]
    problems.clear()
    clock.advance(DEVICE_SET_ASIDE_S)
    assert devices.choose(*plan_of(), STOP) == "hevc_nvenc"
    devices.set_aside("hevc_nvenc", "its rendition failed gate G8")
    assert devices.choose(*plan_of(), STOP) == "hevc_qsv"


def test_a_second_render_node_is_used_where_the_first_has_no_such_encoder():
    second, tried = "/dev/dri/renderD129", []

    def trial(device: str, _stop: threading.Event) -> str:
        tried.append(device)
        return "" if device.endswith(second) else "no device"

    devices = Devices(trial, ManualClock(), lambda: ["/dev/dri/renderD128", second])
    recipe, plan = plan_of()
    device = devices.choose(recipe, plan, STOP)

    assert device == f"hevc_qsv@{second}"
    assert tried == ["hevc_nvenc", "hevc_qsv", device]
    request = request_for(recipe, media(video()), plan=plan.with_encoder(device))
    for words in (encode_command(TOOLS, request), trials.trial_command(TOOLS, device, Path("out"))):
        assert f"qsv=hw,child_device={second}" in words
        assert "hevc_qsv" in words


def test_a_driver_that_a_person_chose_reaches_the_device_only(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(
        trials, "run_child", lambda _argv, *, limits, **_: given.append(limits.access.environment())
    )
    tools = FfmpegTools(
        "ffmpeg", "ffprobe", SystemClock(), drivers=(("LIBVA_DRIVER_NAME", "i965"),)
    )

    trials._run(tools, [], "hevc_vaapi", tmp_path / "out", STOP)

    assert given == [{"LIBVA_DRIVER_NAME": "i965"}]
    assert access_to(tools, "a.mp4").environment() == {}


@pytest.mark.media
@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("", ""),
        ("trial:no device", "Cannot load libcuda.so.1"),
        ("trial:driver mismatch", "Driver does not support the required nvenc API version"),
        ("trial:sessions", "OpenEncodeSessionEx failed"),
        ("trial:garbage", "its pictures are wrong"),
        ("trial:short", "of 10 pictures 5 could be decoded"),
        ("trial:hang", "it hangs"),
    ],
)
def test_a_trial_tells_a_device_that_works_from_a_name_in_a_list(mode, said, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "TRIAL_S", 1.0 if mode == "trial:hang" else 60.0)
    tools = FfmpegTools(gpu_ffmpeg(tmp_path, mode), "ffprobe", SystemClock(), sandboxed=False)

    found = trials.trial(tools, "hevc_nvenc", STOP)

    assert (said in found) if said else found == ""


class Farm:
    """A worker with a stand-in for hardware, and one clip."""

    def __init__(self, folder: Path, mode: str, **video: Any) -> None:
        self.program = gpu_ffmpeg(folder, mode)
        self.encoder = FfmpegEncoder(self.program, "ffprobe", SystemClock(), sandboxed=False)
        self.clip = make_clip(folder, extra=["-an"])
        self.recipe = profile(
            "hevc", video={**NVENC, **video}, gates=LOOSE, bounds={"stall_s": 5.0}
        )
        self.info = self.encoder.probe(str(self.clip), stop=STOP)
        plan = make_plan(self.recipe, self.info)
        assert isinstance(plan, EncodePlan)
        self.plan, self.folder, self.made = plan, folder, 0

    def encode(self) -> VerifyRequest:
        self.made += 1
        request = request_of(
            self.clip,
            self.folder / f"out{self.made}.{self.plan.extension}",
            self.recipe,
            plan=self.plan,
            info=self.info,
            measured=self.encoder.measure(str(self.clip), self.info, stop=STOP),
        )
        report = self.encoder.encode(request, on_progress=lambda _s: None, stop=STOP)
        return request.to_verify(report)

    def judge(self, request: VerifyRequest) -> list[str]:
        results = self.encoder.verify(request, on_progress=lambda _s: None, stop=STOP)
        fine = {Outcome.PASSED, Outcome.OFF}
        return [f"{r.gate.value}: {r.detail}" for r in results if r.outcome not in fine]


@pytest.mark.media
@pytest.mark.parametrize(
    ("mode", "device"),
    [("", "hevc_nvenc"), ("trial:no device", ""), ("job:sessions", ""), ("job:hang", "")],
)
def test_a_rendition_names_its_device_or_software_and_passes_the_gates(mode, device, tmp_path):
    farm = Farm(tmp_path, mode)

    request = farm.encode()

    assert request.report.device == device
    assert ("hevc_nvenc" in request.report.arguments) is bool(device)
    assert farm.judge(request) == []


@pytest.mark.media
@pytest.mark.parametrize("kind", ["short", "garbage"])
def test_a_device_that_spoils_a_rendition_is_set_aside_and_the_video_is_not_blamed(kind, tmp_path):
    """The program returns 0: only the gates see it."""
    farm = Farm(tmp_path, f"job:{kind}")
    spoilt = farm.encode()
    assert spoilt.report.device == "hevc_nvenc"

    with pytest.raises(WorkerUnfit, match="failed gate") as raised:
        farm.judge(spoilt)
    assert classify(raised.value) is FailureClass.WORKER

    again = farm.encode()
    assert again.report.device == ""
    assert farm.judge(again) == []


@pytest.mark.media
def test_a_device_that_fails_with_one_video_leaves_it_to_software(tmp_path):
    farm = Farm(tmp_path, "job:vanish")

    # The device passes its trial still: it cannot do this video, which software may.
    assert farm.encode().report.device == ""

    real = farm.encoder._devices.trial
    farm.encoder._devices.trial = lambda name, stop: (
        set_mode(farm.program, "trial:no device"),
        real(name, stop),
    )[1]
    assert farm.encode().report.device == ""


@pytest.mark.media
def test_the_doctor_says_of_each_listed_encoder_whether_it_works_and_why_not(tmp_path):
    real = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
    working = FfmpegEncoder(gpu_ffmpeg(tmp_path), "ffprobe", SystemClock(), sandboxed=False)

    here, there = (encoder.checks()["hardware"]() for encoder in (real, working))

    assert "hevc_nvenc" in there.partition("not usable")[0]
    assert "hevc_nvenc" not in here or "hevc_nvenc" in here.partition("not usable: ")[2]


def test_a_video_that_hardware_may_encode_is_not_split():
    recipe, plan = plan_of()
    key = KeyFrame(pts=0, bytes_until_next=1, frames_until_next=1000)
    index = KeyIndex(stream_index=0, time_base="1/1", keys=(key,), end_pts=9999, frames=1000)

    assert why_not_split(recipe, media(video()), plan, index) == "hardware"


HDR10 = {
    "codec": "prores",
    "pixel_format": "yuv420p10le",
    "bit_depth": 10,
    "colour": Colour(primaries="bt2020", transfer="smpte2084", space="bt2020nc"),
    "light_level": LightLevel(max_content=1000, max_average=400),
}


@pytest.mark.parametrize("facts", [{"pixel_format": "yuv422p"}, HDR10])
def test_what_no_hardware_takes_is_left_to_software(facts):
    assert Devices(lambda _name, _stop: "", ManualClock()).choose(*plan_of(**facts), STOP) == ""


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


EIGHT = "    Supported pixel formats: yuv420p gray\nlibx265 AVOptions:"


def asked_of(said: str, bits: int, name: str = "hevc") -> list[str]:
    """Return which encoders are asked for their pixels, and each says so much."""
    pixels = "yuv420p" if bits == 8 else "yuv420p10le"
    found = media(video(codec="hevc", pixel_format=pixels, bit_depth=bits))
    plan = make_plan(profile(name, video={"skip_codecs": []}, hls={"hevc": True}), found)
    encoders: list[str] = []
    require_encoder_support(lambda encoder: encoders.append(encoder) or said, plan)
    return encoders


def test_an_encoder_that_does_not_name_the_planned_pixels_is_refused():
    assert asked_of(EIGHT, 8) == []
    assert asked_of(EIGHT.replace("gray", "yuv420p10le"), 10) == ["libx265"]
    assert asked_of("Codec 'libx265' is not recognized", 10) == ["libx265"]
    for name in ("hevc", "hls"):
        with pytest.raises(MediaRefused, match="10 bits, which libx265 of this ffmpeg cannot"):
            asked_of(EIGHT, 10, name)


@pytest.mark.parametrize("body", ["echo 'no mpeg4' >&2; exit 1", "kill -KILL $$"])
def test_a_machine_that_makes_no_test_clip_is_unfit(tmp_path, body):
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    with pytest.raises(WorkerUnfit, match="cannot make a test clip on this machine"):
        encoder(program).write_test_clip(tmp_path / "clip.mp4")
