"""One message about many videos: when a batch is done, and before kept originals go."""

from pathlib import Path

import pytest

from hevcq.ports.catalog import Happened, Mode
from hevcq.sql.event_log import EventLog
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.notify.sender import BUSY_S, READER, BatchWatch
from hevcq.usecases.placement.originals import expiring
from hevcq.util.clock import EARLIEST
from support.ingest.run import Bench


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
def test_a_batch_is_reported_once_when_nothing_is_open(
    tmp_path: Path, request: pytest.FixtureRequest, ends, says
) -> None:
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


def test_originals_whose_time_ends_soon_are_announced(tmp_path: Path) -> None:
    bench, told = Bench(tmp_path, where=Destination(Mode.REPLACE, keep_days=30.0)), []
    bench.clock.jump_wall(EARLIEST)
    for name in ("a.mp4", "b.mp4"):
        told.append(expiring(bench.ports))
        bench.place(bench.video(name, name.encode() * 50))
        told.append(expiring(bench.ports))
        bench.clock.advance(28 * 86_400.0)
    told.append(expiring(bench.ports))

    assert [words.partition(" will")[0] for words in told] == [
        "",
        "",
        "1 original (250 Bytes)",
        "1 original (250 Bytes)",
        "2 originals (500 Bytes)",
    ]
