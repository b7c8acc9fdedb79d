"""Encode on graphics hardware: choose an encoder by trial, and decide whose fault a failure is.

A name in `ffmpeg -encoders` proves nothing: Debian's ffmpeg lists NVENC, QSV and VAAPI on machines without
any of them. So each is tried once in this process: it encodes ten pictures, which are decoded again and
compared; of 320x240, because NVENC rejects very small ones (Optimisarr's EncoderProbeCommand.cs does the
same). A device that fails, or whose rendition fails a gate, is set aside for an hour.
"""

import math
import re
import tempfile
import threading
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hevcq.domain.certificate import GateResult, Outcome
from hevcq.domain.formats import HARDWARE, NODE, Family, candidates, quality_options
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import hardware_problem
from hevcq.domain.profile import Profile
from hevcq.errors import (
    EncoderFailed,
    EncoderStalled,
    HevcqError,
    LimitExceeded,
    OutOfMemory,
    WorkerUnfit,
)
from hevcq.ffmpeg.inputs import FfmpegTools, access_to, display_name
from hevcq.ffmpeg.process.child import Finished, run_child
from hevcq.ffmpeg.process.limits import ChildLimits
from hevcq.ffmpeg.run.messages import message_text
from hevcq.ports.encoder import EncodeReport, EncodeRequest, VerifyRequest
from hevcq.util.clock import Clock

SET_ASIDE_S = 3600.0
Encode = Callable[[EncodeRequest], EncodeReport]
REMEDY = "`hevcq doctor` says which hardware encoders work here."
_BY_DEVICE = (EncoderFailed, OutOfMemory, WorkerUnfit)
"""Errors that a device may cause; those about the source come from its demuxer and decoder."""

TRIAL_S = 30.0
"""Time limit of a trial in seconds: a driver that hangs is no driver."""
CLIP = "testsrc2=size=320x240:rate=25:duration=0.4"
LIKENESS = "[0:v]format=yuv420p[a];[1:v]format=yuv420p[b];[a][b]ssim=stats_file=-:shortest=1"
PICTURES = 10
MIN_SSIM = 0.9
"""Similarity of the decoded pictures; x264 ultrafast at CRF 30 has 0.95 of them."""
CRF = 24.0
_SSIM = re.compile(r"All:([0-9.]+)")
Trial = Callable[[str, threading.Event], str]
"""Tries an encoder by name; returns why it cannot be used, or ""."""


