"""Sign in and out, with the form or at a provider; attempts are limited in identity/attempts.py."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from anyio.to_thread import run_sync
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.util.log import get_logger
from hevcq.util.text import printable
from hevcq.web.identity.attempts import client_network, too_many
from hevcq.web.identity.authentication import local_path
from hevcq.web.identity.oidc import BACK, FLOW_S, PATH, Flow, Oidc, SignInRefused
from hevcq.web.identity.person import Person, maybe_person
from hevcq.web.identity.session import SESSION
from hevcq.web.pages.setup import needs_setup
from hevcq.web.rendering import page
from hevcq.web.services import Services, own_address, read_form, services_of

FLOW = "oidc"
WRONG = {
    "token": "Wrong token. `hevcq serve new-token` makes a new one.",
    "password": "Wrong name or password.",
}


def routes() -> Sequence[BaseRoute]:
    return (
        Route("/sign-in", show),
        Route("/sign-in", submit, methods=["POST"]),
        Route(PATH, start_at_provider),
        Route(BACK, return_from_provider),
        Route("/sign-out", sign_out, methods=["POST"]),
    )


def show(request: Request) -> Response:
    after = local_path(request.query_params.get("next", "/"))
    if maybe_person(request) is not None:
        return RedirectResponse(after, 303)
    if needs_setup(request, None):
        return RedirectResponse("/setup", 303)
    signed_out = request.query_params.get("left") == "yes"
    mode = services_of(request).authenticator.mode
    elsewhere = ""
    if signed_out and isinstance(mode, Oidc):
        elsewhere = mode.provider_sign_out(own_address(request))
    return _form(request, after, elsewhere=elsewhere)


async def submit(request: Request) -> Response:
    """Check the form; limit failed attempts."""
    services, form = services_of(request), await read_form(request)
    after = local_path(form.get("next", "/"))
    if not services.authenticator.mode.fields:
        return _form(request, after, status=404)
    names = _attempt_names(services, request, form)
    if wait := services.attempts.count(*names):
        return _form(request, after, wrong=too_many(wait), status=429, retry_s=wait)
    person = await run_sync(services.authenticator.mode.check, form, limiter=services.passwords)
    if person is None:
        get_logger().warning("sign_in_failed", tried=printable(", ".join(names)))
        wrong = WRONG["token" if "token" in services.authenticator.mode.fields else "password"]
        return _form(request, after, wrong=wrong, status=403)
    services.attempts.forget(*names)
    return signed_in(services, person, after)


def start_at_provider(request: Request) -> Response:
    """Redirect to the provider. Raises HTTPException 404 without one."""
    services = services_of(request)
    mode, now = services.authenticator.mode, services.app.clock.now()
    if not isinstance(mode, Oidc):
        raise HTTPException(404)
    flow = Flow.start(local_path(request.query_params.get("next", "/")))
    response = RedirectResponse(mode.begin(flow, own_address(request)), 303)
    services.authenticator.cookies.write(response, FLOW, asdict(flow), until=now + FLOW_S, now=now)
    return response


def return_from_provider(request: Request) -> Response:
    """Finish a sign-in at the provider. Raises HTTPException 404 without a provider."""
    services = services_of(request)
    mode = services.authenticator.mode
    if not isinstance(mode, Oidc):
        raise HTTPException(404)
    claims = services.authenticator.cookies.read(request, FLOW, services.app.clock.now())
    try:
        if claims is None:
            raise SignInRefused("it was not started in this browser, or took too long")
        flow = Flow(claims["state"], claims["nonce"], claims["verifier"], claims["after"])
        answer = dict(request.query_params)
        person = mode.finish(flow, answer, own_address(request))
    except SignInRefused as error:
        get_logger().warning("sign_in_failed", reason=printable(error))
        return _form(request, "/", wrong="The sign-in failed. Try again.", status=403)
    response = signed_in(services, person, local_path(flow.after))
    services.authenticator.cookies.clear(response, FLOW)
    return response


def sign_out(request: Request) -> Response:
    """End the session, in this browser and for any copy of its cookie."""
    services = services_of(request)
    services.authenticator.sign_out(request)
    response = RedirectResponse(services.authenticator.mode.signed_out_at(), 303)
    services.authenticator.cookies.clear(response, SESSION)
    return response


def signed_in(services: Services, person: Person, after: str) -> Response:
    response = RedirectResponse(after, 303)
    services.authenticator.sign_in(response, person)
    return response


def _attempt_names(services: Services, request: Request, form: Mapping[str, str]) -> list[str]:
    """Return the names that attempts are counted by: the client's network, and the user name."""
    address = client_network(services.app.settings.web.trusted_proxies, request)
    name = form.get("name", "").strip()
    return [f"address {address}", *([f"name {name[:255]}"] if name else [])]


def _form(
    request: Request, after: str, *, status: int = 200, retry_s: int = 0, **words: str
) -> Response:
    mode = services_of(request).authenticator.mode
    return page(
        request,
        "sign_in.html",
        status=status,
        retry_s=retry_s,
        fields=mode.fields,
        start=mode.start,
        after=after,
        **{"wrong": "", "elsewhere": "", **words},
    )
