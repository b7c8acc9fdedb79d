"""Identify the caller of every request, and refuse whoever must sign in first."""

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
"""Paths that need no sign-in: public content, the sign-in itself, and the set-up, which checks a code."""
OPEN_TO_TOKENS = (*FOR_PROGRAMS, *PUBLIC)
"""Paths that check a token's scopes. Pages do not: there a token could do all that its owner may."""
MACHINES = "/api/v1/joined/"
"""Where joined machines get their orders. They may use nothing else, and nobody else may use this."""
FOR_MACHINES = "Only a joined machine's token has orders, and it opens nothing else."
FOR_PEOPLE = "Pages are for people: a program's token is for /api/v1, /uploads and /media."
SIGN_IN = "/sign-in"
SIGNED_OUT = '<p class="note bad" role="alert">Signed out; <a href="">sign in again</a>.</p>'
"""Replaces the polled part of an open page; the link reloads the page, which leads to the sign-in."""
CLOSE = {"Connection": "close"}


class Authenticator:
    """Identify the caller: a program by its token, a person by their session or the proxy's header."""

    def __init__(
        self, mode: SignInMode, cookies: Cookies, accounts: Accounts, clock: Clock
    ) -> None:
        self.mode, self.cookies = mode, cookies
        self._accounts, self._clock = accounts, clock
        self._programs = ProgramTokens(accounts, clock)

    def identify(self, connection: HTTPConnection) -> Person | None:
        """Return the caller, or None. A request with a bearer token counts by that alone. Blocking."""
        kind, _, token = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            person = self._programs.person(token.strip())
            return person if person is None or person.is_machine else self.mode.limit_token(person)
        if (person := self.mode.identify(connection)) is not None:
            return person
        claims = self.cookies.read(connection, SESSION, self._clock.now())
        if claims is None or self._accounts.get(AccountKind.ENDED, claims["jti"]) is not None:
            return None
        role, mark = Role(claims["role"]), claims["mark"]
        return self.mode.revalidate(Person(claims["sub"], claims["name"], role, mark=mark))

    def sign_in(self, response: Response, person: Person) -> None:
        """Set the session's cookie, which expires after at most SESSION_HOURS."""
        now = self._clock.now()
        is_operator = person.role is Role.OPERATOR
        hours = min(SESSION_HOURS, self.mode.role_hours) if is_operator else SESSION_HOURS
        claims = {"sub": person.owner, "name": person.name, "role": person.role}
        claims |= {"mark": person.mark, "jti": new_token()}
        self.cookies.write(response, SESSION, claims, until=now + hours * 3600, now=now)

    def sign_out(self, connection: HTTPConnection) -> None:
        """End the session of this request, also for copies of its cookie. Blocking."""
        now = self._clock.now()
        claims = self.cookies.read(connection, SESSION, now)
        if claims is not None:
            self._accounts.forget(AccountKind.ENDED, now)
            self._accounts.put(AccountKind.ENDED, claims["jti"], {}, expires_at=claims["exp"])


def make_mode(settings: WebSettings, accounts: Accounts, clock: Clock) -> SignInMode:
    """Return the configured sign-in mode. Raises ConfigError."""
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
    """Refuse requests without a sign-in, but for public paths, before their body is read."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app, self._authenticator = app, authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Store the person in the request's state, or refuse."""
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
        if person is not None and person.is_machine != path.startswith(MACHINES):
            await problem(403, FOR_MACHINES, headers=CLOSE)(scope, receive, send)
            return
        if person is not None and person.scopes is not None and not path.startswith(OPEN_TO_TOKENS):
            await problem(403, FOR_PEOPLE, headers=CLOSE)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _refusal(connection: HTTPConnection) -> Response:
    """Redirect a person to the sign-in; answer a program or the poll of an open page with 401."""
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
    """Return the path to open after a sign-in, or "/" if it could lead to another site."""
    is_odd = any(ord(c) <= 0x20 or c == "\\" for c in path)
    return path if path.startswith("/") and not path.startswith("//") and not is_odd else "/"
