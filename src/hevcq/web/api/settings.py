"""The settings, for operators: changes are checked, recorded and undone as those of the page."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import Body

from hevcq.errors import ConfigError, NoSuchVideo, UsageError
from hevcq.remotes.message_delivery import people
from hevcq.settings.libraries import SyncSettings
from hevcq.settings.model import ScheduleSettings
from hevcq.settings.profile_files import read_profiles
from hevcq.usecases.farm_check import sync_words
from hevcq.usecases.settings.changes import users_of
from hevcq.usecases.settings.libraries import (
    HOURS,
    KEY,
    SYNC,
    add_receiver,
    find_named,
    listed_receivers,
    remove_table,
    save_hours,
    save_library,
    save_sync,
)
from hevcq.usecases.settings.profiles import (
    changed_profile,
    copy_profile,
    delete_profile,
    profile_text,
    save_profile,
    shipped,
)
from hevcq.usecases.stats import DAYS, LibraryShown, libraries_of
from hevcq.web.api import models
from hevcq.web.api.call import Call, Operates, new_router
from hevcq.wiring.contexts import open_remote, try_receiver, up_to_date_log

router = new_router()
Table = Annotated[dict[str, Any], Body()]
Kind = Literal["notify", "webhook", "media_server"]

SYNC_BY_FILE = frozenset({"password_file", "ca_file"})
"""Keys of `[[sync]]` that only the file sets: an operator must not make hevcq read any file."""
HOURS_BY_FILE = frozenset({"gate_command"})
"""Keys of `[schedule]` that only the file sets: an operator must not make hevcq run any program."""


@router.get("/libraries")
def list_libraries(call: Operates) -> list[LibraryShown]:
    """List the libraries with their state, and the sums of the last 30 days for each."""
    app = call.app
    return list(libraries_of(app.settings, up_to_date_log(app), app.clock.now(), DAYS))


@router.put("/libraries/{name}")
def put_library(call: Operates, name: str, table: Table) -> LibraryShown:
    """Add or replace a library, with the keys of `[[libraries]]`; omitted keys get their defaults.

    `"place": "replace"` also needs `"confirm_replace": true`, unless the library already replaces.
    """
    file, app = call.app.settings_file, call.app
    is_confirmed = table.pop("confirm_replace", False) is True
    given = {key: value for key, value in table.items() if value is not None}
    values, before = {**given, "name": name}, find_named(file, KEY, name)
    if values.get("place") == "replace" != (before or {}).get("place") and not is_confirmed:
        raise UsageError(
            "Each original in this library would be replaced by a verified, smaller rendition.",
            remedy='Send "confirm_replace": true to confirm.',
        )
    former = name if before else ""
    save_library(
        file, values, call.person.name, profiles=read_profiles(app.settings), former=former
    )
    app.adopt_saved()
    return next(each for each in list_libraries(call) if each.library.name == name)


@router.delete("/libraries/{name}", status_code=204)
def delete_library(call: Operates, name: str) -> None:
    """Remove a library from the settings; its videos, renditions and kept originals stay."""
    _remove(call, KEY, name)


def _remove(call: Call, key: str, name: str) -> None:
    file = call.app.settings_file
    if (table := find_named(file, key, name)) is None:
        raise NoSuchVideo(f"No {name!r} in the settings.")
    remove_table(file, key, table, call.person.name)
    call.app.adopt_saved()


@contextmanager
def _invalid_as_usage() -> Iterator[None]:
    """Raise UsageError for a ConfigError: the request is wrong, not the settings of the server."""
    try:
        yield
    except ConfigError as error:
        raise UsageError(error.message, remedy=error.remedy) from error


@router.get("/sync")
def list_sync(call: Operates) -> list[SyncSettings]:
    """List the sync accounts of the settings, with the names but not the contents of password files."""
    return list(call.app.settings_file.settings().sync)


@router.put("/sync/{name}")
def put_sync(call: Operates, name: str, table: Table) -> SyncSettings:
    """Add or replace a sync account, with the keys of `[[sync]]`; omitted keys get their defaults.

    `password` is written to a file of its own and never shown; without it the current password stays.
    """
    file, password = call.app.settings_file, table.pop("password", None) or ""
    if not isinstance(password, str) or not password.isprintable():
        raise UsageError("password must be one line of text.")
    before = find_named(file, SYNC, name) or {}
    accounts = (each for each in file.settings().sync if each.name == name)
    shown = next((each.model_dump(mode="json") for each in accounts), {})
    values = {**_keep_keys_of_file(before, shown, table, SYNC_BY_FILE), "name": name}
    former = name if before else ""
    save_sync(file, values, call.person.name, password=password, former=former)
    return _account(call, name)


def _keep_keys_of_file(
    before: Mapping[str, Any],
    shown: Mapping[str, Any],
    table: dict[str, Any],
    keys: frozenset[str],
) -> dict[str, Any]:
    """Return `table`, with `keys` as the settings file has them. Raises UsageError for a new value of one.

    `shown` are the settings as the API shows them, with full paths: these may be sent back.
    """
    for key in keys & table.keys():
        if table[key] and table[key] not in (before.get(key), shown.get(key)):
            raise UsageError(f"{key} can only be set in the settings file.")
    sent = {key: value for key, value in table.items() if key not in keys}
    return {**{key: before[key] for key in keys & before.keys()}, **sent}


def _account(call: Call, name: str) -> SyncSettings:
    call.app.adopt_saved()
    account = next((each for each in call.app.settings.sync if each.name == name), None)
    if account is None:
        raise NoSuchVideo(f"No sync account {name!r}.")
    return account


@router.delete("/sync/{name}", status_code=204)
def delete_sync(call: Operates, name: str) -> None:
    """Remove a sync account from the settings; files stay, here and on the server."""
    _remove(call, SYNC, name)


@router.post("/sync/{name}/test")
def test_sync(call: Operates, name: str) -> models.TestOut:
    """Ask the server whether it lists the folders, and for moves whether it deletes safely."""
    return models.TestOut(works=sync_words(_account(call, name), open_remote))


@router.get("/hours")
def show_hours(call: Operates) -> ScheduleSettings:
    """Show when this machine may work."""
    return call.app.settings_file.settings().schedule


@router.put("/hours")
def put_hours(call: Operates, table: Table) -> ScheduleSettings:
    """Set when this machine may work, with the keys of `[schedule]`; omitted keys get their defaults."""
    file = call.app.settings_file
    values = _keep_keys_of_file(file.raw().get(HOURS, {}), {}, table, HOURS_BY_FILE)
    save_hours(file, values, call.person.name)
    call.app.adopt_saved()
    return show_hours(call)


@router.get("/receivers")
def list_receivers(call: Operates) -> models.ReceiversOut:
    """List the receivers of messages; their numbers are valid while the file has this `digest`."""
    file = call.app.settings_file
    digest, receivers = file.digest(), []
    for number, (kind, each) in enumerate(listed_receivers(file)):
        name = str(each.get("name") or each.get("kind") or "")
        url = "" if kind == "notify" else str(each.get("url", ""))
        events = list(each.get("events", ()))
        receivers.append(
            models.ReceiverOut(kind=kind, number=number, name=name, url=url, events=events)
        )
    return models.ReceiversOut(receivers=receivers, digest=digest)


@router.post("/receivers/{kind}")
def post_receiver(call: Operates, kind: Kind, table: Table) -> models.ReceiversOut:
    """Add a receiver, with the keys of `[[notify]]`, `[[webhook]]` or `[[media_server]]`.

    Services and workers use it after a restart.
    """
    with _invalid_as_usage():
        add_receiver(call.app.settings_file, kind, table, call.person.name, check=people)
    call.app.adopt_saved()
    return list_receivers(call)


def _receiver(call: Call, number: int) -> tuple[str, Table]:
    """Return a receiver by its number. Raises NoSuchVideo."""
    listed = listed_receivers(call.app.settings_file)
    if not 0 <= number < len(listed):
        raise NoSuchVideo("No such receiver.")
    return listed[number]


@router.delete("/receivers/{number}", status_code=204)
def delete_receiver(call: Operates, number: int, digest: str) -> None:
    """Remove a receiver; `digest` is of the list that gave it this number."""
    kind, table = _receiver(call, number)
    remove_table(call.app.settings_file, kind, table, call.person.name, digest)
    call.app.adopt_saved()


@router.post("/receivers/{number}/test")
def test_receiver(call: Operates, number: int) -> models.TestOut:
    """Send a test message; a media server is only asked whether it accepts the key."""
    _receiver(call, number)
    call.app.adopt_saved()
    name, problem = try_receiver(call.app, number)
    if problem:
        raise UsageError(f"{name} refused the test: {problem}")
    return models.TestOut(works=f"{name} accepted the test.")


@router.post("/profiles")
def post_profile(call: Operates, body: models.ProfileCopyIn) -> models.ProfileTextOut:
    """Copy a profile under a new name."""
    app = call.app
    copy_profile(app.settings_file, app.settings, body.source, body.name, call.person.name)
    call.app.adopt_saved()
    return show_profile(call, body.name)


@router.get("/profiles/{name}")
def show_profile(call: Operates, name: str) -> models.ProfileTextOut:
    """Show the text of a profile's file."""
    app = call.app
    try:
        _, text = profile_text(app.settings, name)
    except UsageError as error:
        raise NoSuchVideo(str(error)) from error
    users = users_of(app.settings_file.settings(), name)
    return models.ProfileTextOut(name=name, text=text, own=name not in shipped(), users=users)


