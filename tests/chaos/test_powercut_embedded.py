"""A data folder loses power at every step of accept, claim, publish, complete and settle."""

import hashlib
import threading
from pathlib import Path

import pytest

from chaos.powercut.database import Recorder
from contracts.backends import PROFILES
from hevcq.backends.sql.factory import SqlBackend, open_sql
from hevcq.domain.job import SETTLED, JobState, Phase, Progress, RenditionRef
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import HevcqError
from hevcq.ports.ledger import Granted, JobFilter
from hevcq.ports.store import Publication
from hevcq.settings.model import Settings
from support.clips import ManualClock

NOW = threading.Event()
VIDEO = b"rendition " * 500


def opened(folder: Path, clock: ManualClock) -> SqlBackend:
    return open_sql(Settings(data_dir=folder), PROFILES, clock)


def accept(recorder: Recorder, here: SqlBackend, path: Path) -> None:
    path.write_bytes(path.name.encode() * 100)
    source = here.backend.store.accept(path, f"TODO/all/{path.name}", moved=print, stop=NOW)
    for job in here.backend.task_publisher.publish(source, ["hevc", "720p"], announced=False):
        recorder.promise("accepted", job.job_id)


def take(here: SqlBackend, name: str):
    (delivery,) = here.backend.queues[name].receive(1, wait_s=0, stop=NOW)
    (task,) = delivery.tasks
    claim = here.backend.ledger.claim(task.source, name, owner=here.backend.owner, lease_s=60)
    assert isinstance(claim, Granted)
    return delivery, task, claim.fence


def publish(recorder: Recorder, here: SqlBackend, tmp_path: Path, name: str) -> None:
    backend = here.backend
    delivery, task, fence = take(here, name)
    if name == "hevc":
        backend.ledger.progress(task.job_id, fence, Progress(phase=Phase.ENCODE))
        recorder.promise("begun", (task.job_id, fence))
    file, key = tmp_path / f"scratch-{name}", f"DONE/{name}/a.mkv"
    file.write_bytes(VIDEO)
    proof, digest = f"{key}.certificate.json", "cd" * 32
    sha256 = hashlib.sha256(VIDEO).hexdigest()
    backend.ledger.certify(task.job_id, fence, digest)
    backend.store.put(proof, b"{}", metadata={"job": task.job_id})
    backend.store.publish(
        Publication(key, file, sha256, task.job_id, fence, {"certificate": proof})
    )
    recorder.promise("published", (key, task.job_id, fence))
    rendition = RenditionRef(
        key=key,
        size=len(VIDEO),
        sha256=sha256,
        certificate_key=proof,
        certificate_sha256=digest,
    )
    backend.ledger.complete(task.job_id, fence, rendition, cpu_s=1.0)
    recorder.promise("completed", task.job_id)
    assert backend.queues[name].ack(delivery)
    recorder.promise("settled", (name, delivery.message_id))


def bury_and_redrive(recorder: Recorder, here: SqlBackend) -> None:
    delivery, task, fence = take(here, "hevc")
    queue, ledger = here.backend.queues["hevc"], here.backend.ledger
    ledger.bury(task.job_id, fence, "it is damaged", FailureClass.DAMAGED)
    recorder.promise("dead", task.job_id)
    assert queue.bury(delivery, Bury(reason="damaged", failure_class=FailureClass.DAMAGED))
    (letter,) = queue.dead_letters()
    assert here.backend.task_publisher.requeue(ledger.get(task.job_id), who="me", why="again")
    assert queue.purge(letter)


@pytest.fixture
def recorder(tmp_path, monkeypatch) -> Recorder:
    """A data folder through whose life the power may go, recorded step by step."""
    clock = ManualClock()
    with pytest.MonkeyPatch.context() as patch:
        opened(tmp_path / "data", clock).close()
        here = opened(tmp_path / "data", clock)
        found = Recorder(tmp_path / "data")
        found.install(patch)
        accept(found, here, tmp_path / "one.mp4")
        accept(found, here, tmp_path / "two.mp4")
        publish(found, here, tmp_path, "720p")
        publish(found, here, tmp_path, "hevc")
        bury_and_redrive(found, here)
    here.close()
    return found


def waiting(here: SqlBackend, name: str) -> dict[str, str]:
    """The jobs that a message or a dead letter still stands for, by the message's number."""
    queue = here.backend.queues[name]
    found = {f"letter {x.letter_id}": x.task.job_id for x in queue.dead_letters()}
    for delivery in queue.receive(10, wait_s=0, stop=NOW):
        found[delivery.message_id] = delivery.tasks[0].job_id
    return found


def check(here: SqlBackend, promises: list[tuple[str, object]]) -> None:
    """Nothing accepted is lost, nothing that is there is half, nothing promised is undone."""
    ledger, store = here.backend.ledger, here.backend.store
    messages = {name: waiting(here, name) for name in PROFILES}
    for job in ledger.jobs(JobFilter()):
        stands = job.job_id in messages[job.profile].values()
        assert stands or job.state in SETTLED, f"{job.job_id} is {job.state} and has no message"
        if job.state is JobState.DONE:
            assert store.stat(job.rendition.key).sha256 == job.rendition.sha256
            assert store.stat(job.rendition.certificate_key) is not None
    for name, ids in messages.items():
        assert all(ledger.get(job).profile == name for job in ids.values())
    for seen in store.list(""):
        with store.open(seen.key) as stream:
            assert hashlib.sha256(stream.read()).hexdigest() == seen.sha256, seen.key
    for kind, what in promises:
        if kind == "accepted":
            assert ledger.get(what) is not None
        elif kind == "begun":
            assert ledger.get(what[0]).fence >= what[1], "an attempt at work was forgotten"
        elif kind == "published":
            assert store.stat(what[0]) is not None
            assert ledger.get(what[1]).fence >= what[2], "its fence would be granted again"
            assert ledger.get(what[1]).certified("cd" * 32), "nobody could adopt it"
        elif kind == "completed":
            assert ledger.get(what).state is JobState.DONE
        elif kind == "settled":
            assert what[1] not in messages[what[0]], "an acknowledged message came back"


def test_a_data_folder_that_loses_power_anywhere_has_lost_nothing(recorder, tmp_path):
    states, left = 0, tmp_path / "left"
    for moment, name in recorder.cuts(left):
        clock = ManualClock(1_700_000_000.0 + 10 * 365 * 86_400)
        try:
            here = opened(left, clock)
            try:
                check(here, recorder.promises[: moment.promised])
            finally:
                here.close()
        except (AssertionError, AttributeError, OSError, HevcqError) as error:
            pytest.fail(f"{name}, {moment.promised} promises: {error!r}")
        states += 1
    print(
        f"{states} states after {len(recorder.moments)} moments, {len(recorder.promises)} promises"
    )
    assert states > 100
