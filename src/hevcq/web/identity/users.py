"""People who sign in with a name and a password; only argon2's hash of it is stored."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from hevcq.errors import StorageError, UsageError
from hevcq.web.identity.folder import SecretsFolder, digest
from hevcq.web.identity.modes import Mode
from hevcq.web.identity.person import Person, Role
from hevcq.web.identity.session import Session

FILE = "users.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
MIN_PASSWORD, MAX_PASSWORD = 10, 1024


@dataclass(frozen=True, slots=True)
class User:
    """A row of the file; `hash` is argon2's encoded form, with its own salt and cost."""

    name: str
    role: Role
    hash: str

    @property
    def mark(self) -> str:
        """What changes with the password and the role, which ends older sessions."""
        return digest(f"{self.role} {self.hash}")[:12]


class Users:
    """The users of one folder; the file is read again when it was replaced."""

    def __init__(self, folder: SecretsFolder, hasher: PasswordHasher | None = None) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._hasher = hasher if hasher is not None else PasswordHasher()
        self._stamp: tuple[int, int] | None = None
        self._known: dict[str, User] = {}
        self._decoy = ""

    def all(self) -> Mapping[str, User]:
        """Return the users by name. Raises StorageError."""
        with self._lock:
            stamp = self._folder.stamp(FILE)
            if stamp != self._stamp or stamp is None:
                rows = self._folder.read(FILE).get("users", {})
                try:
                    self._known = {
                        name: User(name, Role(row["role"]), str(row["hash"]))
                        for name, row in rows.items()
                    }
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise StorageError(
                        f"{self._folder.path / FILE} is not what hevcq writes.",
                        remedy="Restore it, or delete it and add the users again.",
                    ) from error
                self._stamp = stamp
            return self._known

    def put(self, name: str, password: str, role: Role) -> bool:
        """Add a user, or give one a new password and role; return whether the name is new.

        Raises UsageError for a name or password that is not accepted, StorageError.
        """
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no user name.", remedy="Use letters, digits and . _ @ + - only."
            )
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise UsageError(f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters.")
        row = {"role": role, "hash": self._hasher.hash(password)}
        with self._folder.locked():
            rows = self._folder.read(FILE).get("users", {})
            self._folder.write(FILE, {"users": {**rows, name: row}})
        return name not in rows

    def remove(self, name: str) -> None:
        """Remove a user, which ends their sessions. Raises UsageError, StorageError."""
        with self._folder.locked():
            rows = dict(self._folder.read(FILE).get("users", {}))
            if rows.pop(name, None) is None:
                raise UsageError(f"No user {name!r}.")
            self._folder.write(FILE, {"users": rows})

    def check(self, name: str, password: str) -> User | None:
        """Return the user if the password is right; an unknown name takes as long as a wrong one."""
        user = self.all().get(name)
        if len(password) > MAX_PASSWORD:
            return None
        try:
            right = self._hasher.verify(user.hash if user else self._nobody(), password)
        except (Argon2Error, InvalidHashError):
            return None
        return user if right else None

    def _nobody(self) -> str:
        self._decoy = self._decoy or self._hasher.hash("nobody has this password")
        return self._decoy


class NameAndPassword(Mode):
    """Users of the file `web/users.json`, which `hevcq web add-user` writes."""

    fields = ("name", "password")

    def __init__(self, users: Users) -> None:
        self._users = users

    def check(self, given: Mapping[str, str]) -> Session | None:
        """Return the session if name and password are right."""
        user = self._users.check(given.get("name", "").strip(), given.get("password", ""))
        return Session(user.name, user.name, user.role, user.mark) if user else None

    def still(self, session: Session) -> Person | None:
        """Return the person unless they were removed, or have a new password or role."""
        user = self._users.all().get(session.owner)
        if user is None or user.mark != session.mark:
            return None
        return Person(user.name, user.name, user.role)

    def behind(self, program: Person) -> Person | None:
        """Return the token, which runs the farm only for an operator; None without such a user."""
        user = self._users.all().get(program.owner)
        if user is None or user.role is Role.OPERATOR:
            return program if user else None
        return replace(program, role=Role.USER)
