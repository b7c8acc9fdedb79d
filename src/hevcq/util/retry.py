"""When a failed call is made again: one policy for every retry and every back-off.

Each call has one layer of retries. A worker repeats its control calls (queue, ledger, and the
store's small requests) by `CONTROL_CALL`, so its AWS clients send each request once; the clients
of a command and those of bulk transfers repeat by botocore and have nothing above them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from hevcq.util.clock import Clock

Result = TypeVar("Result")

MAX_DOUBLINGS = 32
"""A wait grows no further after so many failures: 2**1024 is no float any more."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a call is attempted and how long to wait between two attempts.

    The first wait is `base_s` seconds, each next one twice as long up to `cap_s`, and each is
    shortened by a random share of up to `jitter` (0 to 1). `attempts` counts the first call too.
    """

    base_s: float
    cap_s: float
    attempts: int = 1
    jitter: float = 0.5

    def wait_s(self, failures: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait after `failures` (from 0) earlier failures.

        `random` returns numbers in [0, 1).
        """
        whole = min(self.cap_s, self.base_s * 2.0 ** min(failures, MAX_DOUBLINGS))
        return whole * (1.0 - self.jitter + self.jitter * random())

    def longest_s(self, attempt_s: float) -> float:
        """Return the longest time of a call in seconds if one attempt takes `attempt_s` at most."""
        waits = (self.wait_s(failures, lambda: 1.0) for failures in range(self.attempts - 1))
        return self.attempts * attempt_s + sum(waits)


CONTROL_CALL = RetryPolicy(attempts=3, base_s=0.5, cap_s=5.0)
"""For one request to the queue, the ledger or the store: short, because the lease runs meanwhile."""
POLL_FAILED = RetryPolicy(base_s=1.0, cap_s=30.0)
"""For whoever polls a queue, after each error of its service: without an end, hence no attempts."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a wait needs: the clock, the source of jitter, and the event that ends the wait."""

    clock: Clock
    random: Callable[[], float]
    stop: threading.Event


def retry_control_call(
    call: Callable[[], Result],
    waiting: Waiting,
    *,
    retryable: Callable[[BaseException], bool],
    on_retry: Callable[[BaseException, int], None] = lambda _error, _attempt: None,
    policy: RetryPolicy = CONTROL_CALL,
) -> Result:
    """Return what `call` returns; make it again while it raises what is `retryable`.

    Only for calls that are harmless to repeat. Once `waiting.stop` is set the wait under way ends
    and at most one attempt follows. `on_retry` is given the error and the number of the attempt
    (from 1) that raised it.

    Raises: what the last attempt raised, and at once what is not retryable.
    """
    # Not at the top: it takes some 50 ms, and a command that makes no control call does without.
    import tenacity

    def noted(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if error is not None:
            on_retry(error, state.attempt_number)

    def pause_s(state: tenacity.RetryCallState) -> float:
        # tenacity asks for a wait before it finds that no attempt is left.
        last = state.attempt_number >= policy.attempts
        return 0.0 if last else policy.wait_s(state.attempt_number - 1, waiting.random)

    def pause(seconds: float) -> None:
        waiting.clock.wait(waiting.stop, seconds)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(retryable),
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(policy.attempts),
            tenacity.stop_when_event_set(waiting.stop),
        ),
        wait=pause_s,
        sleep=pause,
        before_sleep=noted,
        reraise=True,
    )
    return retrying(call)
