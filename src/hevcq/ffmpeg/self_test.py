"""Encode and verify one second of test picture and sound, through the path that a job takes.

The number of a version proves nothing: of two builds of one release one may lack an encoder, and a new
release may spell an option otherwise. What passes is remembered by the build's identity.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path

from hevcq import __version__
from hevcq.domain.certificate import Gate, GateResult, Outcome, require_passed
from hevcq.domain.keys import set_version
from hevcq.domain.planning.encode_plan import EncodePlan, plan_measured
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.errors import EncoderFailed, HevcqError, Interruption, LimitExceeded, WorkerUnfit
from hevcq.ffmpeg.doctor import INSTALL, SELF_TEST_S
from hevcq.ffmpeg.inputs import FfmpegTools, access_to
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import ChildLimits
from hevcq.ports.encoder import Encoder, EncodeRequest, VerifyRequest
from hevcq.util.log import get_logger

BOX = (480, 270)
"""Width and height that a self-test scales to, where its profile scales: 2160p would take ten seconds."""
OTHER_BUILD = (
    "Its videos wait. Install another ffmpeg, or set HEVCQ_FFMPEG and HEVCQ_FFPROBE to it."
)


@dataclass(frozen=True, slots=True)
class Passed:
    """Which profiles passed; in `folder` the processes of a machine share it (None: nothing is shared)."""

    folder: Path | None = None
    _here: set[str] = field(default_factory=set)

    def known(self, profile: Profile, build: str) -> bool:
        """Return whether this recipe passed with this build of ffmpeg and this hevcq."""
        key = _key(profile, build)
        if key not in self._here and self.folder is not None:
            with contextlib.suppress(OSError):
                if self._file(self.folder, profile).read_bytes() == key.encode():
                    self._here.add(key)
        return key in self._here

    def note(self, profile: Profile, build: str) -> None:
        """Remember a pass. A note that cannot be written costs another process a second test."""
        self._here.add(_key(profile, build))
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._file(self.folder, profile).write_text(_key(profile, build), "utf-8")

    def forget(self, profile: Profile, build: str) -> None:
        """Forget a pass: the same build failed since."""
        self._here.discard(_key(profile, build))
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self._file(self.folder, profile).unlink(missing_ok=True)

    @staticmethod
    def _file(folder: Path, profile: Profile) -> Path:
        return folder / f"{profile.name}-{profile.revision}"


def _key(profile: Profile, build: str) -> str:
    said = "\n".join((__version__, profile.name, profile.revision, build))
    return hashlib.sha256(said.encode()).hexdigest()


def self_test(encoder: Encoder, profile: Profile, folder: Path, stop: threading.Event) -> None:
    """Encode and verify a test clip in an empty folder; raise WorkerUnfit with the reason if that fails.

    A profile whose policies refuse the clip itself is not tested: its gates judge each job. Raises
    Stopped and other interruptions, which say nothing of ffmpeg.
    """
    clip, tested = folder / "clip.mp4", _for_a_clip(profile)
    encoder.write_test_clip(clip, tested)
    try:
        _encode_and_verify(encoder, tested, clip, stop)
    except Interruption:
        raise
    except HevcqError as error:
        lines = error.tail[:1] if isinstance(error, EncoderFailed) else ()
        why = " ".join((error.message, *lines)).replace(str(clip), "the test clip")
        raise WorkerUnfit(
            f"ffmpeg cannot make the profile {profile.name} on this machine: {why}",
            remedy=OTHER_BUILD,
        ) from error


def _for_a_clip(profile: Profile) -> Profile:
    """Return the profile without what says nothing of ffmpeg: what the clip is worth, and its size."""
    gates = profile.gates.model_copy(update={"minimum_saving": None, "review_below": 0.0})
    box = dict(zip(("max_width", "max_height"), BOX, strict=True)) if _box(profile) else {}
    video = profile.video.model_copy(update={"skip_codecs": (), **box})
    return profile.model_copy(update={"gates": gates, "video": video})


def _encode_and_verify(
    encoder: Encoder, profile: Profile, clip: Path, stop: threading.Event
) -> None:
    info = encoder.probe(str(clip), stop=stop)
    decided = make_plan(profile, info)
    if not isinstance(decided, EncodePlan):
        get_logger(profile=profile.name).info("self_test_left_out", reason=decided.detail)
        return
    measured = encoder.preflight(str(clip), info, profile, stop=stop)
    info, plan = plan_measured(make_plan, profile, (info, decided), measured)
    size = clip.stat().st_size
    request = EncodeRequest(
        profile=profile,
        plan=plan,
        info=info,
        location=str(clip),
        output=clip.with_name(f"rendition.{plan.extension}"),
        duration_s=info.duration_s,
        source_size=size,
        max_seconds=SELF_TEST_S,
        threads=profile.bounds.threads,
        measured=measured,
        version=set_version("0" * 8, 1),
    )
    made = encoder.encode(request, on_progress=_unseen, stop=stop)
    asked = VerifyRequest(
        profile=profile,
        plan=plan,
        location=str(clip),
        info=info,
        measured=measured,
        source_size=size,
        output=request.output,
        report=made,
        max_seconds=SELF_TEST_S,
    )
    gates = encoder.verify(asked, on_progress=_unseen, stop=stop)
    unchanged = GateResult(gate=Gate.G0, outcome=Outcome.PASSED)
    require_passed([unchanged, *gates], of_set=bool(made.files))


def _unseen(_progress: object) -> None:
    """Show nothing: it takes a second."""


def write_test_clip(tools: FfmpegTools, target: Path, profile: Profile) -> None:
    """Write one second of moving test picture and sound; raise WorkerUnfit if ffmpeg cannot.

    By encoders that every build has, of a quality that leaves every recipe something to save, and of a
    size that the profile scales down.
    """
    width, height = _clip_size(profile)
    picture = f"testsrc2=size={width}x{height}:rate=12:duration=1"
    command = [tools.ffmpeg, "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", picture]
    command += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=1"]
    command += ["-c:v", "mpeg4", "-qscale:v", "2", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    command += ["-f", "mp4", str(target)]
    target.touch()  # the sandbox lets ffmpeg overwrite a file and create none
    limits = ChildLimits(access=access_to(tools, writes=(target,)))
    try:
        ended = run_child(command, stop=threading.Event(), limits=limits, deadline_s=SELF_TEST_S)
    except (EncoderFailed, LimitExceeded) as error:
        raise _no_clip(str(error)) from error
    if ended.returncode != 0:
        raise _no_clip(ended.stderr[-1] if ended.stderr else ended.ending)


def _clip_size(profile: Profile) -> tuple[int, int]:
    """Return a size that the profile scales down, since it skips a picture that fits its box."""
    width, height = _box(profile) or BOX
    return width * 4 // 3 // 2 * 2, height * 4 // 3 // 2 * 2


def _box(profile: Profile) -> tuple[int, int] | None:
    video = profile.video
    if video.max_width is None or video.max_height is None:
        return None
    return video.max_width, video.max_height


def _no_clip(why: str) -> WorkerUnfit:
    remedy = f"See `hevcq doctor`. {INSTALL}"
    return WorkerUnfit(f"ffmpeg cannot make a test clip on this machine: {why}", remedy=remedy)
