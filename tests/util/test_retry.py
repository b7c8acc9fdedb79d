"""Waits that grow, and the clock that they are measured by."""

import pytest

from hevcq.util.retry import CONTROL_CALL, POLL_FAILED, retry_control_call
from support.clips import ManualClock


class Refused(Exception):
    """What is worth another attempt."""


class Calls:
    """A call that fails a number of times; `at` lists when it was made, in seconds."""

    def __init__(self, failures: int, error: type[Exception] = Refused) -> None:
        self.clock = ManualClock(auto=True)
        self.at: list[float] = []
        self.noted: list[int] = []
        self._failures, self._error = failures, error
        self._began = self.clock.monotonic()

    def __call__(self) -> str:
        self.at.append(self.clock.monotonic() - self._began)
        if len(self.at) <= self._failures:
            raise self._error(f"failure {len(self.at)}")
        return "answer"

    def retried(self, random: float = 1.0) -> str:
        return retry_control_call(
            self,
            self.clock,
            lambda: random,
            retryable=(Refused,),
            on_retry=lambda _error, attempt: self.noted.append(attempt),
        )


@pytest.mark.parametrize(
    ("failures", "random", "at"),
    [
        (0, 1.0, [0.0]),
        (1, 1.0, [0.0, 0.5]),
        (2, 1.0, [0.0, 0.5, 1.5]),
        (2, 0.0, [0.0, 0.25, 0.75]),
    ],
)
def test_each_wait_is_twice_the_one_before_and_jittered_by_half(failures, random, at):
    calls = Calls(failures)

    assert calls.retried(random=random) == "answer"

    assert calls.at == pytest.approx(at)
    assert calls.noted == list(range(1, failures + 1))


def test_the_error_of_the_last_attempt_is_raised():
    calls = Calls(9)

    with pytest.raises(Refused, match="failure 3"):
        calls.retried()

    assert len(calls.at) == CONTROL_CALL.attempts == 3


@pytest.mark.parametrize(
    ("failures", "most_s"), [(0, 1), (1, 2), (4, 16), (5, 30), (6, 30), (10**9, 30)]
)
def test_a_failing_poll_waits_up_to_half_a_minute(failures, most_s):
    assert POLL_FAILED.wait_s(failures, lambda: 1.0) == most_s
    assert POLL_FAILED.wait_s(failures, lambda: 0.0) == most_s / 2