@dataclass(slots=True)
class Devices:
    """The hardware encoders of this process; safe for any number of threads."""

    trial: Trial
    clock: Clock
    nodes: Callable[[], list[str]] = lambda: sorted(map(str, Path("/dev/dri").glob("renderD*")))
    _found: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By encoder why it cannot be used ("" if it can), and until when that holds, in monotonic seconds."""

    def choose(self, profile: Profile, plan: EncodePlan, stop: threading.Event) -> str:
        """Return the first allowed device that works and takes this video, or ""."""
        names = candidates(profile.video.encoder, profile.video.codec)
        if hardware_problem(profile, plan):
            return ""
        for name in (device for each in names for device in self._devices(each)):
            problem, until = self._found.get(name, ("", -math.inf))
            if self.clock.monotonic() >= until:
                problem = self.trial(name, stop)
                self._found[name] = problem, math.inf
                if problem:
                    self.set_aside(name, problem)
            if not problem:
                return name
        return ""

    def _devices(self, name: str) -> list[str]:
        """Return an encoder on the first render node, then `name@node` of each further one."""
        further = self.nodes()[1:] if NODE in " ".join(HARDWARE[name][0].device) else []
        return [name, *(f"{name}@{node}" for node in further)]

    def set_aside(self, name: str, problem: str) -> None:
        self._found[name] = problem, self.clock.monotonic() + SET_ASIDE_S


def encode_on_device(
    devices: Devices, request: EncodeRequest, encode: Encode, stop: threading.Event
) -> EncodeReport:
    """Encode on the first allowed device that works, and in software if none does.

    A device that fails may work, and not take this video: its depth, its size, or what it holds.
    """
    name = devices.choose(request.profile, request.plan, stop)
    if name:
        try:
            there = replace(request, plan=request.plan.with_encoder(name))
            return replace(encode(there), device=name)
        except _BY_DEVICE as error:
            _blame(devices, name, error, stop)
    return encode(request)


def _family(device: str) -> Family:
    return HARDWARE[device.partition("@")[0]][0]


def _blame(devices: Devices, name: str, error: HevcqError, stop: threading.Event) -> None:
    """Set a device aside that does not pass its trial any more, or stalled.

    One whose driver allows no more sessions works for others.
    """
    lines: Sequence[str] = (*getattr(error, "tail", ()), error.message)
    if any(each in line for line in lines for each in _family(name).session_full):
        return
    stalled = error.message if isinstance(error, EncoderStalled) else ""
    if problem := devices.trial(name, stop) or stalled:
        devices.set_aside(name, problem)


def judge_device(devices: Devices, request: VerifyRequest, gates: tuple[GateResult, ...]) -> None:
    """Set a device aside whose rendition failed a gate.

    Raises WorkerUnfit, for it is not the video that failed.
    """
    name = request.report.device
    bad = [gate for gate in gates if gate.outcome in {Outcome.FAILED, Outcome.UNKNOWN}]
    if not bad:
        return
    devices.set_aside(name, f"its rendition failed gate {bad[0].gate.value}")
    raise WorkerUnfit(
        f"{name} made a rendition of {display_name(request.location)} that failed gate "
        f"{bad[0].gate.value}: {bad[0].detail}. The device is set aside.",
        remedy=REMEDY,
    )


def hardware_words(tools: FfmpegTools, listed: Container[str]) -> str:
    """Return which of the listed hardware encoders work here, and why the others do not; none must."""
    stop = threading.Event()
    tried = {name: trial(tools, name, stop) for name in HARDWARE if name in listed}
    works = [name for name, problem in tried.items() if not problem]
    unusable = dict[str, list[str]]()  # several encoders of one device fail for one reason
    for name, problem in tried.items():
        if problem:
            unusable.setdefault(problem, []).append(name)
    words = [", ".join(works) or "none works here; software is used"]
    words += [f"not usable: {', '.join(names)} ({problem})" for problem, names in unusable.items()]
    return "; ".join(words) if listed else ""


def trial(tools: FfmpegTools, name: str, stop: threading.Event) -> str:
    """Return why an encoder cannot be used here, or "". Raises Stopped."""
    with tempfile.TemporaryDirectory(prefix="hevcq-trial-") as folder:
        output = Path(folder) / "trial.mp4"
        output.touch()
        compare = [tools.ffmpeg, "-nostdin", "-hide_banner", "-nostats", "-v", "info"]
        compare += ["-i", f"file:{output}", "-f", "lavfi", "-i", CLIP, "-lavfi", LIKENESS]
        try:
            made = _run(tools, trial_command(tools, name, output), name, output, stop)
            if made.returncode != 0 or made.stderr:
                lines = (message_text(line) for line in made.stderr)
                return next(filter(None, lines), made.ending)
            seen = _run(tools, [*compare, "-f", "null", "-"], name, output, stop)
        except LimitExceeded:
            return f"it hangs: ten pictures took more than {TRIAL_S:g} s"
        except (EncoderFailed, OutOfMemory, WorkerUnfit) as error:
            return error.message
    return _judge(seen)


def trial_command(tools: FfmpegTools, device: str, output: Path) -> list[str]:
    """Return the command that encodes the trial's pictures as a job would."""
    family, (name, _, node) = _family(device), device.partition("@")
    command = [tools.ffmpeg, "-nostdin", "-hide_banner", "-nostats", "-v", "error", "-y"]
    command += [*family.on(node), "-f", "lavfi", "-i", CLIP]
    if family.upload:
        command += ["-vf", family.upload[8]]
    else:
        command += ["-pix_fmt", family.pixel_formats[8]]
    command += ["-c:v", name]
    for option, value in quality_options(name, CRF):
        command += [f"{option}:v", value]
    return [*command, "-f", "mp4", f"file:{output}"]


def _run(
    tools: FfmpegTools, command: list[str], name: str, output: Path, stop: threading.Event
) -> Finished:
    access = access_to(tools, str(output), writes=(output,))
    limits = ChildLimits(access=replace(access, devices=_family(name).nodes, drivers=tools.drivers))
    return run_child(command, stop=stop, limits=limits, deadline_s=TRIAL_S)


def _judge(seen: Finished) -> str:
    found = [float(value) for value in _SSIM.findall(seen.stdout.decode("utf-8", "replace"))]
    if seen.returncode != 0 or len(found) != PICTURES:
        return f"of {PICTURES} pictures {len(found)} could be decoded"
    if min(found) < MIN_SSIM:
        return f"its pictures are wrong (SSIM {min(found):.2f})"
    return ""
