"""What this machine's condition forbids: a gate command, others' CPU use, battery, heat."""

from collections.abc import Callable
from unittest.mock import Mock

import pytest

from hevcq.errors import WorkerUnfit
from hevcq.settings.schedule import ScheduleSettings
from hevcq.util import machine_state
from hevcq.util.machine_state import CpuTimes
from hevcq.wiring.machine_condition import MachineCondition, run_command


def always(settings: ScheduleSettings) -> Callable[[], ScheduleSettings]:
    return lambda: settings


def test_other_settings_begin_anew():
    now = [ScheduleSettings(gate_command="/bin/may")]
    condition = MachineCondition(lambda: now[0], lambda _argv: 1)
    condition.check()
    assert "says no" in condition.reason()
    now[0] = ScheduleSettings()
    assert condition.reason() == ""
    now[0] = ScheduleSettings(gate_command="/bin/other")
    assert condition.reason().startswith("Waiting for the first answer")


def test_nothing_is_looked_at_without_settings():
    condition = MachineCondition(always(ScheduleSettings()))
    condition.check()
    assert condition.reason() == ""
    assert ScheduleSettings().conditional is False


def test_work_waits_for_the_first_answer_and_obeys_each_later_one():
    answers, asked = iter([1, 0]), list[list[str]]()

    def ask(argv: list[str]) -> int:
        asked.append(argv)
        return next(answers)

    condition = MachineCondition(
        always(ScheduleSettings(gate_command="/bin/may run 'now please'")), ask
    )
    assert condition.reason().startswith("Waiting for the first answer")
    condition.check()
    assert condition.reason().endswith("says no (exit code 1).")
    for _ in range(2):
        condition.check()
        assert "exit code 1" in condition.reason(), "it is asked once a minute"
    condition.check()
    assert condition.reason() == ""
    assert asked == [["/bin/may", "run", "now please"]] * 2


def test_a_command_that_cannot_be_asked_forbids_work():
    condition = MachineCondition(
        always(ScheduleSettings(gate_command="/bin/may")),
        Mock(side_effect=WorkerUnfit("it is gone")),
    )
    condition.check()
    assert condition.reason() == "schedule.gate_command cannot be asked: it is gone"


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("false", 1)])
def test_a_real_command_is_run(command, code):
    assert run_command([command]) == code


def test_others_use_of_the_cpu_is_measured_without_our_own(monkeypatch):
    looks = iter([CpuTimes(100, 50, 40), CpuTimes(200, 140, 120), CpuTimes(300, 220, 130)])
    monkeypatch.setattr(machine_state, "cpu_times", lambda: next(looks))
    condition = MachineCondition(always(ScheduleSettings(max_other_cpu_percent=30)))
    condition.check()
    assert condition.reason() == "", "one look alone tells nothing"
    condition.check()
    assert condition.reason() == "", "90 of 100 were used, 80 of them by us"
    condition.check()
    assert condition.reason().startswith("Other programs use 70 % of the CPU")


def test_the_own_use_is_part_of_what_the_machine_used():
    before = machine_state.cpu_times()
    sum(n * n for n in range(300_000))
    after = machine_state.cpu_times()
    assert after.own > before.own
    assert 0 <= after.others_percent(before) <= 100


@pytest.mark.parametrize(("battery", "held"), [(True, True), (False, False), (None, False)])
def test_on_battery_work_waits_only_if_the_machine_tells(monkeypatch, battery, held):
    monkeypatch.setattr(machine_state, "on_battery", lambda: battery)
    condition = MachineCondition(always(ScheduleSettings(on_battery=False)))
    condition.check()
    assert bool(condition.reason()) is held


@pytest.mark.parametrize(("heat", "held"), [(90.0, True), (80.0, False), (None, False)])
def test_a_hot_machine_waits_only_if_it_tells(monkeypatch, heat, held):
    monkeypatch.setattr(machine_state, "hottest_c", lambda: heat)
    condition = MachineCondition(always(ScheduleSettings(max_temperature_c=85)))
    condition.check()
    assert bool(condition.reason()) is held


def test_the_machine_is_read_without_an_error():
    assert machine_state.on_battery() in {True, False, None}
    found = machine_state.hottest_c()
    assert found is None or found > -100
