"""Run the syncs of the settings beside a service, again and again, in a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hevcq.errors import HevcqError, Stopped
from hevcq.settings.sync import SyncSettings
from hevcq.usecases.sync.session import Session, Synced, pause_s
from hevcq.util.text import printable
from hevcq.wiring.app import App
from hevcq.wiring.sync import opened

SHOWN = frozenset({"moved", "copied", "failed", "refused"})
"""What a person wants to read of a service; the rest is what waits or is known already."""


class SyncThread:
    """Look at each server until `stop`. The settings are read anew before each look.

    A sync that cannot run is reported once, tried again, and keeps neither the others nor the encodes
    from theirs.
    """

    def __init__(self, app: App, echo: Callable[[str], None], stop: threading.Event) -> None:
        self._app, self._echo, self._stop = app, echo, stop
        self._complained: dict[str, str] = {}
        self._noticed: set[str] = set()
        self._repeated: set[tuple[str, str, str]] = set()
        self._thread = threading.Thread(target=self._run, name="hevcq-sync", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended after `stop`, at most so long; a move resumes later."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            wanted = self._app.settings.sync
            for each in wanted:
                if not self._stop.is_set():
                    self.check(each)
            self._app.clock.wait(self._stop, pause_s(each.settle for each in wanted))

    def check(self, sync: SyncSettings) -> None:
        """Run one sync once; must not raise, as nobody else would hear of it."""
        try:
            with opened(self._app, sync, self._stop) as ready:
                Session(
                    ready.ports, ready.job, self._on_file, self._notice, reported=self._repeated
                ).run()
        except Stopped:
            return
        except HevcqError as error:
            self._complain(sync, str(error))
        except Exception as error:  # noqa: BLE001 - the thread must live on
            self._complain(sync, f"this is a bug: {type(error).__name__}: {error}")
        else:
            self._complained.pop(sync.name, None)

    def _notice(self, words: str) -> None:
        """Print once what each look would repeat."""
        if words not in self._noticed:
            self._noticed.add(words)
            self._echo(words)

    def _complain(self, sync: SyncSettings, words: str) -> None:
        if self._complained.get(sync.name) != words:
            self._complained[sync.name] = words
            self._echo(f"Sync {printable(sync.name)}: {words}")

    def _on_file(self, each: Synced) -> None:
        if each.fate.value in SHOWN:
            where = "" if each.target is None else f" → {printable(each.target)}"
            why = f" ({printable(each.reason)})" if each.reason else ""
            self._echo(f"{each.fate.value} {printable(each.path)}{where}{why}")
