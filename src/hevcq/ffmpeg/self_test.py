"""Check this machine's ffmpeg programs: whether they run, and whether they can encode a profile.

`hevcq doctor` runs these checks; so does a worker before it blames a video. A version number proves nothing: one
of two builds of a release may lack an encoder, and a new release may rename an option. So a profile's self-test
encodes and verifies one second, as a job would. A pass is recorded for the identity of the build.
"""

import contextlib
import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from hevcq import __version__
from hevcq.domain.certificate import Gate, GateResult, Outcome, require_passed
from hevcq.domain.keys import set_version
from hevcq.domain.planning.encode_plan import EncodePlan, revise_plan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.errors import EncoderFailed, HevcqError, Interruption, LimitExceeded, WorkerUnfit
from hevcq.ffmpeg.inputs import PROBE_LIMITS, FfmpegTools, access_to, with_read_access
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import ChildLimits
from hevcq.ffmpeg.process.sandbox import protections
from hevcq.ports.encoder import Encoder, EncodeRequest
from hevcq.util.log import get_logger
from hevcq.util.processes import is_inspection_blocked

OLDEST_VERSION = (5, 1)
"""The oldest supported ffmpeg: `-fps_mode` is new in 5.1."""
INSTALL = (
    "Install ffmpeg 5.1 or newer with libx265 and libx264 (Debian: apt-get install ffmpeg), or "
    "set HEVCQ_FFMPEG to its path."
)
LET_OUT = (
    "Install it below /usr or /opt, or set sandbox = false (HEVCQ_SANDBOX=false) if it needs more "
    "than its video."
)

RunProgram = Callable[..., str]


def checks(tools: FfmpegTools, ask: RunProgram) -> Mapping[str, Callable[[], str]]:
    """Return the checks of the programs by name; a profile's own needs are checked by its self-test.

    `ask(program, *arguments)` returns the program's output or raises WorkerUnfit. If ffmpeg does not start,
    only its own check fails.
    """
    return {
        "ffmpeg": lambda: _check_program(tools.ffmpeg, ask),
        "ffprobe": lambda: _check_program(tools.ffprobe, ask),
        "sandbox": lambda: sandbox_summary(sandboxed=tools.sandboxed),
        "hardware": lambda: _check_hardware(tools, ask),
    }


def sandbox_summary(*, sandboxed: bool) -> str:
    """Return what the sandbox keeps ffmpeg from, and what this system cannot keep it from."""
    if not sandboxed:
        return "off (setting sandbox): ffmpeg may use all files of this user, and the network"
    kept, open_ = protections()
    words = f"ffmpeg is kept from {', '.join(kept)}" if kept else "none on this system"
    if open_:
        words += f"; not from {', '.join(open_)}"
    if not is_inspection_blocked():
        words += "; this process is open to others of its user"
    return words


def require_supported_version(line: str) -> None:
    """Raise WorkerUnfit if the first line of `-version` names a version older than OLDEST_VERSION."""
    version = re.match(r"\S+ version n?(\d+)\.(\d+)", line)
    if version is not None and (int(version[1]), int(version[2])) < OLDEST_VERSION:
        raise WorkerUnfit(f"{line} is too old.", remedy=INSTALL)


def _check_program(program: str, ask: RunProgram) -> str:
    try:
        line = ask(program, "-version").partition("\n")[0].strip()
    except HevcqError as error:
        remedy = LET_OUT if error.remedy == LET_OUT else INSTALL
        raise WorkerUnfit(error.message, remedy=remedy) from error
    require_supported_version(line)
    return line


def _check_hardware(tools: FfmpegTools, ask: RunProgram) -> str:
    """Return which hardware encoders work; "" if ffmpeg does not start, which its own check reports."""
    from hevcq.ffmpeg.hardware import hardware_summary

    try:
        lines = ask(tools.ffmpeg, "-encoders").splitlines()
    except HevcqError:
        return ""
    return hardware_summary(tools, {word for line in lines for word in line.split()[1:2]})


SELF_TEST_S = 120.0
"""Time limit of a test in seconds. It usually takes one to three, so a machine that needs longer than this cannot
be a worker, whatever else runs on it."""
TEST_PICTURE = ("-v", "error", "-f", "lavfi", "-i", "color=size=16x16:duration=0.04")


def require_working_tools(tools: FfmpegTools, stop: threading.Event) -> None:
    """Raise WorkerUnfit unless ffprobe and ffmpeg can each read one generated picture.

    Call it before rejecting a source or a rendition: a program with missing libraries rejects every file. It
    takes about 0.1 s.
    """
    probes = [tools.ffprobe, *TEST_PICTURE, "-show_entries", "stream=codec_name"]
    decodes = [tools.ffmpeg, "-nostdin", *TEST_PICTURE, "-f", "md5", "-"]
    for command, answer in ((probes, b"codec_name="), (decodes, b"MD5=")):
        try:
            done = run_child(
                command,
                stop=stop,
                limits=with_read_access(PROBE_LIMITS, tools),
                deadline_s=SELF_TEST_S,
            )
        except LimitExceeded as error:
            raise _unfit(f"{command[0]} cannot read a test picture", str(error)) from error
        if done.returncode != 0 or answer not in done.stdout:
            reason = done.stderr[-1] if done.stderr else done.ending
            raise _unfit(f"{command[0]} cannot read a test picture", reason)


