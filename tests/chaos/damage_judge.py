"""What really became of a damaged file: hevcq's own steps over it, and a judge beside them.

The judge knows the undamaged original, which hevcq does not: it counts packets and frames, and
compares decoded pictures in blocks of 8x8 and sounds in windows of 20 ms.
"""

from __future__ import annotations

import subprocess
import threading
from array import array
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.certificate import GateResult, Outcome
from hevcq.domain.media.facts import Measurement, MediaInfo, StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Gates, Preflight, VideoRecipe
from hevcq.errors import HevcqError
from hevcq.ports.encoder import VerifyRequest
from hevcq.util.clock import SystemClock
from support.rendition import ENCODER, request_of

PICTURE_LEVELS = 24
"""A block of 8x8 that differs by less (of 255) is seen by nobody."""
SOUND_LEVELS = 1500
"""A window of 20 ms whose samples differ by less on average (of 32768) is heard by nobody."""


def profile(preflight: str = "demux") -> Profile:
    """Return the profile `hevc` as it is shipped, but fast, and content with any size."""
    return Profile(
        name="hevc",
        description="of the damage campaign",
        video=VideoRecipe(codec="hevc", preset="ultrafast", crf=24, encoder_params={"hash": 1}),
        gates=Gates(minimum_saving=None, preflight=Preflight(preflight)),
    )


@dataclass(frozen=True)
class Ended:
    """How the steps ended: `step` is the one that said no, or "" if a rendition was made."""

    step: str
    reason: str = ""
    request: VerifyRequest | None = None
    gates: tuple[GateResult, ...] = ()
    seconds: dict[str, float] | None = None
    error: HevcqError | None = None


def run(source: Path, output: Path, chosen: Profile) -> Ended:
    """Take one file through probe, plan, preflight, encode and the gates, as a worker does."""
    stop, clock, spent = threading.Event(), SystemClock(), {}
    step, began = "probe", clock.monotonic()

    def done(name: str) -> float:
        spent[name] = clock.monotonic() - began
        return clock.monotonic()

    try:
        info = ENCODER.probe(str(source), stop=stop)
        began, step = done(step), "plan"
        plan = make_plan(chosen, info)
        if not isinstance(plan, EncodePlan):
            return Ended("plan", " ".join((getattr(plan, "policy", ""), plan.detail)).strip())
        step = "preflight"
        measured = ENCODER.preflight(str(source), info, chosen, stop=stop)
        began, step = done(step), "encode"
        request = request_of(source, output, chosen, info=info, plan=plan, measured=measured)
        report = ENCODER.encode(request, on_progress=lambda _: None, stop=stop)
        began, step = done(step), "gates"
        return judge(request.to_verify(report), spent)
    except HevcqError as error:
        return Ended(step, str(error), error=error)


def judge(request: VerifyRequest, spent: dict[str, float] | None = None) -> Ended:
    """Run the gates over one output."""
    gates = ENCODER.verify(request, on_progress=lambda _: None, stop=threading.Event())
    last = gates[-1]
    if last.outcome in {Outcome.PASSED, Outcome.OFF}:
        return Ended("", request=request, gates=gates, seconds=spent)
    return Ended(last.gate.value.partition(" ")[0], last.detail, gates=gates, seconds=spent)


def _decoded(path: Path, *options: str) -> bytes:
    command = ["ffmpeg", "-v", "quiet", "-nostdin", "-noautorotate", "-i", str(path), *options, "-"]
    return subprocess.run(command, capture_output=True, check=False, timeout=120).stdout


@dataclass(frozen=True)
class Content:
    """What a file shows and says: block means of every frame, 8 kHz sounds, subtitle packets."""

    frames: tuple[bytes, ...]
    sounds: tuple[array[int], ...]
    words: bytes


def content(path: Path, info: MediaInfo) -> Content:
    """Decode a file."""
    clip = info.of_kind(StreamKind.VIDEO)[0].video
    assert clip is not None
    wide, high = max(1, clip.width // 8), max(1, clip.height // 8)
    raw = _decoded(
        path, "-map", "0:v:0", "-fps_mode", "passthrough", "-enc_time_base", "1:120000",
        "-vf", f"scale={wide}:{high}:flags=area,format=gray", "-f", "rawvideo",
    )  # fmt: skip
    size = wide * high
    sounds = []
    for place in range(len(info.of_kind(StreamKind.AUDIO))):
        heard = _decoded(path, "-map", f"0:a:{place}", "-ac", "1", "-ar", "8000", "-f", "s16le")
        sounds.append(array("h", heard[: len(heard) // 2 * 2]))
    words = b""
    if info.of_kind(StreamKind.SUBTITLE):
        words = _decoded(path, "-map", "0:s", "-c", "copy", "-f", "framemd5")
    frames = tuple(raw[at : at + size] for at in range(0, len(raw) - size + 1, size))
    return Content(frames, tuple(sounds), words)


def lost(made: VerifyRequest, clean: VerifyRequest) -> str:
    """Return which packets or frames a rendition lacks against the one of the undamaged source."""
    for kind in (StreamKind.VIDEO, StreamKind.AUDIO, StreamKind.SUBTITLE):
        found, wanted = _counts(made, kind), _counts(clean, kind)
        if len(found) < len(wanted):
            return f"{len(wanted) - len(found)} {kind.value} tracks"
        for place, (few, many) in enumerate(zip(found, wanted, strict=False)):
            if few < many:
                return f"{many - few} of {many} packets of {kind.value} {place}"
    if made.report.frames < clean.report.frames:
        return f"{clean.report.frames - made.report.frames} of {clean.report.frames} frames"
    return ""


def _counts(request: VerifyRequest, kind: StreamKind) -> list[int]:
    measured: Measurement = request.measured
    kept = [track for track in request.plan.kept if track.kind is kind]
    tracks = [measured.track(track.source_index) for track in kept]
    return [track.packets + track.discarded if track is not None else 0 for track in tracks]


def changed(found: Content, clean: Content) -> str:
    """Return what is seen or heard otherwise than in the undamaged source; "" if nothing is."""
    for place, (one, other) in enumerate(zip(found.frames, clean.frames, strict=False)):
        if max(abs(a - b) for a, b in zip(one, other, strict=True)) > PICTURE_LEVELS:
            return f"picture {place} differs"
    for track, (heard, said) in enumerate(zip(found.sounds, clean.sounds, strict=False)):
        if heard == said:
            continue
        for at in range(0, min(len(heard), len(said)), 160):
            one, other = heard[at : at + 160], said[at : at + 160]
            if sum(abs(a - b) for a, b in zip(one, other, strict=False)) > SOUND_LEVELS * 160:
                return f"sound {track} differs at {at / 8000:.2f} s"
    return "words differ" if found.words != clean.words else ""
