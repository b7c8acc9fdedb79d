"""People who sign in with a name and a password; only argon2's hash of it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from hevcq.errors import StorageError, UsageError
from hevcq.ports.videos import AccountKind, Accounts
from hevcq.web.identity.modes import Mode
from hevcq.web.identity.person import Person, Role
from hevcq.web.identity.session import digest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
MIN_PASSWORD, MAX_PASSWORD = 10, 1024


@dataclass(frozen=True, slots=True)
class User:
    """A user; `hash` is argon2's encoded form, with its own salt and cost."""

    name: str
    role: Role
    hash: str

    @property
    def mark(self) -> str:
        """What changes with the password and the role, which ends older sessions."""
        return digest(f"{self.role} {self.hash}")[:12]


class Users:
    """The users of the page."""

    def __init__(self, accounts: Accounts, hasher: PasswordHasher | None = None) -> None:
        self._accounts = accounts
        self._hasher = hasher if hasher is not None else PasswordHasher()
        self._decoy = ""

    def all(self) -> Mapping[str, User]:
        """Return the users by name. Raises StorageError."""
        rows = self._accounts.all(AccountKind.USER)
        return {name: self._user(name, row) for name, row in rows.items()}

    def get(self, name: str) -> User | None:
        """Return a user, or None. Raises StorageError."""
        row = self._accounts.get(AccountKind.USER, name) if NAME.fullmatch(name) else None
        return None if row is None else self._user(name, row)

    def _user(self, name: str, row: Mapping[str, Any]) -> User:
        try:
            return User(name, Role(row["role"]), str(row["hash"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(
                f"The user {name} in {self._accounts.where} is not what hevcq writes.",
                remedy="Remove the user, and add it again.",
            ) from error

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
        row = {"role": role.value, "hash": self._hasher.hash(password)}
        return self._accounts.put(AccountKind.USER, name, row)

    def remove(self, name: str) -> None:
        """Remove a user, which ends their sessions. Raises UsageError, StorageError."""
        if not NAME.fullmatch(name) or not self._accounts.remove(AccountKind.USER, name):
            raise UsageError(f"No user {name!r}.")

    def check(self, name: str, password: str) -> User | None:
        """Return the user if the password is right; an unknown name takes as long as a wrong one."""
        user = self.get(name)
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
    """Users that `hevcq web add-user` added."""

    fields = ("name", "password")

    def __init__(self, users: Users) -> None:
        self._users = users

    def check(self, given: Mapping[str, str]) -> Person | None:
        """Return the person if name and password are right."""
        user = self._users.check(given.get("name", "").strip(), given.get("password", ""))
        return Person(user.name, user.name, user.role, mark=user.mark) if user else None

    def still(self, session: Person) -> Person | None:
        """Return the person unless they were removed, or have a new password or role."""
        user = self._users.get(session.owner)
        if user is None or user.mark != session.mark:
            return None
        return Person(user.name, user.name, user.role)

    def behind(self, program: Person) -> Person | None:
        """Return the token, which runs the farm only for an operator; None without such a user."""
        user = self._users.get(program.owner)
        if user is None or user.role is Role.OPERATOR:
            return program if user else None
        return replace(program, role=Role.USER)
