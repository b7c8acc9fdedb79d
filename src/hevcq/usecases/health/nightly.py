"""Read a part of the libraries each night while nothing else needs the disk, and report what is wrong.

A night's part that is interrupted goes on where it was; one that a busy machine leaves no time for
waits for a week and is then read beside the encodes.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from hevcq.domain.schedule import Schedule
from hevcq.ports.catalog import Checked, Health
from hevcq.ports.event_log import Happened
from hevcq.sql.event_log import EventLog
from hevcq.usecases.health.check import CheckRequest, HealthCheck, HealthPorts, summary, where
from hevcq.util.text import printable

NIGHTS = 30
"""Nights of a month: each reads this part of the month's share, and one file at least."""
APART_S = 18 * 3600.0
"""Seconds after a night's end before which the next does not begin: half a night is none."""
PATIENCE_S = 7 * 86400.0
"""Seconds since the last whole night after which encodes are not waited for."""
LAST = "nightly: last ended"
SINCE = "nightly: since"
TOLD = "video.damaged"
TOLD_ONCE_S = 86400.0
"""Seconds within which a file is reported once: a kill between report and record repeats it."""


@dataclass(frozen=True, slots=True)
class Nights:
    """What each night reads: `share` of the bytes a month, in the hours of `schedule`."""

    roots: tuple[Path, ...]
    share: Fraction
    schedule: Schedule
    bytes_s: float = 0.0

    def request(self) -> CheckRequest:
        part = min(Fraction(1), self.share / NIGHTS)
        return CheckRequest(self.roots, share=part, bytes_s=self.bytes_s)


@dataclass(frozen=True, slots=True)
class NightlyCheck:
    """Look whether something is due, and read it.

    `held` returns why nothing may be read now (a pause), else ""; `busy` whether this machine encodes.
    `echo` prints a line for a person.
    """

    ports: HealthPorts
    log: EventLog
    held: Callable[[], str]
    busy: Callable[[], bool]
    echo: Callable[[str], None]

    def step(self, nights: Nights) -> bool:
        """Read tonight's part, if it is due; return whether it was read to its end.

        It is left for later, between two files, when the hours end or something else needs the disk.
        Raises Stopped, WorkerUnfit or StorageError.
        """
        if not nights.roots or nights.share <= 0 or not self._due() or not self._free(nights):
            return False
        check = HealthCheck(self.ports, nights.request(), on_checked=self._report)
        checked: list[Checked] = []
        with closing(check.run()) as found:
            for each in found:
                checked.append(each)
                if not self._free(nights):
                    return False
        self.ports.records.begin_round(LAST, self.ports.clock.now())
        if checked or check.earlier:
            self.echo(f"Health check: {summary([*check.earlier, *checked])}")
        return True

    def _due(self) -> bool:
        last = self.ports.records.round_began(LAST)
        return last is None or not 0 <= self.ports.clock.now() - last < APART_S

    def _free(self, nights: Nights) -> bool:
        now = self.ports.clock.now()
        if not nights.schedule.open_at(now) or self.held():
            return False
        return now - self._since(now) >= PATIENCE_S or not self.busy()

    def _since(self, now: float) -> float:
        """Return when the last night ended, or when there was first something to do."""
        last = self.ports.records.round_began(LAST)
        last = self.ports.records.round_began(SINCE) if last is None else last
        if last is None or last > now:
            self.ports.records.begin_round(SINCE, now)
            return now
        return last

    def _report(self, checked: Checked, before: Checked | None) -> None:
        """Report a newly damaged file; a kill before it is recorded reports twice instead of never."""
        known = before is not None and before.health is checked.health
        changed = before is not None and before.fingerprint != checked.fingerprint
        if checked.health is Health.SOUND or (known and not changed):
            return
        name = printable(checked.path)
        why = checked.detail.removeprefix(f"{name} is damaged: ")
        why = f"{why[:1].upper()}{why[1:]} {where(checked.spots)}".strip()
        happened = Happened(
            TOLD,
            checked.at,
            source=str(checked.path),
            reason=why,
            failure_class=checked.health.value,
        )
        if self.log.add(happened, unless_within_s=TOLD_ONCE_S):
            self.echo(f"{name} is {checked.health.value}: {why}")
