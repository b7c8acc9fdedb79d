"""Who may use the page, as files of the data folder; the key that signs sessions, and the sign-in token."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hevcq.errors import ConfigError, StorageError
from hevcq.ports.videos import AccountKind, Accounts
from hevcq.util import file_lock
from hevcq.util.file_io import replace_durably

FOLDER = "web"
TOKEN_BYTES = 24
KEY_BYTES = 32
UNTIL = "until"


FILES = {
    AccountKind.USER: ("users.json", "users"),
    AccountKind.PROGRAM: ("tokens.json", "tokens"),
    AccountKind.ENDED: ("signed-out.json", "sessions"),
    AccountKind.SIGN_IN: ("token.json", ""),
}
"""The file of each kind, and the name of its rows there; the sign-in token is a file by itself."""
MOST_ENDED = 10_000
"""Sessions remembered at most; those that end first by themselves are forgotten first."""
SIGN_IN_KEY = "token"


class SecretsFolder(Accounts):
    """Files of mode 0600 in `data_dir`/web, read again when another process replaced them."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FOLDER
        self.where = str(self.path)
        self._lock = threading.Lock()
        self._known: dict[AccountKind, tuple[tuple[int, int], dict[str, dict[str, Any]]]] = {}

    def all(self, kind: AccountKind) -> Mapping[str, Mapping[str, Any]]:
        """Return the rows of the file."""
        with self._lock:
            stamp, known = self.stamp(FILES[kind][0]), self._known.get(kind)
            if stamp is None:
                return {}
            if known is None or known[0] != stamp:
                known = self._known[kind] = stamp, self._rows(kind)
            return known[1]

    def get(self, kind: AccountKind, key: str) -> Mapping[str, Any] | None:
        """Look into the file."""
        return self.all(kind).get(key)

    def put(
        self,
        kind: AccountKind,
        key: str,
        row: Mapping[str, Any],
        *,
        expires_at: float | None = None,
    ) -> bool:
        """Replace the file with one that has the row."""
        given = dict(row) if expires_at is None else {**row, UNTIL: expires_at}
        with self.locked():
            rows = self._rows(kind)
            self._replace(kind, {**rows, key: given})
        return key not in rows

    def remove(self, kind: AccountKind, key: str) -> bool:
        """Replace the file with one that has no such row."""
        with self.locked():
            rows = self._rows(kind)
            if rows.pop(key, None) is None:
                return False
            self._replace(kind, rows)
        return True

    def forget(self, kind: AccountKind, now: float) -> None:
        """Replace the file if any row's time has ended."""
        with self.locked():
            rows = self._rows(kind)
            kept = {key: row for key, row in rows.items() if row.get(UNTIL, now) >= now}
            if len(kept) < len(rows):
                self._replace(kind, kept)

    def _rows(self, kind: AccountKind) -> dict[str, dict[str, Any]]:
        """Return the rows of a file in the form of the port. Raises StorageError."""
        name, part = FILES[kind]
        content = self.read(name)
        if not part:
            return {SIGN_IN_KEY: content} if content else {}
        rows = content.get(part, {})
        if not isinstance(rows, dict):
            rows = {}
        if kind is AccountKind.ENDED:
            return {key: {UNTIL: until} for key, until in rows.items()}
        if not all(isinstance(row, dict) for row in rows.values()):
            raise StorageError(f"{self.path / name} is not what hevcq writes.")
        return rows

    def _replace(self, kind: AccountKind, rows: Mapping[str, Mapping[str, Any]]) -> None:
        name, part = FILES[kind]
        content: Mapping[str, Any] = {part: rows}
        if not part:
            content = rows.get(SIGN_IN_KEY, {})
        if kind is AccountKind.ENDED:
            latest = sorted(rows.items(), key=lambda each: each[1][UNTIL])[-MOST_ENDED:]
            content = {part: {key: row[UNTIL] for key, row in latest}}
        self.write(name, content)

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON file's content, or {} if there is none. Raises StorageError if unreadable."""
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StorageError(
                f"Cannot read {self.path / name}: {error}.", remedy="Restore it, or delete it."
            ) from error
        if not isinstance(found, dict):
            raise StorageError(f"{self.path / name} is not what hevcq writes.")
        return found

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a JSON file durably. Raises StorageError."""
        temp = self.path / f".{name}.{os.getpid()}.tmp"
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            temp.unlink(missing_ok=True)
            made = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(made, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
            replace_durably(temp, self.path / name)
        except OSError as error:
            raise StorageError(f"Cannot write {self.path / name}: {error.strerror}.") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time read, change and write the files. Raises StorageError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = file_lock.acquire(self.path / ".lock")
        except OSError as error:
            raise StorageError(f"Cannot lock {self.path}: {error.strerror}.") from error
        try:
            yield
        finally:
            os.close(lock)

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Return what changes whenever the file is replaced, or None if there is none."""
        try:
            found = (self.path / name).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def session_key(self, configured: str = "") -> bytes:
        """Return the key that signs sessions: the configured one, else that of the folder.

        Raises ConfigError if the configured key is short enough to be guessed.
        """
        if configured:
            if len(configured) < KEY_BYTES:
                raise ConfigError(f"web.session_key must have at least {KEY_BYTES} characters.")
            return hashlib.sha256(configured.encode()).digest()
        found = self.read("session.json").get("key")
        if not isinstance(found, str) or len(found) < KEY_BYTES:
            found = secrets.token_hex(KEY_BYTES)
            self.write("session.json", {"key": found})
        return bytes.fromhex(found)

    def new_sign_in_token(self) -> str:
        """Make the token of mode `token`; see `SignInToken`."""
        return SignInToken(self).new()

    def is_sign_in_token(self, token: str) -> bool:
        """Return whether `token` is the sign-in token."""
        return SignInToken(self).fits(token)


class SignInToken:
    """The token of mode `token`; only its digest is kept."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def new(self) -> str:
        """Make another token, and return it: once only."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._accounts.put(AccountKind.SIGN_IN, SIGN_IN_KEY, {"sha256": digest(token)})
        return token

    def exists(self) -> bool:
        """Return whether a token was made before."""
        return bool(self._sha256())

    def fits(self, token: str) -> bool:
        """Return whether `token` is the sign-in token."""
        known = self._sha256()
        return bool(known) and hmac.compare_digest(known, digest(token))

    def mark(self) -> str:
        """Return what changes with the token, so that a new one ends older sessions."""
        return self._sha256()[:12]

    def _sha256(self) -> str:
        row = self._accounts.get(AccountKind.SIGN_IN, SIGN_IN_KEY) or {}
        found = row.get("sha256")
        return found if isinstance(found, str) else ""


def digest(token: str) -> str:
    """Return how a random token is stored: 24 random bytes need no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
