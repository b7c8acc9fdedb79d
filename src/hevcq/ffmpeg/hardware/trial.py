"""Try a hardware encoder: ten pictures are encoded, decoded again and compared.

320x240, because NVENC rejects very small pictures (Optimisarr's EncoderProbeCommand.cs does the same).
"""

from __future__ import annotations

import re
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from hevcq.domain.formats.hardware import HARDWARE, quality_options
from hevcq.errors import EncoderFailed, LimitExceeded, OutOfMemory, WorkerUnfit
from hevcq.ffmpeg.inputs import FfmpegTools, access_to
from hevcq.ffmpeg.process.child import Finished, run_child
from hevcq.ffmpeg.process.limits import ChildLimits
from hevcq.ffmpeg.process.sandbox import Access
from hevcq.ffmpeg.run.messages import message_text

TRIAL_S = 30.0
"""Time limit of a trial in seconds: a driver that hangs is no driver."""
CLIP = "testsrc2=size=320x240:rate=25:duration=0.4"
PICTURES = 10
LEAST_SSIM = 0.9
"""Similarity of the decoded pictures; x264 ultrafast at CRF 30 has 0.95 of them."""
CRF = 24.0
_SSIM = re.compile(r"All:([0-9.]+)")


def trial(tools: FfmpegTools, name: str, stop: threading.Event) -> str:
    """Return why an encoder cannot be used here, or "". Raises Stopped."""
    with tempfile.TemporaryDirectory(prefix="hevcq-trial-") as folder:
        output = Path(folder) / "trial.mp4"
        output.touch()
        try:
            made = _run(tools, trial_command(tools, name, output), name, output, stop)
            if made.returncode != 0 or made.stderr:
                return _reason_of(made)
            seen = _run(tools, compare_command(tools, output), name, output, stop)
        except LimitExceeded:
            return f"it hangs: ten pictures took more than {TRIAL_S:g} s"
        except (EncoderFailed, OutOfMemory, WorkerUnfit) as error:
            return error.message
    return _judge(seen)


def trial_command(tools: FfmpegTools, name: str, output: Path) -> list[str]:
    """Return the command that encodes the trial's pictures as a job would."""
    family, _ = HARDWARE[name]
    command = [tools.ffmpeg, "-nostdin", "-hide_banner", "-nostats", "-v", "error", "-y"]
    command += [*family.device, "-f", "lavfi", "-i", CLIP]
    if family.upload:
        command += ["-vf", family.upload[8]]
    else:
        command += ["-pix_fmt", family.pixel_formats[8]]
    command += ["-c:v", name]
    for option, value in quality_options(name, CRF):
        command += [f"{option}:v", value]
    return [*command, "-f", "mp4", f"file:{output}"]


def compare_command(tools: FfmpegTools, output: Path) -> list[str]:
    """Return the command that compares what was encoded with what was to be."""
    command = [tools.ffmpeg, "-nostdin", "-hide_banner", "-nostats", "-v", "info"]
    command += ["-i", f"file:{output}", "-f", "lavfi", "-i", CLIP, "-lavfi"]
    return [*command, "[0:v]format=yuv420p[a];[1:v]format=yuv420p[b];[a][b]ssim=stats_file=-:shortest=1",
            "-f", "null", "-"]  # fmt: skip


def device_access(access: Access, name: str) -> Access:
    """Return what a child needs besides to reach the device of an encoder."""
    return replace(access, devices=HARDWARE[name][0].nodes)


def _run(
    tools: FfmpegTools, command: list[str], name: str, output: Path, stop: threading.Event
) -> Finished:
    access = access_to(tools, str(output), writes=(output,))
    limits = ChildLimits(access=device_access(access, name))
    return run_child(command, stop=stop, limits=limits, deadline_s=TRIAL_S)


def _reason_of(made: Finished) -> str:
    lines = [message_text(line) for line in made.stderr if message_text(line)]
    return lines[0] if lines else made.ending


def _judge(seen: Finished) -> str:
    found = [float(value) for value in _SSIM.findall(seen.stdout.decode("utf-8", "replace"))]
    if seen.returncode != 0 or len(found) != PICTURES:
        return f"of {PICTURES} pictures {len(found)} could be decoded"
    if min(found) < LEAST_SSIM:
        return f"its pictures are wrong (SSIM {min(found):.2f})"
    return ""
