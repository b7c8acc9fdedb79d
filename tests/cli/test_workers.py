"""`hevcq workers`: the list of machines, and who takes no new work."""

import pytest

from hevcq.cli.exit_codes import ExitCode
from hevcq.ports.backend import WorkerFacts

NAS = "a" * 16


@pytest.fixture
def machines(farm):
    known = farm.app.backend.machines
    facts = WorkerFacts(machine="nas", version="0.1.0", cores=4, slots=2, encoders=("libx265",))
    known.tell(NAS, facts.model_copy(update={"waits": ("The scratch disk is full.",)}))
    return known


def test_a_machine_is_listed_with_what_it_can_and_why_it_waits(hevcq, machines):
    ran = hevcq("workers")

    heading, nas, why = ran.out.splitlines()
    assert heading.split() == ["machine", "cores", "jobs", "encoders", "hevcq", "ffmpeg", "state"]
    assert nas.split() == ["nas", "4", "0/2", "libx265", "0.1.0", "-", "waits"]
    assert why == "nas: The scratch disk is full."
    (line,) = hevcq("workers", "--json").lines
    assert (line["machine"], line["alive"], line["waits"]) == ("nas", True, [why[5:]])


def test_a_machine_is_drained_by_a_person_and_works_again(hevcq, machines):
    assert hevcq("workers", "drain", "nas").code == ExitCode.OK
    (drained,) = hevcq("workers", "--json").lines
    assert drained["drained_by"]

    assert hevcq("workers", "resume", "nas").code == ExitCode.OK

    (works,) = hevcq("workers", "--json").lines
    assert works["drained_by"] == ""


@pytest.mark.parametrize("given", ["--drain", "hevc"])
def test_options_that_no_joined_machine_has_are_refused_before_the_invitation_is_used(hevcq, given):
    ran = hevcq("worker", "--join", "http://127.0.0.1:9/join/secret", given)

    assert ran.code == ExitCode.USAGE
    assert "its farm chooses its work" in ran.err


@pytest.mark.parametrize("verb", ["drain", "resume", "remove"])
def test_a_machine_that_is_not_in_the_list_is_no_machine(hevcq, machines, verb):
    ran = hevcq("workers", verb, "desk")

    assert ran.code == ExitCode.USAGE
    assert "No machine desk. There are: nas." in ran.err


def test_only_a_machine_that_works_no_more_is_removed(hevcq, machines):
    assert hevcq("workers", "remove", "nas").code == ExitCode.USAGE
    machines.leave(NAS, machines.processes()[0].facts)

    assert hevcq("workers", "remove", "nas").code == ExitCode.OK

    assert machines.processes() == []
    assert "No machine works" in hevcq("workers").err


def test_all_processes_of_a_machine_are_drained_and_those_that_ended_removed(hevcq, machines):
    facts = machines.processes()[0].facts.model_copy(update={"waits": ()})
    machines.tell("b" * 16, facts)

    hevcq("workers", "drain", "nas")

    assert {line["name"] for line in hevcq("workers", "--json").lines if line["drained_by"]} == {
        "nas"
    }
    assert machines.tell("c" * 16, facts).drained_by
    assert hevcq("workers", "remove", "nas").code == ExitCode.USAGE
    machines.leave("b" * 16, facts)
    assert hevcq("workers", "remove", "nas").code == ExitCode.OK
    assert [each.owner[0] for each in machines.processes()] == ["a", "c"]


def test_limits_of_joined_machines_are_listed(hevcq, machines):
    assert "streaming sets" not in hevcq("workers").out

    machines.tell(f"{NAS}:@desk", WorkerFacts(machine="desk", version="0.1.0"))

    assert "desk: no streaming sets (HLS) and no samples of --quality." in hevcq("workers").out
