"""Reach the farm that this machine joined, by HTTPS: orders, sources by ranges, resumable uploads."""

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
"""Seconds; a poll is answered after 20 at the latest."""
PART_BYTES = 16 << 20
"""Bytes of one request of an upload: what proxies let through."""
AGAIN_S = 3.0
AWAY_S = 240.0
"""Seconds without progress after which a transfer is given up; the farm gave up its order before, and
ffmpeg does not give up a read from the local proxy yet."""
UNENCRYPTED = (
    "This connection is not encrypted: whoever can listen on this network can see the videos and take"
    " the machine's token. For more than a network at home, put TLS before the farm's page."
)


class HttpFarm:
    """The farm at `address`, as a joined machine sees it; `token` is this machine's, or its invitation.

    Every method raises Unavailable if it does not answer, AccessDenied if the machine was removed, and
    WorkerUnfit, with the reason, if the farm takes nothing from it.
    """

    def __init__(
        self, address: str, token: str, clock: Clock, transport: http.BaseTransport | None = None
    ) -> None:
        self._clock, self.address = clock, address
        self._client = http.Client(
            base_url=address + API,
            timeout=TIMEOUT,
            verify=ssl.create_default_context(),  # what this system trusts, a CA of one's own included
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
        """Exchange the invitation for a token of this machine's own."""
        got = self._asked("POST", "join", content=greeting.model_dump_json())
        return Joined.model_validate_json(got.content)

    def poll(self, facts: MachineFacts) -> Order | None:
        """Wait some seconds for an order; return None if there is none."""
        got = self._asked("POST", "poll", content=facts.model_dump_json())
        if got.status_code == 204:
            return None
        try:
            return Order.model_validate_json(got.content)
        except ValueError as error:
            raise WorkerUnfit(
                "The farm sent an order that this hevcq cannot read.",
                remedy="Install the same version on both machines.",
            ) from error

    def beat(self, order: Order, progress: OrderProgress | None) -> tuple[bool, bool]:
        """Tell that the order is worked on; return whether it is still wanted, and whether it is held."""
        content = "" if progress is None else progress.model_dump_json()
        try:
            got = self._asked("POST", f"orders/{order.order_id}/beat", content=content)
        except SourceGone:
            return False, False
        return True, OrderHeld.model_validate_json(got.content).held

    def fetch(self, order: Order, target: Path, stop: threading.Event) -> None:
        """Append what is missing of the source to `target`.

        Raises Stopped, SourceGone if the order is no longer wanted or its source changed, DiskFull.
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
        """Read the bytes of `span` (start, end) of the source; pass them on with their offset, each once.

        Raises Stopped, SourceGone as `fetch` does.
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

        self._persist(rest, lambda: at, stop)

    def _blocks(self, order: Order, at: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `at` to `end` of the source, as far as the connection lasts."""
        headers, left = {"Range": f"bytes={at}-{end - 1}"}, end - at
        path = f"orders/{order.order_id}/source"
        with _translated(self.address), self._client.stream("GET", path, headers=headers) as got:
            if got.status_code != 206:
                got.read()
            _require_well(got)
            span = got.headers.get("content-range", "").partition("/")[0]
            if got.status_code != 206 or span != f"bytes {at}-{end - 1}":
                raise Unavailable("The farm, or a proxy before it, serves no ranges.")
            for block in got.iter_bytes():
                yield block[:left]
                left -= len(block)

    def put(self, order: Order, file: Path, stop: threading.Event) -> None:
        """Send the file, from where an earlier attempt broke off. Raises Stopped, SourceGone."""
        path, size, offset = f"orders/{order.order_id}/made", file.stat().st_size, -1
        with file.open("rb") as content:

            def rest() -> None:
                nonlocal offset
                offset = int(self._asked("HEAD", path).headers["upload-offset"])
                while offset < size:
                    if stop.is_set():
                        raise Stopped
                    content.seek(offset)
                    kind = "application/offset+octet-stream"
                    headers = {"Content-Type": kind, "Upload-Offset": str(offset)}
                    part = content.read(PART_BYTES)
                    got = self._asked("PATCH", path, content=part, headers=headers)
                    offset = int(got.headers["upload-offset"])

            self._persist(rest, lambda: offset, stop)

    def answer(self, order: Order, answer: OrderEnd) -> None:
        """End the order. One that is no longer wanted is no error."""
        path, content = f"orders/{order.order_id}/answer", answer.model_dump_json()

        def once() -> None:
            self._asked("POST", path, content=content)

        with suppress(SourceGone):
            if answer.stopped:
                once()
            else:
                self._persist(once, lambda: 0, threading.Event())

    def _persist(
        self, step: Callable[[], None], moved: Callable[[], int], stop: threading.Event
    ) -> None:
        """Repeat `step` while the farm is away; raise its error after AWAY_S without a change of `moved`.

        Raises Stopped.
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
                if now - since > AWAY_S:
                    raise
                get_logger().info("transfer_repeated", reason=str(error))
                if self._clock.wait(stop, AGAIN_S):
                    raise Stopped from error
            else:
                return

    def _asked(
        self,
        method: str,
        path: str,
        content: str | bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> http.Response:
        with _translated(self.address):
            got = self._client.request(method, path, content=content, headers=headers)
        _require_well(got)
        return got


@contextmanager
def _translated(address: str) -> Iterator[None]:
    try:
        yield
    except http.HTTPError as error:
        why = str(error) or type(error).__name__
        raise Unavailable(f"The farm at {address} does not answer: {why}.") from error


def _require_well(got: http.Response) -> None:
    """Raise what an answer says, if it is no success."""
    if got.is_success:
        return
    try:
        said = got.json()
        words = str(said.get("title") or said.get("detail") or "")
    except (ValueError, AttributeError):
        words = ""
    match got.status_code:
        case 401:
            raise AccessDenied("The farm does not know this token.")
        case 403 | 426:
            raise WorkerUnfit(words or "The farm takes nothing from this machine.")
        case 404 | 410 | 422:
            raise SourceGone(words or "The farm no longer wants this order.")
        case 413 | 507:
            raise DiskFull(words or "The farm takes no file of this size.")
        case _:
            raise Unavailable(f"The farm answers {got.status_code}{': ' if words else '.'}{words}")


def require_private(address: str) -> str:
    """Return what a person must know of this connection, or "".

    Raises UsageError for an address that is none, and for http to a public one.
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
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"There is no machine named {parts.hostname}.") from error
    ips = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    if not all(ip.is_private for ip in ips):
        raise UsageError(
            f"{parts.hostname} is a public address, and http is not encrypted.",
            remedy="Put a reverse proxy with TLS before the farm's page, and join by https.",
        )
    return "" if all(ip.is_loopback for ip in ips) else UNENCRYPTED
