"""Sessions: signed cookies (JWT). The server stores only those that were signed out of."""

import hashlib
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from starlette.requests import HTTPConnection
from starlette.responses import Response

from hevcq.errors import ConfigError, StorageError

SESSION = "session"
SESSION_HOURS = 7 * 24.0
"""Hours until a person must sign in again."""
SIGNED_BY = "HS256"
KEY_BYTES = 32
KEY_FILE = "session.key"


class Cookies:
    """Write and read signed cookies. `secure` tells whether people reach the page by https.

    Browsers accept a cookie with the prefix `__Host-` from this host by https only (RFC 6265bis, 4.1.3.2).
    """

    def __init__(self, key: bytes, *, secure: bool) -> None:
        self._key, self._secure = OctKey.import_key(key), secure

    def name(self, purpose: str) -> str:
        plain = "hevcq" if purpose == SESSION else f"hevcq-{purpose}"
        return f"__Host-{plain}" if self._secure else plain

    def write(
        self,
        response: Response,
        purpose: str,
        content: Mapping[str, Any],
        *,
        until: float,
        now: float,
    ) -> None:
        claims = {**content, "aud": purpose, "exp": int(until)}
        response.set_cookie(
            self.name(purpose),
            jwt.encode({"alg": SIGNED_BY}, claims, self._key),
            max_age=max(0, round(until - now)),
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )

    def read(self, connection: HTTPConnection, purpose: str, now: float) -> dict[str, Any] | None:
        """Return the content of a cookie, or None if it is missing, forged or expired."""
        checks = jwt.JWTClaimsRegistry(
            now=int(now), aud={"essential": True, "value": purpose}, exp={"essential": True}
        )
        try:
            text = connection.cookies.get(self.name(purpose), "")
            claims = jwt.decode(text, self._key, [SIGNED_BY]).claims
            checks.validate(claims)
        except (JoseError, ValueError):
            return None
        return claims

    def clear(self, response: Response, purpose: str) -> None:
        response.delete_cookie(
            self.name(purpose), path="/", secure=self._secure, httponly=True, samesite="lax"
        )


def digest(token: str) -> str:
    """Return the stored form of a random token: 24 random bytes need no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_token() -> str:
    return secrets.token_urlsafe(24)


def configured_key(configured: str) -> bytes:
    """Return the signing key from the setting. Raises ConfigError if it is too short."""
    if len(configured) < KEY_BYTES:
        raise ConfigError(f"web.session_key must have at least {KEY_BYTES} characters.")
    return hashlib.sha256(configured.encode()).digest()


def stored_key(folder: Path) -> bytes:
    """Return the signing key stored in a folder, which only its owner can read. Raises StorageError.

    The first call creates it.
    """
    file = folder / KEY_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as new:
                new.write(secrets.token_bytes(KEY_BYTES))
        key = file.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot keep the key {file}: {error.strerror}.") from error
    if len(key) != KEY_BYTES:
        raise StorageError(
            f"{file} is not a key.", remedy="Delete it; everybody must sign in again."
        )
    return key
