"""The machine's clock as the rest of the farm is handed it."""

import threading

from hevcq.util.clock import SystemClock


def test_intervals_never_run_backwards_and_wall_time_is_of_this_century():
    clock = SystemClock()
    first = clock.monotonic()

    assert clock.monotonic() >= first
    assert clock.now() > 1_700_000_000


def test_a_wait_says_whether_the_event_was_set():
    event = threading.Event()

    assert SystemClock().wait(event, -1.0) is False
    event.set()
    assert SystemClock().wait(event, 60.0) is True


def test_a_wait_on_a_condition_says_when_its_time_ran_out():
    condition = threading.Condition()

    with condition:
        assert SystemClock().wait_on(condition, -1.0) is False
