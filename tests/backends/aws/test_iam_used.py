"""Every call that a worker and an operator make is allowed by their Terraform policies."""

import hashlib
import os
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from contracts.backends import PROFILES, World
from contracts.test_set_contract import SetFarm
from hevcq.backends.aws.s3 import transfer
from hevcq.domain.job import JobState
from hevcq.domain.keys import rendition_key
from hevcq.domain.verdict import Done
from hevcq.errors import EncoderFailed, SourceDamaged, Stopped
from hevcq.ports.ledger import JobFilter
from hevcq.ports.store import Publication
from hevcq.settings.model import Settings
from hevcq.usecases import farm_check
from hevcq.usecases.operations.dead_letters import DeadLetterFilter
from hevcq.usecases.operations.dead_letters import purge as purge_letters
from hevcq.usecases.operations.reprocess import ReprocessRequest as Again
from hevcq.usecases.operations.reprocess import redrive, reprocess, reprocess_missing
from hevcq.usecases.operations.status import overview
from hevcq.worker.publish import GRACE_S, sweep_sets
from support.aws import iam
from support.aws.moto_server import Farm
from support.aws.values import NoCatalog, put
from support.clips import WorkedClock
from support.fakes.encoder import FakeEncoder
from support.fakes.farm import FakeWorker

pytestmark = pytest.mark.aws
NEVER = threading.Event()
LARGE = 6 * 1024 * 1024


def clients(farm: Farm) -> tuple:
    made = farm.clients
    return made.s3, made.control, made.sqs, made.polls, made.sns, made.dynamodb


def work(farm: Farm, folder: Path, encoder: FakeEncoder) -> None:
    """Handle what the queue brings, and what comes back later."""
    worker = FakeWorker(farm.backend, folder, farm.clock, encoder)
    for _ in range(5):
        worker.do(PROFILES["hevc"])
        farm.clock.advance(3600)
    worker.context.scratch.close()


def published_large(farm: Farm, folder: Path, key: str, *, stopped: bool) -> None:
    """Publish in several parts, whole or stopped in the middle."""
    path = folder / "large"
    path.write_bytes(os.urandom(LARGE))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    publication = Publication(key=key, file=path, sha256=sha256, job_id="j", fence=1)
    if not stopped:
        farm.backend.store.publish(publication)
        return
    put_part = farm.clients.s3.upload_part
    farm.clients.s3.upload_part = lambda **_asked: (_ for _ in ()).throw(Stopped())
    try:
        with pytest.raises(Stopped):
            farm.backend.store.publish(replace(publication, fence=2))
    finally:
        farm.clients.s3.upload_part = put_part


