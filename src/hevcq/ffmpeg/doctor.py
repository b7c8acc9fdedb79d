"""Check the ffmpeg programs of this machine: their version, and whether they run at all.

`hevcq doctor` asks; so does whoever is about to blame a video. What a profile needs besides, its
self-test shows.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping

from hevcq.errors import HevcqError, LimitExceeded, WorkerUnfit
from hevcq.ffmpeg.inputs import PROBE_LIMITS, FfmpegTools, reading
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.sandbox import protections
from hevcq.util.host import is_closed

OLDEST_VERSION = (5, 1)
"""The oldest supported ffmpeg: the commands use `-fps_mode`, which is new in 5.1."""
INSTALL = (
    "Install ffmpeg 5.1 or newer with libx265 and libx264 (Debian: apt-get install ffmpeg), or "
    "set HEVCQ_FFMPEG and HEVCQ_FFPROBE to its path."
)
LET_OUT = (
    "Install it below /usr or /opt, or set sandbox = false (HEVCQ_SANDBOX=false) if it needs more "
    "than its video."
)

RunProgram = Callable[..., str]


def checks(tools: FfmpegTools, ask: RunProgram) -> Mapping[str, Callable[[], str]]:
    """Return the checks of each program; what a profile needs of them, its self-test shows.

    `ask(program, *arguments)` returns the program's output or raises WorkerUnfit. Of a program that
    does not start one check alone says so.
    """
    return {
        "ffmpeg": lambda: _program(tools.ffmpeg, ask),
        "ffprobe": lambda: _program(tools.ffprobe, ask),
        "sandbox": lambda: sandbox_words(sandboxed=tools.sandboxed),
        "hardware": lambda: _hardware(tools, ask),
    }


def sandbox_words(*, sandboxed: bool) -> str:
    """Return what ffmpeg is kept from on this system; what the system lacks is reported, but is no fault."""
    if not sandboxed:
        return "off (setting sandbox): ffmpeg may use all files of this user, and the network"
    kept, open_ = protections()
    words = f"ffmpeg is kept from {', '.join(kept)}" if kept else "none on this system"
    if open_:
        words += f"; not from {', '.join(open_)}"
    if not is_closed():
        words += "; this process is open to others of its user"
    return words


def parse_version(line: str) -> tuple[int, int] | None:
    """Return (major, minor) from the first line of `-version`; None for a build without a number."""
    found = re.match(r"\S+ version n?(\d+)\.(\d+)", line)
    return (int(found.group(1)), int(found.group(2))) if found else None


def require_supported_version(line: str) -> None:
    """Raise WorkerUnfit if the first line of `-version` names a version older than OLDEST_VERSION."""
    version = parse_version(line)
    if version is not None and version < OLDEST_VERSION:
        raise WorkerUnfit(f"{line} is too old.", remedy=INSTALL)


def _program(program: str, ask: RunProgram) -> str:
    """Return the first line of `-version`. Raises WorkerUnfit."""
    try:
        line = ask(program, "-version").partition("\n")[0].strip()
    except HevcqError as error:
        remedy = LET_OUT if error.remedy == LET_OUT else INSTALL
        raise WorkerUnfit(error.message, remedy=remedy) from error
    require_supported_version(line)
    return line


def _hardware(tools: FfmpegTools, ask: RunProgram) -> str:
    """Return which hardware encoders work; "" if ffmpeg does not start, which its own check says."""
    from hevcq.ffmpeg.hardware import hardware_words

    try:
        lines = ask(tools.ffmpeg, "-encoders").splitlines()
    except HevcqError:
        return ""
    return hardware_words(tools, {word for line in lines for word in line.split()[1:2]})


SELF_TEST_S = 120.0
"""Time limit of a test in seconds. A test clip needs one to three seconds, so a machine that exceeds
this cannot be a worker, whatever else runs on it."""
TEST_PICTURE = ("-v", "error", "-f", "lavfi", "-i", "color=size=16x16:duration=0.04")


def require_working_tools(tools: FfmpegTools, stop: threading.Event) -> None:
    """Raise WorkerUnfit unless ffprobe and ffmpeg can each read one generated picture.

    Run before a source or a rendition is rejected: a program with missing libraries rejects every
    file. Takes about 0.1 s, and only after a failure.
    """
    probes = [tools.ffprobe, *TEST_PICTURE, "-show_entries", "stream=codec_name"]
    decodes = [tools.ffmpeg, "-nostdin", *TEST_PICTURE, "-f", "md5", "-"]
    for command, answer in ((probes, b"codec_name="), (decodes, b"MD5=")):
        try:
            ended = run_child(
                command, stop=stop, limits=reading(PROBE_LIMITS, tools), deadline_s=SELF_TEST_S
            )
        except LimitExceeded as error:
            raise _broken_tool(command[0], str(error)) from error
        if ended.returncode != 0 or answer not in ended.stdout:
            reason = ended.stderr[-1] if ended.stderr else ended.ending
            raise _broken_tool(command[0], reason)


def _broken_tool(program: str, why: str) -> WorkerUnfit:
    return WorkerUnfit(
        f"{program} cannot read a test picture on this machine: {why}.",
        remedy=f"See `hevcq doctor`. {INSTALL}",
    )
