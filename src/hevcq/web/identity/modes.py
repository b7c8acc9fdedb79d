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
"""The only person, where one token or nothing at all signs in."""
MAX_NAME = 255


class SignInMode:
    """One way to sign in. Blocking: called in a thread."""

    fields: Sequence[str] = ()
    """Names of the fields of the sign-in form; none: there is no form."""
    start: str = ""
    """Where signing in elsewhere starts; empty: it does not."""
    role_hours: float = math.inf
    """The most hours that an operator's session lasts, where only a sign-in tells of a lost role."""

    def check(self, _given: Mapping[str, str]) -> Person | None:
        """Return who filled in the form, or None if it is wrong."""
        return None

    def still(self, session: Person) -> Person | None:
        """Return the person of an earlier session, or None if it has ended since."""
        return session

    def direct(self, _connection: HTTPConnection) -> Person | None:
        """Return the person whom the request itself names, without a session."""
        return None

    def behind(self, program: Person) -> Person | None:
        """Return a program's token as far as its owner may go now; None if they are gone."""
        return program if self._runs(program.owner) else replace(program, role=Role.USER)

    def _runs(self, owner: str) -> bool:
        """Return whether an owner of a token is an operator now."""
        return owner == LOCAL_OWNER

    def signed_out_at(self) -> str:
        return "/sign-in"


class OneToken(SignInMode):
    """One token for one person, who is the operator; only its digest is kept."""

    fields = ("token",)

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def new(self) -> str:
        """Make another token, which ends older sessions, and return it: once only."""
        token = new_token()
        self._accounts.put(AccountKind.SIGN_IN, "token", {"sha256": digest(token)})
        return token

    def exists(self) -> bool:
        return bool(self._sha256())

    def check(self, given: Mapping[str, str]) -> Person | None:
        sha256 = self._sha256()
        right = hmac.compare_digest(sha256, digest(given.get("token", "").strip()))
        return replace(LOCAL, mark=sha256[:12]) if right else None

    def still(self, session: Person) -> Person | None:
        """Return the person unless a new token was made since."""
        return LOCAL if session.mark and session.mark == self._sha256()[:12] else None

    def _sha256(self) -> str:
        row = self._accounts.get(AccountKind.SIGN_IN, "token")
        return str(row["sha256"]) if row else ""


class Nobody(SignInMode):
    """Whoever reaches the page is the operator: for loopback only."""

    def direct(self, _connection: HTTPConnection) -> Person | None:
        return LOCAL


class ProxyHeader(SignInMode):
    """A reverse proxy signs people in and names them in a header, which only it may set.

    Raises ConfigError if no proxy is trusted.
    """

    def __init__(self, settings: WebSettings) -> None:
        if not settings.trusted_proxies:
            raise ConfigError(
                'web.auth = "proxy" needs web.trusted_proxies: the addresses whose header counts.'
            )
        self._proxies, self._header = settings.trusted_proxies, settings.proxy_header
        self._operators = frozenset(settings.operators)

    def direct(self, connection: HTTPConnection) -> Person | None:
        """Return the person whom the proxy names; None for any other peer."""
        peer = connection.client.host if connection.client else ""
        names = connection.headers.getlist(self._header)
        if not trusts(self._proxies, peer) or len(names) != 1:
            return None
        name = names[0].strip()
        if not name or len(name) > MAX_NAME or not name.isprintable():
            return None
        role = Role.OPERATOR if name in self._operators else Role.USER
        return Person(name, name, role)

    def still(self, _session: Person) -> Person | None:
        """Return nobody: a session of another mode does not count."""
        return None

    def _runs(self, owner: str) -> bool:
        return owner in self._operators or owner == LOCAL_OWNER


def trusts(proxies: Sequence[str], address: str) -> bool:
    """Return whether this address is one of the reverse proxies, whose headers count."""
    if (found := ip_of(address)) is None:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or found
    return any(mapped in ipaddress.ip_network(each, strict=False) for each in proxies)


def client_of(proxies: Sequence[str], connection: HTTPConnection) -> str:
    """Return the address a request came from: behind a proxy, the last one it added itself."""
    peer = connection.client.host if connection.client else ""
    forwarded = ",".join(connection.headers.getlist("x-forwarded-for")).split(",")
    while trusts(proxies, peer) and forwarded and forwarded[-1].strip():
        peer = forwarded.pop().strip()
    return peer[:MAX_NAME]


def network_of(address: str) -> str:
    """Return what one guesser has: an IPv4 address, or the 64-bit network of an IPv6 one."""
    found = ip_of(address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return address
