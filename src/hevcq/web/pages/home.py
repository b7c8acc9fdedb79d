"""The first page: one's videos with their state, found by words; and the form that uploads one."""

from collections.abc import Sequence
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.videos import CROCKFORD, MAX_DESCRIPTION, MAX_TITLE, Video, VideoStatus
from hevcq.ports.videos import VideoFilter, VideoOrder
from hevcq.web.identity.person import Person, person_of
from hevcq.web.pages.setup import waits_for
from hevcq.web.rendering import page, render
from hevcq.web.services import services_of
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm

A_PAGE = 24
MAX_SEARCH = 200


def routes() -> Sequence[BaseRoute]:
    return (Route("/", home), Route("/now", now), Route("/upload", upload))


async def home(request: Request) -> Response:
    person, app = person_of(request), services_of(request).app
    if await run_sync(waits_for, request, person):
        return RedirectResponse("/setup", 303)
    wanted = filter_of(request, person)
    if wanted is None:
        return RedirectResponse("/", 303)
    turns = services_of(request).searches if _reads_all(wanted) else None
    shown = await run_sync(_videos, app, wanted, person, limiter=turns)
    return page(
        request,
        "home.html",
        videos_html=shown,
        search=wanted.text,
        states=list(VideoStatus),
        state=next(iter(wanted.statuses), ""),
        order=wanted.order,
        orders={each: _address(wanted, each) for each in VideoOrder if each in app.videos.orders},
        live="" if _reads_all(wanted) else f"/now?{request.url.query}",
    )


def now(request: Request) -> Response:
    person = person_of(request)
    wanted = filter_of(request, person)
    # A search, again and again, would hold up everybody's pages.
    if wanted is None or _reads_all(wanted):
        raise HTTPException(400, "A search or a sorted list is not kept up to date.")
    return HTMLResponse(_videos(services_of(request).app, wanted, person))


def filter_of(request: Request, person: Person) -> VideoFilter | None:
    """Return which videos the address asks for, or None if it asks for what cannot be.

    An operator sees everybody's.
    """
    asked = request.query_params
    state, before = asked.get("state", ""), asked.get("before", "")
    order = asked.get("sort") or VideoOrder.NEWEST
    if (state and state not in list(VideoStatus)) or not set(before) <= set(CROCKFORD):
        return None
    if order not in services_of(request).app.videos.orders:
        return None
    if order != VideoOrder.NEWEST and before and not (before.isdecimal() and len(before) < 10):
        return None
    return VideoFilter(
        owner=None if person.is_operator else person.owner,
        statuses=frozenset({VideoStatus(state)} if state else ()),
        text=asked.get("q", "").strip()[:MAX_SEARCH],
        before=before[:26],
        limit=A_PAGE,
        order=VideoOrder(order),
    )


def _reads_all(wanted: VideoFilter) -> bool:
    return bool(wanted.text) or wanted.order is not VideoOrder.NEWEST


def _address(wanted: VideoFilter, order: VideoOrder, before: str = "") -> str:
    query = {
        "q": wanted.text,
        "state": next(iter(wanted.statuses), ""),
        "sort": "" if order is VideoOrder.NEWEST else order.value,
        "before": before,
    }
    return f"/?{urlencode({name: value for name, value in query.items() if value})}"


def _videos(app: App, wanted: VideoFilter, person: Person) -> str:
    found = app.videos.page(wanted)
    return render(
        "home_videos.html",
        videos=[(video, saved_share(video)) for video in found.videos],
        now=app.clock.now(),
        more=_address(wanted, wanted.order, found.cursor) if found.cursor else "",
        first=_address(wanted, wanted.order) if wanted.before else "",
        newest=wanted.order is VideoOrder.NEWEST,
        filtered=bool(wanted.text or wanted.statuses),
        person=person,
    )


def saved_share(video: Video) -> float | None:
    """Return the share of the uploaded file's size that its smallest rendition saves, if any."""
    sizes = [each.size for each in video.renditions if each.size]
    share = 1 - min(sizes) / video.upload.size if sizes else 0.0
    return share if share > 0 else None


CHUNK_BYTES = 16 << 20
"""Bytes of one request: below the limits of common proxies (Cloudflare allows 100 MB)."""


def upload(request: Request) -> Response:
    person, app = person_of(request), services_of(request).app
    farm = video_farm(app)
    used = farm.videos.usage(person.owner)
    quota = farm.quota.owner_size
    return page(
        request,
        "upload.html",
        profiles=sorted(farm.profiles.values(), key=lambda profile: profile.name),
        most=farm.limits.max_bytes,
        left=None if quota is None else max(0, quota - used.size),
        max_title=MAX_TITLE,
        max_description=MAX_DESCRIPTION,
        chunk=CHUNK_BYTES,
        direct=app.settings.uploads_direct,
    )
