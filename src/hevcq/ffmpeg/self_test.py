"""Whether this machine can work at all: pictures made by ffmpeg itself, looked at and encoded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hevcq.domain.profile import Profile
from hevcq.errors import (
    EncoderFailed,
    LimitExceeded,
    SourceDamaged,
    SourceGone,
    SourceUnreadable,
    WorkerUnfit,
)
from hevcq.ffmpeg.command.codecs import CODECS
from hevcq.ffmpeg.doctor import INSTALL
from hevcq.ffmpeg.inputs import PROBE_LIMITS, FfmpegTools
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import ChildLimits

SELF_TEST_S = 120.0
"""How long ten small pictures may take: they need well under a second, so a machine that cannot
make them in this is no worker, whatever else runs on it."""
TEST_CLIP = "testsrc2=size=320x180:rate=25:duration=0.4"

TEST_PICTURE = ("-v", "error", "-f", "lavfi", "-i", "color=size=16x16:duration=0.04")


@contextmanager
def self_testing(tools: FfmpegTools, stop: threading.Event) -> Iterator[None]:
    """Let no video be found wanting by programs that are: see `require_working_tools`."""
    try:
        yield
    except (SourceGone, SourceUnreadable, SourceDamaged):
        require_working_tools(tools, stop)
        raise


def require_working_tools(tools: FfmpegTools, stop: threading.Event) -> None:
    """Raise WorkerUnfit unless both programs can look at one picture of ffmpeg's own.

    Asked before a video is refused, or a rendition: a program whose libraries are gone says no to
    every one. Costs a tenth of a second, where something is wrong already.
    """
    looks = [tools.ffprobe, *TEST_PICTURE, "-show_entries", "stream=codec_name"]
    decodes = [tools.ffmpeg, "-nostdin", *TEST_PICTURE, "-f", "md5", "-"]
    for command, answer in ((looks, b"codec_name="), (decodes, b"MD5=")):
        try:
            ended = run_child(command, stop=stop, limits=PROBE_LIMITS, deadline_s=SELF_TEST_S)
        except LimitExceeded as error:
            raise _broken_tool(command[0], str(error)) from error
        if ended.returncode != 0 or answer not in ended.stdout:
            said = ended.stderr[-1] if ended.stderr else f"exit code {ended.returncode}"
            raise _broken_tool(command[0], said)


def _broken_tool(program: str, why: str) -> WorkerUnfit:
    return WorkerUnfit(
        f"{program} works on no video here: {why}.", remedy=f"See `hevcq doctor`. {INSTALL}"
    )


def encode_self_test(
    tools: FfmpegTools, encoder: str, profile: Profile, stop: threading.Event
) -> None:
    """Encode ten pictures with the profile's bounds; raise WorkerUnfit unless that works."""
    base = CODECS[encoder].base
    params = [CODECS[encoder].option, ":".join(f"{k}={v}" for k, v in base.items())] if base else []
    command = [tools.ffmpeg, "-nostdin", "-v", "error", "-f", "lavfi", "-i", TEST_CLIP]
    command += ["-c:v", encoder, *params, "-f", "null", "-"]
    limits = ChildLimits(nice=profile.bounds.nice, memory_mib=profile.bounds.memory_mib)
    try:
        ended = run_child(command, stop=stop, limits=limits, deadline_s=SELF_TEST_S)
    except (EncoderFailed, LimitExceeded) as error:
        raise _encode_failure(str(error)) from error
    if ended.returncode != 0:
        raise _encode_failure(ended.stderr[-1] if ended.stderr else f"exit code {ended.returncode}")


def _encode_failure(why: str) -> WorkerUnfit:
    return WorkerUnfit(
        f"After a failed job ten test pictures could not be encoded here either: {why}",
        remedy=f"See `hevcq doctor`. {INSTALL}",
    )
