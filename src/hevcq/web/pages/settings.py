"""Pages of the settings, for operators: libraries, hours, receivers, sync accounts and changes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from hevcq.errors import HevcqError
from hevcq.ports.catalog import EVENTS
from hevcq.remotes.message_delivery import people
from hevcq.settings.libraries import Library, Rule, SyncSettings
from hevcq.settings.loader import problems_of
from hevcq.settings.model import ScheduleSettings
from hevcq.settings.profile_files import read_profiles
from hevcq.usecases.farm_check import sync_words
from hevcq.usecases.settings.changes import SettingsFile
from hevcq.usecases.settings.libraries import (
    HOURS,
    KEY,
    RECEIVERS,
    SYNC,
    add_receiver,
    find_named,
    hours_of,
    library_problems,
    listed_receivers,
    remove_table,
    save_hours,
    save_library,
    save_sync,
    sync_problems,
    windows_of,
)
from hevcq.util.text import whole
from hevcq.web.forms import FormField, Options, error_summary, fields, read_fields
from hevcq.web.identity.person import operator_of
from hevcq.web.rendering import page
from hevcq.web.services import OperatorRoute, form_endpoint, services_of
from hevcq.wiring.app import App
from hevcq.wiring.contexts import open_remote, try_receiver

IN_PLACE = (
    "replace: each original is replaced by a verified, smaller rendition, and can be restored while"
    " it is kept"
)
PLACES = (
    ("beside", "beside: each rendition goes next to its original, which is not touched"),
    ("mirror", "mirror: renditions go to another folder with the same layout"),
    ("replace", IN_PLACE),
)
ORDERS = (("path", "by path"), ("saving", "largest expected saving first"))
GROUPS: Sequence[tuple[str, Sequence[str]]] = (
    ("", ("name", "path", "profiles", "place", "output", "keep_originals")),
    ("Which files", ("include", "exclude", "min_age", "min_saving", "settle")),
    ("When and in which order", ("watch", "schedule", "priority", "order", "max_hours_per_day")),
)
RULE = tuple(Rule.model_fields)
MODES = (
    ("copy", "copy: the server keeps its files"),
    (
        "move",
        "move: the server's file is deleted after the copy here was read back and is identical",
    ),
)
ACCOUNT: Sequence[tuple[str, Sequence[str]]] = (
    ("", ("name", "url", "user")),
    ("What and where to", ("folders", "target", "mode")),
    ("When and how fast", ("schedule", "settle", "limit")),
)
TABLES: Mapping[str, tuple[type[Any], Sequence[tuple[str, Sequence[str]]]]] = {
    KEY: (Library, GROUPS),
    SYNC: (SyncSettings, ACCOUNT),
}
"""Without password_file and ca_file: an operator must not make hevcq read any file."""
ACCOUNT_HELP = (
    "For Nextcloud use an app password (Settings, Security). It is stored in a file of the data folder"
    " that only hevcq's user can read, and never shown."
)
MAX_RULES = 12
RECEIVER: Mapping[str, Sequence[str]] = {
    "notify": ("name", "url", "events", "digest"),
    "webhook": ("name", "url", "secret", "events"),
    "media_server": ("kind", "url", "key", "paths"),
}
SENT = [(name, f"{name}: {words}") for name, words in EVENTS.items() if name != "test"]
NOTICES = {
    "saved": "Saved. A running `hevcq service` uses it within seconds; workers and joined machines after a restart.",
    "later": "Saved. It names a profile that has no queue on AWS yet: apply the Terraform, then restart hevcq's page.",
    "removed": "Removed from the settings; its files are unchanged.",
    "receiver": "Saved. Restart hevcq's service or worker to use it.",
    "deleted": "Deleted. A running `hevcq service` keeps it until a restart.",
    "undone": "Undone. A running `hevcq service` follows within seconds; workers and joined machines after a restart.",
    "undone-receiver": "Undone. Restart hevcq's service or worker to use it.",
}


def form(path: str, handle: Any) -> BaseRoute:
    """Return the route of a form for operators."""
    return OperatorRoute(f"/settings{path}", form_endpoint(handle), methods=["POST"])


def save_unless_wrong(problems: Mapping[str, str], save: Callable[[], object]) -> dict[str, str]:
    """Save unless there are problems; return these, or the error of saving under the key ""."""
    try:
        if not problems:
            save()
    except HevcqError as error:
        return {"": str(error)}
    return dict(problems)


def routes() -> Sequence[BaseRoute]:
    return (
        OperatorRoute("/settings", overview),
        OperatorRoute("/settings/library", edit),
        form("/library", put_library),
        form("/library/remove", remove_entry),
        OperatorRoute("/settings/hours", hours),
        form("/hours", put_hours),
        OperatorRoute("/settings/messages", messages),
        form("/messages", put_receiver),
        form("/messages/remove", remove_receiver),
        form("/messages/test", test_receiver),
        OperatorRoute("/settings/sync", accounts),
        OperatorRoute("/settings/sync/account", edit),
        form("/sync/account", put_account),
        form("/sync/remove", remove_entry),
        form("/sync/test", test_account),
        OperatorRoute("/settings/changes", history),
        form("/changes/undo", undo),
    )


def file_of(request: Request) -> SettingsFile:
    return services_of(request).app.settings_file


def show(request: Request, template: str, **values: Any) -> Response:
    """Return a page of the settings, with the values that each of them needs."""
    file, notice = file_of(request), NOTICES.get(request.query_params.get("done", ""), "")
    shared = {"file": file.file, "digest": file.digest(), "error": "", "notice": notice, **values}
    return page(request, template, **shared)


def done(app: App, path: str, word: str) -> Response:
    """Use the saved settings, and redirect to a page that shows the notice of this word."""
    app.adopt_saved()
    return RedirectResponse(f"/settings{path}?done={word}", 303)


def overview(request: Request) -> Response:
    settings = file_of(request).settings()
    return show(request, "settings.html", settings=settings)


def _key(request: Request) -> str:
    """Return the key of the list in the settings that the page edits."""
    return SYNC if request.url.path.startswith("/settings/sync") else KEY


def _form(
    request: Request,
    raw: Mapping[str, Any],
    former: str,
    problems: Mapping[str, str],
    *,
    asks: bool = False,
) -> Response:
    """Show a library or account; with `asks`, confirm first that originals may be replaced."""
    options, key = _options(services_of(request).app), _key(request)
    model, groups = TABLES[key]
    sections = [(title, fields(model, names, raw, problems, options)) for title, names in groups]
    rules = [*raw.get("rules", []), {}][:MAX_RULES] if key == KEY else []
    if key == SYNC:
        words, is_set = problems.get("password", ""), "password_file" in raw
        secret = FormField(
            "password", "Password", "secret", ACCOUNT_HELP, problem=words, is_set=is_set
        )
        sections[0][1].append(secret)
    return show(
        request,
        "settings_entry.html",
        key=key,
        groups=sections,
        rules=[
            (fields(Rule, RULE, rule, problems, options, f"rules-{n}-"), problems.get(f"rules-{n}"))
            for n, rule in enumerate(rules)
        ],
        former=former,
        asks=asks,
        error=error_summary(problems),
    )


def _tables(request: Request, form: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the table that a form edits, as the file and as the form have it."""
    key, former = _key(request), form.get("former", "")
    model, groups = TABLES[key]
    raw = (find_named(file_of(request), key, former) if former else None) or {}
    values, options = dict(raw), _options(services_of(request).app)
    for _, names in groups:
        values = read_fields(model, names, form, values, options)
    return raw, values


