"""How long whoever asks a queue leaves it alone after an error of its service."""

from __future__ import annotations

import threading

from hevcq.domain.verdict import Limits, backoff
from hevcq.util.log import get_logger
from hevcq.worker.kit import Kit

POLLS = Limits(backoff_base_s=1.0, backoff_cap_s=30.0)
"""After errors of the services a poll waits 1 s, doubling up to 30 s, jittered by half."""


def sit_out(kit: Kit, stop: threading.Event, error: Exception, errors: int, **names: str) -> None:
    """Log that a poll failed, after so many that failed before it, and wait; `stop` ends the wait."""
    seconds = backoff(errors, POLLS, kit.random())
    log = get_logger(**names)
    log.warning("poll_failed", reason=str(error), again_s=round(seconds, 1))
    kit.clock.wait(stop, seconds)
