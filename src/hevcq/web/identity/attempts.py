"""Limit the attempts to sign in, to enter the set-up code and to open a shared video."""

import ipaddress
import math
from collections.abc import Sequence

from starlette.requests import HTTPConnection

from hevcq.util.clock import Clock
from hevcq.web.identity.modes import MAX_NAME, is_trusted_proxy
from hevcq.web.shield import ip_of

MAX_ATTEMPTS = 10
WINDOW_S = 60.0
MAX_NAMES = 10_000
"""The most names that are remembered; the name attempted longest ago is forgotten first."""


class AttemptLimiter:
    """Allow MAX_ATTEMPTS failures per name in WINDOW_S seconds. A name is an address, user or share."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, list[float]] = {}

    def count(self, *names: str) -> int:
        """Count an attempt as a failure of each name and return 0, or return the seconds to wait.

        The attempt stays counted until `forget`, so that attempts sent at the same moment cannot all
        pass. Nothing is counted while any of the names must wait.
        """
        now = self._clock.monotonic()
        since = now - WINDOW_S
        recent = {n: [at for at in self._failures.pop(n, ()) if at > since] for n in names}
        self._failures |= recent
        if exhausted := [failures for failures in recent.values() if len(failures) >= MAX_ATTEMPTS]:
            return math.ceil(max(failures[0] for failures in exhausted) - since)
        for failures in recent.values():
            failures.append(now)
        while len(self._failures) > MAX_NAMES:
            self._failures.pop(next(iter(self._failures)))
        return 0

    def forget(self, *names: str) -> None:
        for name in names:
            self._failures.pop(name, None)


def too_many(wait_s: int) -> str:
    return f"Too many attempts. Wait {wait_s} seconds."


def client_network(proxies: Sequence[str], connection: HTTPConnection) -> str:
    """Return the network that attempts are counted by: one person may own all its addresses."""
    return network_of(client_of(proxies, connection))


def client_of(proxies: Sequence[str], connection: HTTPConnection) -> str:
    """Return the client's address: behind trusted proxies, the last forwarded one that is not theirs."""
    peer = connection.client.host if connection.client else ""
    forwarded = ",".join(connection.headers.getlist("x-forwarded-for")).split(",")
    while is_trusted_proxy(proxies, peer) and forwarded and forwarded[-1].strip():
        peer = forwarded.pop().strip()
    return peer[:MAX_NAME]


def network_of(address: str) -> str:
    """Return an IPv4 address as it is, or the 64-bit network of an IPv6 address."""
    ip = ip_of(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return address