def _options(app: App) -> Options:
    names = [(name, name) for name in sorted(read_profiles(app.settings))]
    return {
        "profiles": names,
        "profile": [("", "no profile"), *names],
        "place": PLACES,
        "order": ORDERS,
        "mode": MODES,
    }


def edit(request: Request) -> Response:
    former = request.query_params.get("name", "")
    raw = find_named(file_of(request), _key(request), former) if former else {}
    if raw is None:
        raise HTTPException(404)
    return _form(request, raw, former, {})


def put_library(request: Request, form: Mapping[str, str]) -> Response:
    app, file, former = services_of(request).app, file_of(request), form.get("former", "")
    raw, values = _tables(request, form)
    rules = list(_read_rules(form, raw.get("rules", []), _options(app)))
    values = (
        {**values, "rules": rules} if rules else {k: v for k, v in values.items() if k != "rules"}
    )
    profiles = read_profiles(app.settings)
    problems = library_problems(file, values, profiles, former)
    asks = values.get("place") == "replace" != raw.get("place") and not form.get("sure")
    if problems or asks:
        return _form(request, values, former, problems, asks=asks)
    who, digest = operator_of(request).name, form.get("file_digest", "")
    save = partial(save_library, profiles=profiles, former=former, known=digest)
    if problems := save_unless_wrong({}, lambda: save(file, values, who)):
        return _form(request, values, former, problems)
    new = app.settings.on_aws and set(Library.model_validate(values).chosen) - app.profiles.keys()
    return done(app, "", "later" if new else "saved")


