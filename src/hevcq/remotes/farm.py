"""The HTTPS client of a machine that joined a farm: orders, sources by ranges, resumable uploads."""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2 as http

from hevcq.domain.orders import (
    Greeting,
    Joined,
    MachineFacts,
    Order,
    OrderEnd,
    OrderHeld,
    OrderProgress,
)
from hevcq.errors import (
    AccessDenied,
    DiskFull,
    SourceGone,
    Stopped,
    Unavailable,
    UsageError,
    WorkerUnfit,
    is_full,
)
from hevcq.ports.store import Write
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger

API = "/api/v1/joined/"
TIMEOUT = http.Timeout(30.0, connect=10.0)
"""Seconds; the farm answers a poll within 20."""
PART_BYTES = 16 << 20
"""Bytes of one upload request, which proxies accept."""
RETRY_S = 3.0
MAX_OUTAGE_S = 240.0
"""Seconds without progress after which a transfer fails. The farm has given up the order by then, and
ffmpeg still waits for the local proxy."""
UNENCRYPTED = (
    "This connection is not encrypted: whoever can listen on this network can see the videos and take"
    " the machine's token. For more than a network at home, put TLS before the farm's page."
)


class HttpFarm:
    """The farm at `address`. `token` is this machine's token or its invitation.

    Every method raises Unavailable if the farm does not answer, AccessDenied if the machine was removed,
    and WorkerUnfit, with the reason, if the farm accepts no work from it.
    """

    def __init__(
        self, address: str, token: str, clock: Clock, transport: http.BaseTransport | None = None
    ) -> None:
        self._clock, self.address = clock, address
        self._client = http.Client(
            base_url=address + API,
            timeout=TIMEOUT,
            verify=ssl.create_default_context(),  # the system's certificates, with a private CA
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            headers={
                "Authorization": f"Bearer {token}",
                "User-Agent": "hevcq",
                "Accept-Encoding": "identity",
            },
        )

    def join(self, greeting: Greeting) -> Joined:
        """Exchange the invitation for this machine's token."""
        response = self._request("POST", "join", content=greeting.model_dump_json())
        return Joined.model_validate_json(response.content)

    def poll(self, facts: MachineFacts) -> Order | None:
        """Wait some seconds for an order; return None if none comes."""
        response = self._request("POST", "poll", content=facts.model_dump_json())
        if response.status_code == 204:
            return None
        try:
            return Order.model_validate_json(response.content)
        except ValueError as error:
            raise WorkerUnfit(
                "The farm sent an order that this hevcq cannot read.",
                remedy="Install the same version on both machines.",
            ) from error

    def beat(self, order: Order, progress: OrderProgress | None) -> tuple[bool, bool]:
        """Send a heartbeat for an order; return whether it is still wanted, and whether it is paused."""
        content = "" if progress is None else progress.model_dump_json()
        try:
            response = self._request("POST", f"orders/{order.order_id}/beat", content=content)
        except SourceGone:
            return False, False
        return True, OrderHeld.model_validate_json(response.content).held

    def fetch(self, order: Order, target: Path, stop: threading.Event) -> None:
        """Append the missing bytes of the source to `target`.

        Raises Stopped, DiskFull, and SourceGone if the order is no longer wanted or its source changed.
        """
        size = order.work.source_size if order.work else 0
        with target.open("ab") as file:

            def append(_at: int, block: bytes) -> None:
                file.write(block)

            try:
                self.read(order, (file.tell(), size), append, stop)
            except OSError as error:
                if is_full(error):
                    raise DiskFull("The scratch folder is full.") from error
                raise

    def read(
        self, order: Order, span: tuple[int, int], write: Write, stop: threading.Event
    ) -> None:
        """Read the bytes of `span` (start, end) of the source; pass each once to `write`, with its offset.

        Raises Stopped and SourceGone as `fetch` does.
        """
        at, end = span

        def rest() -> None:
            nonlocal at
            while at < end:
                for block in self._blocks(order, at, end):
                    if stop.is_set():
                        raise Stopped
                    write(at, block)
                    at += len(block)

        self._retry(rest, lambda: at, stop)

    def _blocks(self, order: Order, at: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `at` to `end` of the source until the connection ends."""
        headers, left = {"Range": f"bytes={at}-{end - 1}"}, end - at
        path = f"orders/{order.order_id}/source"
        with (
            _translate_errors(self.address),
            self._client.stream("GET", path, headers=headers) as response,
        ):
            if response.status_code != 206:
                response.read()
            _raise_refusal(response)
            span = response.headers.get("content-range", "").partition("/")[0]
            if response.status_code != 206 or span != f"bytes {at}-{end - 1}":
                raise Unavailable("The farm, or a proxy before it, serves no ranges.")
            for block in response.iter_bytes():
                yield block[:left]
                left -= len(block)

    def put(self, order: Order, file: Path, stop: threading.Event) -> None:
        """Send the file; resume where an earlier attempt broke off. Raises Stopped, SourceGone."""
        path, size, offset = f"orders/{order.order_id}/made", file.stat().st_size, -1
        with file.open("rb") as content:

            def rest() -> None:
                nonlocal offset
                offset = int(self._request("HEAD", path).headers["upload-offset"])
                while offset < size:
                    if stop.is_set():
                        raise Stopped
                    content.seek(offset)
                    kind = "application/offset+octet-stream"
                    headers = {"Content-Type": kind, "Upload-Offset": str(offset)}
                    part = content.read(PART_BYTES)
                    response = self._request("PATCH", path, content=part, headers=headers)
                    offset = int(response.headers["upload-offset"])

            self._retry(rest, lambda: offset, stop)

    def answer(self, order: Order, answer: OrderEnd) -> None:
        """End the order; do nothing if it is no longer wanted."""
        path, content = f"orders/{order.order_id}/answer", answer.model_dump_json()

        def once() -> None:
            self._request("POST", path, content=content)

        with suppress(SourceGone):
            if answer.stopped:
                once()
            else:
                self._retry(once, lambda: 0, threading.Event())

    def _retry(
        self, step: Callable[[], None], moved: Callable[[], int], stop: threading.Event
    ) -> None:
        """Repeat `step` while the farm does not answer; give up after MAX_OUTAGE_S without a change of `moved`.

        Raises Stopped, and the error of the last attempt.
        """
        since, before = self._clock.monotonic(), moved()
        while True:
            try:
                step()
            except AccessDenied:
                raise
            except Unavailable as error:
                now = self._clock.monotonic()
                if moved() != before:
                    since, before = now, moved()
                if now - since > MAX_OUTAGE_S:
                    raise
                get_logger().info("transfer_repeated", reason=str(error))
                if self._clock.wait(stop, RETRY_S):
                    raise Stopped from error
            else:
                return

    def _request(
        self,
        method: str,
        path: str,
        content: str | bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> http.Response:
        with _translate_errors(self.address):
            response = self._client.request(method, path, content=content, headers=headers)
        _raise_refusal(response)
        return response


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    try:
        yield
    except http.HTTPError as error:
        why = str(error) or type(error).__name__
        raise Unavailable(f"The farm at {address} does not answer: {why}.") from error


def _raise_refusal(response: http.Response) -> None:
    """Raise the error of an answer unless it is a success."""
    if response.is_success:
        return
    try:
        problem = response.json()
        words = str(problem.get("title") or problem.get("detail") or "")
    except (ValueError, AttributeError):
        words = ""
    match response.status_code:
        case 401:
            raise AccessDenied("The farm does not know this token.")
        case 403 | 426:
            raise WorkerUnfit(words or "The farm takes nothing from this machine.")
        case 404 | 410 | 422:
            raise SourceGone(words or "The farm no longer wants this order.")
        case 413 | 507:
            raise DiskFull(words or "The farm takes no file of this size.")
        case _:
            raise Unavailable(
                f"The farm answers {response.status_code}{': ' if words else '.'}{words}"
            )


def require_safe_address(address: str) -> str:
    """Return a warning if a connection to the address is unencrypted, or "".

    Raises UsageError if it is no address, and for http to a public address.
    """
    parts = urlsplit(address)
    if parts.scheme == "https" and parts.hostname:
        return ""
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(
            f"{address!r} is no address of a farm.",
            remedy="Copy the line that `hevcq workers invite` prints.",
        )
    try:
        addresses = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"There is no machine named {parts.hostname}.") from error
    ips = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in addresses]
    if not all(ip.is_private for ip in ips):
        raise UsageError(
            f"{parts.hostname} is a public address, and http is not encrypted.",
            remedy="Put a reverse proxy with TLS before the farm's page, and join by https.",
        )
    return "" if all(ip.is_loopback for ip in ips) else UNENCRYPTED
