"""Bound what clients that have not signed in can hold: connections, and time for a request's head."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hevcq.util.log import get_logger
from hevcq.web.shield import is_loopback

HEAD_S = 15.0
"""Seconds from a request's first byte, or from the connection's start, to the end of its head."""
FEWEST, MOST = 16, 2048
AT_ONCE = 64
"""Connections that wait to be taken, and are taken before the first of them is judged."""
WARN_AGAIN_S = 60.0
NO_MORE_FILES = "socket.accept() out of system resource"
"""How asyncio words it; the test of this file fails if that changes."""


def raise_open_files() -> None:
    """Let this process open as many files as its user allows it, up to what connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST if hard == resource.RLIM_INFINITY else min(2 * MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """Return how many connections are taken: half the files this process may open.

    Without a bound, asyncio writes a traceback for each connection it finds no descriptor for, many
    thousands a second, and the log fills the disk that encodes need.
    """
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else max(FEWEST, min(MOST, soft // 2))


class BoundedProtocol(H11Protocol):
    """One connection; a peer other than this machine gets half of them at most."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or close it where there are too many."""
        super().connection_made(transport)
        if self._crowded():
            transport.abort()
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Read on; whoever sends a head byte by byte is cut off."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait_for_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _crowded(self) -> bool:
        most = most_connections()
        if len(self.connections) > most:
            return True
        peer = self.client[0] if self.client else ""
        if is_loopback(peer):  # a reverse proxy, behind which everybody is
            return False
        held: int = sum(
            (getattr(each, "client", None) or ("",))[0] == peer for each in self.connections
        )
        return held > most // 2

    def _wait_for_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_S, self._cut_off)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _cut_off(self) -> None:
        self._late = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.abort()


class AcceptFailures:
    """Say once a minute that no connection can be taken; asyncio says it up to AT_ONCE times a second."""

    def __init__(self) -> None:
        self._warned_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle what went wrong in a loop, as its exception handler."""
        if context.get("message") != NO_MORE_FILES:
            loop.default_exception_handler(context)
        elif loop.time() - self._warned_at >= WARN_AGAIN_S:
            self._warned_at = loop.time()
            get_logger().warning("connections_refused", reason=str(context.get("exception", "")))
