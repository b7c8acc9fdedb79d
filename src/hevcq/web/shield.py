"""Guards in front of every request: which host it names, which site sent it, what browsers may do."""

import ipaddress
import re
from collections.abc import MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hevcq.web.problems import problem, unauthenticated

FOR_PROGRAMS = ("/api/", "/uploads", "/media/")
"""Paths that answer problems where a page would show words, or lead to the sign-in."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HSTS_S = 31_536_000
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,255}))(?::[0-9]{0,5})?")
"""A Host header: a name or an address with a port, without user, path or zone (RFC 9110, 7.2)."""


def content_policy(origins: Sequence[str] = ()) -> str:
    """Return the Content-Security-Policy; `origins` are the buckets that pages fetch from."""
    there = "".join(f" {origin}" for origin in origins)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src 'self' data:{there}",
            # data: is the empty track that hls.js begins subtitles with; media runs nothing
            f"media-src 'self' blob: data:{there}",
            f"connect-src 'self'{there}",
            "worker-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


class SecurityHeaders:
    """Tell browsers what a page may load and who may embed it; pages stay out of caches."""

    def __init__(self, app: ASGIApp, policy: str, *, secure: bool) -> None:
        self._app = app
        self._headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
            "X-Frame-Options": "DENY",
        }
        if secure:
            self._headers["Strict-Transport-Security"] = f"max-age={HSTS_S}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


class OwnRequests:
    """Answer only requests that name this page's own host, and changes that its own pages send.

    A page of another site whose name an attacker points at this address (DNS rebinding) names its
    own host, so it is refused; an address is no name, and cannot be pointed anywhere. Browsers say
    which site sends a change in Sec-Fetch-Site, older ones in Origin. A program says neither; it
    shows its token, which no other site's page can add.
    """

    def __init__(self, app: ASGIApp, name: str | None) -> None:
        self._app = app
        self._hosts = LOOPBACK | {name}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers and "content-length" in headers:
            # A proxy before this server may have taken the other of the two (RFC 9112, 6.3).
            words = "Refused: this request has two lengths."
            return PlainTextResponse(words, 400, {"Connection": "close"})
        named = headers.getlist("host")
        host = host_of(named[0]) if len(named) == 1 else ""
        if host not in self._hosts and ip_of(host) is None:
            words = "This page is not offered under this host name: see the setting web.url."
            return PlainTextResponse(words, 421)
        if scope["method"] in SAFE_METHODS or _is_own(headers):
            return None
        return _from_elsewhere(scope["path"], headers)


def _from_elsewhere(path: str, headers: Headers) -> Response:
    """Refuse; a program that names no site is only missing its token."""
    words = "Refused: this request came from another site."
    if not path.startswith(FOR_PROGRAMS):
        return PlainTextResponse(words, 403)
    if "sec-fetch-site" in headers or "origin" in headers:
        return problem(403, words)
    return unauthenticated()


def _is_own(headers: Headers) -> bool:
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in {"same-origin", "none"}
    if origin is not None:
        return (
            origin != "null" and urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        )
    return headers.get("authorization", "").lower().startswith("bearer ")


def host_of(named: str) -> str:
    """Return the host of a Host header, in lower case and without its port and brackets."""
    match = HOST.fullmatch(named)
    return (match[1] or match[2]).lower().removesuffix(".") if match else ""


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address, or None of what is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address to listen on."""
    address = ip_of(host)
    return host == "localhost" or (address is not None and address.is_loopback)
