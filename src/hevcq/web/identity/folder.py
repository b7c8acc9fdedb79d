"""The folder of the page's secrets: session key, sign-in token, users and programs' tokens."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hevcq.errors import ConfigError, StorageError
from hevcq.util import file_lock
from hevcq.util.atomic_file import replace_durably

FOLDER = "web"
TOKEN_BYTES = 24
KEY_BYTES = 32


class SecretsFolder:
    """Files of mode 0600 in `data_dir`/web. Values that people type are stored as digests only."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FOLDER

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
        """Make the token of mode `token`, remember its digest, and return it: once only."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self.write("token.json", {"sha256": digest(token)})
        return token

    def has_sign_in_token(self) -> bool:
        """Return whether a sign-in token was made before."""
        return bool(self.read("token.json").get("sha256"))

    def is_sign_in_token(self, token: str) -> bool:
        """Return whether `token` is the sign-in token."""
        known = self.read("token.json").get("sha256")
        return isinstance(known, str) and hmac.compare_digest(known, digest(token))

    def token_mark(self) -> str:
        """Return what changes with the sign-in token, so that a new one ends older sessions."""
        return str(self.read("token.json").get("sha256", ""))[:12]


def digest(token: str) -> str:
    """Return how a random token is stored: 24 random bytes need no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
