"""Send one HTTP request to an address of the settings: no redirect, no proxy, a short answer."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx2 as http

from hevcq.ports.receiver import NotDelivered
from hevcq.util.clock import Clock

TIMEOUT_S = 10.0
MOST_ANSWER = 65_536
"""Bytes read of an answer."""
Resolve = Callable[[str, int], list[str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The status and the first bytes of an answer; `after_s` is its Retry-After in seconds."""

    status: int
    body: bytes
    after_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the request was carried out."""
        return 200 <= self.status < 300


def addresses_of(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def refused(address: str, *, private: bool) -> str:
    """Return why no request is sent to an IP address, or ""."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return f"{ip} is an address that no receiver has"
    if not private and not ip.is_global:
        return f"{ip} is an address of the local network (allow_private)"
    return ""


class HttpSender:
    """Send requests; the name of a host is resolved once, and that address is the one connected to.

    `private` allows addresses of the local network; `most_answer` is in bytes.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        private: bool,
        most_answer: int = MOST_ANSWER,
        resolve: Resolve = addresses_of,
        transport: http.BaseTransport | None = None,
    ) -> None:
        self._clock, self._private, self._resolve = clock, private, resolve
        self._transport, self._most_answer = transport, most_answer

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes = b"",
    ) -> Answer:
        """Send one request and return its answer, whatever its status.

        Raises NotDelivered if there is none, or the address is refused.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        address = self._address(host, port)
        numeric = f"[{address}]" if ":" in address else address
        target = parts._replace(netloc=f"{numeric}:{port}").geturl()
        sent = {"User-Agent": "hevcq", "Host": parts.netloc, **headers}
        try:
            with (
                http.Client(
                    timeout=TIMEOUT_S,
                    follow_redirects=False,
                    trust_env=False,
                    transport=self._transport,
                ) as client,
                client.stream(
                    method,
                    target,
                    headers=sent,
                    content=content or None,
                    extensions={"sni_hostname": host},
                ) as answer,
            ):
                return Answer(
                    answer.status_code, _start(answer, self._most_answer), self._after(answer)
                )
        except http.HTTPError as error:
            raise NotDelivered(f"{host} did not answer: {type(error).__name__} {error}") from error

    def _address(self, host: str, port: int) -> str:
        try:
            found = self._resolve(host, port)
        except OSError as error:
            raise NotDelivered(f"The host {host} is not known: {error}.") from error
        for address in found:
            if wrong := refused(address, private=self._private):
                raise NotDelivered(f"Nothing is sent to {host}: {wrong}.")
        if not found:
            raise NotDelivered(f"The host {host} has no address.")
        return found[0]

    def _after(self, answer: http.Response) -> float | None:
        retry_after = answer.headers.get("Retry-After", "").strip()
        if retry_after.isdigit():
            return float(retry_after)
        try:
            return max(0.0, parsedate_to_datetime(retry_after).timestamp() - self._clock.now())
        except (TypeError, ValueError):
            return None


def _start(answer: http.Response, most: int) -> bytes:
    found = bytearray()
    for chunk in answer.iter_bytes():
        found += chunk
        if len(found) >= most:
            break
    return bytes(found[:most])
