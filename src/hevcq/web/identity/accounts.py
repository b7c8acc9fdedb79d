"""Users with passwords, programs and machines with tokens, terms of shares. Only hashes are stored."""

import hmac
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from pydantic import BaseModel, Field

from hevcq.domain.videos import Share
from hevcq.errors import StorageError, UsageError
from hevcq.ports.videos import AccountKind, Accounts
from hevcq.settings.web import DAY_S, MAX_TOKEN_DAYS
from hevcq.util.clock import Clock
from hevcq.web.identity.modes import SignInMode
from hevcq.web.identity.person import JOIN, MACHINE, WORK, Person, Role, Scope
from hevcq.web.identity.session import digest, new_token

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
MIN_PASSWORD, MAX_PASSWORD = 10, 1024
MIN_SHARE_PASSWORD, MAX_SHARE_DAYS = 8, 3650
"""Limits of a share: characters of its password, days until it ends."""


@dataclass(frozen=True, slots=True)
class User:
    """A user; `hash` is argon2's encoded form, which contains salt and cost."""

    name: str
    role: Role
    hash: str

    @property
    def mark(self) -> str:
        """A digest of password and role: when it changes, older sessions end."""
        return digest(f"{self.role} {self.hash}")[:12]


class Users(SignInMode):
    """Users that `hevcq serve add-user` added, who sign in with name and password."""

    fields = ("name", "password")

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._hasher = PasswordHasher()
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
                f"The record of user {name} in {self._accounts.where} is damaged.",
                remedy="Remove the user, then add them again.",
            ) from error

    def put(self, name: str, password: str, role: Role) -> bool:
        """Add a user, or change password and role; return whether the user is new.

        Raises UsageError for a name or password that is not allowed, StorageError.
        """
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is not a valid user name.",
                remedy="Use only letters a to z, digits and . _ @ + -, a letter or digit first.",
            )
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise UsageError(f"A password must have {MIN_PASSWORD} to {MAX_PASSWORD} characters.")
        row = {"role": role.value, "hash": self._hasher.hash(password)}
        return self._accounts.put(AccountKind.USER, name, row)

    def remove(self, name: str) -> None:
        """Remove a user, which ends their sessions. Raises UsageError, StorageError."""
        if not NAME.fullmatch(name) or not self._accounts.remove(AccountKind.USER, name):
            raise UsageError(f"No user {name!r}.")

    def check(self, given: Mapping[str, str]) -> Person | None:
        """Return the person if name and password are right; an unknown name takes as long to check."""
        user, password = self.get(given.get("name", "").strip()), given.get("password", "")
        if len(password) > MAX_PASSWORD:
            return None
        try:
            is_right = self._hasher.verify(user.hash if user else self._decoy_hash(), password)
        except (Argon2Error, InvalidHashError):
            return None
        return (
            Person(user.name, user.name, user.role, mark=user.mark) if user and is_right else None
        )

    def _decoy_hash(self) -> str:
        self._decoy = self._decoy or self._hasher.hash("nobody has this password")
        return self._decoy

    def revalidate(self, session: Person) -> Person | None:
        """Return the person, or None if they were removed or have a new password or role."""
        user = self.get(session.owner)
        if user is None or user.mark != session.mark:
            return None
        return Person(user.name, user.name, user.role)

    def limit_token(self, program: Person) -> Person | None:
        """Return the token, without the operator's role if its owner has none; None if they are removed."""
        user = self.get(program.owner)
        if user is None or user.role is Role.OPERATOR:
            return program if user else None
        return replace(program, role=Role.USER)


PREFIX = "hevcq"
ID_BYTES = 6
TEXT = re.compile(rf"{PREFIX}_([0-9a-f]{{{2 * ID_BYTES}}})_([A-Za-z0-9_-]{{20,64}})")
INVITATION_H = 1
"""Hours that a machine's invitation is valid."""
NOT_IN_MACHINE_NAME, MAX_MACHINE_NAME = re.compile(r"[^A-Za-z0-9._-]+"), 40
"""Characters that the name of a machine cannot have, and its greatest length."""


class ProgramToken(BaseModel):
    """A stored token: times are Unix seconds, `sha256` is the digest of its secret."""

    token_id: str = Field(exclude=True)
    name: str
    owner: str
    scopes: tuple[str, ...]
    created: float
    expires: float
    sha256: str

    @property
    def person(self) -> Person:
        role = Role.OPERATOR if Scope.OPERATE in self.scopes else Role.USER
        return Person(self.owner, self.name, role, frozenset(self.scopes))


