"""Tell systemd how a service is: sd_notify(3) over the socket that it names, without its library.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html: one datagram of `KEY=VALUE`
lines to the Unix socket in NOTIFY_SOCKET, where a leading `@` is the abstract namespace.
"""

import socket
from collections.abc import Mapping
from contextlib import suppress

from hevcq.util.clock import Clock

BEATS = 3.0
"""Signs of life in one watchdog interval: one that is late must not end the service."""


class Notifier:
    """Sends states to systemd; without an address it does nothing. A lost state is no error."""

    def __init__(self, address: str, watchdog_s: float, clock: Clock) -> None:
        """Create a notifier.

        `watchdog_s` is the interval in which systemd wants a sign of life, 0: none.
        """
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
        """Set the line that `systemctl status` shows, if it is another one now."""
        if words != self._status:
            self._status = words
            self._send(f"STATUS={' '.join(words.split())}")

    def alive(self) -> None:
        """Give a sign of life if one is due. To be called from the loop whose hang is to be seen."""
        now = self._clock.monotonic()
        if self._every_s > 0 and now >= self._due:
            self._due = now + self._every_s
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
            way.sendto(state.encode(), self._address)


def notifier_of(variables: Mapping[str, str], pid: int, clock: Clock) -> Notifier:
    """Return the notifier that these environment variables ask for, for the process `pid`."""
    microseconds = variables.get("WATCHDOG_USEC", "")
    mine = variables.get("WATCHDOG_PID", str(pid)) == str(pid)
    watchdog_s = int(microseconds) / 1e6 if mine and microseconds.isdigit() else 0.0
    return Notifier(variables.get("NOTIFY_SOCKET", ""), watchdog_s, clock)
