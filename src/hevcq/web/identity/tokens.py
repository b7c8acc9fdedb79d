"""Tokens for programs: with an owner, scopes and an end, stored as digests, revocable."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Collection, Mapping

from pydantic import BaseModel, Field

from hevcq.errors import UsageError
from hevcq.ports.videos import AccountKind, Accounts
from hevcq.util.clock import Clock
from hevcq.web.identity.person import Person, Role, Scope
from hevcq.web.identity.session import digest, new_token

PREFIX = "hevcq"
ID_BYTES = 6
TEXT = re.compile(rf"{PREFIX}_([0-9a-f]{{{2 * ID_BYTES}}})_([A-Za-z0-9_-]{{20,64}})")
DAY_S = 86_400


class ProgramToken(BaseModel):
    """A token as it is kept: `expires` is wall seconds, `sha256` that of its secret."""

    token_id: str = Field(exclude=True)
    name: str
    owner: str
    scopes: tuple[str, ...]
    created: float
    expires: float
    sha256: str

    @property
    def person(self) -> Person:
        """Who a program with this token is."""
        role = Role.OPERATOR if Scope.OPERATE in self.scopes else Role.USER
        return Person(self.owner, self.name, role, frozenset(self.scopes))


class ProgramTokens:
    """The tokens of programs that may use the page."""

    def __init__(self, accounts: Accounts, clock: Clock) -> None:
        self._accounts, self._clock = accounts, clock

    def all(self) -> Mapping[str, ProgramToken]:
        """Return the tokens by id, ended ones included. Raises StorageError."""
        rows = self._accounts.all(AccountKind.PROGRAM)
        return {key: ProgramToken(token_id=key, **row) for key, row in rows.items()}

    def create(self, name: str, owner: str, scopes: Collection[Scope], days: float) -> str:
        """Make a token that is valid for `days`, and return it: it is shown this once.

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
        """Delete a token, which refuses it at once. Raises UsageError, StorageError."""
        rows = self.all()
        found = [key for key in rows if token_id and key.startswith(token_id)]
        if len(found) != 1 or not self._accounts.remove(AccountKind.PROGRAM, found[0]):
            what = "No token" if len(found) < 2 else "Several tokens begin with"
            raise UsageError(f"{what} {token_id!r}.", remedy="See `hevcq web token list`.")
        return rows[found[0]]

    def person(self, text: str) -> Person | None:
        """Return who has this token, or None if it is wrong, revoked or has ended."""
        match = TEXT.fullmatch(text)
        row = self._accounts.get(AccountKind.PROGRAM, match[1]) if match else None
        if match is None or row is None:
            return None
        known = ProgramToken(token_id=match[1], **row)
        if known.expires <= self._clock.now():
            return None
        return known.person if hmac.compare_digest(known.sha256, digest(match[2])) else None
