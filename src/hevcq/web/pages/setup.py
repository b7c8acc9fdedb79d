"""The screens of the set-up: operator, folders, profile and place, hours, and a test encode.

They are open until the set-up ends. The first screen needs the code that the start printed, the
others the operator that it created. The code is needed even from this machine: a proxy on it passes
on everybody's requests.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anyio.to_thread import run_sync
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.profile import Profile
from hevcq.errors import HevcqError, UsageError
from hevcq.usecases.context import require_browsable, roots_of, subfolders
from hevcq.usecases.first_run import (
    SCREENS,
    Answers,
    FirstRun,
    chosen_windows,
    code_is,
    finish,
    may_show,
    require_tables,
    with_answers,
    with_folder,
)
from hevcq.usecases.operations.status import workers_running
from hevcq.usecases.plan_one_file import SAMPLE_S, videos_in
from hevcq.util.log import get_logger
from hevcq.web.identity.accounts import Users
from hevcq.web.identity.attempts import client_network, too_many
from hevcq.web.identity.authentication import make_mode
from hevcq.web.identity.person import Person, Role, maybe_person
from hevcq.web.rendering import page
from hevcq.web.services import OperatorRoute, read_form, services_of
from hevcq.wiring.app import App

TITLES = {
    "password": "Choose who runs hevcq",
    "folders": "Choose your video folders",
    "output": "Choose what to make",
    "hours": "Choose when to work",
    "sample": "Try it on one of your videos",
}
WRONG_CODE = "Wrong code. The last start of hevcq printed the right one."


def routes() -> Sequence[BaseRoute]:
    return (
        Route("/setup", begin),
        OperatorRoute("/sample/now", now),
        OperatorRoute("/sample/{number:int}-{side}.jpg", still),
        Route("/setup/{screen}", show),
        Route("/setup/{screen}", submit, methods=["POST"]),
    )


def first_run_of(request: Request) -> FirstRun:
    return FirstRun(services_of(request).app.settings.data_dir)


def needs_setup(request: Request, person: Person | None) -> bool:
    """Return whether to lead this person to the set-up: nobody can sign in yet, or they are the operator."""
    answers = first_run_of(request).read()
    if answers is None:
        return False
    return answers.screen == SCREENS[0] if person is None else person.is_operator


def begin(request: Request) -> Response:
    answers = _answers(request)
    if answers is None:
        return RedirectResponse("/", 303)
    return RedirectResponse(f"/setup/{answers.screen}", 303)


def show(request: Request) -> Response:
    screen, answers = request.path_params["screen"], _answers(request)
    if answers is None:
        return RedirectResponse("/", 303)
    if screen not in SCREENS:
        raise HTTPException(404)
    if not may_show(answers, screen):
        return RedirectResponse(f"/setup/{answers.screen}", 303)
    return _require_operator(request, screen) or _screen(request, screen, answers)


async def submit(request: Request) -> Response:
    """Save the answers of a screen and open the next; errors are shown on the same screen."""
    screen = request.path_params["screen"]
    answers = await run_in_threadpool(_answers, request)
    if answers is None or not (screen == "start" or may_show(answers, screen)):
        raise HTTPException(404)
    if refusal := _require_operator(request, screen):
        return refusal
    form = await read_form(request)
    if screen == SCREENS[0]:
        return await _password(request, answers, form)
    return await run_in_threadpool(_save_answers, request, screen, answers, form)


def _save_answers(
    request: Request, screen: str, answers: Answers, form: Mapping[str, str]
) -> Response:
    handlers = {
        "folders": _folders,
        "output": _output,
        "hours": _hours,
        "sample": _try,
        "start": _start,
    }
    try:
        return handlers[screen](request, answers, form)
    except HevcqError as error:
        failed_screen = "sample" if screen == "start" else screen
        return _screen(request, failed_screen, answers, wrong=str(error), form=form, status=422)


def _answers(request: Request) -> Answers | None:
    """Return the answers so far, or None without a set-up; a signed-in operator is past the first screen."""
    answers, person = first_run_of(request).read(), maybe_person(request)
    if answers and answers.screen == SCREENS[0] and person is not None and person.is_operator:
        answers = with_answers(answers, SCREENS[0], code="")
        first_run_of(request).keep(answers)
    return answers


def _require_operator(request: Request, screen: str) -> Response | None:
    """Return a redirect to the sign-in if needed, or None. Raises HTTPException 404 for non-operators."""
    person = maybe_person(request)
    if screen == SCREENS[0]:
        return None
    if person is None:
        return RedirectResponse("/sign-in?next=/setup", 303)
    if not person.is_operator or person.scopes is not None:
        raise HTTPException(404)
    return None


async def _password(request: Request, answers: Answers, form: Mapping[str, str]) -> Response:
    """Create the operator and sign them in; limit guesses of the code."""
    services = services_of(request)
    attempt = f"setup {client_network(services.app.settings.web.trusted_proxies, request)}"
    if wait := services.attempts.count(attempt):
        words = too_many(wait)
        return _screen(request, SCREENS[0], answers, wrong=words, form=form, status=429)
    if not code_is(answers, form.get("code", "")):
        get_logger().warning("setup_code_wrong", tried=attempt)
        return _screen(request, SCREENS[0], answers, wrong=WRONG_CODE, form=form, status=403)
    if form.get("password") != form.get("again"):
        words = "The two passwords differ."
        return _screen(request, SCREENS[0], answers, wrong=words, form=form, status=422)
    try:
        person = await run_sync(_add_operator, request, form, limiter=services.passwords)
    except HevcqError as error:
        return _screen(request, SCREENS[0], answers, wrong=str(error), form=form, status=422)
    services.attempts.forget(attempt)
    response = RedirectResponse("/setup/folders", 303)
    services.authenticator.sign_in(response, person)
    return response


def _add_operator(request: Request, form: Mapping[str, str]) -> Person:
    """Add the operator, set web.auth to "users", and leave the screen. Repeatable after a kill."""
    services, first = services_of(request), first_run_of(request)
    app, answers = services.app, first.read()
    if answers is None or not code_is(answers, form.get("code", "")):  # someone else was faster
        raise UsageError(WRONG_CODE)
    users, name = Users(app.accounts), form.get("name", "").strip()
    users.put(name, form.get("password", ""), Role.OPERATOR)
    if app.settings.web.auth != "users":
        file = app.settings_file
        table = dict(file.raw().get("web") or {})
        what = "Sign in with names and passwords"
        file.change(file.new(name, what, "web", table or None, {**table, "auth": "users"}))
        web = app.settings.web.model_copy(update={"auth": "users"})
        app.settings = app.settings.model_copy(update={"web": web})
        services.authenticator.mode = make_mode(web, app.accounts, app.clock)
    first.keep(with_answers(answers, SCREENS[0], code=""))
    person = users.check(form)
    assert person is not None
    return person


def _folders(request: Request, answers: Answers, form: Mapping[str, str]) -> Response:
    """Add or remove a folder, or open the next screen."""
    app, first = services_of(request).app, first_run_of(request)
    where, folder = "", form.get("folder", "")
    match form.get("do"):
        case "add":
            path = Path(os.path.abspath(folder or "/"))  # noqa: PTH100 - links are kept
            require_browsable(path, roots_of(app.settings.web.browse), app.settings.data_dir)
            first.keep(with_folder(answers, path, app.settings.libraries))
            where = f"?at={quote(str(path.parent))}"
        case "remove":
            others = tuple(each for each in answers.folders if each != folder)
            first.keep(replace(answers, folders=others))
        case _:
            if not answers.folders:
                raise UsageError("Choose at least one folder: open it, then add it.")
            return _next_screen(request, answers, "folders")
    return RedirectResponse(f"/setup/folders{where}", 303)


def _output(request: Request, answers: Answers, form: Mapping[str, str]) -> Response:
    app, place = services_of(request).app, form.get("place", "")
    if form.get("profile") not in app.profiles:
        raise UsageError("Choose what to make.")
    given: dict[str, Any] = {"place": place, "profile": form.get("profile", "")}
    given["output"] = form.get("output", "").strip() if place == "mirror" else ""
    if place == "replace":
        try:
            given["keep_days"] = float(form.get("keep_days", ""))
        except ValueError as error:
            raise UsageError("Enter for how many days to keep originals, such as 30.") from error
    require_tables(replace(answers, **given), app.settings_file, app.profiles)
    return _next_screen(request, answers, "output", **given)


def _hours(request: Request, answers: Answers, form: Mapping[str, str]) -> Response:
    given = [form.get(name, "").strip() for name in ("when", "start", "end", "days")]
    return _next_screen(request, answers, "hours", hours=chosen_windows(*given))


def _next_screen(request: Request, answers: Answers, screen: str, **given: Any) -> Response:
    first_run_of(request).keep(with_answers(answers, screen, **given))
    return RedirectResponse(f"/setup/{SCREENS[SCREENS.index(screen) + 1]}", 303)


def _try(request: Request, answers: Answers, form: Mapping[str, str]) -> Response:
    profile = services_of(request).app.profiles[answers.profile]
    start_trial(request, map(Path, answers.folders), profile, form)
    return RedirectResponse("/setup/sample", 303)


def start_trial(
    request: Request, folders: Iterable[Path], profile: Profile, form: Mapping[str, str]
) -> None:
    """Start a test encode of the video in a form. Raises UsageError if it is outside the folders."""
    services, video = services_of(request), Path(form.get("video", ""))
    if not any(video.is_relative_to(each) for each in folders) or ".." in video.parts:
        raise UsageError("Choose one of the videos.")
    services.trial.start(services.app.encoder, video, profile, services.app.scratch)


def _start(request: Request, answers: Answers, _form: Mapping[str, str]) -> Response:
    """Write the settings, and use them in this process."""
    services, person = services_of(request), maybe_person(request)
    if answers.screen != SCREENS[-1] or person is None:
        raise HTTPException(404)
    app, file = services.app, services.app.settings_file
    finish(first_run_of(request), file, app.profiles, person.name)
    services.trial.close()
    app.adopt_saved()
    return RedirectResponse("/board/libraries", 303)


def now(request: Request) -> Response:
    """Return the progress of the test encode, which pages poll."""
    return page(request, "setup_now.html", trial=services_of(request).trial)


def still(request: Request) -> Response:
    """Return a frame of the sample (side `source`) or of its rendition (side `made`)."""
    result = services_of(request).trial.tried
    stills = result.compared.stills if result and result.compared else ()
    number, side = request.path_params["number"], request.path_params["side"]
    if number >= len(stills) or side not in {"source", "made"}:
        raise HTTPException(404)
    return Response(getattr(stills[number], side), media_type="image/jpeg")


def _screen(
    request: Request,
    screen: str,
    answers: Answers,
    *,
    wrong: str = "",
    form: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    services, number = services_of(request), SCREENS.index(screen)
    more: dict[str, Callable[[], dict[str, Any]]] = {
        "folders": lambda: _browse(request, services.app),
        "output": lambda: {"profiles": _sorted_profiles(services.app)},
        "sample": lambda: _videos(services.app, answers),
    }
    return page(
        request,
        f"setup_{screen}.html",
        status=status,
        title=TITLES[screen],
        number=number + 1,
        steps=[(name, TITLES[name], may_show(answers, name)) for name in SCREENS],
        screen=screen,
        back=SCREENS[number - 1] if number > 1 else "",
        answers=answers,
        form=form or {},
        wrong=wrong,
        trial=services.trial,
        seconds=int(SAMPLE_S),
        **more.get(screen, dict)(),
    )


def _browse(request: Request, app: App) -> dict[str, Any]:
    roots, asked = roots_of(app.settings.web.browse), request.query_params.get("at", "")
    shown: dict[str, Any] = {"roots": roots, "at": None, "up": None, "inside": [], "closed": ""}
    if not asked:
        return shown
    at = Path(os.path.abspath(asked))  # noqa: PTH100 - links are kept
    try:
        inside = subfolders(at, roots, app.settings.data_dir)
    except UsageError as error:
        return {**shown, "closed": str(error)}
    return {**shown, "at": at, "up": None if at in roots else at.parent, "inside": inside}


def _sorted_profiles(app: App) -> list[Profile]:
    default = app.settings.ingest.profiles[0]
    return sorted(app.profiles.values(), key=lambda each: (each.name != default, each.name))


def _videos(app: App, answers: Answers) -> dict[str, Any]:
    videos = videos_in([Path(each) for each in answers.folders], app.settings.data_dir)
    profile = app.profiles.get(answers.profile)
    return {"videos": videos, "profile": profile, "working": bool(workers_running(app.settings))}
