"""Open what a health check works with; run it each night beside a service."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from hevcq.domain.job import JobState
from hevcq.domain.pause import Hours, closed
from hevcq.errors import HevcqError, Stopped
from hevcq.usecases.library_state import folder_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from hevcq.ports.catalog import Checked
    from hevcq.usecases.health.check import CheckRequest, HealthCheck
    from hevcq.usecases.health.nightly import Nights
    from hevcq.wiring.app import App

LOOK_S = 60.0
"""Seconds between looks whether something is to be read."""


def open_check(
    app: App,
    request: CheckRequest,
    stop: threading.Event,
    on_file: Callable[[int, int, Path], None],
) -> HealthCheck:
    """Return the check of this request, with its records in the database of the data folder.

    Raises StorageError if that cannot be opened.
    """
    from hevcq.backends.embedded.catalog import SqliteHealthRecords
    from hevcq.usecases.health.check import HealthCheck, HealthPorts

    app.encoder.version()  # no file is blamed for an ffmpeg that is not there
    records = SqliteHealthRecords(app.records)
    ports = HealthPorts(app.encoder, records, app.clock, stop, app.scratch)
    return HealthCheck(ports, request, on_file)


def unsound_videos(app: App) -> list[Checked]:
    """Return what checks found damaged, rotten or unreadable. Raises StorageError."""
    from hevcq.backends.embedded.catalog import SqliteHealthRecords
    from hevcq.usecases.health.check import unsound

    return unsound(SqliteHealthRecords(app.records))


class HealthWatch:
    """Reads a part of the libraries each night beside a service, in a thread, until `stop`.

    The settings are read anew before each look. A failure is reported once.
    """

    def __init__(self, app: App, echo: Callable[[str], None], stop: threading.Event) -> None:
        self._app, self._echo, self._stop = app, echo, stop
        self._reported = ""
        self._thread = threading.Thread(target=self._run, name="hevcq-health", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended after `stop`, at most so long; the next start goes on."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.check()
            self._app.clock.wait(self._stop, LOOK_S)

    def check(self) -> None:
        """Read what is due; must not raise, as nobody else would hear of it."""
        if not self._app.settings.health.share:
            return
        try:
            self._check()
        except Stopped:
            return
        except HevcqError as error:
            self._complain(str(error))
        except Exception as error:  # noqa: BLE001 - the thread must live on
            self._complain(f"this is a bug: {type(error).__name__}: {error}")
        else:
            self._reported = ""

    def _check(self) -> None:
        from hevcq.backends.embedded.catalog import SqliteHealthRecords
        from hevcq.usecases.health.check import HealthPorts
        from hevcq.usecases.health.nightly import NightlyCheck, Surroundings
        from hevcq.wiring.notify import event_log, notify_now

        app, settings = self._app, self._app.settings
        records = SqliteHealthRecords(app.records)
        ports = HealthPorts(app.encoder, records, app.clock, self._stop, app.scratch)
        around = Surroundings(event_log(app), self._held, self._busy, self._echo)
        read = NightlyCheck(ports, around).step(self._nights())
        if read and settings.backend == "aws":  # where no workers of this process send messages
            notify_now(app)

    def _nights(self) -> Nights:
        from hevcq.usecases.health.nightly import Nights

        settings, health = self._app.settings, self._app.settings.health
        roots: list[Path] = []
        for each in settings.libraries:
            if not folder_state(each).problem:
                roots += [each.path, *([each.output] if each.output else [])]
        return Nights(
            tuple(root for root in roots if root.is_dir()),
            health.share,
            health.schedule(settings.schedule.windows, settings.schedule.timezone),
            health.limit,
        )

    def _held(self) -> str:
        """Return why nothing may be read now: a person's pause, or this machine's condition."""
        app = self._app
        pauses = app.backend.pauses.pauses() if app.settings.backend == "embedded" else ()
        found = closed("", pauses, Hours(), app.clock.now(), app.condition())
        return "" if found is None else found.reason

    def _busy(self) -> bool:
        """Return whether this machine encodes; a fleet does that elsewhere."""
        if self._app.settings.backend != "embedded":
            return False
        counts = self._app.backend.ledger.counts()
        return any(state is JobState.RUNNING and count for (_, state), count in counts.items())

    def _complain(self, words: str) -> None:
        if self._reported != words:
            self._reported = words
            self._echo(f"Health check: {words}")
