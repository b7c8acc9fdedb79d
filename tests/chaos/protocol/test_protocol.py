"""Every interleaving of the lease protocol's short scopes is sound, and a broken rule is found."""

import re
from dataclasses import replace
from random import Random
from weakref import WeakKeyDictionary

import pytest

from chaos.protocol.automaton import Automaton
from chaos.protocol.farm import Scope
from chaos.protocol.local import THREADS, stepped
from chaos.protocol.ports import RunLedger, RunQueue, RunStore
from chaos.protocol.scopes import EVEN, SHORT, SQLITE_SHORT
from chaos.protocol.search import Violation, search
from chaos.protocol.shared import MemoryShared, SqliteShared
from chaos.protocol.trouble import Spare
from chaos.protocol.values import MAX_RECEIVES
from chaos.sim.campaign import silent
from hevcq.backends.embedded.jobs import tables
from hevcq.backends.embedded.jobs.ledger import SqliteLedger
from hevcq.backends.embedded.jobs.queue import SqliteQueue
from hevcq.domain.verdict import FailureClass
from hevcq.worker.delivery import lease
from hevcq.worker.delivery.lease import Heartbeat, Lease
from support.fakes.ledger import MemoryLedger
from support.fakes.store import MemoryStore

EXPIRY = Scope("an expiry", 1, Spare(expiries=1))
KILL = Scope("a kill", 1, Spare(kills=1))

QUEUED = [f"{shown}{held}:" for shown in ("shown", "hidden") for held in ("", " held")]
KINDS = {f"{job}:{at}" for job in ("queued", "running", "lapsed", "done") for at in QUEUED}
KINDS |= {"done:gone:", "done:gone:done"}
"""The states of job, queue and end (see `Scenes.kind`) that the first scope comes to, all of them."""
REACHED = dict(zip(SHORT, (18, 14, 6, 7, 5, 17, 13), strict=True)) | {SQLITE_SHORT: 11}
"""How many of them each scope comes to at least."""


@pytest.mark.parametrize("scope", SHORT, ids=lambda scope: scope.name)
def test_every_interleaving_ends_well(scope):
    found = search(scope)

    print(found)
    assert found.whole
    assert found.kinds <= KINDS
    assert len(found.kinds) >= REACHED[scope]
    assert found.states > 100
    assert all("done" in end or "encoder" in end for end in found.ends)


def test_every_interleaving_ends_well_over_the_production_sql(tmp_path):
    shared = SqliteShared(tmp_path)
    found = search(SQLITE_SHORT, shared)
    shared.close()

    print(found)
    assert found.whole
    assert found.states > 1_000
    assert len(found.kinds & KINDS) >= REACHED[SQLITE_SHORT]


def differing() -> list[str]:
    """Search a scope; return, of each second way to a node, what goes on otherwise or nothing."""
    automaton, random = Automaton(), Random(1)
    search(KILL, automaton=automaton)
    with silent(), stepped():
        return [automaton.differs(*way, random) for way in automaton.others]


def test_ways_to_one_node_of_the_worker_go_on_alike():
    """What the search takes for the same, it must not be able to tell apart."""
    told = differing()

    assert len(told) >= 100
    assert [said for said in told if said] == []


def test_a_worker_that_keeps_more_than_the_search_takes_it_for_is_noticed(monkeypatch):
    """Every other heartbeat comes a little later, so histories of one mark go on otherwise."""
    beat, beats = Lease.beat, WeakKeyDictionary()

    def later(self, now):
        beats[self] = beats.get(self, 0) + 1
        return beat(self, now) + beats[self] % 2

    monkeypatch.setattr(Lease, "beat", later)

    assert any(differing())


def violated(scope: Scope, shared: MemoryShared | None = None) -> str:
    """Return what the search says of a broken rule, by its first line."""
    with pytest.raises(Violation) as caught:
        search(scope, shared, most=60_000)
    return str(caught.value).splitlines()[0]


def test_a_ledger_that_does_not_ask_for_the_fence_is_found(monkeypatch):
    monkeypatch.setattr(MemoryLedger, "_mine", lambda self, name, *_: self._records[name])

    assert re.search("moved a job under fence|had ended", violated(EXPIRY))


def test_a_ledger_that_grants_what_is_held_is_found(monkeypatch):
    monkeypatch.setattr(MemoryLedger, "_claimed", _granting(MemoryLedger._claimed))

    shown = Scope("shown again", 1, Spare(shown_again=1))
    assert "both workers take this job" in violated(shown)


def _granting(claimed):
    def granting(self, record, owner, lease_s):
        if record.state == "running":
            record = record.model_copy(update={"lease_until": 0.0})
        return claimed(self, record, owner, lease_s)

    return granting


def test_an_acknowledgement_whatever_the_verdict_is_found(monkeypatch):
    monkeypatch.setattr(RunQueue, "release", lambda self, delivery, **_: self.ack(delivery))

    assert "it is lost" in violated(Scope("a failure", 1, Spare(broken=1)))


