"""A rendition beside its source: the worst frames, any place frame by frame, and what to make of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.job import JobRecord, job_id
from hevcq.domain.quality import worst_twentieth
from hevcq.errors import UsageError
from hevcq.ports.catalog import PlacementState
from hevcq.usecases.compare import ACCEPTED, Look, accept, curve_svg, require_comparable
from hevcq.usecases.placement.undo import UndoResult, undo
from hevcq.util.text import points_svg
from hevcq.web.identity.person import operator_of, person_of
from hevcq.web.pages.board import video_of
from hevcq.web.pages.jobs import certificate_of
from hevcq.web.rendering import page, place, render
from hevcq.web.services import OperatorRoute, find_job, find_video, of_form, services_of

OF_JOB, OF_VIDEO = "/board/jobs/{job_id}/compare", "/v/{video_id}/compare/{profile}"
NOTICES = {
    "kept": "Noted. The original stays kept until its time ends.",
    "back": "The original is back in its place, and the rendition is gone.",
    "not_replaced": "Nothing was changed: the original is not replaced, or was brought back already.",
}
MAX_AT_S = 10_000_000.0


def routes() -> Sequence[BaseRoute]:
    both = [
        route
        for path, kind in ((OF_JOB, OperatorRoute), (OF_VIDEO, Route))
        for route in (
            kind(path, show),
            kind(path, of_form(ask), methods=["POST"]),
            kind(f"{path}/now", now),
            kind(f"{path}/{{number:int}}-{{side}}.jpg", picture),
        )
    ]
    return (
        *both,
        OperatorRoute(f"{OF_JOB}/keep", of_form(keep), methods=["POST"]),
        OperatorRoute(f"{OF_JOB}/undo", question),
        OperatorRoute(f"{OF_JOB}/undo", of_form(bring_back), methods=["POST"]),
    )


@dataclass(frozen=True, slots=True)
class _Subject:
    """A job to compare, where its page is, and the page that leads there."""

    job: JobRecord
    path: str
    back: str
    is_operators: bool


def _subject(request: Request) -> _Subject:
    """Return what an address names: an operator's any job, an owner's a format of the own video.

    Raises HTTPException 404, NoSuchVideo.
    """
    named = request.path_params
    if "job_id" in named:
        name, back = named["job_id"], f"/board/jobs/{named['job_id']}"
        path = f"{back}/compare"
    else:
        _, video = find_video(request)
        if video.source is None or named["profile"] not in video.profiles:
            raise HTTPException(404)
        name, back = job_id(video.source, named["profile"]), f"/v/{video.video_id}"
        path = f"{back}/compare/{named['profile']}"
    return _Subject(find_job(request, name), path, back, "job_id" in named)


def _at(text: str) -> float | None:
    """Return the seconds of `1:02:03.5`, or None of "". Raises UsageError."""
    if not text.strip():
        return None
    try:
        parts = [float(part) for part in text.split(":")]
        found = math.fsum(part * 60.0**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        found = math.nan
    if not 0 <= found <= MAX_AT_S or len(parts) > 3:
        raise UsageError("Write a time as seconds, or as 1:02:03.5.")
    return found


def _look(request: Request, subject: _Subject) -> Look:
    return Look(subject.job, _at(request.query_params.get("at", "")))


def show(request: Request) -> Response:
    return _page(request, _subject(request), request.query_params.get("at", ""))


def _page(request: Request, subject: _Subject, typed: str, wrong: str = "") -> Response:
    """Return the page at a time that was typed; `wrong` says in its form why nothing was asked for."""
    app, why_not = services_of(request).app, ""
    try:
        look = Look(subject.job, _at(typed))
    except UsageError as error:
        look, wrong = Look(subject.job), str(error)
    try:
        require_comparable(subject.job)
    except UsageError as error:
        why_not = str(error)
    found = services_of(request).comparisons.shown(look)
    placement = app.catalog.placement(subject.job.job_id) if subject.is_operators else None
    said = placement.detail if placement is not None else ""
    video = video_of(app, subject.job.source.key)
    return page(
        request,
        "compare.html",
        status=422 if wrong else 200,
        job=subject.job,
        title=video.title if video else place(subject.job.source.key).rpartition("/")[2],
        address=subject.path,
        back=subject.back,
        at=look.at_s,
        wrong=wrong,
        typed=typed,
        live=f"{subject.path}/now{_query(look)}" if found and found.waiting else "",
        now_html=_now(request, subject, look),
        why_not=why_not,
        replaced=placement is not None and placement.state is PlacementState.REPLACED,
        accepted=said if said.startswith(ACCEPTED) else "",
        notice=NOTICES.get(request.query_params.get("notice", ""), ""),
    )


def _query(look: Look) -> str:
    return "" if look.at_s is None else f"?at={look.at_s:.3f}"


def _now(request: Request, subject: _Subject, look: Look) -> str:
    """Return what was found so far, or how to ask for it."""
    services, job = services_of(request), subject.job
    found = services.comparisons.shown(look)
    scores = sorted(score for _, score in found.frames) if found else []
    proof = aim = None
    if job.rendition is not None and found is not None and found.metric and look.at_s is None:
        proof = certificate_of(services.app, job)
        aim = proof.quality if proof else None
    last = found.shown[-1][0] if found and found.shown else 0.0
    return render(
        "compare_now.html",
        found=found,
        address=subject.path,
        query=_query(look),
        at=look.at_s,
        worst=worst_twentieth(scores) if scores else 0.0,
        median=scores[len(scores) // 2] if scores else 0.0,
        chart=Markup(points_svg(found.frames)) if scores and found else "",  # noqa: S704 - numbers
        aim=aim,
        curve=Markup(curve_svg(aim)) if aim and aim.probes else "",  # noqa: S704 - numbers
        earlier=max(0.0, (look.at_s or 0.0) - 1.0),
        later=last + 0.001,
    )


def ask(request: Request, form: Mapping[str, str]) -> Response:
    """Compare now, in the background."""
    subject = _subject(request)
    typed = form.get("at", "")
    try:
        look = Look(subject.job, _at(typed))
        services_of(request).comparisons.ask(look, person_of(request).owner)
    except UsageError as error:
        return _page(request, subject, typed, str(error))
    return RedirectResponse(f"{subject.path}{_query(look)}", 303)


def now(request: Request) -> Response:
    subject = _subject(request)
    return HTMLResponse(_now(request, subject, _look(request, subject)))


def picture(request: Request) -> Response:
    subject, named = _subject(request), request.path_params
    if named["side"] not in {"source", "made"}:
        raise HTTPException(404)
    look = _look(request, subject)
    found = services_of(request).comparisons.picture(look, named["number"], named["side"])
    if not found:
        raise HTTPException(404)
    return Response(found, media_type="image/jpeg", headers={"Cache-Control": "private, no-cache"})


def keep(request: Request, _form: Mapping[str, str]) -> Response:
    subject = _subject(request)
    who = operator_of(request).name
    done = accept(subject.job.job_id, services_of(request).app.library_ports, who)
    return _said(subject, "kept" if done else "not_replaced")


def question(request: Request) -> Response:
    """Ask before an original is brought back, having looked whether it can be."""
    subject = _subject(request)
    ports = services_of(request).app.library_ports
    found = next(iter(list(undo(ports, job=subject.job.job_id, dry_run=True))), None)
    ready = found is not None and found.result is UndoResult.WOULD_RESTORE
    return page(
        request,
        "compare_undo.html",
        video=place(subject.job.source.key),
        address=subject.path,
        found=found if ready else None,
        reason=found.reason if found is not None else NOTICES["not_replaced"],
    )


def bring_back(request: Request, _form: Mapping[str, str]) -> Response:
    """Undo this one replacement. Raises HTTPException 409 with the reason if it is refused."""
    subject = _subject(request)
    found = list(undo(services_of(request).app.library_ports, job=subject.job.job_id))
    for each in found:
        if each.result is UndoResult.REFUSED:
            raise HTTPException(409, each.reason)
    done = any(each.result is UndoResult.RESTORED for each in found)
    return _said(subject, "back" if done else "not_replaced")


def _said(subject: _Subject, notice: str) -> Response:
    return RedirectResponse(f"{subject.path}?notice={notice}", 303)