def _unfit(problem: str, why: str) -> WorkerUnfit:
    remedy = f"See `hevcq doctor`. {INSTALL}"
    return WorkerUnfit(f"{problem} on this machine: {why.removesuffix('.')}.", remedy=remedy)


BOX = (480, 270)
"""Width and height to which the self-test of a scaling profile scales; 2160p would take ten seconds."""
OTHER_BUILD = "Its videos wait. Install another ffmpeg, or set HEVCQ_FFMPEG to it."


class SelfTestRecord:
    """The profiles that passed. All processes of a machine share it in `folder`; None keeps it in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._keys = folder, set[str]()

    def has_passed(self, profile: Profile, build: str) -> bool:
        key = _pass_key(profile, build)
        if self._folder is not None:
            with contextlib.suppress(OSError):
                if _pass_file(self._folder, profile).read_bytes() == key.encode():
                    return True
        return key in self._keys

    def add(self, profile: Profile, build: str) -> None:
        """Record a pass. If the file cannot be written, another process tests once more."""
        self._keys.add(_pass_key(profile, build))
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                _pass_file(self._folder, profile).write_text(_pass_key(profile, build), "utf-8")

    def forget(self, profile: Profile, build: str) -> None:
        self._keys.discard(_pass_key(profile, build))
        if self._folder is not None:
            with contextlib.suppress(OSError):
                _pass_file(self._folder, profile).unlink(missing_ok=True)


def _pass_file(folder: Path, profile: Profile) -> Path:
    return folder / f"{profile.name}-{profile.revision}"


def _pass_key(profile: Profile, build: str) -> str:
    identity = "\n".join((__version__, profile.name, profile.revision, build))
    return hashlib.sha256(identity.encode()).hexdigest()


def self_test(encoder: Encoder, profile: Profile, folder: Path, stop: threading.Event) -> None:
    """Encode and verify a test clip in an empty folder; raise WorkerUnfit with the reason if that fails.

    A profile whose policies refuse the clip passes untested: the gates check each of its jobs. Raises Stopped and
    other interruptions, which say nothing about ffmpeg.
    """
    clip = folder / "clip.mp4"
    encoder.write_test_clip(clip)
    try:
        _encode_and_verify(encoder, _clip_profile(profile), clip, stop)
    except Interruption:
        raise
    except HevcqError as error:
        lines = error.tail[:1] if isinstance(error, EncoderFailed) else ()
        why = " ".join((error.message, *lines)).replace(str(clip), "the test clip")
        raise WorkerUnfit(
            f"ffmpeg cannot make the profile {profile.name} on this machine: {why}",
            remedy=OTHER_BUILD,
        ) from error


def _clip_profile(profile: Profile) -> Profile:
    """Return the profile so that it encodes the clip: with any saving, of any codec, at most as large as BOX."""
    gates = profile.gates.model_copy(update={"minimum_saving": None})
    box = dict(zip(("max_width", "max_height"), BOX, strict=True)) if profile.video.scales else {}
    video = profile.video.model_copy(update={"skip_codecs": (), **box})
    return profile.model_copy(update={"gates": gates, "video": video})


def _encode_and_verify(
    encoder: Encoder, profile: Profile, clip: Path, stop: threading.Event
) -> None:
    info, looked = encoder.look(str(clip), stop=stop)
    decision = make_plan(profile, info)
    if not isinstance(decision, EncodePlan):
        get_logger(profile=profile.name).info("self_test_left_out", reason=decision.detail)
        return
    measured = encoder.preflight(str(clip), info, profile, stop=stop, looked=looked)
    info, plan = revise_plan(make_plan, profile, (info, decision), measured)
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
    report = encoder.encode(request, on_progress=lambda _progress: None, stop=stop)
    to_verify = request.to_verify(report)
    gates = encoder.verify(to_verify, on_progress=lambda _progress: None, stop=stop)
    unchanged = GateResult(gate=Gate.G0, outcome=Outcome.PASSED)
    require_passed([unchanged, *gates], of_set=bool(report.files))


def write_test_clip(tools: FfmpegTools, target: Path) -> None:
    """Write one second of moving test picture and sound; raise WorkerUnfit if ffmpeg cannot.

    Every build has its encoders; any recipe can save bytes at its quality; it is larger than BOX.
    """
    picture = "testsrc2=size=640x360:rate=12:duration=1"
    command = [tools.ffmpeg, "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", picture]
    command += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=1"]
    command += ["-c:v", "mpeg4", "-qscale:v", "2", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    command += ["-f", "mp4", str(target)]
    target.touch()  # the sandbox lets ffmpeg overwrite files, not create them
    limits = ChildLimits(access=access_to(tools, writes=(target,)))
    try:
        done = run_child(command, stop=threading.Event(), limits=limits, deadline_s=SELF_TEST_S)
    except (EncoderFailed, LimitExceeded) as error:
        raise _unfit("ffmpeg cannot make a test clip", str(error)) from error
    if done.returncode != 0:
        why = done.stderr[-1] if done.stderr else done.ending
        raise _unfit("ffmpeg cannot make a test clip", why)
