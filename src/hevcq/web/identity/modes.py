"""The ways to sign in: one token, users with passwords, a proxy's header, an OpenID provider, or none."""

import hmac
import ipaddress
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from starlette.requests import HTTPConnection

from hevcq.errors import ConfigError
from hevcq.ports.videos import AccountKind, Accounts
from hevcq.settings.web import WebSettings
from hevcq.web.identity.person import LOCAL_OWNER, Person, Role
from hevcq.web.identity.session import digest, new_token
from hevcq.web.shield import ip_of

LOCAL = Person(LOCAL_OWNER, LOCAL_OWNER, Role.OPERATOR)
"""The only person, where web.auth is "token" or "none"."""
MAX_NAME = 255


class SignInMode:
    """One way to sign in. Its methods may block."""

    fields: Sequence[str] = ()
    """Names of the fields of the sign-in form; empty without a form."""
    start: str = ""
    """The path where a sign-in at a provider starts; "" without a provider."""
    role_hours: float = math.inf
    """The longest session of an operator in hours, where only a sign-in shows that the role was lost."""

    def check(self, _given: Mapping[str, str]) -> Person | None:
        """Return the person that a filled-in form identifies, or None if it is wrong."""
        return None

    def revalidate(self, session: Person) -> Person | None:
        """Return the person of an earlier session, or None if the session is no longer valid."""
        return session

    def identify(self, _connection: HTTPConnection) -> Person | None:
        """Return the person that the request itself identifies, without a session."""
        return None

    def limit_token(self, program: Person) -> Person | None:
        """Return a program with no more rights than its owner has now; None if the owner is gone."""
        return program if self._is_operator(program.owner) else replace(program, role=Role.USER)

    def _is_operator(self, owner: str) -> bool:
        """Return whether the owner of a token is an operator now."""
        return owner == LOCAL_OWNER

    def signed_out_at(self) -> str:
        return "/sign-in"


class OneToken(SignInMode):
    """One token for one person, who is the operator; only its digest is stored."""

    fields = ("token",)

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def new(self) -> str:
        """Create another token, which ends older sessions, and return it. Only now it can be shown."""
        token = new_token()
        self._accounts.put(AccountKind.SIGN_IN, "token", {"sha256": digest(token)})
        return token

    def exists(self) -> bool:
        return bool(self._sha256())

    def check(self, given: Mapping[str, str]) -> Person | None:
        sha256 = self._sha256()
        is_right = hmac.compare_digest(sha256, digest(given.get("token", "").strip()))
        return replace(LOCAL, mark=sha256[:12]) if is_right else None

    def revalidate(self, session: Person) -> Person | None:
        """Return the person, or None if a new token was created since."""
        return LOCAL if session.mark and session.mark == self._sha256()[:12] else None

    def _sha256(self) -> str:
        row = self._accounts.get(AccountKind.SIGN_IN, "token")
        return str(row["sha256"]) if row else ""


class Nobody(SignInMode):
    """Everybody who reaches the page is the operator; allowed on loopback only."""

    def identify(self, _connection: HTTPConnection) -> Person | None:
        return LOCAL


class ProxyHeader(SignInMode):
    """A reverse proxy signs people in and names them in a header, which counts from no other peer.

    Raises ConfigError if no proxy is trusted.
    """

    def __init__(self, settings: WebSettings) -> None:
        if not settings.trusted_proxies:
            raise ConfigError(
                'web.auth = "proxy" needs web.trusted_proxies: the addresses whose header counts.'
            )
        self._proxies, self._header = settings.trusted_proxies, settings.proxy_header
        self._operators = frozenset(settings.operators)

    def identify(self, connection: HTTPConnection) -> Person | None:
        """Return the person whom the proxy names; None for any other peer."""
        peer = connection.client.host if connection.client else ""
        names = connection.headers.getlist(self._header)
        if not is_trusted_proxy(self._proxies, peer) or len(names) != 1:
            return None
        name = names[0].strip()
        if not name or len(name) > MAX_NAME or not name.isprintable():
            return None
        role = Role.OPERATOR if name in self._operators else Role.USER
        return Person(name, name, role)

    def revalidate(self, _session: Person) -> Person | None:
        """Return None: a session of another mode does not count."""
        return None

    def _is_operator(self, owner: str) -> bool:
        return owner in self._operators or owner == LOCAL_OWNER


def is_trusted_proxy(proxies: Sequence[str], address: str) -> bool:
    """Return whether an address is in one of the networks in `proxies`, whose headers count."""
    if (ip := ip_of(address)) is None:
        return False
    mapped = getattr(ip, "ipv4_mapped", None) or ip
    return any(mapped in ipaddress.ip_network(each, strict=False) for each in proxies)
