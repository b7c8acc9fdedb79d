"""The simulation's short form: worlds by seed, replayed byte for byte, and broken code is noticed."""

import math

import pytest

from chaos.sim.backends import SqlSide
from chaos.sim.campaign import EMBEDDED_EVERY, Batch, embedded_side, live, work
from chaos.sim.doors import QueueDoor
from hevcq.domain.verdict import Abandon, FailureClass, Release, RetryIn
from hevcq.util.clock import SystemClock
from support.postgres import database

SHORT = Batch(first=1, worlds=65, until=math.inf)
FIRST, SEEDS = 1, 60
"""How many seeds a planted defect may take until it is noticed."""


def test_no_seed_breaks_an_invariant():
    stats = work(SHORT)

    print(f"{stats.lives} job lives, {stats.seconds / 3600:.0f} simulated hours")
    assert stats.lives >= 100
    assert stats.ends["done"] > stats.ends["dead"] > 0
    assert stats.faults["killed"] > 0
    assert len(stats.points) >= 70, "too few of the crash points were come to"


@pytest.mark.parametrize("seed", [3, 8])
def test_a_seed_replays_byte_for_byte(seed):
    with embedded_side() as side:
        first, second = live(seed, side).sched, live(seed, side).sched

    assert first.steps > 500
    assert (first.trace_hash, first.steps) == (second.trace_hash, second.steps)


@pytest.mark.parametrize("seed", [2 * EMBEDDED_EVERY])
def test_no_seed_breaks_an_invariant_on_postgresql(seed):
    side = SqlSide(database(SystemClock()))
    try:
        assert live(seed, side).stats.lives > 0
    finally:
        side.close()


def _broken(names: str) -> str:
    """Run seeds until one breaks; return what it said."""
    with embedded_side() as side:
        for seed in range(FIRST, FIRST + SEEDS):
            try:
                live(seed, side)
            except AssertionError as error:
                return str(error)
    raise AssertionError(f"{SEEDS} worlds did not notice: {names}")


def test_an_ack_before_the_end_is_noticed(monkeypatch):
    monkeypatch.setattr(QueueDoor, "release", lambda self, delivery, **_: self.ack(delivery))
    monkeypatch.setattr(QueueDoor, "bury", lambda self, delivery, _why: self.ack(delivery))

    assert "the job is lost" in _broken("ack whatever the verdict")


def test_a_settling_with_the_heartbeat_alive_is_noticed(monkeypatch):
    from hevcq.worker.delivery.lease import Heartbeat

    monkeypatch.setattr(Heartbeat, "join", lambda self: None)

    assert "heartbeat was joined" in _broken("heartbeat not joined")


def test_a_publication_without_a_live_lease_is_noticed(monkeypatch):
    from hevcq.worker.delivery.lease import Lease

    monkeypatch.setattr(Lease, "check", lambda self: None)
    monkeypatch.setattr(Lease, "beat", lambda self, now: 1000.0)
    monkeypatch.setattr(Lease, "lost", property(lambda self: False))

    said = _broken("lease neither kept nor asked")
    assert "a publication under fence" in said or "a crash of" in said


def test_an_interruption_that_is_counted_is_noticed(monkeypatch):
    from hevcq.worker.delivery.claim import LedgerTransitions

    record = LedgerTransitions.record

    def counted(self, verdict):
        if isinstance(verdict, Release | Abandon):
            failed = FailureClass.ENCODER
            verdict = RetryIn(reason=verdict.reason, seconds=1.0, failure_class=failed)
        record(self, verdict)

    monkeypatch.setattr(LedgerTransitions, "record", counted)

    assert "happened" in _broken("interruptions counted as failures")
