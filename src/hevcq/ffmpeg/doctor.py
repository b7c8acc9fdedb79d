"""Check the ffmpeg programs for `hevcq doctor`, with a remedy for each failed check."""

from __future__ import annotations

import re
from collections.abc import Callable

from hevcq.errors import HevcqError, WorkerUnfit
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.process.sandbox import protections
from hevcq.ports.encoder import Check
from hevcq.util.process import is_closed

OLDEST_VERSION = (5, 1)
"""The oldest supported ffmpeg: the commands use `-fps_mode`, which is new in 5.1."""
ENCODERS = ("libx265", "libx264", "aac", "mov_text", "srt")
FILTERS = ("ssim", "scale", "bwdif")
INSTALL = (
    "Install ffmpeg 5.1 or newer with libx265 and libx264 (Debian: apt-get install ffmpeg), or "
    "set HEVCQ_FFMPEG and HEVCQ_FFPROBE to its path."
)
LET_OUT = (
    "Install it below /usr or /opt, or set sandbox = false (HEVCQ_SANDBOX=false) if it needs more "
    "than its video."
)

RunProgram = Callable[..., str]


def run_checks(tools: FfmpegTools, ask: RunProgram) -> list[Check]:
    """Check each program, encoder and filter that hevcq needs.

    `ask(program, *arguments)` returns the program's output or raises WorkerUnfit.
    """
    found = [_program("ffmpeg", tools.ffmpeg, ask), _program("ffprobe", tools.ffprobe, ask)]
    if not found[0].ok:
        return found
    found.append(sandbox_check(sandboxed=tools.sandboxed))
    found += _listed(tools, ask, "-encoders", ("encoder", ENCODERS))
    return found + _listed(tools, ask, "-filters", ("filter", FILTERS))


def sandbox_check(*, sandboxed: bool) -> Check:
    """Return what ffmpeg is kept from on this system; what the system lacks is said, but not wrong."""
    if not sandboxed:
        detail = "off (setting sandbox): ffmpeg may use all files of this user, and the network"
        return Check(name="sandbox", ok=True, detail=detail)
    kept, open_ = protections()
    detail = f"ffmpeg is kept from {', '.join(kept)}" if kept else "none on this system"
    if open_:
        detail += f"; not from {', '.join(open_)}"
    if not is_closed():
        detail += "; this process is open to others of its user"
    return Check(name="sandbox", ok=True, detail=detail)


def parse_version(line: str) -> tuple[int, int] | None:
    """Return (major, minor) from the first line of `-version`; None for a build without a number."""
    found = re.match(r"\S+ version n?(\d+)\.(\d+)", line)
    return (int(found.group(1)), int(found.group(2))) if found else None


def require_supported_version(line: str) -> None:
    """Raise WorkerUnfit if the first line of `-version` names a version older than OLDEST_VERSION."""
    version = parse_version(line)
    if version is not None and version < OLDEST_VERSION:
        raise WorkerUnfit(f"{line} is too old.", remedy=INSTALL)


def _program(name: str, program: str, ask: RunProgram) -> Check:
    try:
        line = ask(program, "-version").partition("\n")[0].strip()
        require_supported_version(line)
    except HevcqError as error:
        remedy = LET_OUT if error.remedy == LET_OUT else INSTALL
        return Check(name=name, ok=False, detail=error.message, remedy=remedy)
    return Check(name=name, ok=True, detail=line)


def _listed(
    tools: FfmpegTools, ask: RunProgram, option: str, wanted: tuple[str, tuple[str, ...]]
) -> list[Check]:
    kind, names = wanted
    try:
        listed = {
            word for line in ask(tools.ffmpeg, option).splitlines() for word in line.split()[1:2]
        }
    except HevcqError as error:
        return [Check(name=kind, ok=False, detail=error.message, remedy=INSTALL)]
    return [
        Check(name=f"{kind} {name}", ok=True, detail="present")
        if name in listed
        else Check(
            name=f"{kind} {name}", ok=False, detail="missing from this ffmpeg.", remedy=INSTALL
        )
        for name in names
    ]
