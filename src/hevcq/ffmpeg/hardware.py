"""Encode on graphics hardware: choose an encoder by trial, and decide whether the device caused a failure.

`ffmpeg -encoders` proves nothing: Debian's ffmpeg lists NVENC, QSV and VAAPI on machines without any of them.
So each process tries an encoder once: it encodes ten frames, decodes them and compares. They are 320x240
because NVENC rejects very small ones (Optimisarr's EncoderProbeCommand.cs does the same). A device that fails, or
whose rendition fails a gate, is not used for an hour.
"""

import math
import re
import tempfile
import threading
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hevcq.domain.certificate import GateResult
from hevcq.domain.formats import HARDWARE, NODE, Family, hardware_candidates, quality_options
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

DEVICE_SET_ASIDE_S = 3600.0
"""Seconds for which a device is not used after a failure."""
Encode = Callable[[EncodeRequest], EncodeReport]
REMEDY = "`hevcq doctor` says which hardware encoders work here."
_DEVICE_ERRORS = (EncoderFailed, OutOfMemory, WorkerUnfit)
"""Errors that a device may cause. Errors about the source come from its demuxer and decoder."""

TRIAL_S = 30.0
"""Time limit of a trial in seconds, for drivers that hang."""
CLIP = "testsrc2=size=320x240:rate=25:duration=0.4"
LIKENESS = "[0:v]format=yuv420p[a];[1:v]format=yuv420p[b];[a][b]ssim=stats_file=-:shortest=1"
FRAMES = 10
"""Frames of CLIP."""
MIN_SSIM = 0.9
"""Least similarity of the decoded frames; x264 ultrafast reaches 0.95 at CRF 30."""
CRF = 24.0
_SSIM = re.compile(r"All:([0-9.]+)")
Trial = Callable[[str, threading.Event], str]
"""Tries a device by name; returns why it cannot be used, or ""."""