def _read_rules(
    form: Mapping[str, str], raw: Sequence[Mapping[str, Any]], options: Options
) -> Sequence[dict[str, Any]]:
    rules = []
    for number in range(MAX_RULES):
        before = raw[number] if number < len(raw) else {}
        rule = read_fields(Rule, RULE, form, before, options, f"rules-{number}-")
        if rule and not form.get(f"rules-{number}-gone"):
            rules.append(rule)
    return [*rules, *map(dict, raw[MAX_RULES:])]


def remove_entry(request: Request, form: Mapping[str, str]) -> Response:
    if form.get("sure") != "yes":
        raise HTTPException(400, "Tick the box to remove this from the settings.")
    key, file = _key(request), file_of(request)
    if (table := find_named(file, key, form.get("name", ""))) is None:
        raise HTTPException(404)
    remove_table(file, key, table, operator_of(request).name, form.get("file_digest", ""))
    return done(services_of(request).app, "" if key == KEY else "/sync", "removed")


OTHER_HOURS = ("timezone", "at_end")
"""Without gate_command: an operator must not make hevcq run any program."""


def _hours_form(
    request: Request, raw: Mapping[str, Any], problems: Mapping[str, str], *, text: bool = False
) -> Response:
    try:
        grid = None if text else hours_of(raw.get("windows", ()))
    except ValueError:
        grid = None
    (windows,) = fields(ScheduleSettings, ["windows"], raw, problems)
    return show(
        request,
        "settings_hours.html",
        grid=grid,
        windows=windows,
        others=fields(ScheduleSettings, OTHER_HOURS, raw, problems),
        error=error_summary(problems),
    )


def hours(request: Request) -> Response:
    text = bool(request.query_params.get("text"))
    return _hours_form(request, file_of(request).raw().get(HOURS, {}), {}, text=text)


def put_hours(request: Request, form: Mapping[str, str]) -> Response:
    file, app, gridded = file_of(request), services_of(request).app, form.get("grid") == "yes"
    before, problems = file.raw().get(HOURS, {}), dict[str, str]()
    values = read_fields(ScheduleSettings, OTHER_HOURS, form, before)
    if not gridded:
        values = read_fields(ScheduleSettings, ["windows"], form, values)
    else:
        chosen = {hour for hour in range(7 * 24) if form.get(f"h{hour}")}
        try:
            if chosen != hours_of(before.get("windows", ())):  # else the file keeps its notation
                values["windows"] = windows_of(chosen)
        except ValueError as error:
            problems["windows"] = str(error)
    problems |= problems_of(ScheduleSettings, values)
    who, digest = operator_of(request).name, form.get("file_digest", "")
    if wrong := save_unless_wrong(problems, lambda: save_hours(file, values, who, digest)):
        return _hours_form(request, values, wrong, text=not gridded)
    return done(app, "/hours", "saved")


