"""Being told to stop: the first signal asks, the second insists. Handlers only set flags.

The written order, carried out by `pool.WorkerPool.run`:

1. take nothing new (`asked`);
2. let running jobs end within the grace, their heartbeats alive;
3. when the grace is over, or at a second signal (`insisted`): stop ffmpeg;
4. join each lease's heartbeat;
5. release each delivery at once and uncounted, so that another worker gets it now;
6. close, and exit with a code that says why.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """A context in which SIGTERM and SIGINT set flags instead of ending the process.

    Enter it in the main thread. `received` is the number of the last signal, for the exit code.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.insisted = threading.Event()
        self.received: int | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> StopSignals:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def ask(self) -> None:
        """Ask to stop; asking again insists."""
        if self.asked.is_set():
            self.insisted.set()
        self.asked.set()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        self.ask()
