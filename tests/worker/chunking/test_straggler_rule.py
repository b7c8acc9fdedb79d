"""When a chunk is given to another worker: only if this one is far slower than all the others."""

import pytest

from hevcq.worker.chunking.straggler import LEAST_DONE, is_straggler

EVEN = [(0.1, 60.0)] * LEAST_DONE


@pytest.mark.parametrize(
    ("share", "elapsed", "expected"),
    [
        (0.05, 15.0, True),  # five times as long as the others
        (0.0, 100.0, True),  # nothing at all in a time that others were done in
        (0.0, 20.0, False),  # nothing yet: a slow preset looks far ahead before its first frame
        (0.1, 15.0, False),  # two and a half times: a hard scene
        (0.9, 270.0, False),  # five times as long, but nearly done
        (0.5, 30.0, False),
    ],
)
def test_a_chunk_trails_if_others_would_be_done_long_before(share, elapsed, expected):
    assert is_straggler(0.1, share, elapsed, EVEN) is expected


def test_a_chunk_of_more_work_may_take_longer():
    assert not is_straggler(0.5, 0.05, 15.0, EVEN)


def test_too_few_others_say_nothing():
    assert not is_straggler(0.1, 0.01, 60.0, EVEN[1:])
    assert not is_straggler(0.1, 0.01, 60.0, [(0.1, 0.0)] * 9)
    assert not is_straggler(0.0, 0.01, 60.0, EVEN)


def test_one_other_that_was_slow_too_does_not_hide_it():
    assert is_straggler(0.1, 0.05, 15.0, [*EVEN, (0.1, 300.0)])
