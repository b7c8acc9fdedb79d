"""A pool of slots: the written order of stopping, and slots that die are noticed."""

import os
import signal
import threading
from unittest.mock import Mock

import pytest

from hevcq.domain.job import JobState
from hevcq.errors import WorkerUnfit
from hevcq.util.signals import StopSignals
from hevcq.worker.slot import SlotOutcome
from worker.pools import drive, pool_of, started


def test_a_stop_lets_the_running_job_end_within_its_grace_and_receives_nothing_new(farm):
    first = farm.submit("a.mp4")
    pool, encode = started(farm)
    second = farm.submit("b.mp4")

    pool.ask_to_stop()
    drive(farm, 5)
    encode.finish.set()
    pool._threads[0].join(20)
    drive(farm, 10)

    assert pool.finish() is SlotOutcome.STOPPED
    assert (farm.state(first), farm.state(second)) == (JobState.DONE, JobState.QUEUED)
    assert farm.record(second).fence == 0
    assert list((farm.folder / "scratch").iterdir()) == []


def test_when_the_grace_is_over_the_work_goes_back_at_once_and_uncounted(farm):
    source = farm.submit()
    pool, _encode = started(farm, grace_s=20)

    pool.ask_to_stop()
    drive(farm, 19)
    assert farm.queue.depth().ready == 0
    drive(farm, 20)

    assert pool.finish() is SlotOutcome.STOPPED
    record = farm.record(source)
    assert (record.state, record.failures, record.crashes) == (JobState.QUEUED, 0, 0)
    assert farm.queue.depth().ready == 1
    assert farm.queue.settled == [("release", "m1")]


def test_an_encoder_that_cannot_run_takes_the_pool_out_before_anything_is_taken(farm):
    farm.encoder.errors["version"] = [WorkerUnfit("There is no ffmpeg.")]
    source = farm.submit()
    pool = farm.pool = pool_of(farm)

    assert pool.run(StopSignals()) is SlotOutcome.UNFIT
    assert isinstance(pool.error, WorkerUnfit)
    assert farm.record(source).fence == 0


def test_one_unfit_slot_stops_the_whole_pool_and_says_why(farm):
    farm.encoder.errors["encode"] = [WorkerUnfit("no libx265")] * 4
    farm.submit()
    pool = farm.pool = pool_of(farm, slots=3)
    pool.start()
    drive(farm, 60)

    assert pool.finish() is SlotOutcome.UNFIT
    assert isinstance(pool.error, WorkerUnfit)
    assert farm.queue.depth().ready == 1


def test_a_slot_that_dies_is_noticed_and_the_others_go_on(farm):
    pool = farm.pool = pool_of(farm, slots=2)
    broken = pool.workers[0]

    broken.step = Mock(side_effect=ZeroDivisionError("a defect"))
    pool.start()
    pause = threading.Event()
    for _ in range(2000):
        pool.step()
        if pool.state().alive == 1 and pool.error is not None:
            break
        pause.wait(0.001)

    assert isinstance(pool.error, ZeroDivisionError)
    assert not pool.stopped
    pool.ask_to_stop()
    drive(farm, 30)
    assert pool.finish() is SlotOutcome.BROKEN


def test_a_slot_that_hangs_does_not_keep_the_process_for_ever(farm):
    farm.submit()
    farm.pool = pool_of(farm, grace_s=5)
    leave = threading.Event()
    entered = threading.Event()

    def hang():
        entered.set()
        leave.wait(20)

    farm.encoder.during["encode"] = hang
    farm.pool.start()
    assert entered.wait(10)
    farm.pool.ask_to_stop()
    drive(farm, 60)

    assert farm.pool.stopped
    assert farm.pool.finish() is SlotOutcome.BROKEN
    leave.set()
    farm.pool._threads[0].join(10)


def test_signals_only_set_flags_and_the_second_insists():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        assert not signals.asked.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert signals.asked.wait(10)
        assert not signals.insisted.is_set()
        signal.raise_signal(signal.SIGINT)
        assert signals.insisted.wait(10)
        assert signals.received == signal.SIGINT
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_asks_for_a_stop_unless_nohup_ignores_it(ignored):
    given = signal.SIG_IGN if ignored else lambda _number, _frame: None
    before = signal.signal(signal.SIGHUP, given)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
            assert signals.asked.wait(10)
            assert signals.insisted.wait(0 if ignored else 10) is not ignored
        assert signal.getsignal(signal.SIGHUP) is given
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_comes_while_the_flags_own_lock_is_held_does_not_hang_the_process():
    with StopSignals() as signals, signals.asked._cond:
        signal.raise_signal(signal.SIGTERM)
    assert signals.asked.wait(10)


def test_after_a_hangup_nothing_is_written_to_the_terminal(tmp_path):
    terminal = os.open(tmp_path / "terminal", os.O_CREAT | os.O_WRONLY)
    try:
        with StopSignals() as signals:
            signals._terminals = [terminal]
            signals._handle(signal.SIGHUP, None)
            assert signals.asked.wait(30)
        os.write(terminal, b"said to nobody")
    finally:
        os.close(terminal)

    assert signals.received == signal.SIGHUP
    assert (tmp_path / "terminal").read_bytes() == b""


def test_a_hangup_asks_for_a_reload_where_that_is_wanted_and_the_terminal_is_there(tmp_path):
    reload = threading.Event()
    with StopSignals(reload) as signals:
        signal.raise_signal(signal.SIGHUP)
        assert reload.wait(10)
        assert not signals.asked.is_set()
        signals._terminals = [os.open(tmp_path, os.O_RDONLY)]  # no terminal any more
        signal.raise_signal(signal.SIGHUP)
        assert signals.asked.wait(10)
