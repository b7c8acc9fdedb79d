"""Who is asking: a person or a program, with what they may do."""

from dataclasses import dataclass, field
from enum import StrEnum

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

LOCAL_OWNER = "local"
"""The owner of everything where only one person signs in."""


class Role(StrEnum):
    """What a person may do; values are stable."""

    USER = "user"
    OPERATOR = "operator"


class Scope(StrEnum):
    """What a program's token allows; values are stable."""

    READ = "read"
    UPLOAD = "upload"
    MANAGE = "manage"
    OPERATE = "operate"


WORK, JOIN = "work", "join"
"""What the tokens of joined machines and of invitations allow, and nothing else."""
MACHINE = "machine:"
"""How the owner of a machine's token begins; its name follows."""


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who signed in. `owner` identifies them for good: a name, or an issuer and its subject.

    `scopes` limits a program's token; None is a person at the page, who may do all their role allows.
    `mark` changes with their password or the sign-in token, which ends a session with another one.
    """

    owner: str
    name: str
    role: Role
    scopes: frozenset[str] | None = None
    mark: str = field(default="", compare=False)

    @property
    def is_operator(self) -> bool:
        return self.role is Role.OPERATOR and self.may(Scope.OPERATE)

    @property
    def is_machine(self) -> bool:
        """Whether this is no person or their program, but a joined machine, or one that joins."""
        return self.owner.startswith(MACHINE)

    def may(self, scope: str) -> bool:
        return self.scopes is None or scope in self.scopes

    def require(self, scope: str) -> None:
        """Raise HTTPException 403 unless the token allows `scope`."""
        if not self.may(scope):
            raise HTTPException(403, f"This token does not allow {scope}.")


def person_of(connection: HTTPConnection) -> Person:
    """Return who is asking. Raises HTTPException 401 if nobody signed in."""
    person = maybe_person(connection)
    if person is None:
        raise HTTPException(401, "Authentication required.")
    return person


def maybe_person(connection: HTTPConnection) -> Person | None:
    """Return who is asking, or None on a public page."""
    found = connection.scope.get("state", {}).get("person")
    return found if isinstance(found, Person) else None


def operator_of(connection: HTTPConnection) -> Person:
    """Return the operator who is asking. Raises HTTPException 401, or 404 for anybody else."""
    person = person_of(connection)
    if not person.is_operator:
        raise HTTPException(404)
    return person
