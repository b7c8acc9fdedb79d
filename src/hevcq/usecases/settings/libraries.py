"""Change libraries, sync accounts, receivers and hours in the settings file; convert hours of a week to windows."""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from hevcq.domain.profile import Container, Profile
from hevcq.domain.schedule import DAYS, Schedule
from hevcq.errors import Conflict, HevcqError, UsageError
from hevcq.settings.edit import CHANGED, LOOK_AGAIN, Table
from hevcq.settings.libraries import Library, SyncSettings, overlap
from hevcq.settings.loader import problems_of
from hevcq.settings.model import ScheduleSettings
from hevcq.settings.web import MediaServerSettings, NotifySettings, WebhookSettings
from hevcq.usecases.settings.changes import SettingsFile
from hevcq.util.text import printable

KEY, SYNC, HOURS = "libraries", "sync", "schedule"
CALLED = {KEY: "library", SYNC: "sync account", HOURS: "hours"}
RECEIVERS: Mapping[str, tuple[type[Any], str]] = {
    "notify": (NotifySettings, "People"),
    "webhook": (WebhookSettings, "A program (webhook)"),
    "media_server": (MediaServerSettings, "A media server"),
}
"""The model and title of each list of receivers, in the order in which receivers are numbered."""
WHOLE = "must be a whole path, from / on"
NO_FILE = "makes a folder of several files, which cannot take an original's place."


def find_named(file: SettingsFile, key: str, name: str) -> dict[str, Any] | None:
    """Return the table of a library or sync account in the settings file, or None. Raises ConfigError."""
    listed = file.raw().get(key, [])
    tables: list[dict[str, Any]] = listed if isinstance(listed, list) else []
    return next((each for each in tables if each.get("name") == name), None)


def library_problems(
    file: SettingsFile, values: Table, profiles: Mapping[str, Profile], former: str = ""
) -> dict[str, str]:
    """Return the problems of a library's keys, by key ("" for the whole table). Raises ConfigError.

    `former` is the name of the library that it replaces.
    """
    problems = problems_of(Library, values)
    path = Path(str(values.get("path", ""))).expanduser()
    before = find_named(file, KEY, former) or {}
    if not path.is_absolute():
        problems["path"] = WHOLE
    elif values.get("path") != before.get("path") and not path.is_dir():
        problems["path"] = f"No such folder: {printable(path)}."
    output = Path(str(values.get("output", "/"))).expanduser()
    if not output.is_absolute():
        problems["output"] = WHOLE
    if not problems:
        library, settings = Library.model_validate(values), file.settings()
        used = [*(library.profiles or settings.ingest.profiles), *library.chosen]
        if unknown := [name for name in used if name not in profiles]:
            problems["profiles"] = f"No profile {unknown[0]!r}."
        elif library.place == "replace" and (
            sets := [name for name in used if profiles[name].container is Container.HLS]
        ):
            problems["profiles"] = f"The profile {sets[0]} {NO_FILE}"
        others = [each for each in settings.libraries if each.name != former]
        if any(each.name.casefold() == library.name.casefold() for each in others):
            problems["name"] = f"Another library is called {library.name!r}."
        if words := overlap(library.path, others):
            problems["path"] = words
    return problems


def save_library(
    file: SettingsFile,
    values: Table,
    who: str,
    *,
    profiles: Mapping[str, Profile],
    former: str = "",
    known: str | None = None,
) -> Library:
    """Add a library, or replace the one named `former`; return it as it will be read.

    `values` are the keys as in the file. `known` is the digest of the file that the person saw.
    Raises UsageError for wrong values, Conflict if the file was changed meanwhile, ConfigError.
    """
    require_valid(library_problems(file, values, profiles, former))
    _put(file, KEY, values, who, former, known)
    return next(each for each in file.settings().libraries if each.name == values["name"])


def _put(
    file: SettingsFile, key: str, values: Table, who: str, former: str, known: str | None
) -> None:
    """Add a table to a list of the settings, or replace the one named `former`."""
    before = find_named(file, key, former) if former else None
    if former and before is None:
        raise Conflict(CHANGED, remedy=LOOK_AGAIN)
    what = f"{'Change' if former else 'Add'} {CALLED[key]} {values['name']}"
    file.change(file.new(who, what, key, before, values), known)


def require_valid(problems: Mapping[str, str], kind: str = KEY) -> None:
    listed = "; ".join(
        words if words[0].isupper() else f"{key} {words}".strip() for key, words in problems.items()
    )
    if listed:
        raise UsageError(f"Invalid {CALLED.get(kind, 'receiver')}: {listed.rstrip('.')}.")


def remove_table(
    file: SettingsFile, key: str, table: Table, who: str, known: str | None = None
) -> None:
    """Remove a library, sync account or receiver; all files stay. Raises Conflict, ConfigError."""
    name = table.get("name") or RECEIVERS[key][1]
    what = f"Remove {CALLED.get(key, 'receiver')} {name}"
    file.change(file.new(who, what, key, table, None), known)