@dataclass(slots=True)
class Devices:
    """The hardware encoders of this process. Thread-safe."""

    trial: Trial
    clock: Clock
    nodes: Callable[[], list[str]] = lambda: sorted(map(str, Path("/dev/dri").glob("renderD*")))
    _results: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By device: why it cannot be used ("" if it can), and the monotonic second at which to try it again."""

    def choose(self, profile: Profile, plan: EncodePlan, stop: threading.Event) -> str:
        """Return the first allowed device that works, or "" if none does or the plan needs software."""
        encoders = hardware_candidates(profile.video.encoder, profile.video.codec)
        if hardware_problem(profile, plan):
            return ""
        for name in (device for encoder in encoders for device in self._devices(encoder)):
            problem, until = self._results.get(name, ("", -math.inf))
            if self.clock.monotonic() >= until:
                problem = self.trial(name, stop)
                self._results[name] = problem, math.inf
                if problem:
                    self.set_aside(name, problem)
            if not problem:
                return name
        return ""

    def _devices(self, encoder: str) -> list[str]:
        """Return `encoder`, which uses the first render node, and `encoder@node` for each other node."""
        others = self.nodes()[1:] if NODE in " ".join(HARDWARE[encoder][0].device) else []
        return [encoder, *(f"{encoder}@{node}" for node in others)]

    def set_aside(self, name: str, problem: str) -> None:
        self._results[name] = problem, self.clock.monotonic() + DEVICE_SET_ASIDE_S


def encode_on_device(
    devices: Devices, request: EncodeRequest, encode: Encode, stop: threading.Event
) -> EncodeReport:
    """Encode on the first allowed device that works; in software if there is none, or if it fails.

    A working device may fail for one video: its bit depth, its size or its content.
    """
    name = devices.choose(request.profile, request.plan, stop)
    if name:
        try:
            on_device = replace(request, plan=request.plan.with_encoder(name))
            return replace(encode(on_device), device=name)
        except _DEVICE_ERRORS as error:
            _retry_trial(devices, name, error, stop)
    return encode(request)


def _family(device: str) -> Family:
    return HARDWARE[device.partition("@")[0]][0]


def _retry_trial(devices: Devices, name: str, error: HevcqError, stop: threading.Event) -> None:
    """Set a device aside that stalled, or that fails its trial now.

    A device is kept if its driver only allows no further session.
    """
    lines: Sequence[str] = (*getattr(error, "tail", ()), error.message)
    if any(words in line for line in lines for words in _family(name).session_full):
        return
    stalled = error.message if isinstance(error, EncoderStalled) else ""
    if problem := devices.trial(name, stop) or stalled:
        devices.set_aside(name, problem)


def require_passed_on_device(
    devices: Devices, request: VerifyRequest, gates: tuple[GateResult, ...]
) -> None:
    """Set the device aside and raise WorkerUnfit if its rendition failed a gate: the video is not to blame."""
    name = request.report.device
    failed = next((gate for gate in gates if gate.has_failed), None)
    if failed is None:
        return
    devices.set_aside(name, f"its rendition failed gate {failed.gate.value}")
    raise WorkerUnfit(
        f"{name} made a rendition of {display_name(request.location)} that failed gate "
        f"{failed.gate.value}: {failed.detail}. The device is set aside.",
        remedy=REMEDY,
    )


def hardware_summary(tools: FfmpegTools, listed: Container[str]) -> str:
    """Return which of the listed hardware encoders work here, and why the others do not."""
    stop = threading.Event()
    encoders_by_problem = dict[str, list[str]]()  # one device's encoders fail for one reason
    for name in HARDWARE:
        if name in listed:
            encoders_by_problem.setdefault(trial(tools, name, stop), []).append(name)
    words = [", ".join(encoders_by_problem.pop("", [])) or "none works here; software is used"]
    words += [
        f"not usable: {', '.join(e)} ({problem})" for problem, e in encoders_by_problem.items()
    ]
    return "; ".join(words) if listed else ""


def trial(tools: FfmpegTools, name: str, stop: threading.Event) -> str:
    """Return why a device cannot be used here, or "". Raises Stopped."""
    with tempfile.TemporaryDirectory(prefix="hevcq-trial-") as folder:
        output = Path(folder) / "trial.mp4"
        output.touch()
        compare = [tools.ffmpeg, "-nostdin", "-hide_banner", "-nostats", "-v", "info"]
        compare += ["-i", f"file:{output}", "-f", "lavfi", "-i", CLIP, "-lavfi", LIKENESS]
        try:
            encode = _run(tools, trial_command(tools, name, output), name, output, stop)
            if encode.returncode != 0 or encode.stderr:
                lines = (message_text(line) for line in encode.stderr)
                return next(filter(None, lines), encode.ending)
            comparison = _run(tools, [*compare, "-f", "null", "-"], name, output, stop)
        except LimitExceeded:
            return f"it hangs: ten pictures took more than {TRIAL_S:g} s"
        except _DEVICE_ERRORS as error:
            return error.message
    return _frame_problem(comparison)


def trial_command(tools: FfmpegTools, device: str, output: Path) -> list[str]:
    """Return the command that encodes the trial's frames with the options of a job."""
    family, (name, _, node) = _family(device), device.partition("@")
    command = [tools.ffmpeg, "-nostdin", "-hide_banner", "-nostats", "-v", "error", "-y"]
    command += [*family.device_options(node), "-f", "lavfi", "-i", CLIP]
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


def _frame_problem(comparison: Finished) -> str:
    scores = [float(value) for value in _SSIM.findall(comparison.stdout.decode("utf-8", "replace"))]
    if comparison.returncode != 0 or len(scores) != FRAMES:
        return f"of {FRAMES} pictures {len(scores)} could be decoded"
    return f"its pictures are wrong (SSIM {min(scores):.2f})" if min(scores) < MIN_SSIM else ""
