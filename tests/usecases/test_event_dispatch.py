"""The dispatcher: at least once, in order for each receiver, and nobody waits for a dead one.

One message about many videos: when a batch is done, and before kept originals go.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC

import pytest

from hevcq.ports.catalog import Happened, Message, Mode, NotDelivered, Receiver
from hevcq.sql.event_log import EventLog
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.event_dispatch import (
    BUSY_S,
    READER,
    RETRY_DELAYS_S,
    BatchWatch,
    Dispatcher,
    message_of,
)
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.placement.originals import expiring_soon
from hevcq.util.clock import EARLIEST
from support.clips import ManualClock
from support.ingest.run import Bench


class Listener(Receiver):
    """Takes what it is given, unless `answer` raises."""

    def __init__(self, name: str, *events: str) -> None:
        self.name = self.identity = name
        self.events = frozenset(events or ("job.failed",))
        self.taken: list[str] = []
        self.batches: list[int] = []
        self.answer = lambda: None

    def deliver(self, messages: Sequence[Message]) -> None:
        self.answer()
        self.taken += [str(message.data.get("reason")) for message in messages]
        self.batches.append(len(messages))


def refuse() -> None:
    raise NotDelivered("no")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000.0)


@pytest.fixture
def log(tmp_path, clock) -> Iterator[EventLog]:
    with closing(SqliteDatabase(tmp_path / "hevcq.db")) as database:
        yield EventLog(database, clock)


def happen(log, clock, *reasons: str, name: str = "job.failed") -> None:
    for reason in reasons:
        log.add(Happened(name, clock.now(), source="x", reason=reason))


def sender(log, clock, *receivers: Receiver) -> Dispatcher:
    return Dispatcher(log, receivers, clock)


def test_each_receiver_gets_its_events_in_order_and_once_and_nothing_of_the_past(log, clock):
    happen(log, clock, "before anybody listened")
    one, all_of_it = Listener("one"), Listener("all", "job.failed", "job.done")
    told = sender(log, clock, one, all_of_it)
    happen(log, clock, "a", "b")
    happen(log, clock, "c", name="job.done")
    happen(log, clock, "d")
    happen(log, clock, "e", name="job.done")

    for _ in range(5):
        told.step()
    sender(log, clock, one, all_of_it).step()  # another process

    assert one.taken == ["a", "b", "d"]
    assert all_of_it.taken == ["a", "b", "c", "d", "e"]
    assert log.reader("one").seq == log.reader("all").seq, "what it does not want is behind it too"


def test_a_message_names_the_file_and_says_what_a_percentage_is_of(log, clock):
    key = "TODO/all/v/100%25.mp4"
    told = message_of(Happened("job.done", clock.now(), source=key, before=1000, after=200))

    assert told.text == "/v/100%.mp4; 1000 Bytes became 200 Bytes (80 % smaller)."
    assert told.data["source"] == "/v/100%.mp4"


def test_a_dead_receiver_is_tried_later_and_later_and_the_others_wait_for_nothing(log, clock):
    dead, alive = Listener("dead"), Listener("alive")
    dead.answer = refuse
    told = sender(log, clock, dead, alive)
    happen(log, clock, "a")
    tries = []
    for _ in range(len(RETRY_DELAYS_S) + 1):
        tries.append(clock.now())
        told.step()
        assert alive.taken == ["a"]
        clock.advance(max(0.0, log.reader("dead").next_at - clock.now() - 1))
        told.step()
        clock.advance(1)

    waited = [later - before for before, later in itertools.pairwise(tries)]
    assert waited == pytest.approx([float(s) for s in RETRY_DELAYS_S], abs=1)
    assert "Gave up 1 message: no" in log.reader("dead").problem
    dead.answer = lambda: None
    happen(log, clock, "b")
    told.step()
    assert dead.taken == ["b"]


def test_messages_that_wait_are_sent_together_and_not_more_often_than_allowed(log, clock):
    person = Listener("person")
    person.most, person.every_s = 500, 60.0
    told = sender(log, clock, person)
    happen(log, clock, *"abc")
    told.step()
    happen(log, clock, *"de")
    told.step()
    assert person.batches == [3]
    clock.advance(60)
    told.step()
    assert person.batches == [3, 2]


def test_a_digest_is_sent_once_a_day_at_its_time(log, clock):
    person = Listener("person")
    person.most, person.daily_at = 500, 8 * 60
    told = Dispatcher(log, [person], clock, UTC)  # it is 22:13
    happen(log, clock, "a", "b")
    for _ in range(9):
        told.step()
        assert person.taken == []
        clock.advance(3600)
    happen(log, clock, "c")
    clock.advance(3600)
    told.step()
    assert person.taken == ["a", "b", "c"]
    happen(log, clock, "d")
    clock.advance(20 * 3600)
    told.step()
    assert person.batches == [3]
    clock.advance(4 * 3600)
    told.step()
    assert person.batches == [3, 1]


def test_two_processes_do_not_send_one_message_twice(log, clock):
    slow = Listener("slow")
    told = sender(log, clock, slow)
    other = sender(log, clock, slow)
    slow.answer = lambda: other.step() and None
    happen(log, clock, "a")
    told.step()
    assert slow.taken == ["a"]


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        ([("job.done", 3072, 1024)], "1 done; 3.0 KiB became 1.0 KiB, 2.0 KiB less."),
        ([("job.done", 1024, 3072)], "1 done; 1.0 KiB became 3.0 KiB, 2.0 KiB more."),
        ([("job.failed", None, None), ("job.skipped", None, None)], "1 failed, 1 skipped."),
        ([("job.skipped", None, None)], None),
        ([], None),
    ],
)
def test_a_batch_is_reported_once_when_nothing_is_open(tmp_path, request, ends, says):
    bench = Bench(tmp_path)
    database = SqliteDatabase(tmp_path / "hevcq.db")
    request.addfinalizer(database.close)
    log = EventLog(database, bench.clock)
    batch = BatchWatch(log, bench.backend.ledger, bench.clock)
    for name, before, after in ends:
        log.add(Happened(name, bench.clock.now(), source="x", before=before, after=after))
    job = bench.queue(bench.video())
    assert not batch.step(), "a job is open"
    bench.work(job)
    log.begin(READER, BUSY_S)
    assert not batch.step(), "another process looks"
    bench.clock.advance(BUSY_S + 1)

    assert batch.step() is (says is not None)
    assert not batch.step()
    told = [each.reason for each in log.after(0, 9) if each.name == "batch.finished"]
    assert told == ([] if says is None else [says])


def test_originals_whose_time_ends_soon_are_announced(tmp_path):
    bench, told = Bench(tmp_path, where=Destination(Mode.REPLACE, keep_days=30.0)), []
    bench.clock.jump_wall(EARLIEST)
    for name in ("a.mp4", "b.mp4"):
        told.append(expiring_soon(bench.ports))
        bench.place(bench.video(name, name.encode() * 50))
        told.append(expiring_soon(bench.ports))
        bench.clock.advance(28 * 86_400.0)
    told.append(expiring_soon(bench.ports))

    assert [words.partition(" will")[0] for words in told] == [
        "",
        "",
        "1 original (250 Bytes)",
        "1 original (250 Bytes)",
        "2 originals (500 Bytes)",
    ]
