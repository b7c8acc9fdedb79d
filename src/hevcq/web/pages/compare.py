"""Compare a rendition with its source: worst frames, frame by frame from any time, keep or undo."""

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
from hevcq.web.services import OperatorRoute, find_job, find_video, form_endpoint, services_of

OF_JOB, OF_VIDEO = "/board/jobs/{job_id}/compare", "/v/{video_id}/compare/{profile}"
NOTICES = {
    "kept": "Noted. The original is still kept until its retention ends.",
    "back": "The original is back in its place, and the rendition is deleted.",
    "not_replaced": "Nothing was changed: the original was not replaced, or was already restored.",
}
MAX_AT_S = 10_000_000.0


def routes() -> Sequence[BaseRoute]:
    both = [
        route
        for path, kind in ((OF_JOB, OperatorRoute), (OF_VIDEO, Route))
        for route in (
            kind(path, show),
            kind(path, form_endpoint(ask), methods=["POST"]),
            kind(f"{path}/now", now),
            kind(f"{path}/{{number:int}}-{{side}}.jpg", picture),
        )
    ]
    return (
        *both,
        OperatorRoute(f"{OF_JOB}/keep", form_endpoint(keep), methods=["POST"]),
        OperatorRoute(f"{OF_JOB}/undo", confirm_undo),
        OperatorRoute(f"{OF_JOB}/undo", form_endpoint(restore), methods=["POST"]),
    )


@dataclass(frozen=True, slots=True)
class _Subject:
    """A job to compare, the path of its page, and the page to go back to."""

    job: JobRecord
    path: str
    back: str
    is_operators: bool


def _subject(request: Request) -> _Subject:
    """Return the job of the address: any job for operators, else a format of the caller's own video.

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


def _parse_time(text: str) -> float | None:
    """Return a time such as `1:02:03.5` in seconds, or None for "". Raises UsageError."""
    if not text.strip():
        return None
    try:
        parts = [float(part) for part in text.split(":")]
        seconds = math.fsum(part * 60.0**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_AT_S or len(parts) > 3:
        raise UsageError("Write the time in seconds, or as 1:02:03.5.")
    return seconds


def _look(request: Request, subject: _Subject) -> Look:
    return Look(subject.job, _parse_time(request.query_params.get("at", "")))


def show(request: Request) -> Response:
    return _page(request, _subject(request), request.query_params.get("at", ""))


def _page(request: Request, subject: _Subject, typed: str, wrong: str = "") -> Response:
    """Return the page for the time that was typed; `wrong` is an error to show in the form."""
    app, why_not = services_of(request).app, ""
    try:
        look = Look(subject.job, _parse_time(typed))
    except UsageError as error:
        look, wrong = Look(subject.job), str(error)
    try:
        require_comparable(subject.job)
    except UsageError as error:
        why_not = str(error)
    comparison = services_of(request).comparisons.shown(look)
    placement = app.catalog.placement(subject.job.job_id) if subject.is_operators else None
    detail = placement.detail if placement is not None else ""
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
        live=f"{subject.path}/now{_query(look)}" if comparison and comparison.waiting else "",
        now_html=_now(request, subject, look),
        why_not=why_not,
        replaced=placement is not None and placement.state is PlacementState.REPLACED,
        accepted=detail if detail.startswith(ACCEPTED) else "",
        notice=NOTICES.get(request.query_params.get("notice", ""), ""),
    )


def _query(look: Look) -> str:
    return "" if look.at_s is None else f"?at={look.at_s:.3f}"


def _now(request: Request, subject: _Subject, look: Look) -> str:
    """Return the results so far, or the form that starts a comparison."""
    services, job = services_of(request), subject.job
    comparison = services.comparisons.shown(look)
    scores = sorted(score for _, score in comparison.frames) if comparison else []
    proof = aim = None
    if (
        job.rendition is not None
        and comparison is not None
        and comparison.metric
        and look.at_s is None
    ):
        proof = certificate_of(services.app, job)
        aim = proof.quality if proof else None
    last = comparison.shown[-1][0] if comparison and comparison.shown else 0.0
    return render(
        "compare_now.html",
        found=comparison,
        address=subject.path,
        query=_query(look),
        at=look.at_s,
        worst=worst_twentieth(scores) if scores else 0.0,
        median=scores[len(scores) // 2] if scores else 0.0,
        chart=Markup(points_svg(comparison.frames)) if scores and comparison else "",  # noqa: S704 - numbers
        aim=aim,
        curve=Markup(curve_svg(aim)) if aim and aim.probes else "",  # noqa: S704 - numbers
        earlier=max(0.0, (look.at_s or 0.0) - 1.0),
        later=last + 0.001,
    )


def ask(request: Request, form: Mapping[str, str]) -> Response:
    """Start a comparison in the background."""
    subject = _subject(request)
    typed = form.get("at", "")
    try:
        look = Look(subject.job, _parse_time(typed))
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
    jpeg = services_of(request).comparisons.picture(look, named["number"], named["side"])
    if not jpeg:
        raise HTTPException(404)
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, no-cache"})


def keep(request: Request, _form: Mapping[str, str]) -> Response:
    subject = _subject(request)
    who = operator_of(request).name
    is_kept = accept(subject.job.job_id, services_of(request).app.library_ports, who)
    return _redirect(subject, "kept" if is_kept else "not_replaced")


def confirm_undo(request: Request) -> Response:
    """Ask whether to restore the original, or say why it cannot be restored."""
    subject = _subject(request)
    ports = services_of(request).app.library_ports
    undone = next(iter(list(undo(ports, job=subject.job.job_id, dry_run=True))), None)
    is_ready = undone is not None and undone.result is UndoResult.WOULD_RESTORE
    return page(
        request,
        "compare_undo.html",
        video=place(subject.job.source.key),
        address=subject.path,
        found=undone if is_ready else None,
        reason=undone.reason if undone is not None else NOTICES["not_replaced"],
    )


def restore(request: Request, _form: Mapping[str, str]) -> Response:
    """Undo this replacement. Raises HTTPException 409 with the reason if that is refused."""
    subject = _subject(request)
    results = list(undo(services_of(request).app.library_ports, job=subject.job.job_id))
    for undone in results:
        if undone.result is UndoResult.REFUSED:
            raise HTTPException(409, undone.reason)
    is_restored = any(undone.result is UndoResult.RESTORED for undone in results)
    return _redirect(subject, "back" if is_restored else "not_replaced")


def _redirect(subject: _Subject, notice: str) -> Response:
    return RedirectResponse(f"{subject.path}?notice={notice}", 303)
