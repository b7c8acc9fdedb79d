"""The list of machines, on both engines: who works, on what, and who takes no new work."""

from collections.abc import Iterator

import pytest

from contracts.backends import source
from hevcq.backends.sql.factory import free_owner
from hevcq.backends.sql.ledger import SqlLedger
from hevcq.backends.sql.machines import SqlMachines
from hevcq.domain.job import Phase, Progress
from hevcq.ports.machines import SILENT_S, Answer, WorkerFacts
from hevcq.sql.database import Database
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.operations.machines import state_of
from hevcq.util.clock import SystemClock
from support.clips import ManualClock

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


def test_an_unknown_machine_is_neither_drained_nor_removed(machines):
    machines.tell(NAS, facts())

    assert not machines.drain("desktop", "anna")
    assert not machines.remove("desktop")
    assert machines.remove("nas")
    assert machines.processes() == []


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


def test_a_machine_whose_clock_is_a_year_off_is_as_alive_as_the_others(shared, machine):
    off = ManualClock(SystemClock().now() + 365 * 86_400)
    machine("off", off).backend.machines.tell(NAS, facts())

    (seen,) = machine("nas").backend.machines.processes()

    assert seen.alive
