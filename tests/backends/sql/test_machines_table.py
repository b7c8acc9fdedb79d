"""The list of machines, on both engines: who works, on what, and who takes no new work.

What a death says of the job: one that outlived others' eyes or memory is a crash, the rest is none.

What two processes or threads do to each other at just the wrong moment, and nonsense in rows.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from contracts.backends import PROFILES, source, task
from hevcq.backends.sql.factory import SqlBackend, SqlMachines, free_owner, open_sql
from hevcq.backends.sql.ledger import SqlLedger
from hevcq.domain.job import MAX_INTERRUPTIONS, JobState, Phase, Progress, job_id
from hevcq.errors import ConfigError, HevcqError, StorageError, Unavailable
from hevcq.ports.backend import SILENT_S, Answer, WorkerFacts
from hevcq.ports.ledger import Granted
from hevcq.ports.queue import Delivery
from hevcq.settings.model import Settings
from hevcq.sql import postgres
from hevcq.sql.database import Database
from hevcq.sql.postgres import PostgresSession
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.operations.status import state_of
from hevcq.util import processes
from hevcq.util.clock import SystemClock
from hevcq.util.processes import Processes
from support.clips import ManualClock
from support.postgres import own_server, shared_dsn

NAS, DESKTOP, LATER = "a" * 16, "b" * 16, "c" * 16


def facts(machine: str = "nas", version: str = "0.1.0") -> WorkerFacts:
    return WorkerFacts(machine=machine, version=version, cores=4, slots=2)


@pytest.fixture(params=["sqlite", "postgres"])
def tables(request, tmp_path) -> Iterator[Database]:
    if request.param == "postgres":
        yield request.getfixturevalue("shared")
        return
    opened = SqliteDatabase(tmp_path / "hevcq.db")
    yield opened
    opened.close()


@pytest.fixture
def machines(tables, clock) -> SqlMachines:
    return SqlMachines(tables, clock)


def names(machines: SqlMachines) -> list[str]:
    return [each.facts.machine for each in machines.processes()]


def test_a_process_is_listed_from_its_first_sign_to_its_end(machines, clock):
    assert machines.tell(NAS, facts()) == Answer()
    clock.advance(7)
    machines.tell(DESKTOP, facts("desktop"))

    desktop, nas = machines.processes()

    assert (nas.owner, nas.facts, nas.seen_s, nas.alive) == (NAS, facts(), 7, True)
    assert desktop.seen_s == 0
    machines.leave(NAS)
    assert names(machines) == ["desktop"]


def test_its_jobs_are_those_it_holds_a_living_lease_of(machines, tables, clock):
    machines.tell(NAS, facts())
    ledger = SqlLedger(tables, clock, dead=lambda _owner: False)
    film = source("film.mp4")
    ledger.register(film, ["hevc", "720p"])
    fence = ledger.claim(film, "hevc", owner=f"{NAS}:0", lease_s=60).fence
    ledger.claim(film, "720p", owner=f"{DESKTOP}:0", lease_s=60)
    job = next(iter(ledger.register(film, ["hevc"])))
    ledger.progress(job.job_id, fence, Progress(phase=Phase.ENCODE, percent=40, speed=1.5))

    (nas,) = machines.processes()
    (running,) = nas.jobs

    assert (running.job_id, running.profile, running.key) == (job.job_id, "hevc", film.key)
    assert (running.phase, running.percent, running.speed) == ("encode", 40, 1.5)
    assert state_of(nas) == "works"
    clock.advance(60)
    assert machines.processes()[0].jobs == ()


def test_one_that_gives_no_sign_is_silent_and_forgotten_by_the_next_start_there(machines, clock):
    machines.tell(NAS, facts())
    machines.tell(DESKTOP, facts("desktop"))
    clock.advance(SILENT_S)

    assert [state_of(each) for each in machines.processes()] == ["silent for 1 min"] * 2
    machines.tell(LATER, facts())

    assert [each.owner for each in machines.processes()] == [DESKTOP, LATER]


def test_a_drained_machine_stays_drained_over_its_next_start_until_it_is_resumed(machines, clock):
    machines.tell(NAS, facts())
    assert machines.drain("nas", "anna")
    assert machines.tell(NAS, facts()).drained_by == "anna"

    machines.leave(NAS)

    (stopped,) = machines.processes()
    assert state_of(stopped) == "drained, stopped"
    assert machines.tell(LATER, facts()).drained_by == "anna"
    assert [each.owner for each in machines.processes()] == [LATER]
    assert machines.drain("nas", "")
    assert machines.tell(LATER, facts()).drained_by == ""


@pytest.mark.parametrize(
    ("here", "there", "newer"),
    [
        ("0.1.0", "0.2.0", "0.2.0"),
        ("0.1.0", "0.10.3", "0.10.3"),
        ("0.1.0", "1.0.0", "1.0.0"),
        ("0.2.0", "0.1.9", ""),
        ("0.1.0", "0.1.7", ""),
    ],
)
def test_an_older_minor_version_hears_of_a_newer_one(machines, here, there, newer):
    machines.tell(DESKTOP, facts("desktop", there))

    answer = machines.tell(NAS, facts("nas", here))

    assert (answer.newer, answer.newer_on) == (newer, "desktop" if newer else "")


def test_a_newer_version_that_is_gone_keeps_nobody_from_work(machines, clock):
    machines.tell(DESKTOP, facts("desktop", "0.2.0"))
    clock.advance(SILENT_S + 1)

    assert machines.tell(NAS, facts()) == Answer()


def test_a_machine_that_cannot_work_says_why_until_it_starts_again(machines):
    broken = facts().model_copy(update={"waits": ("ffmpeg is too old.",)})

    machines.leave(NAS, broken)

    (listed,) = machines.processes()
    assert (state_of(listed), listed.facts.waits) == ("stopped", ("ffmpeg is too old.",))
    machines.tell(LATER, facts())
    assert [each.owner for each in machines.processes()] == [LATER]


def test_a_killed_process_leaves_the_list_when_another_one_frees_what_it_held(machines, tables):
    machines.tell(NAS, facts())

    free_owner(tables, NAS)

    assert machines.processes() == []


def test_a_folder_that_is_not_the_one_of_all_machines_is_refused(tmp_path):
    def start(name: str, files: str) -> None:
        folders = {"dsn": server.dsn, "files_dir": tmp_path / files}
        settings = Settings.model_validate(
            {"backend": "postgres", "data_dir": tmp_path / name, "postgres": folders}
        )
        open_sql(settings, PROFILES, SystemClock()).close()

    with own_server() as server:
        start("nas", "share")
        start("desktop", "share")
        with pytest.raises(ConfigError, match="is not what holds the renditions"):
            start("desktop", "bare mount point")


def test_a_share_that_went_away_is_not_made_anew_by_a_publication(tmp_path, machine):
    opened = machine("nas")
    (tmp_path / "files" / "objects").rename(tmp_path / "away")

    with pytest.raises(Unavailable):
        opened.backend.store.put("certificates/a.json", b"bytes", metadata={})

    assert not (tmp_path / "files" / "objects").exists()


def test_bytes_stay_while_their_commit_is_still_going_on(machine, monkeypatch):
    monkeypatch.setattr(postgres, "SESSION", postgres.SESSION.replace("'30s'", "'200ms'"))
    store = machine("nas").backend.store
    run, held = PostgresSession.run, list[psycopg.Connection]()

    def lose(self: PostgresSession, sql: str) -> object:
        if sql != "COMMIT" or held:
            return run(self, sql)
        held.append(self.raw)  # the server has it, and the client's side breaks
        self.raw = psycopg.connect(shared_dsn())
        self.raw.close()
        return run(self, sql)

    monkeypatch.setattr(PostgresSession, "run", lose)
    with pytest.raises(HevcqError):
        store.put("certificates/a.json", b"bytes", metadata={})
    held[0].execute("COMMIT")
    held[0].close()

    with store.open("certificates/a.json") as found:
        assert found.read() == b"bytes"


def test_renditions_without_the_tables_that_name_them_are_no_new_farm(tmp_path):
    (tmp_path / "objects" / "ab").mkdir(parents=True)
    empty = f"empty_{os.getpid()}"  # others make the usual tables in the usual database
    with psycopg.connect(shared_dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {empty}")
    dsn = shared_dsn().replace("dbname=postgres", f"dbname={empty}")
    settings = Settings.model_validate(
        {"backend": "postgres", "data_dir": tmp_path, "postgres": {"dsn": dsn}}
    )

    with pytest.raises(StorageError, match="renditions are in its folder"):
        open_sql(settings, PROFILES, SystemClock())


def test_without_psycopg_the_settings_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hevcq.sql.postgres", None)

    with pytest.raises(ConfigError, match=r"Install hevcq\[postgres\]"):
        open_sql(Settings(backend="postgres", data_dir=tmp_path), PROFILES, SystemClock())


def test_a_process_of_another_machine_is_never_held_to_be_dead(tmp_path, monkeypatch):
    def row(node: str, boot: str, **options: bool) -> Processes:
        clock = ManualClock()
        monkeypatch.setattr(clock, "boot", lambda: boot)
        monkeypatch.setattr("hevcq.util.processes.node", lambda: node)
        return Processes(tmp_path, clock, **options)

    gone = [row("nas", "1"), row("nas", "2"), row("desktop", "2"), row("desktop", "3")]
    for each in gone:
        each.close()  # its lock is free, as where a share keeps locks to itself
    here = row("nas", "2", shared=True)
    freed: list[str] = []
    here.reap(lambda owner, _died_alone: freed.append(owner), now=True)
    here.close()

    assert set(freed) == {each.owner for each in gone[:3]}


JOB = job_id(source(), "hevc")
STOP = threading.Event()


class Run:
    """One life of the program: it takes the only message and claims its job."""

    def __init__(self, opener) -> None:
        self.opened = opener()
        self.backend = self.opened.backend

    def start(self, percent: float | None = None, phase: Phase = Phase.ENCODE) -> Granted:
        (self.delivery,) = self.backend.queues["hevc"].receive(1, wait_s=0.0, stop=STOP)
        found = self.backend.ledger.claim(
            source(), "hevc", owner=f"{self.backend.owner}:0", lease_s=60
        )
        assert isinstance(found, Granted), found
        if percent is not None:
            self.backend.ledger.progress(JOB, found.fence, Progress(phase=phase, percent=percent))
        return found

    def kill(self) -> None:
        """End as by kill -9: the lock goes, the rest stays."""
        self.opened.close()

    @property
    def job(self):
        return self.backend.ledger.get(JOB)


@pytest.fixture
def sent(opener):
    """A queue with one task."""
    first = opener()
    first.backend.ledger.register(source(), ["hevc"])
    first.backend.queues["hevc"].send([task()])
    first.close()
    return opener


def test_a_worker_that_dies_while_another_lives_counts_a_crash(sent, clock):
    dying = Run(sent)
    witness = Run(sent)
    dying.start()
    dying.kill()
    clock.advance(1)

    assert witness.start().crashes == 1
    assert witness.delivery.attempt == 2


def test_two_that_end_together_are_an_interruption_whoever_starts_next(sent, clock):
    first, second = Run(sent), Run(sent)
    clock.advance(1)
    second.backend.queues["720p"].receive(1, wait_s=0.0, stop=STOP)
    first.start()
    first.kill()
    second.kill()

    third, fourth = Run(sent), Run(sent)
    clock.advance(1)

    assert fourth.start().crashes == 0
    assert third.job.crashes == 0


def test_dying_at_the_same_place_again_is_a_crash(sent):
    found = []
    for percent in (42.3, 17.0, 17.9, 17.2, 42.0):
        run = Run(sent)
        found.append(run.start(percent).crashes)
        run.kill()

    assert found == [0, 0, 0, 1, 2]
    assert Run(sent).start().crashes == 2


def test_a_job_that_ends_the_program_each_time_is_not_tried_for_ever(sent):
    for _ in range(MAX_INTERRUPTIONS):
        run = Run(sent)
        assert run.start().crashes == 0
        assert run.delivery.attempt <= 2, "nor do they use up the receives"
        run.kill()
    found = []
    for _ in range(3):
        run = Run(sent)
        found.append(run.start().crashes)
        run.kill()

    assert [*found, Run(sent).start().crashes] == [0, 1, 2, 3]


@pytest.mark.parametrize(("restarted", "crashes"), [(False, 1), (True, 0)])
def test_a_death_while_memory_ran_out_is_a_crash_but_not_over_a_restart(
    sent, clock, monkeypatch, restarted, crashes
):
    monkeypatch.setattr(processes, "oom_kills", lambda: 3)
    run = Run(sent)
    run.start()
    run.kill()
    monkeypatch.setattr(processes, "oom_kills", lambda: 4)
    if restarted:
        clock.restart()

    assert Run(sent).start().crashes == crashes


NOW = threading.Event()


TAKE = """
(delivery,) = queue.receive(1, wait_s=5, stop=stop)
claim = backend.ledger.claim(delivery.tasks[0].source, "hevc", owner=backend.owner + ":0", lease_s=600)
tell(backend.owner, delivery.message_id, claim.fence)
hang()
"""


@pytest.fixture
def real(folder: Path) -> SqlBackend:
    opened = open_sql(Settings(data_dir=folder), PROFILES, SystemClock())
    yield opened
    opened.close()


def take(opened: SqlBackend, *, wait_s: float = 0) -> list[Delivery]:
    return opened.backend.queues["hevc"].receive(10, wait_s=wait_s, stop=NOW)


def claim(opened: SqlBackend):
    return opened.backend.ledger.claim(source(), "hevc", owner="another", lease_s=60)


def test_what_a_killed_process_held_is_back_within_a_second(real, other):
    real.backend.task_publisher.publish(source(), ["hevc"], announced=False)
    victim = other(TAKE)
    _owner, message, fence = victim.line().split()
    assert fence == "1"
    assert take(real) == []
    assert claim(real).state is JobState.RUNNING

    victim.kill()
    began = time.monotonic()
    (delivery,) = take(real, wait_s=20)
    took = time.monotonic() - began

    assert (delivery.message_id, delivery.attempt) == (message, 2)
    assert took < 1.0, "the kernel lets the lock go, no visibility timeout is waited for"
    assert claim(real) == Granted(fence=2, failures=0, crashes=1)


def test_a_live_process_keeps_what_it_holds_however_long_it_hangs(real, other):
    real.backend.task_publisher.publish(source(), ["hevc"], announced=False)
    holder = other(TAKE)
    holder.line()

    assert take(real, wait_s=0.8) == []
    assert claim(real).state is JobState.RUNNING
    assert holder.finish() == 0


def test_what_a_dead_process_held_is_free_for_the_next_start(folder, other, opener):
    opened = opener(SystemClock())
    opened.backend.task_publisher.publish(source(), ["hevc"], announced=False)
    opened.close()
    victim = other(TAKE)
    owner = victim.line().split()[0]
    victim.kill()
    assert (folder / "processes" / f"{owner}.alive").exists()

    again = opener(SystemClock())

    assert not (folder / "processes" / f"{owner}.alive").exists()
    assert again.backend.queues["hevc"].depth().ready == 1
    assert claim(again) == Granted(fence=2, failures=0, crashes=0), "nobody outlived it"


def test_a_dead_owner_is_freed_before_it_is_forgotten(folder, clock):
    gone = Processes(folder, clock)
    gone.close()
    presence = Processes(folder, clock)
    freed: list[str] = []

    def fails(owner: str, _died_alone: bool) -> None:
        raise KeyError(owner)

    def free(owner: str, _died_alone: bool) -> None:
        freed.append(owner)

    with pytest.raises(KeyError):
        presence.reap(fails)
    presence.reap(free)
    assert freed == [], "not looked at again so soon"
    clock.advance(1)
    presence.reap(free)
    clock.advance(1)
    presence.reap(free)

    assert freed == [gone.owner]
    presence.close()
