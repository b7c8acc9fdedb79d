"""Guards in front of every request: allowed hosts, requests of other sites, security headers."""

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
"""Paths for programs: errors are problem details, not pages or a redirect to the sign-in."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HSTS_S = 31_536_000
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,255}))(?::[0-9]{0,5})?")
"""A Host header: a name or address, and maybe a port, without user, path or zone (RFC 9110, 7.2)."""


def content_policy(origins: Sequence[str] = ()) -> str:
    """Return the Content-Security-Policy; `origins` are the buckets that pages fetch from."""
    buckets = "".join(f" {origin}" for origin in origins)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src 'self' data:{buckets}",
            # data: is the empty track that hls.js begins subtitles with; media runs nothing
            f"media-src 'self' blob: data:{buckets}",
            f"connect-src 'self'{buckets}",
            "worker-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


class SecurityHeaders:
    """Tell browsers what a page may load, that no site may embed it, and not to cache it."""

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
    """Refuse requests for other hosts, and changes that pages of other sites send.

    An attacker may point the name of another site at this address (DNS rebinding); the browser then
    sends that name as Host, and is refused. An IP address as Host is safe: it cannot be pointed
    anywhere. Browsers name the site that sends a change in Sec-Fetch-Site, older ones in Origin.
    Programs send neither, but a token, which a page of another site cannot add.
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
            # A proxy in front of this server may have used the other length (RFC 9112, 6.3).
            words = "Refused: this request has two lengths."
            return PlainTextResponse(words, 400, {"Connection": "close"})
        hosts = headers.getlist("host")
        host = host_of(hosts[0]) if len(hosts) == 1 else ""
        if host not in self._hosts and ip_of(host) is None:
            words = "This host name is not configured: see the setting web.url."
            return PlainTextResponse(words, 421)
        if scope["method"] in SAFE_METHODS or _is_same_site(headers):
            return None
        return _refuse_other_site(scope["path"], headers)


def _refuse_other_site(path: str, headers: Headers) -> Response:
    """Refuse the request; a program that names no site only lacks its token."""
    words = "Refused: this request came from another site."
    if not path.startswith(FOR_PROGRAMS):
        return PlainTextResponse(words, 403)
    if "sec-fetch-site" in headers or "origin" in headers:
        return problem(403, words)
    return unauthenticated()


def _is_same_site(headers: Headers) -> bool:
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in {"same-origin", "none"}
    if origin is not None:
        return (
            origin != "null" and urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        )
    return headers.get("authorization", "").lower().startswith("bearer ")


def host_of(named: str) -> str:
    """Return the host of a Host header in lower case, without port and brackets; "" if malformed."""
    match = HOST.fullmatch(named)
    return (match[1] or match[2]).lower().removesuffix(".") if match else ""


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is, or None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    address = ip_of(host)
    return host == "localhost" or (address is not None and address.is_loopback)