@router.put("/profiles/{name}")
def put_profile(call: Operates, name: str, body: models.ProfileTextIn) -> models.ProfileTextOut:
    """Change a profile: its whole text, or some keys, which keeps the comments."""
    app, former = call.app, show_profile(call, name).text
    with _invalid_as_usage():
        text, problems = changed_profile(body.text or former, body.keys)
    if problems:
        words = "; ".join(f"{key.replace('-', '.')} {problem}" for key, problem in problems.items())
        raise UsageError(f"Invalid profile {name}: {words}.")
    text_read = former if body.former is None else body.former
    save_profile(app.settings_file, app.settings, name, (text_read, text), call.person.name)
    call.app.adopt_saved()
    return show_profile(call, name)


@router.delete("/profiles/{name}", status_code=204)
def delete_own_profile(call: Operates, name: str) -> None:
    """Delete a profile of your own that nothing uses."""
    show_profile(call, name)
    delete_profile(call.app.settings_file, call.app.settings, name, call.person.name)
    call.app.adopt_saved()


@router.get("/changes")
def list_changes(call: Operates) -> list[models.ChangeOut]:
    """List changes made in the page, by programs and by `hevcq libraries add`, newest first."""
    changes = call.app.settings_file.changes()
    return [models.ChangeOut.model_validate(change) for change in changes]


@router.post("/changes/{number}/undo")
def undo_change(call: Operates, number: int) -> list[models.ChangeOut]:
    """Undo one change; later changes to other parts stay."""
    call.app.settings_file.undo(number, call.person.name)
    call.app.adopt_saved()
    return list_changes(call)
