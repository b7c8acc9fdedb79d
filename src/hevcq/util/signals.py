"""Handle stop signals (the first asks, the second insists), and report the service's state to systemd.

The order of a stop, carried out by `worker.pool.WorkerPool`:

1. receive nothing new (`asked`);
2. let running jobs end within the grace period, their heartbeats alive;
3. after the grace period or a second signal (`insisted`): stop ffmpeg;
4. join each lease's heartbeat;
5. release each delivery at once and uncounted, so that another worker gets it now;
6. close, and exit with a code that says why.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from queue import SimpleQueue
from types import FrameType, TracebackType

from hevcq.util.clock import Clock

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""SIGHUP comes when the terminal closes or disconnects; if nohup ignores it, it stays ignored."""


class StopSignals:
    """Set flags on these signals inside the context, instead of ending the process.

    Enter it in the main thread. `received` is the number of the last signal, for the exit code.

    The handler itself must not set an Event: it runs in the main thread between two bytecodes and
    would deadlock if that thread holds the same Event's lock. SimpleQueue.put is reentrant by
    contract (https://docs.python.org/3/library/queue.html#queue.SimpleQueue.put), so a thread sets
    the flags.
    """

    def __init__(self, reload: threading.Event | None = None) -> None:
        """With `reload`, SIGHUP sets that event, and asks for a stop only if the terminal was closed."""
        self._reload = reload
        self.asked = threading.Event()
        self.insisted = threading.Event()
        self.received: int | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}
        self._numbers: SimpleQueue[int] = SimpleQueue()
        self._terminals: list[int] = []
        self._listener = threading.Thread(target=self._listen, name="hevcq-signals", daemon=True)

    def __enter__(self) -> StopSignals:
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        self._listener.start()
        for number in SIGNALS:
            ignored = number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
            if ignored and self._reload is None:
                continue
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
        self._numbers.put(0)
        self._listener.join()

    def ask(self) -> None:
        """Ask for a stop; the second call insists."""
        if self.asked.is_set():
            self.insisted.set()
        self.asked.set()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._numbers.put(number)

    def _listen(self) -> None:
        while number := self._numbers.get():
            # After the terminal was closed, SIGHUP means that, and no wish to reload.
            is_open = all(os.isatty(each) for each in self._terminals)
            if number == signal.SIGHUP and self._reload is not None and is_open:
                self._reload.set()
                continue
            self.received = number
            if number == signal.SIGHUP:
                self._redirect_terminals()
            self.ask()

    def _redirect_terminals(self) -> None:
        """Redirect output from the closed terminal to the null device: a failed write would end the stop."""
        null = os.open(os.devnull, os.O_WRONLY)
        for number in self._terminals:
            os.dup2(null, number)
        os.close(null)


BEATS = 3.0
"""Signs of life in one watchdog interval, so that one late sign does not end the service."""


class Notifier:
    """Send states to systemd; without an address it does nothing. A lost state is no error."""

    def __init__(self, address: str, watchdog_s: float, clock: Clock) -> None:
        """`watchdog_s` is the interval in which systemd expects a sign of life; 0: none."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._every_s, self._clock = watchdog_s / BEATS, clock
        self._due = clock.monotonic()
        self._status = ""

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, words: str) -> None:
        """Set the line that `systemctl status` shows, if it changed."""
        if words != self._status:
            self._status = words
            self._send(f"STATUS={' '.join(words.split())}")

    def alive(self) -> None:
        """Give a sign of life if one is due. Call it in the loop that must not hang."""
        now = self._clock.monotonic()
        if self._every_s > 0 and now >= self._due:
            self._due = now + self._every_s
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), self._address)


def notifier_of(variables: Mapping[str, str], pid: int, clock: Clock) -> Notifier:
    """Return the notifier for the process `pid`, as systemd's environment variables configure it."""
    microseconds = variables.get("WATCHDOG_USEC", "")
    is_for_us = variables.get("WATCHDOG_PID", str(pid)) == str(pid)
    watchdog_s = int(microseconds) / 1e6 if is_for_us and microseconds.isdigit() else 0.0
    return Notifier(variables.get("NOTIFY_SOCKET", ""), watchdog_s, clock)
