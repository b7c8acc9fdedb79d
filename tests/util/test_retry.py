"""When a failed call is made again, how long is waited between, and what ends it."""

import threading

import pytest

from hevcq.util.retry import CONTROL_CALL, POLL_FAILED, RetryPolicy, Waiting, retry_control_call
from support.clips import ManualClock


class Refused(Exception):
    """What is worth another attempt."""


class Calls:
    """A call that fails a number of times; `at` lists when it was made, in seconds."""

    def __init__(self, failures: int, error: type[Exception] = Refused) -> None:
        self.clock = ManualClock(auto=True)
        self.stop = threading.Event()
        self.at: list[float] = []
        self.noted: list[int] = []
        self._failures, self._error = failures, error
        self._began = self.clock.monotonic()

    def __call__(self) -> str:
        self.at.append(self.clock.monotonic() - self._began)
        if len(self.at) <= self._failures:
            raise self._error(f"failure {len(self.at)}")
        return "answer"

    def retried(self, policy: RetryPolicy = CONTROL_CALL, random: float = 1.0) -> str:
        return retry_control_call(
            self,
            Waiting(self.clock, lambda: random, self.stop),
            retryable=lambda error: isinstance(error, Refused),
            on_retry=lambda _error, attempt: self.noted.append(attempt),
            policy=policy,
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
def test_each_wait_is_twice_the_one_before_and_jittered_by_half(failures, random, at) -> None:
    calls = Calls(failures)

    assert calls.retried(random=random) == "answer"

    assert calls.at == pytest.approx(at)
    assert calls.noted == list(range(1, failures + 1))


def test_the_last_attempt_s_error_is_raised() -> None:
    calls = Calls(9)

    with pytest.raises(Refused, match="failure 3"):
        calls.retried()

    assert len(calls.at) == CONTROL_CALL.attempts == 3


def test_what_is_not_retryable_is_raised_at_once() -> None:
    calls = Calls(1, ValueError)

    with pytest.raises(ValueError, match="failure 1"):
        calls.retried()

    assert (calls.at, calls.noted) == ([0.0], [])


def test_after_a_stop_nothing_is_repeated() -> None:
    calls = Calls(9)
    calls.stop.set()

    with pytest.raises(Refused, match="failure 1"):
        calls.retried()


def test_a_stop_ends_the_wait_under_way_and_one_attempt_follows() -> None:
    calls = Calls(9)
    calls.clock.auto = False
    raised: list[BaseException] = []

    def run() -> None:
        try:
            calls.retried(RetryPolicy(attempts=5, base_s=3600, cap_s=3600))
        except Refused as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not calls.clock.waiting:
        pass
    calls.stop.set()
    thread.join(60)

    assert not thread.is_alive()
    assert calls.at == [0.0, 0.0]
    assert [str(error) for error in raised] == ["failure 2"]


@pytest.mark.parametrize(
    ("failures", "most_s"), [(0, 1), (1, 2), (4, 16), (5, 30), (6, 30), (10**9, 30)]
)
def test_a_failing_poll_waits_up_to_half_a_minute(failures, most_s) -> None:
    assert POLL_FAILED.wait_s(failures, lambda: 1.0) == most_s
    assert POLL_FAILED.wait_s(failures, lambda: 0.0) == most_s / 2


@pytest.mark.parametrize(("policy", "attempt_s"), [(CONTROL_CALL, 9.0), (CONTROL_CALL, 0.0)])
def test_no_call_takes_longer_than_its_bound(policy, attempt_s) -> None:
    calls = Calls(9)
    real = calls.__call__

    def slow() -> str:
        calls.clock.advance(attempt_s)
        return real()

    began = calls.clock.monotonic()
    with pytest.raises(Refused):
        retry_control_call(
            slow,
            Waiting(calls.clock, lambda: 1.0, calls.stop),
            retryable=lambda _error: True,
            policy=policy,
        )

    assert calls.clock.monotonic() - began == pytest.approx(policy.longest_s(attempt_s))
