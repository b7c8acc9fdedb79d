"""Whether the gate command of this machine allows work."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable

from hevcq.errors import HevcqError
from hevcq.settings.schedule import ScheduleSettings
from hevcq.util.log import get_logger
from hevcq.util.text import printable

COMMAND_EVERY_S = 60.0
COMMAND_TIMEOUT_S = 20.0
UNASKED = "Waiting for the first answer of schedule.gate_command."


class MachineCondition:
    """Ask the gate command; `reason` says why it forbids work, or is empty.

    `settings` returns those in force; others than before begin anew.

    Before the first answer it forbids work; so does a command that cannot be run, because its
    answer is unknown.
    """

    def __init__(
        self,
        settings: Callable[[], ScheduleSettings],
        ask: Callable[[list[str]], int] | None = None,
    ) -> None:
        self._wanted, self._ask = settings, ask if ask is not None else run_command
        self._begin(settings())

    def _begin(self, settings: ScheduleSettings) -> None:
        self._settings = settings
        self._commanded = UNASKED if settings.gate_command else ""

    def _current(self) -> ScheduleSettings:
        settings = self._wanted()
        if settings != self._settings:
            self._begin(settings)
        return settings

    def reason(self) -> str:
        """Return why this machine forbids work, as of its last answer, or ""."""
        self._current()
        return self._commanded

    def check(self) -> None:
        """Ask the command, if one is set."""
        settings = self._current()
        if settings.gate_command:
            self._commanded = self._answer(settings.gate_command)

    def _answer(self, command: str) -> str:
        shown = printable(command)
        try:
            code = self._ask(shlex.split(command))
        except (HevcqError, OSError) as error:
            get_logger().warning("gate_command_failed", reason=str(error))
            return f"schedule.gate_command cannot be asked: {error}"
        return "" if code == 0 else f"schedule.gate_command ({shown}) says no (exit code {code})."


def run_command(argv: list[str]) -> int:
    """Run a program with a clean environment; return its exit code.

    Raises WorkerUnfit if it cannot be started, LimitExceeded if it does not end in time.
    """
    from hevcq.ffmpeg.process.child import ChildLimits, run_child
    from hevcq.ffmpeg.process.sandbox import Access

    limits = ChildLimits(access=Access(confined=False))
    done = run_child(argv, stop=threading.Event(), limits=limits, deadline_s=COMMAND_TIMEOUT_S)
    return done.returncode
