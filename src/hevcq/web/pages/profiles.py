"""Pages of the profiles, for operators: list, copy, edit, try out and delete them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from hevcq.domain.profile import Profile
from hevcq.errors import HevcqError, UsageError
from hevcq.settings.profile_files import load_profiles, profile_folder, read_yaml
from hevcq.usecases.ingest.forecast import minute_cost
from hevcq.usecases.plan_one_file import SAMPLE_S, videos_in
from hevcq.usecases.settings.changes import users_of
from hevcq.usecases.settings.profiles import (
    can_change,
    changed_profile,
    copy_problem,
    copy_profile,
    delete_profile,
    profile_text,
    require_own,
    save_profile,
    section_model,
    shipped,
    usual,
)
from hevcq.web.forms import FormField, error_summary, fields, read_fields
from hevcq.web.identity.person import operator_of
from hevcq.web.pages.settings import done, file_of, form, show
from hevcq.web.pages.setup import start_trial
from hevcq.web.services import OperatorRoute, services_of

SECTIONS: Mapping[str, Sequence[str]] = {
    "": ("description", "subscribe"),
    "video": ("codec", "crf", "quality", "preset", "max_width", "max_height", "crop"),
    "audio": ("policy", "codec", "kbps_per_channel", "loudness", "languages"),
    "subtitles": ("languages", "beside"),
    "gates": ("minimum_saving",),
}
"""The keys with a field of their own; the others are edited in the text."""


def routes() -> Sequence[BaseRoute]:
    return (
        OperatorRoute("/settings/profiles", profiles),
        form("/profiles/copy", copy),
        OperatorRoute("/settings/profile", edit_profile),
        form("/profile", put_profile),
        form("/profile/delete", delete),
    )


def profiles(request: Request) -> Response:
    return _list(request, source=request.query_params.get("from", ""))


def _list(request: Request, error: str = "", wanted: str = "", source: str = "") -> Response:
    settings = services_of(request).app.settings
    profiles, built_in = load_profiles(profile_folder(settings)), shipped()
    rows = [(p, name not in built_in, minute_cost(p)) for name, p in sorted(profiles.items())]
    return show(
        request,
        "settings_profiles.html",
        rows=rows,
        folder=profile_folder(settings),
        can_change=can_change(settings),
        error=error,
        wanted=wanted,
        source=source,
    )


def copy(request: Request, form: Mapping[str, str]) -> Response:
    app, name, source = services_of(request).app, form.get("name", "").strip(), form.get("from", "")
    if words := copy_problem(app.settings, name):
        error = words if words.startswith("There") else f"The name {words}."
        return _list(request, error, name, source)
    copy_profile(file_of(request), app.settings, source, name, operator_of(request).name)
    return done(app, "/profiles", "saved")


def edit_profile(request: Request) -> Response:
    name = request.query_params.get("name", "")
    try:
        _, text = profile_text(services_of(request).app.settings, name)
    except UsageError as error:
        raise HTTPException(404) from error
    return _form(request, name, (text, text, text), {})


def _form(
    request: Request, name: str, texts: tuple[str, str, str], problems: Mapping[str, str]
) -> Response:
    """Show a profile; `texts` are those of the file, the text box and the fields."""
    services = services_of(request)
    settings, raw = services.app.settings, read_yaml(texts[2])
    shown: list[tuple[str, list[FormField]]] = []
    for section, keys in SECTIONS.items():
        model, values, prefix = _section(section, raw)
        shown.append((section, fields(model, keys, values, problems, None, prefix)))
    names = {field.name for _, section_fields in shown for field in section_fields}
    other = [
        f"{key.replace('-', '.')} {words}" for key, words in problems.items() if key not in names
    ]
    of_fields = {key: words for key, words in problems.items() if key in names}
    return show(
        request,
        "settings_profile.html",
        profile=name,
        former=texts[0],
        text=texts[1],
        sections=shown,
        editable=can_change(settings),
        own=name not in shipped(),
        users=users_of(file_of(request).settings(), name),
        cost=None if problems else minute_cost(Profile.model_validate(raw)),
        error=error_summary({"": "; ".join(other).strip(), **of_fields}),
        videos=videos_in(_folders(request), settings.data_dir),
        trial=services.trial if services.trial.profile == name else None,
        seconds=int(SAMPLE_S),
    )


def _folders(request: Request) -> list[Path]:
    libraries = services_of(request).app.settings.libraries
    return [each.place_on_disk for each in libraries if each.path.is_dir()]


def _section(section: str, raw: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any], str]:
    """Return a section's model, its values, including defaults, and the prefix of its fields."""
    model = section_model(section)
    given = (raw.get(section) or {}) if section else raw
    values = {name: given.get(name, usual(model, name)) for name in SECTIONS[section]}
    return model, {n: "" if v is None else v for n, v in values.items()}, section and f"{section}-"


def put_profile(request: Request, form: Mapping[str, str]) -> Response:
    """Save or try out the text if it was edited, else the fields. Errors are shown in the form."""
    app, name = services_of(request).app, form.get("name", "")
    former, text = _unix_lines(form.get("former", "")), _unix_lines(form.get("text", ""))
    tries, editable = form.get("do") == "try", can_change(app.settings)
    if not tries:
        require_own(app.settings)
    problems, changed = dict[str, str](), former
    try:
        values = _values(form, former) if editable and text == former else {}
        changed, problems = changed_profile(text, values)
        if tries and not problems:
            profile = Profile.model_validate(read_yaml(changed))
            start_trial(request, _folders(request), profile, form)
        elif not problems:
            who = operator_of(request).name
            save_profile(file_of(request), app.settings, name, (former, changed), who)
            return done(app, "/profiles", "saved")
    except HevcqError as error:
        problems = {"": str(error)}
        if not tries:
            text = changed = former
    return _form(request, name, (former, text, changed), problems)


def _values(form: Mapping[str, str], text: str) -> dict[str, Any]:
    """Return the form's values by dotted key; an empty field is null if the key allows it, else the default."""
    values = dict[str, Any]()
    for section, names in SECTIONS.items():
        model, _, prefix = _section(section, read_yaml(text))
        read = read_fields(model, names, form, {}, None, prefix)
        for name in names:
            kind, given = model.model_fields[name].annotation, form.get(f"{prefix}{name}")
            emptied = None if type(None) in get_args(kind) else usual(model, name)
            value = read.get(name, usual(model, name) if given else emptied)
            values[f"{section}.{name}".strip(".")] = bool(given) if kind is bool else value
    return values


def _unix_lines(text: str) -> str:
    """Return text with LF as line ends; browsers send CRLF."""
    return text.replace("\r\n", "\n")


def delete(request: Request, form: Mapping[str, str]) -> Response:
    if form.get("sure") != "yes":
        raise HTTPException(400, "Tick the box to delete the profile.")
    app, name = services_of(request).app, form.get("name", "")
    delete_profile(file_of(request), app.settings, name, operator_of(request).name)
    return done(app, "/profiles", "deleted")
