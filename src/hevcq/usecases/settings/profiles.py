"""Copy, change and delete a person's own profiles; their comments stay, and each change can be undone."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

from hevcq.domain.profile import Profile
from hevcq.errors import ConfigError, UsageError
from hevcq.settings.edit import BY_HAND, read_text
from hevcq.settings.loader import problems_of
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import (
    copy_profiles,
    installed_folder,
    profile_folder,
    read_yaml,
    user_folder,
)
from hevcq.usecases.settings.changes import PROFILE, SettingsFile, users_of

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def shipped() -> set[str]:
    return {path.stem for path in installed_folder().glob("*.yaml")}


def can_change(settings: Settings) -> bool:
    """Return whether profiles are read from a folder of the person's own, not from the installed one."""
    return profile_folder(settings) != installed_folder()


def require_own(settings: Settings) -> None:
    """Raise UsageError where profiles are those that came with hevcq."""
    if not can_change(settings):
        raise UsageError("This profile came with hevcq; copy it first.")


def profile_text(settings: Settings, name: str) -> tuple[Path, str]:
    """Return a profile's file and its text. Raises UsageError if there is none."""
    path = profile_folder(settings) / f"{name}.yaml"
    if not NAME.fullmatch(name) or not path.is_file():
        raise UsageError(f"There is no profile {name!r}.")
    return path, read_text(path)


def copy_problem(settings: Settings, name: str) -> str:
    """Return why no profile can be given this name, or ""."""
    if not NAME.fullmatch(name):
        return "must be lower-case letters, digits and '-', 40 at most"
    if (profile_folder(settings) / f"{name}.yaml").exists():
        return f"There is a profile {name!r} already."
    return ""


def copy_profile(file: SettingsFile, settings: Settings, source: str, name: str, who: str) -> None:
    """Copy a profile under a new name; the first copy makes the folder of the person's own ones.

    Raises UsageError, ConfigError.
    """
    _, text = profile_text(settings, source)
    if words := copy_problem(settings, name):
        raise UsageError(words)
    if not can_change(settings):  # from then on only that folder is read
        for _ in copy_profiles(installed_folder(), user_folder()):
            pass
    made = text
    for key, value in {
        "name": name,
        "description": f"Copy of {source}",
        "subscribe": False,
    }.items():
        made = with_key(made, key, value)  # an upload is not encoded by it unless a person says so
    _put(file, profile_folder(settings) / f"{name}.yaml", "", made, (who, f"Add profile {name}"))


def changed_profile(text: str, values: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return a profile's text with these dotted keys, and what is wrong with it, by key (`video-crf`)."""
    raw = read_yaml(text)
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        model = section_model(section)
        if name not in getattr(model, "model_fields", ()):
            return text, {key: "is no key of a profile"}
        holder = (raw.get(section) or {}) if section else raw
        if not isinstance(holder, dict):
            break  # which is among the problems
        if holder.get(name, usual(model, name)) != value:
            text = with_key(text, key, value)
    return text, _problems(text)


def _problems(text: str) -> dict[str, str]:
    raw = read_yaml(text)
    found = problems_of(Profile, raw)
    wrong = "" if found else Profile.model_validate(raw).contradiction
    return {"video-crf": wrong} if wrong else found


def save_profile(
    file: SettingsFile, settings: Settings, name: str, texts: tuple[str, str], who: str
) -> None:
    """Write a profile's text: `texts` are what the person saw, and the new one.

    Raises Conflict, UsageError, ConfigError.
    """
    path, _ = profile_text(settings, name)
    require_own(settings)
    problems = _problems(texts[1])
    if problems or read_yaml(texts[1]).get("name") != name:
        raise UsageError(f"Invalid profile {path}: {problems or 'its name must stay'}.")
    _put(file, path, *texts, (who, f"Change profile {name}"))


def delete_profile(file: SettingsFile, settings: Settings, name: str, who: str) -> None:
    """Delete an own profile that nothing uses. Raises UsageError, ConfigError."""
    path, text = profile_text(settings, name)
    if name in shipped() or not can_change(settings):
        raise UsageError(f"The profile {name} came with hevcq; only your own can be deleted.")
    if users := users_of(file.settings(), name):
        raise UsageError(f"The profile {name} is in use: {', '.join(users)}.")
    change = (who, f"Delete profile {name}")
    _put(file, path, text, None, change)


def _put(
    file: SettingsFile, path: Path, before: str, after: str | None, told: tuple[str, str]
) -> None:
    old = {"path": str(path), "text": before} if before else None
    new = {"path": str(path), "text": after} if after is not None else None
    who, what = told
    file.change(file.new(who, what, PROFILE, old, new))


def usual(model: Any, name: str) -> Any:
    """Return the default of a model's key as a file would say it; None if it must be said."""
    info = model.model_fields[name]
    value = None if info.is_required() else info.get_default(call_default_factory=True)
    value = value.value if isinstance(value, Enum) else value
    return list(value) if isinstance(value, tuple) else value


def section_model(section: str) -> Any:
    """Return the model of a section, of "" the profile's; None if there is no such section."""
    if not section:
        return Profile
    return Profile.model_fields[section].annotation if section in Profile.model_fields else None


def with_key(text: str, key: str, value: object) -> str:
    """Return YAML in which a key, such as `video.crf`, has this value; comments stay.

    Raises ConfigError if it is written in a way that cannot be changed here.
    """
    import yaml

    section, _, name = key.rpartition(".")
    new = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10_000)
    new = new.strip()[1:-1]
    root = yaml.compose(text, yaml.SafeLoader)
    holder = _entries(root).get(section, (None, None))[1] if section else root
    entries = _entries(holder)
    if name in entries:
        _, there = entries[name]
        start, end = there.start_mark.index, there.end_mark.index
        rest = text[start:end]
        made = f"{text[:start]}{new}{rest[len(rest.rstrip()) :]}{text[end:]}"
    elif entries:
        first = min((each for each, _ in entries.values()), key=lambda node: node.start_mark.index)
        at, indent = first.start_mark.index, " " * first.start_mark.column
        made = f"{text[:at]}{name}: {new}\n{indent}{text[at:]}"
    else:
        made = f"{text.rstrip()}\n{section}:\n  {name}: {new}\n"
    wanted = read_yaml(text)
    (wanted.setdefault(section, {}) if section else wanted)[name] = value
    with suppress(ConfigError):  # of text that is none any more
        if read_yaml(made) == wanted:
            return made
    raise ConfigError(f"{key} is written in a way that cannot be changed here.", remedy=BY_HAND)


def _entries(node: Any) -> dict[str, tuple[Any, Any]]:
    import yaml

    pairs: Sequence[tuple[Any, Any]] = node.value if isinstance(node, yaml.MappingNode) else ()
    return {key.value: (key, value) for key, value in pairs}
