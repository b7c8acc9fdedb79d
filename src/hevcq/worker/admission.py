"""Admit work or hold it back, and say what becomes of work that runs.

It is asked before every receive, and by the pool for the work that runs. What it knows of the pauses
is at most `Pauses.pauses_read_every_s` seconds old.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from hevcq.domain.pause import Closed, Hours, Pause, closed
from hevcq.domain.profile import Profile
from hevcq.errors import HevcqError
from hevcq.ports.ledger import Pauses
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.worker.self_tests import SelfTests


def nothing_forbids() -> str:
    """Return "": the default, by which this machine's condition never forbids work."""
    return ""


class Admission:
    """Decide for each profile whether its work may begin now. Safe to use from any thread.

    `hours` returns the hours in force; `condition` returns a sentence while this machine forbids
    work, else "". Both must be quick. `self_tests` knows the profiles that ffmpeg cannot make here.
    """

    def __init__(
        self,
        pauses: Pauses,
        clock: Clock,
        hours: Callable[[], Hours] = Hours,
        condition: Callable[[], str] = nothing_forbids,
        self_tests: SelfTests | None = None,
    ) -> None:
        self._pauses, self._clock, self._self_tests = pauses, clock, self_tests
        self._hours, self._condition = hours, condition
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._known: tuple[Pause, ...] = ()
        self._unread = ""
        self._reasons: dict[str, str] = {}
        self._logged: set[str] = set()

    def closed(self, profile: str, *, now: bool = False) -> Closed | None:
        """Return why no work of this profile may begin, or None; with `now` the pauses are read anew.

        A failed read leaves what was known: the receive that follows meets the same failure.
        """
        with self._lock:
            self._read(now=now)
            at, hours = self._clock.now(), self._hours()
            found = closed(profile, self._known, hours, at, self._condition())
            if found is None and self._self_tests is not None:
                found = self._self_tests.closed(profile)
            self._log_change(profile, found)
        return found

    def unfit(self, profile: str) -> str:
        """Return why ffmpeg cannot make this profile here, as far as it was tested, or ""."""
        found = None if self._self_tests is None else self._self_tests.closed(profile)
        return "" if found is None else found.reason

    def require_tested(self, profile: Profile, stop: threading.Event) -> Closed | None:
        """Let ffmpeg prove that it can make this profile, once; return why its job must wait, or None.

        Takes one to three seconds at the first job with a build of ffmpeg, and no time after a pass.
        """
        return None if self._self_tests is None else self._self_tests.require(profile, stop)

    def _read(self, *, now: bool) -> None:
        at, every = self._clock.monotonic(), self._pauses.pauses_read_every_s
        if not now and self._read_at is not None and at - self._read_at < every:
            return
        self._read_at = at
        try:
            self._known, self._unread = self._pauses.pauses(), ""
        except HevcqError as error:
            # Once an outage: it is read every few seconds.
            if str(error) != self._unread:
                get_logger().info("pauses_not_read", reason=str(error))
            self._unread = str(error)

    def _log_change(self, profile: str, found: Closed | None) -> None:
        """Log a change once, though every profile meets it: the reason names its profile."""
        before, reason = self._reasons.get(profile, ""), found.reason if found is not None else ""
        if reason == before:
            return
        self._reasons[profile] = reason
        ended = before in self._logged
        self._logged.discard(before)
        if found is not None and reason not in self._logged:
            self._logged.add(reason)
            get_logger().warning("work_paused", reason=reason, running=found.running.value)
        elif found is None and ended:
            get_logger().info("work_goes_on", was=before)