def test_a_worker_needs_nothing_that_its_task_role_does_not_allow(farm, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PART_BYTES", 5 * 1024 * 1024)
    for name in ("done", "retried", "damaged"):
        put(farm, f"TODO/hevc/{name}.mp4")
    farm.put_body("hevc", "not a message")
    encoder = FakeEncoder()
    encoder.errors = {"encode": [None, EncoderFailed("once"), SourceDamaged("broken"), None]}

    with iam.recorded(*clients(farm)) as calls:
        work(farm, tmp_path, encoder)
        published_large(farm, tmp_path, "DONE/hevc/large.mp4", stopped=False)
        published_large(farm, tmp_path, "DONE/hevc/large.mp4", stopped=True)

    states = sorted(job.state for job in farm.backend.ledger.jobs(JobFilter(profile="hevc")))
    assert states == sorted([JobState.DONE, JobState.DONE, JobState.DEAD])
    used = iam.require_allowed(calls, "modules/worker_service/roles.tf", "task")
    for action in ("sqs:ReceiveMessage", "sqs:SendMessage", "sqs:ChangeMessageVisibility"):
        assert any(action == each for each, _ in used), f"{action} was not exercised"
    assert ("s3:AbortMultipartUpload", "output:DONE/hevc/large.mp4") in used


def test_a_worker_of_sets_needs_nothing_that_its_task_role_does_not_allow(farm, tmp_path):
    workers = SetFarm(World(clock=farm.clock, backend=farm.backend, folder=tmp_path))

    put(farm, "TODO/720p/a.mp4")
    with iam.recorded(*clients(farm)) as calls:
        assert isinstance(workers.handle().verdict, Done)
    (job,) = farm.backend.ledger.jobs(JobFilter(profile="720p"))
    kept = {}
    for each in farm.backend.store.list("DONE/"):
        head = farm.clients.s3.head_object(Bucket="out", Key=each.key)
        kept[each.key.rpartition("/")[2]] = (head["ContentType"], head.get("CacheControl"))
    playlist, for_ever = "application/vnd.apple.mpegurl", "public, max-age=31536000, immutable"
    assert (kept["v360.mp4"], kept["v360.m3u8"]) == (("video/mp4", for_ever), (playlist, for_ever))
    assert kept["master.m3u8"] == (playlist, "max-age=60")
    workers.improve_recipe(1)
    farm.backend.task_publisher.requeue(job, who="a person", why="again")
    with iam.recorded(*clients(farm)) as more:
        assert isinstance(workers.handle().verdict, Done)
        farm.clock.advance(GRACE_S + 1)
        sweep_sets(farm.backend, farm.clock, ["720p"])

    roles = ("modules/worker_service/roles.tf", "task", "720p")
    used = iam.require_allowed([*calls, *more], *roles)
    gone = f"output:DONE/720p/a.mp4/{job.job_id[:8]}-1/v360.mp4"
    assert ("s3:DeleteObject", gone) in used
    assert not iam.covered(
        ("s3:DeleteObject", "output:DONE/720p/a.mp4/master.m3u8"), iam.allowed(*roles)
    )


def test_an_operator_needs_nothing_that_the_policy_does_not_allow(farm, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PART_BYTES", 5 * 1024 * 1024)
    videos = [tmp_path / "small.mp4", tmp_path / "large.mp4"]
    videos[0].write_bytes(b"clip")
    videos[1].write_bytes(os.urandom(LARGE))
    backend = farm.backend

    with iam.recorded(*clients(farm)) as calls:
        for video in videos:
            key = f"TODO/all/{video.name}"
            source = backend.store.accept(video, key, moved=lambda _n: None, stop=NEVER)
            backend.task_publisher.publish(source, ["hevc"], announced=True)
            again = backend.store.accept(video, key, moved=lambda _n: None, stop=NEVER)
            backend.task_publisher.publish(again, ["hevc", "720p"], announced=True)
    encoder = FakeEncoder()
    encoder.errors = {"encode": [None, SourceDamaged("broken")]}
    work(farm, tmp_path, encoder)
    done = next(backend.ledger.jobs(JobFilter(states=frozenset({JobState.DONE}))))

    with iam.recorded(*clients(farm)) as more:
        look_and_send_back(farm, done, tmp_path)

    used = iam.require_allowed([*calls, *more], "operator.tf", "operator")
    for action in ("s3:PutObject", "s3:ListBucketVersions", "dynamodb:Query", "sqs:SendMessage"):
        assert any(action == each for each, _ in used), f"{action} was not exercised"


def test_a_check_of_the_farm_needs_nothing_that_the_operators_policy_does_not_allow(
    farm, tmp_path, monkeypatch
):
    """With one profile whose clip is published, and one whose clip nobody takes."""
    profiles = {name: PROFILES[name] for name in ("hevc", "720p")}

    with iam.recorded(*clients(farm)) as calls:

        def work_unrecorded() -> None:
            own = len(calls)
            work(farm, tmp_path, FakeEncoder())
            del calls[own:]

        clock = WorkedClock(work_unrecorded)
        monkeypatch.setattr(farm_check, "FLEET_TIMEOUT_S", 3)
        tools = SimpleNamespace(
            backend=farm.backend, profiles=profiles, encoder=FakeEncoder(), clock=clock
        )
        found = {each.name: each.ok for each in farm_check.check_farm(tools, "0a1b")}

    assert found == {"farm: 720p": False, "farm: hevc": True}
    assert not list(farm.backend.store.list("DONE/"))
    used = iam.require_allowed(calls, "operator.tf", "operator")
    assert any(action == "s3:DeleteObject" for action, _ in used)


def test_an_operator_may_delete_no_rendition_but_those_of_a_check():
    policy = iam.allowed("operator.tf", "operator")

    assert iam.covered(("s3:DeleteObject", "output:DONE/hevc/hevcq-doctor/a.mp4"), policy)
    for kept in ("output:DONE/hevc/a.mp4", "output:DONE/hevc/series/hevcq-doctor.mp4"):
        assert not iam.covered(("s3:DeleteObject", kept), policy)
    assert not iam.covered(("s3:DeleteObject", "input:TODO/hevc/hevcq-doctor/a.mp4"), policy)


def look_and_send_back(farm: Farm, done, folder: Path) -> None:
    """Everything that status, collect, dead-letters, redrive and reprocess ask of AWS."""
    backend = farm.backend
    overview(backend, farm.clock, Settings(backend="aws"), "", limit=9)
    list(backend.ledger.jobs(JobFilter(source_key=done.source.key)))
    assert done in backend.ledger.jobs(JobFilter(key_prefixes=("TODO/",)))
    with backend.store.open(done.rendition.certificate_key) as file:
        file.read()
    target = folder / "collected.mp4"
    backend.store.collect(done.rendition.key, target, stop=NEVER)
    letter = next(backend.queues["hevc"].dead_letters())
    wanted = DeadLetterFilter(("hevc",))
    list(redrive(backend, Again((), who="me"), wanted))
    purge_letters(backend.queues, DeadLetterFilter(letter=letter.task.job_id))
    again = Again([done.job_id], who="me")
    list(reprocess(backend, again))
    list(reprocess_missing(backend, replace(again, names=["TODO/"]), PROFILES, NoCatalog()))
    assert rendition_key(done.source.key, "hevc", "mp4") == done.rendition.key