class ProgramTokens:
    def __init__(self, accounts: Accounts, clock: Clock) -> None:
        self._accounts, self._clock = accounts, clock

    def all(self) -> Mapping[str, ProgramToken]:
        """Return the tokens by id, expired ones included. Raises StorageError."""
        rows = self._accounts.all(AccountKind.PROGRAM)
        return {key: ProgramToken(token_id=key, **row) for key, row in rows.items()}

    def create(self, name: str, owner: str, scopes: Collection[str], days: float) -> str:
        """Create a token that is valid for `days`, and return it. Only now it can be shown.

        Raises UsageError, StorageError.
        """
        if not name.strip() or not name.isprintable() or not scopes:
            raise UsageError("A token needs a name and at least one scope.")
        token_id, secret = secrets.token_hex(ID_BYTES), new_token()
        now = self._clock.now()
        token = ProgramToken(
            token_id=token_id,
            name=name.strip(),
            owner=owner,
            scopes=tuple(sorted(scopes)),
            created=now,
            expires=now + days * DAY_S,
            sha256=digest(secret),
        )
        self._accounts.put(AccountKind.PROGRAM, token_id, token.model_dump(mode="json"))
        return f"{PREFIX}_{token_id}_{secret}"

    def revoke(self, token_id: str) -> ProgramToken:
        """Delete a token by its id or a prefix: it is refused from now on. Raises UsageError, StorageError."""
        rows = self.all()
        matches = [key for key in rows if token_id and key.startswith(token_id)]
        if len(matches) != 1 or not self._accounts.remove(AccountKind.PROGRAM, matches[0]):
            what = "No token" if len(matches) < 2 else "Several tokens begin with"
            raise UsageError(f"{what} {token_id!r}.", remedy="See `hevcq serve token list`.")
        return rows[matches[0]]

    def invite(self) -> str:
        """Return an invitation for one machine, valid once, for INVITATION_H hours. Raises StorageError."""
        return self.create("invitation", MACHINE, (JOIN,), INVITATION_H / 24)

    def admit(self, invitation: str, wished: str, taken: Collection[str]) -> tuple[str, str] | None:
        """Use up an invitation; return the machine's free name and its token, or None if it was used before."""
        match = TEXT.fullmatch(invitation)
        if match is None or not self._accounts.remove(AccountKind.PROGRAM, match[1]):
            return None
        name = NOT_IN_MACHINE_NAME.sub("-", wished)[:MAX_MACHINE_NAME].strip("-.") or "machine"
        taken_names, free, number = {*taken, *self.machines()}, name, 1
        while free in taken_names:
            number += 1
            free = f"{name}-{number}"
        return free, self.create(free, f"{MACHINE}{free}", (WORK,), MAX_TOKEN_DAYS)

    def machines(self) -> Mapping[str, ProgramToken]:
        """Return the tokens of joined machines by name. Raises StorageError."""
        return {each.name: each for each in self.all().values() if each.scopes == (WORK,)}

    def remove_machine(self, machine: str) -> bool:
        """Delete a machine's token, which shuts it out; return whether it had joined."""
        token = self.machines().get(machine)
        if token is not None:
            self.revoke(token.token_id)
        return token is not None

    def person(self, text: str) -> Person | None:
        """Return the owner of a token, or None if it is wrong, revoked or expired."""
        match = TEXT.fullmatch(text)
        row = self._accounts.get(AccountKind.PROGRAM, match[1]) if match else None
        if match is None or row is None:
            return None
        token = ProgramToken(token_id=match[1], **row)
        if token.expires <= self._clock.now():
            return None
        return token.person if hmac.compare_digest(token.sha256, digest(match[2])) else None


def new_share(now: float, *, days: int | None, password: str, download: bool) -> Share:
    """Return the terms of a share that begins `now`. Raises UsageError."""
    if days is not None and not 1 <= days <= MAX_SHARE_DAYS:
        raise UsageError(f"A share may last 1 to {MAX_SHARE_DAYS} days.")
    if password and not MIN_SHARE_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise UsageError(
            f"A share's password must have {MIN_SHARE_PASSWORD} to {MAX_PASSWORD} characters."
        )
    return Share(
        ends_at=None if days is None else now + days * DAY_S,
        password=PasswordHasher().hash(password) if password else "",
        download=download,
    )


def opens_share(share: Share, password: str) -> bool:
    try:
        return len(password) <= MAX_PASSWORD and PasswordHasher().verify(share.password, password)
    except (Argon2Error, InvalidHashError):
        return False
