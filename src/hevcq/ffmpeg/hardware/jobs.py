"""Encode a job on a device, and decide what its failure means: the device's fault, or the video's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Sequence
from dataclasses import replace

from hevcq.domain.certificate import GateResult, Outcome
from hevcq.domain.formats.hardware import HARDWARE, Fallback
from hevcq.errors import EncoderFailed, EncoderStalled, HevcqError, OutOfMemory, WorkerUnfit
from hevcq.ffmpeg.hardware.devices import Devices, session_refused
from hevcq.ffmpeg.hardware.trial import trial
from hevcq.ffmpeg.inputs import FfmpegTools, display_name
from hevcq.ports.encoder import EncodeReport, EncodeRequest, VerifyRequest

Encode = Callable[[EncodeRequest], EncodeReport]
REMEDY = (
    "`hevcq doctor` says which hardware encoders work here; video.fallback: software encodes such "
    "videos without one."
)
_BY_DEVICE = (EncoderFailed, OutOfMemory, WorkerUnfit)
"""Errors that a device may cause; those about the source come from its demuxer and decoder."""


def encode_on_device(
    devices: Devices, request: EncodeRequest, encode: Encode, stop: threading.Event
) -> EncodeReport:
    """Encode on the first allowed device that works; in software, if the profile falls back to it.

    Raises WorkerUnfit if none works and the profile does not fall back, and what `encode` raises.
    """
    name, reason = devices.reserve(request.profile, request.plan, stop)
    if name:
        try:
            there = replace(request, plan=request.plan.with_encoder(name))
            return replace(encode(there), device=name)
        except _BY_DEVICE as error:
            reason = _blamed(devices, name, error, stop)
            if not reason:
                raise
        finally:
            devices.release(name)
    if request.profile.video.fallback is Fallback.SOFTWARE:
        return encode(request)
    raise WorkerUnfit(
        f"No hardware encoder of the profile can encode {display_name(request.location)}: {reason}.",
        remedy=REMEDY,
    )


def _blamed(devices: Devices, name: str, error: HevcqError, stop: threading.Event) -> str:
    """Return why a failure is the device's, noting it; "" if the device still passes its trial."""
    lines: Sequence[str] = getattr(error, "tail", ())
    if session_refused(name, [*lines, error.message]):
        devices.full(name)
        return f"{name}: the driver allows no more sessions"
    problem = devices.trial(name, stop)
    if isinstance(error, EncoderStalled):
        problem = problem or error.message
    if problem:
        devices.set_aside(name, problem)
        return f"{name}: {problem}"
    return ""


def judge_device(devices: Devices, request: VerifyRequest, gates: tuple[GateResult, ...]) -> None:
    """Set a device aside whose rendition failed a gate.

    Raises WorkerUnfit if the video is then encoded in software: it is not the video that failed.
    """
    name = request.report.device
    bad = [gate for gate in gates if gate.outcome in {Outcome.FAILED, Outcome.UNKNOWN}]
    if not bad:
        devices.proved(name)
        return
    devices.set_aside_for_all(name, f"its rendition failed gate {bad[0].gate.value}")
    if request.profile.video.fallback is Fallback.SOFTWARE:
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
    words = [", ".join(works) or "none works here; software is used"]
    words += [f"{name} is not usable: {problem}" for name, problem in tried.items() if problem]
    return "; ".join(words) if listed else ""
