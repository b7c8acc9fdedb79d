"""What runs beside the work may break or hang, and neither stops it nor is stopped by it."""

import threading

import pytest

from hevcq.errors import DiskFull, Unavailable
from hevcq.worker.monitoring.watchers import AFTER_DEFECT_S, Background, PoolState, periodic
from support.clips import ManualClock


@pytest.mark.parametrize(
    ("error", "traceback"),
    [(KeyError("a defect"), True), (Unavailable("away"), False), (DiskFull("full"), False)],
)
def test_a_step_that_breaks_is_reported_and_tried_again_a_minute_later(capsys, error, traceback):
    clock, seen, done = ManualClock(), [], threading.Event()

    def step() -> float:
        seen.append(clock.monotonic())
        if len(seen) == 1:
            raise error
        done.set()
        return 3_600.0

    beside = Background("tidy", step, clock)
    beside.wake()
    clock.until_waiting()
    clock.advance(AFTER_DEFECT_S - 1)
    clock.until_waiting()
    assert len(seen) == 1
    clock.advance(1)

    assert done.wait(30)
    assert seen[1] - seen[0] == AFTER_DEFECT_S
    beside.close()
    told = capsys.readouterr()
    assert "background_failed" in told.out + told.err
    assert ("Traceback" in told.out + told.err) is traceback, "a service that is away is no defect"


def test_what_was_never_woken_ends_at_once():
    Background("tidy", lambda: 1.0, ManualClock()).close()


HEALTH = PoolState(slots=1, alive=1, handled=0, oldest_poll_s=0)


def test_a_periodic_thing_begins_once_however_often_the_pool_looks():
    clock, done, again = ManualClock(), [], threading.Event()

    def step() -> None:
        done.append(clock.now())
        if len(done) == 2:
            again.set()

    tidy = periodic("tidy", step, clock, every_s=60)
    for _ in range(3):
        tidy.observe(HEALTH)
    clock.until_waiting()
    clock.advance(59)
    assert len(done) == 1
    clock.advance(1)
    assert again.wait(30)
    tidy.close()

    assert len(done) == 2, "not once more at the end"
    assert done[1] - done[0] == 60
