"""Whether this machine can encode at all: some pictures made by ffmpeg itself, through one encoder."""

from __future__ import annotations

import threading

from hevcq.domain.profile import Profile
from hevcq.errors import EncoderFailed, LimitExceeded, WorkerUnfit
from hevcq.ffmpeg.codecs import CODECS
from hevcq.ffmpeg.doctor import INSTALL
from hevcq.ffmpeg.limits import ChildLimits
from hevcq.ffmpeg.process import run_child
from hevcq.ffmpeg.tools import Tools

TRIAL_S = 120.0
"""How long ten small pictures may take: they need well under a second, so a machine that cannot
make them in this is no worker, whatever else runs on it."""
PICTURES = "testsrc2=size=320x180:rate=25:duration=0.4"


def trial(tools: Tools, encoder: str, profile: Profile, stop: threading.Event) -> None:
    """Encode ten pictures with the profile's bounds; raise WorkerUnfit unless that works."""
    base = CODECS[encoder].base
    params = [CODECS[encoder].option, ":".join(f"{k}={v}" for k, v in base.items())] if base else []
    command = [tools.ffmpeg, "-nostdin", "-v", "error", "-f", "lavfi", "-i", PICTURES]
    command += ["-c:v", encoder, *params, "-f", "null", "-"]
    limits = ChildLimits(nice=profile.bounds.nice, memory_mib=profile.bounds.memory_mib)
    try:
        ended = run_child(command, stop=stop, limits=limits, deadline_s=TRIAL_S)
    except (EncoderFailed, LimitExceeded) as error:
        raise _unfit(str(error)) from error
    if ended.returncode != 0:
        raise _unfit(ended.stderr[-1] if ended.stderr else f"exit code {ended.returncode}")


def _unfit(why: str) -> WorkerUnfit:
    return WorkerUnfit(
        f"After a failed job ten test pictures could not be encoded here either: {why}",
        remedy=f"See `hevcq doctor`. {INSTALL}",
    )
