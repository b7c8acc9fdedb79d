"""The first page: a person's videos with their state, filters and search; and the upload form."""

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
from hevcq.web.pages.setup import needs_setup
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
    if await run_sync(needs_setup, request, person):
        return RedirectResponse("/setup", 303)
    video_filter = video_filter_of(request, person)
    if video_filter is None:
        return RedirectResponse("/", 303)
    turns = services_of(request).searches if _reads_many(video_filter) else None
    videos_html = await run_sync(_videos, app, video_filter, person, limiter=turns)
    return page(
        request,
        "home.html",
        videos_html=videos_html,
        search=video_filter.text,
        states=list(VideoStatus),
        state=next(iter(video_filter.statuses), ""),
        order=video_filter.order,
        orders={
            each: _address(video_filter, each) for each in VideoOrder if each in app.videos.orders
        },
        live="" if _reads_many(video_filter) else f"/now?{request.url.query}",
    )


def now(request: Request) -> Response:
    person = person_of(request)
    video_filter = video_filter_of(request, person)
    # Repeating a search every few seconds would slow down everybody's pages.
    if video_filter is None or _reads_many(video_filter):
        raise HTTPException(400, "A search or a sorted list is not updated.")
    return HTMLResponse(_videos(services_of(request).app, video_filter, person))


def video_filter_of(request: Request, person: Person) -> VideoFilter | None:
    """Return the filter in the address, or None if it is invalid. Operators see everybody's videos."""
    query = request.query_params
    state, before = query.get("state", ""), query.get("before", "")
    order = query.get("sort") or VideoOrder.NEWEST
    if (state and state not in list(VideoStatus)) or not set(before) <= set(CROCKFORD):
        return None
    if order not in services_of(request).app.videos.orders:
        return None
    if order != VideoOrder.NEWEST and before and not (before.isdecimal() and len(before) < 10):
        return None
    return VideoFilter(
        owner=None if person.is_operator else person.owner,
        statuses=frozenset({VideoStatus(state)} if state else ()),
        text=query.get("q", "").strip()[:MAX_SEARCH],
        before=before[:26],
        limit=A_PAGE,
        order=VideoOrder(order),
    )


def _reads_many(video_filter: VideoFilter) -> bool:
    return bool(video_filter.text) or video_filter.order is not VideoOrder.NEWEST


def _address(video_filter: VideoFilter, order: VideoOrder, before: str = "") -> str:
    query = {
        "q": video_filter.text,
        "state": next(iter(video_filter.statuses), ""),
        "sort": "" if order is VideoOrder.NEWEST else order.value,
        "before": before,
    }
    return f"/?{urlencode({name: value for name, value in query.items() if value})}"


def _videos(app: App, video_filter: VideoFilter, person: Person) -> str:
    listed = app.videos.page(video_filter)
    return render(
        "home_videos.html",
        videos=[(video, saved_share(video)) for video in listed.videos],
        now=app.clock.now(),
        more=_address(video_filter, video_filter.order, listed.cursor) if listed.cursor else "",
        first=_address(video_filter, video_filter.order) if video_filter.before else "",
        newest=video_filter.order is VideoOrder.NEWEST,
        filtered=bool(video_filter.text or video_filter.statuses),
        person=person,
    )


def saved_share(video: Video) -> float | None:
    """Return the share of the uploaded size that the smallest rendition saves, or None if none is saved."""
    sizes = [each.size for each in video.renditions if each.size]
    share = 1 - min(sizes) / video.upload.size if sizes else 0.0
    return share if share > 0 else None


CHUNK_BYTES = 16 << 20
"""Bytes of one request, below the limits of common proxies (Cloudflare allows 100 MB)."""


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
