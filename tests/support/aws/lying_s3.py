"""A small S3 on 127.0.0.1 that can lie: about ranges, versions and lengths, and by 403 for absence."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from support.standin import Quiet, running

LIES = ("ignores-range", "wrong-content-range", "no-content-range", "short-body", "other-etag",
        "other-length", "other-size")  # fmt: skip


@dataclass
class LyingS3:
    """The objects by "bucket/key", and the lies about them.

    `lies` holds the lie of each of the next ranged answers, in order; `always` is told once they
    are used up; a whole answer is only ever short. `missing` is the status for an object that is
    not there. `listing` says whether ListObjectsV2 is allowed, `reading` whether what is there may
    be read.
    """

    objects: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    lies: list[str] = field(default_factory=list)
    always: str = ""
    missing: int = 404
    listing: bool = True
    reading: bool = True
    asked: list[str] = field(default_factory=list)
    endpoint: str = ""

    def next_lie(self) -> str:
        return self.lies.pop(0) if self.lies else self.always


@contextmanager
def lying_s3() -> Iterator[LyingS3]:
    """Serve it inside the context."""
    world = LyingS3()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.world = world  # type: ignore[attr-defined]
    world.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    with running(server):
        yield world


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a client hangs up on a lie."""


class _Handler(Quiet):
    protocol_version = "HTTP/1.1"

    @property
    def world(self) -> LyingS3:
        return self.server.world  # type: ignore[attr-defined]

    def _found(self) -> tuple[str, bytes, dict[str, str]] | None:
        place = unquote(urlsplit(self.path).path).lstrip("/")
        self.world.asked.append(f"{self.command} {place}")
        there = self.world.objects.get(place)
        if there is None:
            self._refuse(self.world.missing)
            return None
        if not self.world.reading:
            self._refuse(403)
            return None
        return (place, *there)

    def _refuse(self, status: int, code: str = "") -> None:
        code = code or {403: "AccessDenied", 404: "NoSuchKey"}[status]
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self._send(status, {"Content-Type": "application/xml"}, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        if (found := self._found()) is not None:
            _place, content, metadata = found
            headers = {"Content-Length": str(len(content)), "ETag": _etag(content), **metadata}
            self._send(200, headers, b"")

    def do_GET(self) -> None:
        if "list-type=2" in self.path:
            self._list()
            return
        if (found := self._found()) is None:
            return
        _place, content, metadata = found
        asked = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
        headers = {"ETag": _etag(content), **metadata}
        if asked is None:
            if self.world.lies[:1] == ["short-body"]:
                self.world.lies.pop(0)
                headers["Content-Length"], self.close_connection = str(len(content)), True
                content = content[: len(content) // 2]
            self._send(200, headers, content)
            return
        first = int(asked[1])
        last = min(int(asked[2]) if asked[2] else len(content), len(content) - 1)
        if first >= len(content):
            self._refuse(416, "InvalidRange")
            return
        body = content[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._lie(content, body, headers)

    def _lie(self, content: bytes, body: bytes, headers: dict[str, str]) -> None:
        status, lie = 206, self.world.next_lie()
        if lie == "ignores-range":
            status, body = 200, content
            del headers["Content-Range"]
        elif lie == "wrong-content-range":
            body = content[: len(body)]
            headers["Content-Range"] = f"bytes 0-{len(body) - 1}/{len(content)}"
        elif lie == "no-content-range":
            del headers["Content-Range"]
        elif lie == "short-body":
            headers["Content-Length"] = str(len(body))
            body = body[: len(body) // 2]
            self.close_connection = True
        elif lie == "other-etag":
            headers["ETag"] = _etag(b"other")
            body = b"x" * len(body)
        elif lie == "other-length":
            body = body[: len(body) // 2]
        elif lie == "other-size":
            span = headers["Content-Range"].partition("/")[0]
            headers["Content-Range"] = f"{span}/{len(content) + 1}"
        self._send(status, headers, body)

    def _list(self) -> None:
        parts = urlsplit(self.path)
        bucket, prefix = parts.path.strip("/"), parse_qs(parts.query).get("prefix", [""])[0]
        self.world.asked.append(f"LIST {bucket}/{prefix}")
        if not self.world.listing:
            self._refuse(403)
            return
        keys = [k.removeprefix(f"{bucket}/") for k in sorted(self.world.objects)]
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>1</Size></Contents>"
            for key in keys
            if key.startswith(prefix)
        )
        body = f"<ListBucketResult><Name>{bucket}</Name>{entries}</ListBucketResult>"
        self._send(200, {"Content-Type": "application/xml"}, body.encode())

    def do_PUT(self) -> None:
        place = unquote(urlsplit(self.path).path).lstrip("/")
        self.world.asked.append(f"PUT {place}")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("If-None-Match") == "*" and place in self.world.objects:
            self._refuse(412, "PreconditionFailed")
            return
        own = {n: v for n, v in self.headers.items() if n.lower().startswith("x-amz-meta-")}
        self.world.objects[place] = (content, own)
        self._send(200, {"ETag": _etag(content)}, b"")


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
