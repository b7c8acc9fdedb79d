"""Retry failed calls: one policy for every retry and every back-off.

Each call has one layer of retries. A worker retries its control calls (queue, ledger and small
requests to the store) with `CONTROL_CALL`, so its AWS clients send each request once. The clients
of commands and of bulk transfers rely on the retries of botocore alone. PostgreSQL is the exception:
below such a retry, the database itself tries for some seconds to connect again.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from hevcq.util.clock import Clock

Result = TypeVar("Result")

MAX_DOUBLINGS = 32
"""Failures after which a wait stops doubling: 2**1024 overflows a float."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The number of attempts of a call and the waits between them.

    The first wait is `base_s` seconds; each later one doubles, up to `cap_s` seconds. Each is
    reduced by a random fraction of up to `jitter` (0 to 1). `attempts` includes the first call.
    """

    base_s: float
    cap_s: float
    attempts: int = 1
    jitter: float = 0.5

    def wait_s(self, failures: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait after `failures` earlier failures (0 before the first wait).

        `random` returns numbers in [0, 1).
        """
        whole = min(self.cap_s, self.base_s * 2.0 ** min(failures, MAX_DOUBLINGS))
        return whole * (1.0 - self.jitter + self.jitter * random())


CONTROL_CALL = RetryPolicy(attempts=3, base_s=0.5, cap_s=5.0)
"""For one request to the queue, ledger or store: short, because the lease is running out."""
POLL_FAILED = RetryPolicy(base_s=1.0, cap_s=30.0)
"""For polling a queue after errors of its service: retried forever, so `attempts` is not used."""


def retry_control_call(
    call: Callable[[], Result],
    clock: Clock,
    random: Callable[[], float],
    *,
    retryable: tuple[type[Exception], ...],
    on_retry: Callable[[Exception, int], None] = lambda _error, _attempt: None,
    policy: RetryPolicy = CONTROL_CALL,
) -> Result:
    """Call `call` and return its result; call it again while it raises a `retryable` error.

    Only for calls that are harmless to repeat. `on_retry` receives the error and the number of the
    attempt (from 1) that raised it. Raises the error of the last attempt, or at once an error that is
    not retryable.
    """
    # Imported here: it takes some 50 ms, and many commands make no control call.
    import tenacity

    def report_error(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, Exception):
            on_retry(error, state.attempt_number)

    def pause(seconds: float) -> None:
        clock.wait(threading.Event(), seconds)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(retryable),
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=lambda state: policy.wait_s(state.attempt_number - 1, random),
        sleep=pause,
        before_sleep=report_error,
        reraise=True,
    )
    return retrying(call)
