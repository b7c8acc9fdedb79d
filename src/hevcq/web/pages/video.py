"""A video: play it, follow each of its formats, and decide what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.job import SETTLED, JobState
from hevcq.domain.videos.record import Video, Visibility
from hevcq.errors import UsageError
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.follow import ProfileRow, refresh, rows, settled_rows
from hevcq.web.identity.person import Person, person_of
from hevcq.web.pages.links import (
    Playing,
    file_address,
    media_base,
    original_address,
    playing,
    with_set,
    with_texts,
)
from hevcq.web.rendering import page, render, time_left
from hevcq.web.services import find_video, read_form, services_of

PATH = "/v/{video_id}"
NOTICES = {
    "retried": "Queued again.",
    "stopped": "Cancelled.",
    "published": "Anybody with the public address can watch this video now.",
    "unpublished": "The video is private again; its public address leads nowhere.",
    "renamed": "Saved.",
}


def routes() -> Sequence[BaseRoute]:
    """Return the routes of a video's pages."""
    return (
        Route(PATH, show),
        Route(f"{PATH}/events", events),
        Route(f"{PATH}/edit", edit),
        Route(f"{PATH}/edit", save, methods=["POST"]),
        Route(f"{PATH}/retry", retry, methods=["POST"]),
        Route(f"{PATH}/cancel", stop, methods=["POST"]),
        Route(f"{PATH}/publish", publish, methods=["POST"]),
        Route(f"{PATH}/unpublish", unpublish, methods=["POST"]),
        Route(f"{PATH}/delete", delete, methods=["POST"]),
        Route(f"{PATH}/{{profile}}/certificate", certificate),
        Route("/p/{slug}", watch),
    )


async def show(request: Request) -> Response:
    """Show a video."""
    person = person_of(request)
    return await run_in_threadpool(_show, request, person)


async def events(request: Request) -> Response:
    """Stream the part of a video's page that changes."""
    farm, video = await run_in_threadpool(find_video, request)
    key = f"video {video.video_id}"
    return services_of(request).stream(request, key, partial(_formats, farm, video.video_id))


async def edit(request: Request) -> Response:
    """Show the form of title, description, and deletion."""
    _, video = await run_in_threadpool(find_video, request)
    return page(request, "edit.html", video=video)


async def save(request: Request) -> Response:
    """Change title and description."""
    form = await read_form(request)
    title, words = form.get("title", ""), form.get("description", "")
    return await _change(
        request,
        lambda farm, video, _who: manage.rename(farm, video, title=title, description=words),
        "renamed",
    )


async def retry(request: Request) -> Response:
    """Queue failed formats again."""
    form = await read_form(request)
    names = [form["profile"]] if form.get("profile") else []
    return await _change(
        request, lambda farm, video, who: manage.retry(farm, video, who, names), "retried"
    )


async def stop(request: Request) -> Response:
    """Cancel formats that are queued or running."""
    form = await read_form(request)
    names = [form["profile"]] if form.get("profile") else []
    return await _change(
        request, lambda farm, video, who: manage.stop(farm, video, who, names), "stopped"
    )


async def publish(request: Request) -> Response:
    """Make a video public, with what its form agrees to."""
    form = await read_form(request)
    tags, original = (form.get(name) == "yes" for name in ("tags", "original"))
    return await _change(
        request,
        lambda farm, video, _who: manage.publish(farm, video, tags=tags, original=original),
        "published",
    )


async def unpublish(request: Request) -> Response:
    """Make a video private."""
    return await _change(
        request, lambda farm, video, _who: manage.unpublish(farm, video), "unpublished"
    )


async def delete(request: Request) -> Response:
    """Delete a video, if the box says so. Raises HTTPException 400."""
    form = await read_form(request)
    farm, video = await run_in_threadpool(find_video, request)
    if form.get("sure") != "yes":
        raise HTTPException(400, "Tick the box to delete the video.")
    await run_in_threadpool(manage.delete, farm, video, person_of(request).name)
    return RedirectResponse("/", 303)


