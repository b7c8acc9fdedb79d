"""Pause and resume work, run this machine's gate command, and explain why no work begins."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from types import MappingProxyType

from hevcq.domain.schedule import Closed, Hours, Pause, RunningWork, find_closure, midnight
from hevcq.errors import HevcqError, StorageError, Unavailable, UsageError
from hevcq.ports.ledger import Ledger
from hevcq.settings.quantities import seconds
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import printable

MAX_PAUSE_S = 366 * 86400.0
COMMAND_EVERY_S = 60.0
"""Seconds between two runs of the gate command."""
SPENT_EVERY_S = 300.0
"""Seconds between two sums of a day's costs; each reads every job of the day."""
BY_PRICE = "prices.max_per_day"
"""The author of a pause by the day's price, and the profile of the note that a person resumed since."""
UNASKED = "Waiting for the first answer of schedule.gate_command."


@dataclass(frozen=True, slots=True)
class ClosedStatus:
    """Why no work of these profiles may begin now, and until when (Unix seconds)."""

    profiles: tuple[str, ...]
    reason: str
    running: str
    until: float | None


def seconds_of(text: str) -> float:
    """Return the seconds of `90m`, `2h`, `1d` or `2h30m`. Raises UsageError."""
    try:
        duration_s = seconds(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a length of time; write 30m, 2h, 1d or 2h30m."
        ) from error
    if not 0 < duration_s <= MAX_PAUSE_S:
        raise UsageError(f"{text!r} is not between a second and a year.")
    return duration_s


def pause(ledger: Ledger, request: Pause, for_s: float | None, *, can_freeze: bool = True) -> Pause:
    """Pause work for `for_s` seconds (None: until resumed); return the pause.

    Raises UsageError if running work cannot be frozen here, StorageError or Unavailable.
    """
    if request.running is RunningWork.FREEZE and not can_freeze:
        raise UsageError(
            "Freezing keeps programs in memory, and is only for work on one machine.",
            remedy="On AWS use --now: a split video loses one chunk at most.",
        )
    until = None if for_s is None else request.since + for_s
    bounded = request.model_copy(update={"until": until})
    ledger.pause(bounded)
    return bounded


def why_closed(
    ledger: Ledger,
    profiles: Iterable[str],
    hours: Hours,
    now: float,
    condition: str = "",
    unfit: Mapping[str, str] = MappingProxyType({}),
) -> tuple[ClosedStatus, ...]:
    """Return why work of these profiles may not begin; profiles with the same reason are grouped."""
    pauses = ledger.pauses()
    reasons: dict[Closed, list[str]] = {}
    for name in profiles:
        reason = find_closure(name, pauses, hours, now, condition)
        if reason is None and name in unfit:
            reason = Closed(unfit[name], RunningWork.BORDER)
        if reason is not None:
            reasons.setdefault(reason, []).append(name)
    return tuple(
        ClosedStatus(tuple(names), reason.reason, reason.running.value, reason.until)
        for reason, names in reasons.items()
    )


def resume(ledger: Ledger, profile: str | None) -> tuple[Pause, ...]:
    """End the pause of a profile, or with None every pause; return the pauses that it ended.

    A pause by the day's price leaves a note until midnight: a pause of the impossible profile name
    BY_PRICE, which stops every process's DailyCap from pausing again. Raises StorageError or Unavailable.
    """
    ended = ledger.resume(profile)
    for each in ended:
        if each.by.startswith(BY_PRICE):
            ledger.pause(each.model_copy(update={"profile": BY_PRICE}))
    return tuple(each for each in ended if each.profile != BY_PRICE)


class DailyCap:
    """Pauses all work until midnight once the day's encodes cost `most` dollars; call `check` regularly.

    `spent` returns the cost of the encodes since a moment. A person's pause of all work stays. After a
    person has resumed work, it does not pause again that day unless `most` changes.
    """

    def __init__(
        self,
        pauses: Ledger,
        spent: Callable[[float], float],
        most: Callable[[], float | None],
        clock: Clock,
        zone: tzinfo | None = None,
    ) -> None:
        self._pauses, self._spent, self._most = pauses, spent, most
        self._clock, self._zone = clock, zone
        self._next = 0.0

    def check(self) -> None:
        """Check the costs every SPENT_EVERY_S seconds. After StorageError or Unavailable, the next call retries."""
        most, now = self._most(), self._clock.now()
        if most is None or self._clock.monotonic() < self._next:
            return
        self._pause_if_spent(most, now)
        self._next = self._clock.monotonic() + SPENT_EVERY_S

    def require(self) -> None:
        """Check the costs before something is queued.

        Raises StorageError or Unavailable if they are unknown, so that nothing is queued.
        """
        try:
            self.check()
        except (StorageError, Unavailable) as error:
            raise type(error)(
                f"Nothing more is queued, because {BY_PRICE} cannot be checked: {error.message}",
                remedy=error.remedy or "Run the same command again to go on.",
            ) from error

    def _pause_if_spent(self, most: float, now: float) -> None:
        if self._is_decided(most, now):
            return
        spent = self._spent(midnight(now, self._zone))
        if spent < most or self._is_decided(most, now):  # a person paused or resumed during the sum
            return
        reason = f"{BY_PRICE} ({spent:.2f} of {most:g} dollars spent today)"
        until = midnight(now, self._zone, days=1)
        self._pauses.pause(Pause(by=reason, since=now, until=until))
        get_logger().warning("day_is_spent", reason=reason)

    def _is_decided(self, most: float, now: float) -> bool:
        """Return whether all work is paused, or a person resumed it after `most` was spent today."""
        return any(
            each.applies_to("", now)
            or (each.profile == BY_PRICE and f" of {most:g} dollars" in each.by)
            for each in self._pauses.pauses()
        )


EFFECTS: Mapping[RunningWork, str] = {
    RunningWork.BORDER: "Running encodes finish; nothing new begins.",
    RunningWork.FREEZE: "Running encodes pause and continue later; nothing new begins.",
    RunningWork.STOP: "Running encodes stop and start again later; nothing new begins.",
}


class GateCommand:
    """Runs the gate command; its exit code allows or forbids work on this machine.

    `configured` returns the command of the settings. Work is forbidden before the first answer of a
    command, and while the command cannot be run.
    """

    def __init__(self, configured: Callable[[], str], run: Callable[[list[str]], int]) -> None:
        self._configured, self._run = configured, run
        self._command, self._answer = "", ""

    def _current(self) -> str:
        command = self._configured()
        if command != self._command:
            self._command, self._answer = command, UNASKED if command else ""
        return command

    def reason(self) -> str:
        """Return why the command forbids work, by its last answer, or ""."""
        self._current()
        return self._answer

    def check(self) -> None:
        """Run the command, if one is configured."""
        if command := self._current():
            self._answer = self._ask(command)

    def _ask(self, command: str) -> str:
        try:
            code = self._run(shlex.split(command))
        except (HevcqError, OSError) as error:
            get_logger().warning("gate_command_failed", reason=str(error))
            return f"schedule.gate_command cannot be asked: {error}"
        shown = printable(command)
        return "" if code == 0 else f"schedule.gate_command ({shown}) says no (exit code {code})."
