"""A shared video, as strangers see it: behind its password, if it has one."""

import math
from collections.abc import Sequence

from anyio.to_thread import run_sync
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.usecases.videos.manage import refresh, settled_rows
from hevcq.web.identity.accounts import opens_share
from hevcq.web.identity.session import digest
from hevcq.web.pages.video import played
from hevcq.web.rendering import page
from hevcq.web.services import find_shared, knows_password, read_form, services_of, share_cookie

KNOWN_S = 12 * 3600.0
"""Seconds for which a browser that sent the password is not asked again."""


def routes() -> Sequence[BaseRoute]:
    return (
        Route("/p/{slug}", watch),
        Route("/p/{slug}", unlock, methods=["POST"]),
    )


def watch(request: Request) -> Response:
    """Show a public video to anybody; it says nothing about who owns it."""
    farm, video = find_shared(request)
    if not knows_password(request, video):
        return ask(request)
    video = refresh(farm, video)
    found = settled_rows(video, shared=True)
    return page(request, "public.html", video=video, playing=played(request, farm, video, found))


async def unlock(request: Request) -> Response:
    """Check the password of a shared video; slow down whoever guesses."""
    services, form = services_of(request), await read_form(request)
    _, video = await run_in_threadpool(find_shared, request)
    if knows_password(request, video):
        return RedirectResponse(f"/p/{video.slug}", 303)
    tried, now = f"share {video.slug}", services.clock.now()
    if (wait := math.ceil(services.limiter.wait_s(tried))) > 0:
        return ask(request, f"Too many tries. Wait {wait} seconds.", status=429, retry_s=wait)
    # Counted before the check: tries sent at the same moment must not all pass.
    services.limiter.note_failure(tried)
    given = form.get("password", "")
    if not await run_sync(opens_share, video.share, given, limiter=services.passwords):
        return ask(request, "That is not the password.", status=403)
    services.limiter.forget(tried)
    response = RedirectResponse(f"/p/{video.slug}", 303)
    until = min(now + KNOWN_S, video.share.ends_at or math.inf)
    known = {"mark": digest(video.share.password)}
    services.authenticator.cookies.write(response, share_cookie(video), known, until=until, now=now)
    return response


def ask(request: Request, wrong: str = "", *, status: int = 200, retry_s: int = 0) -> Response:
    """Ask for the password; the page says nothing about the video."""
    headers = {"Retry-After": str(retry_s)} if retry_s else None
    return page(request, "locked.html", status=status, headers=headers, wrong=wrong)