async def certificate(request: Request) -> Response:
    """Download the certificate of one format."""
    farm, video = await run_in_threadpool(find_video, request)
    text = await run_in_threadpool(_certificate, farm, video, request.path_params["profile"])
    name = f"{video.video_id}-{request.path_params['profile']}.certificate.json"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type="application/json", headers=headers)


async def watch(request: Request) -> Response:
    """Show a public video to anybody; it says nothing about who owns it."""
    farm, video = await run_in_threadpool(find_video, request)
    video = await run_in_threadpool(refresh, farm, video)
    found = settled_rows(video, shared=True)
    base = media_base(video, public=True)
    what = playing(base, video, found, farm.profiles)
    what = await run_in_threadpool(_whole, request, farm, video, what, found)
    return page(request, "public.html", video=video, playing=what)


async def _change(
    request: Request, how: Callable[[VideoFarm, Video, str], object], notice: str
) -> Response:
    """Change the video and show it again; a refusal is shown on its page."""
    farm, video = await run_in_threadpool(find_video, request)
    try:
        await run_in_threadpool(how, farm, video, person_of(request).name)
    except UsageError as error:
        raise HTTPException(409, str(error)) from error
    return RedirectResponse(f"/v/{video.video_id}?notice={notice}", 303)


def _show(request: Request, person: Person) -> Response:
    farm, video = find_video(request)
    video = refresh(farm, video)
    found = rows(farm, video)
    base = media_base(video)
    what = playing(base, video, found, farm.profiles)
    public = f"{services_of(request).settings.url or _here(request)}/p/{video.slug}"
    return page(
        request,
        "video.html",
        video=video,
        playing=_whole(request, farm, video, what, found),
        formats=_formats_html(farm, video, found),
        notice=NOTICES.get(request.query_params.get("notice", ""), ""),
        unshared=[each.profile for each in video.made if not video.shares(each)],
        public=public if video.visibility is Visibility.PUBLIC else "",
        now=farm.clock.now(),
        original=original_address(base, video, download=True),
        whose=video.owner if video.owner != person.owner else "",
    )


def _whole(
    request: Request, farm: VideoFarm, video: Video, what: Playing, found: Sequence[ProfileRow]
) -> Playing:
    """Add what belongs to the set or the file that is played."""
    public = request.url.path.startswith("/p/")
    base = media_base(video, public=public)
    if not what.profile:
        return with_set(what, base, found, farm)
    held = services_of(request).texts.texts(farm, video, what.profile)
    return with_texts(what, base, held)


def _here(request: Request) -> str:
    return f"http://{request.headers['host']}"


def _formats(farm: VideoFarm, video_id: str) -> str:
    """Return the part that changes; after a deletion it says so."""
    video = farm.videos.get(video_id)
    if video is None:
        return render("video_gone.html")
    video = refresh(farm, video)
    return _formats_html(farm, video, rows(farm, video))


def _formats_html(farm: VideoFarm, video: Video, found: Sequence[ProfileRow]) -> str:
    base = media_base(video)
    shown = [
        {
            "row": row,
            "open": file_address(base, row.profile, row.key) if row.key else "",
            "save": file_address(base, row.profile, row.key, download=True) if row.key else "",
            "left": time_left(row.phase, row.percent, row.eta_s),
            "settled": row.state in SETTLED,
            "words": farm.profiles[row.profile].description if row.profile in farm.profiles else "",
        }
        for row in found
    ]
    what: Playing = playing(base, video, found, farm.profiles)
    failed = any(row.state is JobState.DEAD for row in found)
    return render(
        "video_formats.html",
        video=video,
        formats=shown,
        playable=what.kind,
        may_retry=failed and video.raw_kept,
        under_way=any(row.state not in SETTLED for row in found),
    )


def _certificate(farm: VideoFarm, video: Video, profile: str) -> str:
    row = next((each for each in rows(farm, video) if each.profile == profile), None)
    proof = farm.certificate(row.certificate_key) if row and row.certificate_key else None
    if proof is None:
        raise HTTPException(404)
    return json.dumps(proof.model_dump(mode="json", by_alias=True), indent=2)