def sync_problems(
    file: SettingsFile, values: Table, password: str, former: str = ""
) -> dict[str, str]:
    """Return the problems of a sync account's keys and of its new `password`, by key."""
    problems, before = problems_of(SyncSettings, values), find_named(file, SYNC, former) or {}
    target = Path(str(values.get("target", ""))).expanduser()
    if values.get("target") != before.get("target") and "target" not in problems:
        if not target.is_absolute():
            problems["target"] = WHOLE
        elif not target.is_dir():
            problems["target"] = f"No such folder: {printable(target)}."
    moved = any(values.get(key) != before.get(key) for key in ("url", "user"))
    if password and not values.get("user"):
        problems["user"] = "is missing"
    elif values.get("user") and not password and (moved or "password_file" not in before):
        # A kept password is never sent to an address for which nobody typed it.
        problems |= {"password": "must be given for this address and user"}
    if any(each.name == values.get("name") for each in file.settings().sync if each.name != former):
        problems["name"] = f"Another account is called {values['name']!r}."
    return problems


def save_sync(
    file: SettingsFile,
    values: Table,
    who: str,
    *,
    password: str = "",
    former: str = "",
    known: str | None = None,
) -> None:
    """Add a sync account, or replace the one named `former`; see `save_library`.

    A new password is written to a file of its own, which the settings name.
    """
    require_valid(sync_problems(file, values, password, former), SYNC)
    kept, secret = dict(values), file.keep_secret(password) if password else None
    if secret is not None:
        kept["password_file"] = str(secret)
    elif not values.get("user"):
        kept.pop("password_file", None)
    try:
        _put(file, SYNC, kept, who, former, known)
    except HevcqError:
        if secret is not None:
            secret.unlink(missing_ok=True)
        raise


def save_hours(file: SettingsFile, values: Table, who: str, known: str | None = None) -> None:
    """Write `[schedule]`. Raises UsageError, Conflict if the file was changed meanwhile, ConfigError."""
    require_valid(problems_of(ScheduleSettings, values), HOURS)
    before = file.raw().get(HOURS)
    file.change(file.new(who, "Change the hours", HOURS, before, values), known)


def listed_receivers(file: SettingsFile) -> list[tuple[str, dict[str, Any]]]:
    """Return the list and the table of each receiver. Raises ConfigError."""
    raw = file.raw()
    return [(kind, each) for kind in RECEIVERS for each in raw.get(kind, ())]


def add_receiver(
    file: SettingsFile,
    kind: str,
    values: Table,
    who: str,
    *,
    check: Callable[[NotifySettings], object],
    known: str | None = None,
) -> None:
    """Add a receiver; `check` raises ConfigError if the address of people is invalid.

    Raises UsageError, Conflict if the file was changed meanwhile, ConfigError.
    """
    model, title = RECEIVERS[kind]
    require_valid(problems_of(model, values), kind)
    if kind == "notify":
        check(NotifySettings.model_validate(values))
    what = f"Add receiver {values.get('name') or title}"
    file.change(file.new(who, what, kind, None, values), known)


def free_name(folder: Path, known: Sequence[Library]) -> str:
    plain = re.sub(r"[^\w .-]+", "-", folder.name).strip(" .-_")[:50] or "library"
    taken = {each.name.casefold() for each in known}
    names = (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 3)))
    return next(each for each in names if each.casefold() not in taken)


WEEK = 7 * 24
Hour = int
"""An hour of the week: 0 is Monday from 00:00 to 01:00."""


def hours_of(windows: Sequence[str]) -> Set[Hour] | None:
    """Return the open hours of the week; None if a window does not begin and end on the hour.

    Raises ValueError for an invalid window.
    """
    hours = set[Hour]()
    for window in Schedule.parse(windows).windows:
        if window.start % 60 or window.end % 60:
            return None
        span = range(window.start // 60, window.end // 60)
        hours |= {(day * 24 + hour) % WEEK for day in window.days for hour in span}
    return hours if windows else set(range(WEEK))


def windows_of(hours: Set[Hour]) -> list[str]:
    """Return the windows of these open hours; the whole week gives no window, which means always.

    Raises ValueError for no hours, because no window would mean always.
    """
    if not hours:
        raise ValueError("must have an hour; to stop all work, pause it on the board")
    if len(hours) == WEEK:
        return []
    days_of: dict[tuple[int, int], list[int]] = {}
    for opens in sorted(hour for hour in hours if (hour - 1) % WEEK not in hours):
        closes = next(hour for hour in range(opens + 1, opens + WEEK) if hour % WEEK not in hours)
        at = opens
        while at < closes:
            first, left = at % 24, closes - at
            part = left if left < 24 else 24 - first  # one night is one window
            days_of.setdefault((first, first + part), []).append(at // 24 % 7)
            at += part
    return [
        f"{_days(sorted(days))} {first:02}:00-{last if last <= 24 else last - 24:02}:00"
        for (first, last), days in days_of.items()
    ]


def _days(days: Sequence[int]) -> str:
    names = [name.capitalize() for name in DAYS]
    if len(days) > 2 and days[-1] - days[0] == len(days) - 1:
        return f"{names[days[0]]}-{names[days[-1]]}"
    return ",".join(names[day] for day in days)