def _receivers_page(
    request: Request,
    shown: Mapping[str, tuple[Mapping[str, Any], Mapping[str, str]]],
    **messages: str,
) -> Response:
    forms = []
    for kind, (model, title) in RECEIVERS.items():
        values, problems = shown.get(kind, ({}, {}))
        receiver_fields = fields(model, RECEIVER[kind], values, problems, _events(kind))
        forms.append((kind, title, receiver_fields, bool(problems)))
    listed = listed_receivers(file_of(request))
    return show(request, "settings_messages.html", listed=listed, forms=forms, **messages)


def _events(kind: str) -> Options:
    return {} if kind == "media_server" else {"events": SENT}


def messages(request: Request) -> Response:
    return _receivers_page(request, {})


def put_receiver(request: Request, form: Mapping[str, str]) -> Response:
    file, kind = file_of(request), form.get("kind_of", "")
    if kind not in RECEIVERS:
        raise HTTPException(400, "Choose a receiver.")
    model = RECEIVERS[kind][0]
    values = read_fields(model, RECEIVER[kind], form, {}, _events(kind))
    who, digest = operator_of(request).name, form.get("file_digest", "")
    add = partial(add_receiver, check=people, known=digest)
    problems = save_unless_wrong(problems_of(model, values), lambda: add(file, kind, values, who))
    if problems:
        return _receivers_page(request, {kind: (values, problems)}, error=error_summary(problems))
    return done(services_of(request).app, "/messages", "receiver")


def _receiver_number(request: Request, form: Mapping[str, str]) -> int:
    """Return the number of the receiver in a form. Raises HTTPException 400."""
    number = whole(form.get("number", ""))
    if number is None or number >= len(listed_receivers(file_of(request))):
        raise HTTPException(400, "Choose a receiver.")
    return number


def remove_receiver(request: Request, form: Mapping[str, str]) -> Response:
    file = file_of(request)
    kind, table = listed_receivers(file)[_receiver_number(request, form)]
    remove_table(file, kind, table, operator_of(request).name, form.get("file_digest", ""))
    return done(services_of(request).app, "/messages", "receiver")


def test_receiver(request: Request, form: Mapping[str, str]) -> Response:
    """Send a test message with the settings of the file, and show the result."""
    number, app = _receiver_number(request, form), services_of(request).app
    app.adopt_saved()
    name, problem = try_receiver(app, number)
    if problem:
        return _receivers_page(request, {}, error=f"{name} refused the test: {problem}")
    return _receivers_page(request, {}, notice=f"{name} accepted the test.")


def accounts(request: Request) -> Response:
    return show(request, "settings_sync.html", listed=file_of(request).settings().sync)


def put_account(request: Request, form: Mapping[str, str]) -> Response:
    file, former, password = file_of(request), form.get("former", ""), form.get("password", "")
    _, values = _tables(request, form)
    who, digest = operator_of(request).name, form.get("file_digest", "")
    save = partial(save_sync, password=password, former=former, known=digest)
    problems = sync_problems(file, values, password, former)
    if problems := save_unless_wrong(problems, lambda: save(file, values, who)):
        return _form(request, values, former, problems)
    return done(services_of(request).app, "/sync", "saved")


def test_account(request: Request, form: Mapping[str, str]) -> Response:
    """Ask the server whether it lists the folders, and for moves whether it deletes safely."""
    listed = file_of(request).settings().sync
    account = next((each for each in listed if each.name == form.get("name")), None)
    if account is None:
        raise HTTPException(404)
    try:
        message = {"notice": f"{account.name} works: it {sync_words(account, open_remote)}."}
    except HevcqError as error:
        message = {"error": f"{account.name}: {error}"}
    return show(request, "settings_sync.html", listed=listed, **message)


def history(request: Request) -> Response:
    now = services_of(request).app.clock.now()
    return show(request, "settings_changes.html", changes=file_of(request).changes(), now=now)


def undo(request: Request, form: Mapping[str, str]) -> Response:
    change = file_of(request).undo(whole(form.get("number", "")) or 0, operator_of(request).name)
    word = "undone-receiver" if change.place in RECEIVERS else "undone"
    return done(services_of(request).app, "/changes", word)
