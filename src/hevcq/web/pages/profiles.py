"""The profiles in the page, for operators: copy one, change its text, delete one's own."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.profile import Profile
from hevcq.errors import HevcqError, UsageError
from hevcq.settings.profile_files import load_profiles, profile_folder, profile_yaml, read_yaml
from hevcq.usecases.ingest.forecast import minute_cost
from hevcq.usecases.settings.changes import users_of
from hevcq.usecases.settings.profiles import (
    can_change,
    copy_problem,
    copy_profile,
    delete_profile,
    profile_problems,
    profile_text,
    save_profile,
    shipped,
)
from hevcq.web.identity.person import operator_of
from hevcq.web.pages.settings import done, file_of, show
from hevcq.web.services import of_form, services_of


def routes() -> Sequence[BaseRoute]:
    def form(path: str, handle: Any) -> Route:
        return Route(f"/settings/{path}", of_form(handle, operator_of), methods=["POST"])

    return (
        Route("/settings/profiles", profiles),
        form("profiles/copy", copy),
        Route("/settings/profile", edit_profile),
        form("profile", put_profile),
        form("profile/delete", delete),
    )


def profiles(request: Request) -> Response:
    operator_of(request)
    return _list(request)


def _list(request: Request, error: str = "", wanted: str = "") -> Response:
    settings = services_of(request).app.settings
    known, own = load_profiles(profile_folder(settings)), shipped()
    rows = [(each, name not in own, minute_cost(each)) for name, each in sorted(known.items())]
    return show(
        request,
        "settings_profiles.html",
        rows=rows,
        folder=profile_folder(settings),
        can_change=can_change(settings),
        error=error,
        wanted=wanted,
    )


def copy(request: Request, form: Mapping[str, str]) -> Response:
    app, name, source = services_of(request).app, form.get("name", "").strip(), form.get("from", "")
    if words := copy_problem(app.settings, name):
        said = words if words.startswith("There") else f"The name {words}."
        return _list(request, said, name)
    copy_profile(file_of(request), app.settings, source, name, operator_of(request).name)
    return done(app, "/profiles", "profile")


def edit_profile(request: Request) -> Response:
    operator_of(request)
    name = request.query_params.get("name", "")
    try:
        _, text = profile_text(services_of(request).app.settings, name)
    except UsageError as error:
        raise HTTPException(404) from error
    return _form(request, name, (text, text), {})


def _form(
    request: Request, name: str, texts: tuple[str, str], problems: Mapping[str, str]
) -> Response:
    """Show a profile; `texts` are what is in its file, and what the person wants there."""
    settings = services_of(request).app.settings
    found = None if problems else Profile.model_validate(read_yaml(texts[1]))
    return show(
        request,
        "settings_profile.html",
        profile=name,
        former=texts[0],
        text=texts[1],
        editable=can_change(settings),
        own=name not in shipped(),
        users=users_of(file_of(request).settings(), name),
        cost=minute_cost(found) if found else None,
        whole=profile_yaml(found) if found else "",
        error="; ".join(f"{key.replace('-', '.')} {words}" for key, words in problems.items()),
    )


def put_profile(request: Request, form: Mapping[str, str]) -> Response:
    """Save the text, or show what is wrong with it."""
    app, name = services_of(request).app, form.get("name", "")
    former, text = _lines(form.get("former", "")), _lines(form.get("text", ""))
    if not can_change(app.settings):
        raise HTTPException(400, "This profile came with hevcq; copy it first.")
    try:
        problems = profile_problems(text)
        if not problems:
            who = operator_of(request).name
            save_profile(file_of(request), app.settings, name, (former, text), who)
            return done(app, "/profiles", "profile")
    except HevcqError as error:
        problems = {"": str(error)}
    return _form(request, name, (former, text), problems)


def _lines(text: str) -> str:
    """Return text with the line ends of a file, which a browser writes as CRLF."""
    return text.replace("\r\n", "\n")


def delete(request: Request, form: Mapping[str, str]) -> Response:
    if form.get("sure") != "yes":
        raise HTTPException(400, "Say that you are sure.")
    app, name = services_of(request).app, form.get("name", "")
    delete_profile(file_of(request), app.settings, name, operator_of(request).name)
    return done(app, "/profiles", "profile")
