"""Whether this machine's condition allows work: its gate command, others' load, power, temperature."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from hevcq.errors import HevcqError
from hevcq.settings.schedule import ScheduleSettings
from hevcq.util.log import get_logger
from hevcq.util.text import printable

if TYPE_CHECKING:
    from hevcq.util.machine_state import CpuTimes

LOOK_EVERY_S = 20.0
"""Seconds between looks at load, power and temperature; others' load is its mean over them."""
COMMAND_EVERY_S = 60.0
COMMAND_TIMEOUT_S = 20.0
UNASKED = "Waiting for the first answer of schedule.gate_command."


class MachineCondition:
    """Look at this machine when asked; `reason` says why it forbids work, or is empty.

    `settings` returns those in force; others than before begin anew.

    Before the first look it forbids work if a gate command is set. What the machine does not report
    forbids nothing; a command that cannot be run forbids work, because its answer is unknown.
    """

    def __init__(
        self,
        settings: Callable[[], ScheduleSettings],
        ask: Callable[[list[str]], int] | None = None,
    ) -> None:
        self._wanted, self._ask = settings, ask if ask is not None else run_command
        self._before: CpuTimes | None = None
        self._begin(settings())

    def _begin(self, settings: ScheduleSettings) -> None:
        self._settings, self._looks, self._reason = settings, 0, ""
        self._commanded = UNASKED if settings.gate_command else ""

    def _current(self) -> ScheduleSettings:
        settings = self._wanted()
        if settings != self._settings:
            self._begin(settings)
        return settings

    def reason(self) -> str:
        """Return why this machine forbids work, as of the last look, or ""."""
        self._current()
        return self._commanded or self._reason

    def check(self) -> None:
        """Look at everything that the settings limit; ask the command every third time."""
        settings = self._current()
        if settings.gate_command and self._looks % round(COMMAND_EVERY_S / LOOK_EVERY_S) == 0:
            self._commanded = self._answer(settings.gate_command)
        self._looks += 1
        self._reason = self._others() or self._power() or self._heat()

    def _answer(self, command: str) -> str:
        shown = printable(command)
        try:
            code = self._ask(shlex.split(command))
        except (HevcqError, OSError) as error:
            get_logger().warning("gate_command_failed", reason=str(error))
            return f"schedule.gate_command cannot be asked: {error}"
        return "" if code == 0 else f"schedule.gate_command ({shown}) says no (exit code {code})."

    def _others(self) -> str:
        most = self._settings.max_other_cpu_percent
        if most <= 0:
            return ""
        from hevcq.util.machine_state import cpu_times

        now, before = cpu_times(), self._before
        self._before = now
        used = now.others_percent(before) if before is not None else 0.0
        if used <= most:
            return ""
        return f"Other programs use {used:.0f} % of the CPU (schedule.max_other_cpu_percent: {most:g})."

    def _power(self) -> str:
        if self._settings.on_battery:
            return ""
        from hevcq.util.machine_state import on_battery

        return "This machine runs on battery (schedule.on_battery)." if on_battery() else ""

    def _heat(self) -> str:
        most = self._settings.max_temperature_c
        if most <= 0:
            return ""
        from hevcq.util.machine_state import hottest_c

        found = hottest_c()
        if found is None or found <= most:
            return ""
        return f"A sensor reads {found:.0f} °C (schedule.max_temperature_c: {most:g})."


def run_command(argv: list[str]) -> int:
    """Run a program with a clean environment; return its exit code.

    Raises WorkerUnfit if it cannot be started, LimitExceeded if it does not end in time.
    """
    from hevcq.ffmpeg.process.child import ChildLimits, run_child
    from hevcq.ffmpeg.process.sandbox import Access

    limits = ChildLimits(access=Access(confined=False))
    done = run_child(argv, stop=threading.Event(), limits=limits, deadline_s=COMMAND_TIMEOUT_S)
    return done.returncode
