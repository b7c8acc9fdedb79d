"""The statistics get the ends of jobs from every backend: by their events, or from the ledger."""

import pytest

from contracts.backends import World, source
from hevcq.domain.job import RenditionRef
from hevcq.domain.verdict import FailureClass
from hevcq.sql.event_log import EventLog
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.history.report import LedgerGather

MADE = RenditionRef(key="DONE/hevc/a", size=40, sha256="a" * 64, certificate_key="c")


def test_each_end_of_a_job_is_found_in_the_ledger_once(
    world: World, request: pytest.FixtureRequest
) -> None:
    ledger = world.ledger
    database = SqliteDatabase(world.folder / "history.db")
    request.addfinalizer(database.close)
    log = EventLog(database, world.clock)
    gather = LedgerGather(log, ledger, world.clock)
    for name in "abc":
        ledger.register(source(name), ["hevc"])
    granted = ledger.claim(source("a"), "hevc", owner="w", lease_s=60)
    ledger.complete(
        ledger.register(source("a"), ["hevc"])[0].job_id, granted.fence, MADE, cpu_s=2.5
    )
    granted = ledger.claim(source("b"), "hevc", owner="w", lease_s=60)
    job = ledger.register(source("b"), ["hevc"])[0].job_id
    ledger.bury(job, granted.fence, "damaged", FailureClass.DAMAGED)

    assert gather.step() == 2
    world.advance(120)
    assert gather.step() == 0

    found = {event.name: event for event in log.after(0, 10)}
    assert set(found) == {"job.done", "job.failed"}
    done = found["job.done"]
    assert (done.before, done.after, done.cpu_s) == (source("a").size, 40, 2.5)
    assert found["job.failed"].failure_class == "damaged"
