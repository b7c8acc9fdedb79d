"""Sign in and out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import anyio
from anyio.to_thread import run_sync
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.util.log import get_logger
from hevcq.util.text import printable
from hevcq.web.identity.gate import local_path
from hevcq.web.identity.modes import Peers
from hevcq.web.identity.person import maybe_person
from hevcq.web.identity.session import SESSION, Session
from hevcq.web.rendering import page
from hevcq.web.services import Services, read_form, services_of

AT_ONCE = 2
"""Passwords checked at once: each takes argon2's 64 MiB."""
WRONG = {
    "token": "That is not the token. `hevcq web new-token` makes another.",
    "password": "Name or password is wrong.",
}


class SignIn:
    """The pages of one server's sign-in."""

    def __init__(self) -> None:
        self._turns = anyio.CapacityLimiter(AT_ONCE)

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of signing in and out."""
        return (
            Route("/sign-in", self.show),
            Route("/sign-in", self.submit, methods=["POST"]),
            Route("/sign-out", self.leave, methods=["POST"]),
        )

    async def show(self, request: Request) -> Response:
        """Show the form, or go on if somebody signed in already."""
        after = local_path(request.query_params.get("next", "/"))
        if maybe_person(request) is not None:
            return RedirectResponse(after, 303)
        return _form(request, after)

    async def submit(self, request: Request) -> Response:
        """Check the form; slow down whoever guesses."""
        services, form = services_of(request), await read_form(request)
        after = local_path(form.get("next", "/"))
        if not services.gate.mode.fields:
            return _form(request, after, status=404)
        names = _names(services, request, form)
        if (wait := math.ceil(services.limiter.wait_s(*names))) > 0:
            wrong = f"Too many tries. Wait {wait} seconds."
            return _form(request, after, wrong, status=429, retry_s=wait)
        # Counted before the check: tries sent at the same moment must not all pass.
        services.limiter.note_failure(*names)
        session = await run_sync(services.gate.mode.check, form, limiter=self._turns)
        if session is None:
            get_logger().warning("sign_in_failed", client=printable(names[0]))
            wrong = WRONG["token" if "token" in services.gate.mode.fields else "password"]
            return _form(request, after, wrong, status=403)
        services.limiter.forget(*names)
        return signed_in(services, session, after)

    async def leave(self, request: Request) -> Response:
        """Sign out."""
        services = services_of(request)
        where = await run_in_threadpool(services.gate.mode.signed_out_at)
        response = RedirectResponse(where, 303)
        services.gate.cookies.clear(response, SESSION)
        return response


def signed_in(services: Services, session: Session, after: str) -> Response:
    """Return the response that starts a session."""
    response = RedirectResponse(after, 303)
    services.gate.sign_in(response, session, services.settings.session_hours)
    return response


def _names(services: Services, request: Request, form: Mapping[str, str]) -> list[str]:
    """Return what failures are counted by: the address, and the name that is tried."""
    address = Peers(tuple(services.settings.trusted_proxies)).client_of(request)
    name = form.get("name", "").strip()
    return [f"address {address}", *([f"name {name[:255]}"] if name else [])]


def _form(
    request: Request, after: str, wrong: str = "", *, status: int = 200, retry_s: int = 0
) -> Response:
    mode = services_of(request).gate.mode
    headers = {"Retry-After": str(retry_s)} if retry_s else None
    return page(
        request,
        "sign_in.html",
        status=status,
        headers=headers,
        fields=mode.fields,
        start=mode.start,
        after=after,
        wrong=wrong,
    )
