"""Who sends a request, a person, program or machine, and what they may do."""

from dataclasses import dataclass, field
from enum import StrEnum

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

LOCAL_OWNER = "local"
"""The owner of everything, where only one person signs in."""


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
"""The only scopes of joined machines' tokens and of invitations."""
MACHINE = "machine:"
"""The owner of a machine's token is this prefix and the machine's name."""


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who signed in. `owner` identifies them permanently: a name, or an issuer and a subject.

    `scopes` limits a program's token; it is None for a person at the page, who may do all that the
    role allows. `mark` changes with the password or the sign-in token, which ends older sessions.
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
        """Whether this is a joined or joining machine, not a person or their program."""
        return self.owner.startswith(MACHINE)

    def may(self, scope: str) -> bool:
        return self.scopes is None or scope in self.scopes

    def require(self, scope: str) -> None:
        """Raise HTTPException 403 unless the token allows `scope`."""
        if not self.may(scope):
            raise HTTPException(403, f"This token does not allow {scope}.")


def person_of(connection: HTTPConnection) -> Person:
    """Return who sends the request. Raises HTTPException 401 without a sign-in."""
    person = maybe_person(connection)
    if person is None:
        raise HTTPException(401, "Authentication required.")
    return person


def maybe_person(connection: HTTPConnection) -> Person | None:
    """Return who sends the request, or None without a sign-in."""
    person = connection.scope.get("state", {}).get("person")
    return person if isinstance(person, Person) else None


def operator_of(connection: HTTPConnection) -> Person:
    """Return the operator who sends the request. Raises HTTPException 401, or 404 for other people."""
    person = person_of(connection)
    if not person.is_operator:
        raise HTTPException(404)
    return person
