"""Pause and resume work, ask the gate command of this machine, and say why nothing runs."""

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
"""Seconds between two questions to the gate command."""
SPENT_EVERY_S = 300.0
"""Seconds between two looks at what a day's encodes cost; a look reads each job of the day."""
BY_PRICE = "prices.max_per_day"
"""Who pauses by a day's price, and where is noted that a person resumed since."""
UNASKED = "Waiting for the first answer of schedule.gate_command."


@dataclass(frozen=True, slots=True)
class ClosedStatus:
    """Why no work of these profiles may begin now, and until when (Unix seconds)."""

    profiles: tuple[str, ...]
    reason: str
    running: str
    until: float | None


def seconds_of(text: str) -> float:
    """Return the seconds in `90m`, `2h`, `1d` or `2h30m`. Raises UsageError."""
    try:
        found = seconds(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a length of time; write 30m, 2h, 1d or 2h30m."
        ) from error
    if not 0 < found <= MAX_PAUSE_S:
        raise UsageError(f"{text!r} is not between a second and a year.")
    return found


def pause(pauses: Ledger, wanted: Pause, for_s: float | None, *, can_freeze: bool = True) -> Pause:
    """Pause work for so many seconds (None: until resumed); return the pause.

    Raises UsageError if work is to be frozen where it cannot be, StorageError or Unavailable.
    """
    if wanted.running is RunningWork.FREEZE and not can_freeze:
        raise UsageError(
            "Freezing keeps programs in memory, and is only for work on one machine.",
            remedy="On AWS use --now: a split video loses one chunk at most.",
        )
    until = None if for_s is None else wanted.since + for_s
    made = wanted.model_copy(update={"until": until})
    pauses.pause(made)
    return made


def why_closed(
    pauses: Ledger,
    profiles: Iterable[str],
    hours: Hours,
    now: float,
    condition: str = "",
    unfit: Mapping[str, str] = MappingProxyType({}),
) -> tuple[ClosedStatus, ...]:
    """Return why work of these profiles may not begin, profiles with one reason together."""
    known = pauses.pauses()
    reasons: dict[Closed, list[str]] = {}
    for name in profiles:
        found = find_closure(name, known, hours, now, condition)
        if found is None and name in unfit:
            found = Closed(unfit[name], RunningWork.BORDER)
        if found is not None:
            reasons.setdefault(found, []).append(name)
    return tuple(
        ClosedStatus(tuple(names), found.reason, found.running.value, found.until)
        for found, names in reasons.items()
    )


def resume(pauses: Ledger, profile: str | None) -> tuple[Pause, ...]:
    """End the pause of this profile, or with None every pause; return those that had not ended.

    Of one by a day's price a note stays until midnight, as a pause of a profile that no profile can be
    called: every process's DailyCap leaves the day alone then. Raises StorageError or Unavailable.
    """
    ended = pauses.resume(profile)
    for each in ended:
        if each.by.startswith(BY_PRICE):
            pauses.pause(each.model_copy(update={"profile": BY_PRICE}))
    return tuple(each for each in ended if each.profile != BY_PRICE)


class DailyCap:
    """Pause all work until midnight once the day's encodes cost `most` dollars; `check` looks, now and then.

    `spent` returns what the encodes since a moment cost. A person's pause of all work stays, and where
    a person resumed, the day is left alone until `most` is another.
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
        """Look, if it is time. Raises StorageError or Unavailable, and looks at once when asked again."""
        most, now = self._most(), self._clock.now()
        if most is None or self._clock.monotonic() < self._next:
            return
        self._look(most, now)
        self._next = self._clock.monotonic() + SPENT_EVERY_S

    def require(self) -> None:
        """Look, before something is queued; what cannot be looked at counts as spent.

        Raises StorageError or Unavailable, which say so.
        """
        try:
            self.check()
        except (StorageError, Unavailable) as error:
            raise type(error)(
                f"Nothing more is queued, because {BY_PRICE} cannot be checked: {error.message}",
                remedy=error.remedy or "Run the same command again to go on.",
            ) from error

    def _look(self, most: float, now: float) -> None:
        if self._left_alone(most, now):
            return
        spent = self._spent(midnight(now, self._zone))
        if spent < most or self._left_alone(most, now):  # a person paused or resumed during the sum
            return
        reason = f"{BY_PRICE} ({spent:.2f} of {most:g} dollars spent today)"
        until = midnight(now, self._zone, days=1)
        self._pauses.pause(Pause(by=reason, since=now, until=until))
        get_logger().warning("day_is_spent", reason=reason)

    def _left_alone(self, most: float, now: float) -> bool:
        """Return whether all work is paused, or a person resumed it after so much was spent today."""
        return any(
            each.applies_to("", now)
            or (each.profile == BY_PRICE and f" of {most:g} dollars" in each.by)
            for each in self._pauses.pauses()
        )


EFFECTS: Mapping[RunningWork, str] = {
    RunningWork.BORDER: "Running encodes finish; nothing new begins.",
    RunningWork.FREEZE: "Running encodes stand still and go on later; nothing new begins.",
    RunningWork.STOP: "Running encodes stop and start again later; nothing new begins.",
}


class GateCommand:
    """Ask the gate command; `reason` says why it forbids work, or is empty.

    `wanted` returns the command in force; another than before begins anew. Before the first answer
    work is forbidden, and so it is by a command that cannot be run, whose answer is unknown.
    """

    def __init__(self, wanted: Callable[[], str], ask: Callable[[list[str]], int]) -> None:
        self._wanted, self._ask = wanted, ask
        self._command, self._answer = "", ""

    def _current(self) -> str:
        command = self._wanted()
        if command != self._command:
            self._command, self._answer = command, UNASKED if command else ""
        return command

    def reason(self) -> str:
        """Return why this machine forbids work, as of its last answer, or ""."""
        self._current()
        return self._answer

    def check(self) -> None:
        """Ask the command, if one is set."""
        if command := self._current():
            self._answer = self._asked(command)

    def _asked(self, command: str) -> str:
        try:
            code = self._ask(shlex.split(command))
        except (HevcqError, OSError) as error:
            get_logger().warning("gate_command_failed", reason=str(error))
            return f"schedule.gate_command cannot be asked: {error}"
        shown = printable(command)
        return "" if code == 0 else f"schedule.gate_command ({shown}) says no (exit code {code})."