def test_an_acknowledgement_before_the_ledger_has_the_end_is_found(monkeypatch):
    check = RunStore.check

    def early(self, source):
        self._run.call("ack")
        check(self, source)

    monkeypatch.setattr(RunStore, "check", early)

    assert re.search("lost|heartbeat alive", violated(KILL))


def test_a_settling_beside_the_heartbeat_is_found(monkeypatch):
    monkeypatch.setattr(Heartbeat, "join", lambda self: None)

    assert "with the heartbeat alive" in violated(Scope("nothing", 1, Spare()))


def test_a_lease_without_its_margin_is_found(monkeypatch):
    """The workers' clocks differ by 2 s, and the lease does not give that time away any more."""
    monkeypatch.setattr(lease, "MARGIN_SHARE", 0.0)

    shown = Scope("shown again", 1, Spare(shown_again=1), skews=(0.0, 2.0))
    assert "both workers take this job" in violated(shown)


def test_a_lease_reckoned_from_the_answer_instead_of_the_request_is_found(monkeypatch):
    hold = Lease.hold

    def held(self, fence, *, claimed_at):
        hold(self, fence, claimed_at=THREADS.run.now)

    monkeypatch.setattr(Lease, "hold", held)

    late = Scope("late", 1, Spare(slow=1, shown_again=1))
    assert "both workers take this job" in violated(late)


def test_a_lease_that_is_not_asked_is_found(monkeypatch):
    monkeypatch.setattr(Lease, "lost", property(lambda self: False))
    monkeypatch.setattr(Lease, "cause", property(lambda self: None))
    monkeypatch.setattr(Lease, "check", lambda self: None)

    assert "published under fence" in violated(EXPIRY)


def test_a_store_that_lets_an_older_fence_replace_a_newer_is_found(monkeypatch):
    publish = MemoryStore.publish

    def publishing(self, publication):
        self._objects.pop(publication.key, None)
        return publish(self, publication)

    monkeypatch.setattr(MemoryStore, "publish", publishing)

    assert re.search("fence 1 replaced what fence 2|is done by fence", violated(EXPIRY))


def test_an_interruption_that_is_counted_is_found(monkeypatch):
    def counted(self, job_id, fence, reason, *, suspected_worker_fault=False):
        self.fail(job_id, fence, reason, FailureClass.ENCODER)

    monkeypatch.setattr(RunLedger, "interrupt", counted)

    assert "failures are counted" in violated(Scope("a stop", 1, Spare(stops=1)))


def test_a_worker_that_never_settles_is_found(monkeypatch):
    """A farm that goes round for ever reaches no good end: the message comes back and back."""
    monkeypatch.setattr(RunQueue, "ack", lambda *_: False)

    assert "no good end" in violated(Scope("nothing", 1, Spare()))


def test_a_message_given_up_beside_a_job_that_gets_done_leaves_a_letter_where_it_must():
    """Who has it at its last receive finds the job held and gives it back, the queue makes it a
    dead letter, and the slow owner of the job completes it after all. SQS does not ask the ledger."""
    shared = MemoryShared()
    shared.queue._max_receives = 2

    assert "done beside a letter" in search(EXPIRY, shared).ends


def test_the_embedded_ledger_takes_such_a_letter_back(tmp_path):
    shared = SqliteShared(tmp_path, max_receives=2)
    found = search(EXPIRY._replace(skews=EVEN), shared)
    shared.close()

    assert found.ends["done"] > 0
    assert not any("letter" in end for end in found.ends)


def test_a_letter_that_the_embedded_ledger_does_not_take_back_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "DELETE_OBSOLETE_LETTERS", "SELECT 1")
    shared = SqliteShared(tmp_path, max_receives=2)

    assert "no good end" in violated(EXPIRY._replace(skews=EVEN), shared)
    shared.close()


def test_an_embedded_ledger_that_does_not_ask_for_the_fence_is_found(monkeypatch, tmp_path):
    complete = SqliteLedger.complete

    def completed(self, job_id, _fence, rendition, *, cpu_s):
        complete(self, job_id, self.get(job_id).fence, rendition, cpu_s=cpu_s)

    monkeypatch.setattr(SqliteLedger, "complete", completed)
    shared = SqliteShared(tmp_path)

    scope = EXPIRY._replace(tick_s=20.0, skews=EVEN)
    assert "complete under fence 1" in violated(scope, shared)
    shared.close()


def test_an_embedded_queue_that_settles_by_a_stale_receipt_is_found(monkeypatch, tmp_path):
    shared = SqliteShared(tmp_path)
    release, latest = SqliteQueue.release, range(MAX_RECEIVES, 0, -1)

    def released(self, delivery, *, delay_s):
        receipts = [replace(delivery, receipt=shared.receipt(number)) for number in latest]
        return any(release(self, one, delay_s=delay_s) for one in receipts)

    monkeypatch.setattr(SqliteQueue, "release", released)
    scope = Scope("a stop", 1, Spare(expiries=1, stops=1), tick_s=20.0, skews=EVEN)

    said = violated(scope, shared)
    assert "stale receipt" in said
    shared.close()
