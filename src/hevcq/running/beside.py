"""What a service does beside the encodes, each in a thread of its own: syncs, and reading old videos."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hevcq.domain.job import JobState
from hevcq.domain.pause import Hours, closed
from hevcq.errors import HevcqError, Stopped
from hevcq.settings.sync import SyncSettings
from hevcq.usecases.health.nightly import NightlyCheck, Nights, Surroundings
from hevcq.usecases.library_state import folder_state
from hevcq.usecases.sync.session import Session, Synced, pause_s
from hevcq.util.text import printable
from hevcq.wiring.app import App
from hevcq.wiring.contexts import health_ports
from hevcq.wiring.notify import event_log, notify_now
from hevcq.wiring.sync import opened

SHOWN = frozenset({"moved", "copied", "failed", "refused"})
"""What a person wants to read of a service's syncs; the rest is what waits or is known already."""
LOOK_S = 60.0
"""Seconds between looks whether a video is to be read."""


class Beside(ABC):
    """Does what is due, again and again until `stop`; the settings are read anew each time.

    What cannot run is reported once and tried again, and keeps nothing else from running.
    """

    def __init__(self, app: App, echo: Callable[[str], None], stop: threading.Event) -> None:
        self._app, self._echo, self._stop = app, echo, stop
        self._complained: dict[str, str] = {}
        self._thread = threading.Thread(
            target=self._run, name=f"hevcq-{type(self).__name__.lower()}", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended after `stop`, at most so long; the next start goes on."""
        self._thread.join(timeout_s)

    @abstractmethod
    def look(self) -> float:
        """Do what is due; return the seconds until the next look."""

    def _run(self) -> None:
        while not self._stop.is_set():
            self._app.clock.wait(self._stop, self.look())

    def _attempt(self, what: str, act: Callable[[], None]) -> None:
        """Do one thing; must not raise, as nobody else would hear of it."""
        try:
            act()
        except Stopped:
            return
        except HevcqError as error:
            words = str(error)
        except Exception as error:  # noqa: BLE001 - the thread must live on
            words = f"this is a bug: {type(error).__name__}: {error}"
        else:
            words = ""
        if words and self._complained.get(what) != words:
            self._echo(f"{what}: {words}")
        self._complained[what] = words


class SyncThread(Beside):
    """Run each sync of the settings."""

    def __init__(self, app: App, echo: Callable[[str], None], stop: threading.Event) -> None:
        super().__init__(app, echo, stop)
        self._noticed: set[str] = set()
        self._repeated: set[tuple[str, str, str]] = set()

    def look(self) -> float:
        """Run each sync once; return the seconds until the next look."""
        wanted = self._app.settings.sync
        for each in wanted:
            if not self._stop.is_set():
                self._attempt(f"Sync {printable(each.name)}", partial(self._sync, each))
        return pause_s(each.settle for each in wanted)

    def _sync(self, sync: SyncSettings) -> None:
        with opened(self._app, sync, self._stop) as ports:
            told = self._on_file, self._notice
            Session(ports, sync, *told, reported=self._repeated).run()

    def _notice(self, words: str) -> None:
        """Print once what each look would repeat."""
        if words not in self._noticed:
            self._noticed.add(words)
            self._echo(words)

    def _on_file(self, each: Synced) -> None:
        if each.fate.value in SHOWN:
            where = "" if each.target is None else f" → {printable(each.target)}"
            why = f" ({printable(each.reason)})" if each.reason else ""
            self._echo(f"{each.fate.value} {printable(each.path)}{where}{why}")


class HealthWatch(Beside):
    """Read a part of the libraries each night."""

    def look(self) -> float:
        """Read what is due; return the seconds until the next look."""
        if self._app.settings.health.share:
            self._attempt("Health check", self._check)
        return LOOK_S

    def _check(self) -> None:
        app, settings = self._app, self._app.settings
        ports = health_ports(app, self._stop)
        around = Surroundings(event_log(app), self._held, self._busy, self._echo)
        read = NightlyCheck(ports, around).step(self._nights())
        if read and settings.backend == "aws":  # where no workers of this process send messages
            notify_now(app)

    def _nights(self) -> Nights:
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
        pauses = app.backend.ledger.pauses() if app.settings.backend == "embedded" else ()
        found = closed("", pauses, Hours(), app.clock.now(), app.condition())
        return "" if found is None else found.reason

    def _busy(self) -> bool:
        """Return whether this machine encodes; a fleet does that elsewhere."""
        if self._app.settings.backend != "embedded":
            return False
        counts = self._app.backend.ledger.counts()
        return any(state is JobState.RUNNING and count for (_, state), count in counts.items())
