"""Add, change and remove the libraries of the settings file; the hours of a week as a grid and as windows."""

import os
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from hevcq.domain.profile import Container, Profile
from hevcq.domain.schedule import DAYS, Schedule
from hevcq.errors import Conflict, UsageError
from hevcq.settings.edit import CHANGED, LOOK_AGAIN, Table
from hevcq.settings.explain import problems_of
from hevcq.settings.libraries import Library
from hevcq.usecases.settings.changes import SettingsFile
from hevcq.util.text import printable

KEY = "libraries"
NO_FILE = "makes a folder of several files, which cannot take an original's place."


def find_library(file: SettingsFile, name: str) -> dict[str, Any] | None:
    """Return what the settings file says of a library, or None. Raises ConfigError."""
    found: list[dict[str, Any]] = [each for each in _listed(file) if each.get("name") == name]
    return found[0] if found else None


def library_problems(
    file: SettingsFile, values: Table, profiles: Mapping[str, Profile], former: str = ""
) -> dict[str, str]:
    """Return what is wrong with a library's keys, by key; "" is of the whole. Raises ConfigError.

    `former` is the name of the library that it takes the place of.
    """
    problems = problems_of(Library, values)
    path = Path(str(values.get("path", ""))).expanduser()
    before = find_library(file, former) or {}
    if not path.is_absolute():
        problems["path"] = "must be a whole path, from / on"
    elif values.get("path") != before.get("path") and not path.is_dir():
        problems["path"] = f"No such folder: {printable(path)}."
    output = Path(str(values.get("output", "/"))).expanduser()
    if not output.is_absolute():
        problems["output"] = "must be a whole path, from / on"
    if not problems:
        library, settings = Library.model_validate(values), file.settings()
        if unknown := [name for name in library.chosen if name not in profiles]:
            problems["profiles"] = f"No profile {unknown[0]!r}."
        elif library.place == "replace":
            used = [*(library.profiles or settings.ingest.profiles), *library.chosen]
            found = [profiles[name] for name in used if name in profiles]
            if sets := [each.name for each in found if each.container is Container.HLS]:
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
    """Add a library, or put it in the place of the one named `former`; return it as it will be read.

    `values` are the keys as they are in the file. `known` is the digest of the file that the person saw.
    Raises UsageError for wrong values, Conflict if the file was changed meanwhile, ConfigError.
    """
    if known is not None and known != file.digest():
        raise Conflict(CHANGED, remedy=LOOK_AGAIN)
    require_valid(library_problems(file, values, profiles, former))
    before = find_library(file, former) if former else None
    if former and before is None:
        raise Conflict(CHANGED, remedy=LOOK_AGAIN)
    name = values["name"]
    what = f"Change library {name}" if former else f"Add library {name}"
    file.change(file.new(who, what, KEY, before, values), known)
    return next(each for each in file.settings().libraries if each.name == name)


def require_valid(problems: Mapping[str, str]) -> None:
    """Raise UsageError if there are problems of a library, by key."""
    said = "; ".join(
        words if words[0].isupper() else f"{key} {words}".strip() for key, words in problems.items()
    )
    if said:
        raise UsageError(f"Invalid library: {said.rstrip('.')}.")


def remove_library(file: SettingsFile, name: str, who: str, known: str | None = None) -> None:
    """Remove a library; its folder, renditions and kept originals stay. Raises Conflict, ConfigError."""
    before = find_library(file, name)
    if before is None:
        raise Conflict(f"There is no library {name!r} in {file.file}.")
    file.change(file.new(who, f"Remove library {name}", KEY, before, None), known)


def overlap(folder: Path, known: Sequence[Library]) -> str:
    """Return why a folder cannot be a library beside these, or ""."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links are kept
    for each in known:
        if each.path == folder:
            return f"{printable(folder)} is the library {each.name} already."
        if folder.is_relative_to(each.path) or each.path.is_relative_to(folder):
            where = "within" if folder.is_relative_to(each.path) else "the parent of"
            return (
                f"{printable(folder)} is {where} the library {each.name} ({printable(each.path)})."
                " Libraries must be separate folders."
            )
    return ""


def free_name(folder: Path, known: Sequence[Library]) -> str:
    """Return a name after the folder that no library has yet."""
    plain = re.sub(r"[^\w .-]+", "-", folder.name).strip(" .-_")[:50] or "library"
    taken = {each.name.casefold() for each in known}
    names = (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 3)))
    return next(each for each in names if each.casefold() not in taken)


def _listed(file: SettingsFile) -> list[dict[str, Any]]:
    found = file.raw().get(KEY, [])
    return found if isinstance(found, list) else []


WEEK = 7 * 24
Hour = int
"""An hour of the week: 0 is Monday from 00:00 to 01:00."""


def hours_of(windows: Sequence[str]) -> Set[Hour] | None:
    """Return the open hours of the week; None if a window begins or ends within an hour.

    Raises ValueError for what is no window.
    """
    found = set[Hour]()
    for window in Schedule.parse(windows).windows:
        if window.start % 60 or window.end % 60:
            return None
        for day in window.days:
            found |= {
                (day * 24 + hour) % WEEK for hour in range(window.start // 60, window.end // 60)
            }
    return found if windows else set(range(WEEK))


def windows_of(hours: Set[Hour]) -> list[str]:
    """Return the windows of these open hours; the whole week is none, which is always.

    Raises ValueError without an hour: no window would mean always, too.
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
