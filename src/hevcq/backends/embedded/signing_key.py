"""Keep the data folder's ed25519 key, which signs the certificates that are made here.

The file `<data_dir>/signing.key` (PEM, mode 0600) is made at first need. Whoever can read it can
forge certificates. If it is lost, a new one is made, and renditions of before are checked again
before their certificates count.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from hevcq.backends.embedded.errors import file_errors
from hevcq.errors import ConfigError
from hevcq.library.filesystem import open_regular
from hevcq.ports import signer
from hevcq.ports.signer import Signer
from hevcq.util import file_lock
from hevcq.util.file_io import replace_durably
from hevcq.util.log import get_logger
from hevcq.util.text import printable

FILE = "signing.key"
MAX_BYTES = 4096
"""Bytes read of a key file; one has 119."""
REMEDY = (
    "Give this user read permission, or restore the file; if it is lost, move it away: a new key is"
    " made, and renditions of before are checked again before their certificates count."
)


class FileSigner(Signer):
    """Sign with the key of a data folder, which may be made by another process meanwhile."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir.absolute() / FILE
        self._lock = threading.Lock()
        self._pem: bytes | None = None

    def public_key(self) -> str:
        """Read the key at first use; a missing file is no error."""
        pem = self._load()
        return "" if pem is None else signer.public_key(pem)

    def prepare(self) -> None:
        """Read the key, or make it under a lock, so that two processes agree on one."""
        self._need()

    def sign(self, content: bytes) -> str:
        """Sign with ed25519."""
        return signer.sign(self._need(), content)

    def _need(self) -> bytes:
        pem = self._load()
        return pem if pem is not None else self._make()

    def _load(self) -> bytes | None:
        with self._lock:
            if self._pem is None:
                self._pem = self._read()
            return self._pem

    def _read(self) -> bytes | None:
        """Return the key file's content, checked; None if there is no file."""
        try:
            with os.fdopen(open_regular(self._path), "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                pem = file.read(MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unusable((error.strerror or str(error)).lower()) from error
        try:
            signer.public_key(pem)
        except ValueError as error:
            raise self._unusable("it holds no ed25519 key") from error
        if mode & 0o077:
            get_logger().warning("signing_key_readable_by_others", path=printable(self._path))
        return pem

    def _make(self) -> bytes:
        with file_errors("created", self._path):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = file_lock.acquire(self._path.with_name(f"{FILE}.lock"))
            try:
                found = self._load()
                if found is not None:
                    return found
                pem, new = signer.make_private_key(), self._path.with_name(f"{FILE}.new")
                new.unlink(missing_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
                    file.write(pem)
                replace_durably(new, self._path)
            finally:
                os.close(lock)
        with self._lock:
            self._pem = pem
        return pem

    def _unusable(self, why: str) -> ConfigError:
        return ConfigError(
            f"The signing key {printable(self._path)} cannot be used: {why}.", remedy=REMEDY
        )
