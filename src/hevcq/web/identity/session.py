"""Sessions: signed cookies; the server remembers only those that were signed out of."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import Response

from hevcq.ports.videos import AccountKind, Accounts
from hevcq.web.identity.folder import digest
from hevcq.web.identity.person import Person, Role

SESSION = "session"
MAX_COOKIE = 4096


@dataclass(frozen=True, slots=True)
class Session:
    """Who signed in; `mark` changes when their password or token does, which ends the session."""

    owner: str
    name: str
    role: Role
    mark: str = ""

    def person(self) -> Person:
        """Return the person of this session."""
        return Person(self.owner, self.name, self.role)


class Cookies:
    """Write and read signed cookies. `secure` is whether people reach the page by https.

    A cookie with the prefix `__Host-` is taken from this host over https only (RFC 6265bis, 4.1.3.2).
    """

    def __init__(self, key: bytes, *, secure: bool) -> None:
        self._key, self.secure = key, secure

    def name(self, purpose: str) -> str:
        """Return the name of the cookie for a purpose."""
        plain = "hevcq" if purpose == SESSION else f"hevcq-{purpose}"
        return f"__Host-{plain}" if self.secure else plain

    def write(
        self,
        response: Response,
        purpose: str,
        content: Mapping[str, Any],
        *,
        until: float,
        now: float,
    ) -> None:
        """Set a signed cookie that is valid until a wall time."""
        response.set_cookie(
            self.name(purpose),
            seal(self._key, purpose, {**content, "until": until}),
            max_age=max(0, round(until - now)),
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="lax",
        )

    def read(self, connection: HTTPConnection, purpose: str, now: float) -> dict[str, Any] | None:
        """Return the content of a cookie, or None if it is missing, forged or out of date."""
        text = connection.cookies.get(self.name(purpose), "")
        content = unseal(self._key, purpose, text)
        until = content.get("until") if content else None
        if content is None or not isinstance(until, int | float) or until <= now:
            return None
        return content

    def given(self, connection: HTTPConnection, purpose: str) -> str:
        """Return the text of the cookie as the browser sent it, "" if it sent none."""
        return connection.cookies.get(self.name(purpose), "")

    def clear(self, response: Response, purpose: str) -> None:
        """Delete a cookie in the browser."""
        response.delete_cookie(
            self.name(purpose), path="/", secure=self.secure, httponly=True, samesite="lax"
        )


class SignedOut:
    """Sessions that were signed out of before their end: a copy of the cookie is worth nothing then.

    Kept as digests until the sessions would have ended by themselves.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def add(self, cookie: str, until: float, now: float) -> None:
        """Remember that a session ended. Raises StorageError, Unavailable."""
        self._accounts.forget(AccountKind.ENDED, now)
        self._accounts.put(AccountKind.ENDED, digest(cookie), {}, expires_at=until)

    def __contains__(self, cookie: str) -> bool:
        """Return whether somebody signed out of this session. Raises StorageError, Unavailable."""
        return self._accounts.get(AccountKind.ENDED, digest(cookie)) is not None


def seal(key: bytes, purpose: str, content: Mapping[str, Any]) -> str:
    """Return `content` as text that nobody without the key can make or change."""
    body = base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).decode()
    return f"{body}.{_signature(key, purpose, body)}"


def unseal(key: bytes, purpose: str, text: str) -> dict[str, Any] | None:
    """Return what was sealed for this purpose, or None if the text is anything else."""
    body, dot, signature = text.rpartition(".")
    if not dot or len(text) > MAX_COOKIE or not text.isascii():
        return None
    if not hmac.compare_digest(_signature(key, purpose, body), signature):
        return None
    try:
        content = json.loads(base64.urlsafe_b64decode(body))
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _signature(key: bytes, purpose: str, body: str) -> str:
    return hmac.new(key, f"{purpose}\0{body}".encode(), hashlib.sha256).hexdigest()


def as_session(content: Mapping[str, Any]) -> Session | None:
    """Return the session of a signed cookie, or None if an older release wrote another form."""
    try:
        return Session(
            str(content["o"]), str(content["n"]), Role(content["r"]), str(content.get("m", ""))
        )
    except (KeyError, ValueError):
        return None
