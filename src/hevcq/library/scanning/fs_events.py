"""Listen to file-system events (inotify and the like) below library folders."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from hevcq.util.log import get_logger
from hevcq.util.text import reason_of

QUIET_MS = 500
"""Milliseconds to collect changes before the flag is set: a copy makes thousands a second."""


class ChangeListener:
    """Set `flag` at each change below the roots, from a thread of its own.

    If the system cannot watch them (too many folders, a network share), `failed` is set, a warning is
    logged and the regular scan finds new files.
    """

    def __init__(self, roots: Sequence[Path], flag: threading.Event) -> None:
        self._roots, self._flag = roots, flag
        self._stop = threading.Event()
        self.failed = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and wait for the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from watchfiles import watch

        try:
            changes = watch(
                *self._roots,
                stop_event=self._stop,
                step=QUIET_MS,
                rust_timeout=1000,
                yield_on_timeout=False,
                raise_interrupt=False,
                watch_filter=None,
                ignore_permission_denied=True,
            )
            for _ in changes:
                self._flag.set()
        except (OSError, RuntimeError) as error:
            self.failed = True
            get_logger().warning("folders_not_watched", reason=reason_of(error))
