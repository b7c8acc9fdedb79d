"""Find out who is asking before anything else is done, and refuse those who must sign in first."""

import math
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hevcq.ports.videos import AccountKind, Accounts
from hevcq.settings.web import WebSettings
from hevcq.util.clock import Clock
from hevcq.web.identity.accounts import ProgramTokens, Users
from hevcq.web.identity.modes import Nobody, OneToken, ProxyHeader, SignInMode
from hevcq.web.identity.oidc import Oidc
from hevcq.web.identity.person import Person, Role
from hevcq.web.identity.session import SESSION, SESSION_HOURS, Cookies, new_token
from hevcq.web.problems import problem, unauthenticated
from hevcq.web.shield import FOR_PROGRAMS

PUBLIC = ("/static/", "/sign-in", "/setup", "/p/", "/healthz", "/favicon.ico")
"""Paths that need no sign-in: what they show is public, is how one signs in, or asks by itself."""
TAKE_TOKENS = ("/api/", "/uploads", "/media/")
"""Paths that judge a token's scopes. A page knows none: on it a token would do all its owner may."""
OF_TOKENS = (*TAKE_TOKENS, *PUBLIC)
OF_MACHINES = "/api/v1/joined/"
"""Where joined machines get their orders: they are let in nowhere else, and nobody else here."""
FOR_MACHINES = "A joined machine's token is for its orders only, and only it has orders."
FOR_PEOPLE = "Pages are for people: a program's token is for /api/v1, /uploads and /media."
SIGN_IN = "/sign-in"
SIGNED_OUT = '<p class="note bad" role="alert">Signed out; <a href="">sign in again</a>.</p>'
"""What takes the place of an open page's part: its own address then leads to the sign-in and back."""
CLOSE = {"Connection": "close"}


class Authenticator:
    """Identify who is asking: a program by its token, a person by their session or by the proxy."""

    def __init__(
        self, mode: SignInMode, cookies: Cookies, accounts: Accounts, clock: Clock
    ) -> None:
        self.mode, self.cookies = mode, cookies
        self._accounts, self._clock = accounts, clock
        self._programs = ProgramTokens(accounts, clock)

    def identify(self, connection: HTTPConnection) -> Person | None:
        """Return who is asking, or None. A bearer token is judged alone. Blocking."""
        kind, _, token = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            person = self._programs.person(token.strip())
            return person if person is None or person.is_machine else self.mode.behind(person)
        direct = self.mode.direct(connection)
        if direct is not None:
            return direct
        claims = self.cookies.read(connection, SESSION, self._clock.now())
        if claims is None or self._accounts.get(AccountKind.ENDED, claims["jti"]) is not None:
            return None
        role, mark = Role(claims["role"]), claims["mark"]
        return self.mode.still(Person(claims["sub"], claims["name"], role, mark=mark))

    def sign_in(self, response: Response, person: Person) -> None:
        """Set the session's cookie, which ends after SESSION_HOURS at most."""
        now = self._clock.now()
        operator = person.role is Role.OPERATOR
        hours = min(SESSION_HOURS, self.mode.role_hours) if operator else SESSION_HOURS
        claims = {"sub": person.owner, "name": person.name, "role": person.role}
        claims |= {"mark": person.mark, "jti": new_token()}
        self.cookies.write(response, SESSION, claims, until=now + hours * 3600, now=now)

    def sign_out(self, connection: HTTPConnection) -> None:
        """End the session of this request, for whoever has its cookie. Blocking."""
        now = self._clock.now()
        claims = self.cookies.read(connection, SESSION, now)
        if claims is not None:
            self._accounts.forget(AccountKind.ENDED, now)
            self._accounts.put(AccountKind.ENDED, claims["jti"], {}, expires_at=claims["exp"])


def make_mode(settings: WebSettings, accounts: Accounts, clock: Clock) -> SignInMode:
    """Return the configured way to sign in. Raises ConfigError."""
    match settings.auth:
        case "none":
            return Nobody()
        case "proxy":
            return ProxyHeader(settings)
        case "users":
            return Users(accounts)
        case "oidc":
            return Oidc(settings, clock)
        case "token":
            return OneToken(accounts)


class SignInFirst:
    """Let only public paths through without a sign-in; nobody else's request body is read."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app, self._authenticator = app, authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the person in the request's state, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        path = scope["path"]
        if path.startswith("/static/"):
            await self._app(scope, receive, send)
            return
        person = await run_in_threadpool(self._authenticator.identify, connection)
        scope.setdefault("state", {})["person"] = person
        if person is None and not path.startswith(PUBLIC):
            await _refusal(connection)(scope, receive, send)
            return
        if person is not None and person.is_machine != path.startswith(OF_MACHINES):
            await problem(403, FOR_MACHINES, headers=CLOSE)(scope, receive, send)
            return
        if person is not None and person.scopes is not None and not path.startswith(OF_TOKENS):
            await problem(403, FOR_PEOPLE, headers=CLOSE)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _refusal(connection: HTTPConnection) -> Response:
    """Lead a person to the sign-in; a program, or an open page that asks for news, is told."""
    scope, path = connection.scope, connection.scope["path"]
    for_people = not path.startswith(FOR_PROGRAMS) and "hx-request" not in connection.headers
    if scope["method"] == "GET" and for_people:
        query = scope["query_string"].decode("latin-1")
        after = f"{path}?{query}" if query else path
        where = SIGN_IN if after == "/" else f"{SIGN_IN}?next={quote(after, safe='/')}"
        return RedirectResponse(where, 303)
    if "hx-request" in connection.headers:
        return HTMLResponse(SIGNED_OUT, 401, {**CLOSE, "WWW-Authenticate": "Bearer"})
    return unauthenticated()


def local_path(path: str) -> str:
    """Return where to go after a sign-in: a path of this page, never another site's address."""
    odd = any(ord(c) <= 0x20 or c == "\\" for c in path)
    return path if path.startswith("/") and not path.startswith("//") and not odd else "/"


TRIES = 10
PER_S = 60.0
MAX_NAMES = 10_000
"""Names remembered at most; the one seen longest ago is forgotten first."""


class Limiter:
    """Allow TRIES failures in PER_S seconds for each name, then refuse until the first wears off."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, list[float]] = {}

    def must_wait(self, *names: str) -> int:
        """Return the seconds until another try is allowed for all of these names; 0 if it is now.

        Then it counts as a failure until it is forgotten: tries sent at the same moment must not all
        pass.
        """
        now = self._clock.monotonic()
        since = now - PER_S
        recent = {n: [at for at in self._failures.pop(n, ()) if at > since] for n in names}
        self._failures |= recent
        if full := [each for each in recent.values() if len(each) >= TRIES]:
            return math.ceil(max(each[0] for each in full) - since)
        for failures in recent.values():
            failures.append(now)
        while len(self._failures) > MAX_NAMES:
            self._failures.pop(next(iter(self._failures)))
        return 0

    def forget(self, *names: str) -> None:
        for name in names:
            self._failures.pop(name, None)
