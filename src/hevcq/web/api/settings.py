"""The settings by the API, for operators, as in the page: what is changed is checked, kept and undone alike."""

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
"""Keys of `[[sync]]` that nobody sends: whoever operates lets no file of their choice be read."""
HOURS_BY_FILE = frozenset({"gate_command"})
"""Keys of `[schedule]` that nobody sends: whoever operates runs no program of their choice here."""


@router.get("/libraries")
def list_libraries(call: Operates) -> list[LibraryShown]:
    """List the libraries of this machine with their state, and what the last 30 days made of each."""
    app = call.app
    return list(libraries_of(app.settings, up_to_date_log(app), app.clock.now(), DAYS))


@router.put("/libraries/{name}")
def put_library(call: Operates, name: str, wanted: Table) -> LibraryShown:
    """Add a library, or replace it, by the keys of `[[libraries]]`; other keys get their defaults.

    `"place": "replace"` also needs `"confirm_replace": true`, unless the library has it already.
    """
    file, app = call.app.settings_file, call.app
    sure = wanted.pop("confirm_replace", False) is True
    kept = {key: value for key, value in wanted.items() if value is not None}
    values, before = {**kept, "name": name}, find_named(file, KEY, name)
    if values.get("place") == "replace" != (before or {}).get("place") and not sure:
        raise UsageError(
            "A proven, smaller rendition would take the place of each original in this library.",
            remedy='Send "confirm_replace": true to say that you want that.',
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
    _removed(call, KEY, name)


def _removed(call: Call, key: str, name: str) -> None:
    file = call.app.settings_file
    if (table := find_named(file, key, name)) is None:
        raise NoSuchVideo(f"There is no {name!r}.")
    remove_table(file, key, table, call.person.name)
    call.app.adopt_saved()


@contextmanager
def _sent() -> Iterator[None]:
    """Blame what was sent for settings that cannot be, not those that are there. Raises UsageError."""
    try:
        yield
    except ConfigError as error:
        raise UsageError(error.message, remedy=error.remedy) from error


@router.get("/sync")
def list_sync(call: Operates) -> list[SyncSettings]:
    """List the sync accounts of the settings; the file of a password is named, and not shown."""
    return list(call.app.settings_file.settings().sync)


@router.put("/sync/{name}")
def put_sync(call: Operates, name: str, wanted: Table) -> SyncSettings:
    """Add a sync account, or replace it, by the keys of `[[sync]]`; other keys get their defaults.

    `password` is written to a file of its own and never shown; without it the one that is there stays.
    """
    file, password = call.app.settings_file, wanted.pop("password", None) or ""
    if not isinstance(password, str) or not password.isprintable():
        raise UsageError("password must be text on one line.")
    before = find_named(file, SYNC, name) or {}
    accounts = (each for each in file.settings().sync if each.name == name)
    shown = next((each.model_dump(mode="json") for each in accounts), {})
    values = {**_by_file(before, shown, wanted, SYNC_BY_FILE), "name": name}
    former = name if before else ""
    save_sync(file, values, call.person.name, password=password, former=former)
    return _account(call, name)


def _by_file(
    before: Mapping[str, Any],
    shown: Mapping[str, Any],
    wanted: dict[str, Any],
    keys: frozenset[str],
) -> dict[str, Any]:
    """Return what was sent, with keys that only the settings file sets as they are there.

    `shown` are the settings as the API shows them, with whole paths: they may be sent back.
    """
    for key in keys & wanted.keys():
        if wanted[key] and wanted[key] not in (before.get(key), shown.get(key)):
            raise UsageError(f"{key} is set in the settings file only.")
    sent = {key: value for key, value in wanted.items() if key not in keys}
    return {**{key: before[key] for key in keys & before.keys()}, **sent}


def _account(call: Call, name: str) -> SyncSettings:
    call.app.adopt_saved()
    found = next((each for each in call.app.settings.sync if each.name == name), None)
    if found is None:
        raise NoSuchVideo(f"There is no sync account {name!r}.")
    return found


@router.delete("/sync/{name}", status_code=204)
def delete_sync(call: Operates, name: str) -> None:
    """Remove a sync account from the settings; files stay, here and on the server."""
    _removed(call, SYNC, name)


@router.post("/sync/{name}/test")
def test_sync(call: Operates, name: str) -> models.TestOut:
    """Ask the server whether it lists the folders and, of what is moved, deletes safely."""
    return models.TestOut(works=sync_words(_account(call, name), open_remote))


@router.get("/hours")
def show_hours(call: Operates) -> ScheduleSettings:
    """Show when this machine may work."""
    return call.app.settings_file.settings().schedule


@router.put("/hours")
def put_hours(call: Operates, wanted: Table) -> ScheduleSettings:
    """Say when this machine may work, by the keys of `[schedule]`; other keys get their defaults."""
    file = call.app.settings_file
    kept = _by_file(file.raw().get(HOURS, {}), {}, wanted, HOURS_BY_FILE)
    save_hours(file, kept, call.person.name)
    call.app.adopt_saved()
    return show_hours(call)


@router.get("/receivers")
def list_receivers(call: Operates) -> models.ReceiversOut:
    """List who is notified; the numbers hold as long as the file is the one of `digest`."""
    file = call.app.settings_file
    digest, found = file.digest(), []
    for number, (kind, each) in enumerate(listed_receivers(file)):
        name = str(each.get("name") or each.get("kind") or "")
        url = "" if kind == "notify" else str(each.get("url", ""))
        events = list(each.get("events", ()))
        told = models.ReceiverOut(kind=kind, number=number, name=name, url=url, events=events)
        found.append(told)
    return models.ReceiversOut(receivers=found, digest=digest)


@router.post("/receivers/{kind}")
def post_receiver(call: Operates, kind: Kind, wanted: Table) -> models.ReceiversOut:
    """Add a receiver by the keys of `[[notify]]`, `[[webhook]]` or `[[media_server]]`.

    Services and workers read who is notified when they start.
    """
    with _sent():
        add_receiver(call.app.settings_file, kind, wanted, call.person.name, check=people)
    call.app.adopt_saved()
    return list_receivers(call)


def _receiver(call: Call, number: int) -> tuple[str, Table]:
    """Return a receiver by its number. Raises NoSuchVideo."""
    listed = listed_receivers(call.app.settings_file)
    if not 0 <= number < len(listed):
        raise NoSuchVideo("There is no such receiver.")
    return listed[number]


@router.delete("/receivers/{number}", status_code=204)
def delete_receiver(call: Operates, number: int, digest: str) -> None:
    """Remove a receiver; `digest` is that of the list in which it has this number."""
    kind, table = _receiver(call, number)
    remove_table(call.app.settings_file, kind, table, call.person.name, digest)
    call.app.adopt_saved()


@router.post("/receivers/{number}/test")
def test_receiver(call: Operates, number: int) -> models.TestOut:
    """Send a test message; a media server is only asked whether it takes the key."""
    _receiver(call, number)
    call.app.adopt_saved()
    name, problem = try_receiver(call.app, number)
    if problem:
        raise UsageError(f"{name} did not take the test: {problem}")
    return models.TestOut(works=f"{name} took the test.")


@router.post("/profiles")
def post_profile(call: Operates, wanted: models.ProfileCopyIn) -> models.ProfileTextOut:
    """Copy a profile under a new name."""
    app = call.app
    copy_profile(app.settings_file, app.settings, wanted.source, wanted.name, call.person.name)
    call.app.adopt_saved()
    return show_profile(call, wanted.name)


@router.get("/profiles/{name}")
def show_profile(call: Operates, name: str) -> models.ProfileTextOut:
    """Show a profile as its file has it."""
    app = call.app
    try:
        _, text = profile_text(app.settings, name)
    except UsageError as error:
        raise NoSuchVideo(str(error)) from error
    users = users_of(app.settings_file.settings(), name)
    return models.ProfileTextOut(name=name, text=text, own=name not in shipped(), users=users)


@router.put("/profiles/{name}")
def put_profile(call: Operates, name: str, wanted: models.ProfileTextIn) -> models.ProfileTextOut:
    """Change a profile: its whole text, or some of its keys, whose comments stay."""
    app, former = call.app, show_profile(call, name).text
    with _sent():
        text, problems = changed_profile(wanted.text or former, wanted.keys)
    if problems:
        said = "; ".join(f"{key.replace('-', '.')} {words}" for key, words in problems.items())
        raise UsageError(f"Invalid profile {name}: {said}.")
    seen = former if wanted.former is None else wanted.former
    save_profile(app.settings_file, app.settings, name, (seen, text), call.person.name)
    call.app.adopt_saved()
    return show_profile(call, name)


@router.delete("/profiles/{name}", status_code=204)
def delete_own_profile(call: Operates, name: str) -> None:
    """Delete an own profile that nothing uses."""
    show_profile(call, name)
    delete_profile(call.app.settings_file, call.app.settings, name, call.person.name)
    call.app.adopt_saved()


@router.get("/changes")
def list_changes(call: Operates) -> list[models.ChangeOut]:
    """List what was changed in the page, by programs and by `hevcq libraries add`, newest first."""
    found = call.app.settings_file.changes()
    return [models.ChangeOut.model_validate(each) for each in found]


@router.post("/changes/{number}/undo")
def undo_change(call: Operates, number: int) -> list[models.ChangeOut]:
    """Undo one change; later ones of other parts stay."""
    call.app.settings_file.undo(number, call.person.name)
    call.app.adopt_saved()
    return list_changes(call)
