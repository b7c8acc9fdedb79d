"""Copy, change and delete a person's own profiles; comments stay, and each change can be undone."""

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
    """Return whether profiles are read from the person's own folder, not from the installed one."""
    return profile_folder(settings) != installed_folder()


def require_own(settings: Settings) -> None:
    """Raise UsageError if the profiles are read from the installed folder."""
    if not can_change(settings):
        raise UsageError("This profile came with hevcq; copy it first.")


def profile_text(settings: Settings, name: str) -> tuple[Path, str]:
    """Return a profile's file and its text. Raises UsageError if there is none."""
    path = profile_folder(settings) / f"{name}.yaml"
    if not NAME.fullmatch(name) or not path.is_file():
        raise UsageError(f"There is no profile {name!r}.")
    return path, read_text(path)


def copy_problem(settings: Settings, name: str) -> str:
    """Return why a new profile cannot have this name, or ""."""
    if not NAME.fullmatch(name):
        return "must be lower-case letters, digits and '-', 40 at most"
    if (profile_folder(settings) / f"{name}.yaml").exists():
        return f"There is a profile {name!r} already."
    return ""


def copy_profile(file: SettingsFile, settings: Settings, source: str, name: str, who: str) -> None:
    """Copy a profile under a new name; the first copy creates the folder of own profiles.

    Raises UsageError, ConfigError.
    """
    _, text = profile_text(settings, source)
    if words := copy_problem(settings, name):
        raise UsageError(words)
    if not can_change(settings):  # from then on only that folder is read
        list(copy_profiles(installed_folder(), user_folder()))
    text = with_key(text, "name", name)
    text = with_key(text, "description", f"Copy of {source}")
    text = with_key(text, "subscribe", False)  # uploads use the copy only if a person says so
    _put(file, profile_folder(settings) / f"{name}.yaml", "", text, (who, f"Add profile {name}"))


def changed_profile(text: str, values: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return a profile's text with these dotted keys set, and its problems by key (`video-crf`)."""
    raw = read_yaml(text)
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        model = section_model(section)
        if name not in getattr(model, "model_fields", ()):
            return text, {key: "is no key of a profile"}
        holder = (raw.get(section) or {}) if section else raw
        if not isinstance(holder, dict):
            break  # `_problems` reports it
        if holder.get(name, usual(model, name)) != value:
            text = with_key(text, key, value)
    return text, _problems(text)


def _problems(text: str) -> dict[str, str]:
    raw = read_yaml(text)
    problems = problems_of(Profile, raw)
    contradiction = "" if problems else Profile.model_validate(raw).contradiction
    return {"video-crf": contradiction} if contradiction else problems


def save_profile(
    file: SettingsFile, settings: Settings, name: str, texts: tuple[str, str], who: str
) -> None:
    """Write a profile's text; `texts` are the one that the person saw and the new one.

    Raises Conflict, UsageError, ConfigError.
    """
    path, _ = profile_text(settings, name)
    require_own(settings)
    problems = _problems(texts[1])
    if problems or read_yaml(texts[1]).get("name") != name:
        raise UsageError(f"Invalid profile {path}: {problems or 'its name must stay'}.")
    _put(file, path, *texts, (who, f"Change profile {name}"))


def delete_profile(file: SettingsFile, settings: Settings, name: str, who: str) -> None:
    """Delete an unused own profile. Raises UsageError, ConfigError."""
    path, text = profile_text(settings, name)
    if name in shipped() or not can_change(settings):
        raise UsageError(f"The profile {name} came with hevcq; only your own can be deleted.")
    if users := users_of(file.settings(), name):
        raise UsageError(f"The profile {name} is in use: {', '.join(users)}.")
    change = (who, f"Delete profile {name}")
    _put(file, path, text, None, change)


def _put(
    file: SettingsFile, path: Path, before: str, after: str | None, who_what: tuple[str, str]
) -> None:
    old = {"path": str(path), "text": before} if before else None
    new = {"path": str(path), "text": after} if after is not None else None
    file.change(file.new(*who_what, PROFILE, old, new))


def usual(model: Any, name: str) -> Any:
    """Return the default of a model's key as a value of the file; None if the key is required."""
    info = model.model_fields[name]
    value = None if info.is_required() else info.get_default(call_default_factory=True)
    value = value.value if isinstance(value, Enum) else value
    return list(value) if isinstance(value, tuple) else value


def section_model(section: str) -> Any:
    """Return the model of a section ("": of the profile); None for an unknown section."""
    if not section:
        return Profile
    return Profile.model_fields[section].annotation if section in Profile.model_fields else None


def with_key(text: str, key: str, value: object) -> str:
    """Return YAML in which a key, such as `video.crf`, has this value; comments stay.

    Raises ConfigError if the key is written in a way that cannot be changed here.
    """
    import yaml

    section, _, name = key.rpartition(".")
    new = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10_000)
    new = new.strip()[1:-1]
    root = yaml.compose(text, yaml.SafeLoader)
    holder = _entries(root).get(section, (None, None))[1] if section else root
    entries = _entries(holder)
    if name in entries:
        _, node = entries[name]
        start, end = node.start_mark.index, node.end_mark.index
        rest = text[start:end]
        changed = f"{text[:start]}{new}{rest[len(rest.rstrip()) :]}{text[end:]}"
    elif entries:
        first = min((each for each, _ in entries.values()), key=lambda node: node.start_mark.index)
        at, indent = first.start_mark.index, " " * first.start_mark.column
        changed = f"{text[:at]}{name}: {new}\n{indent}{text[at:]}"
    else:
        changed = f"{text.rstrip()}\n{section}:\n  {name}: {new}\n"
    expected = read_yaml(text)
    (expected.setdefault(section, {}) if section else expected)[name] = value
    with suppress(ConfigError):  # the changed text may be invalid YAML
        if read_yaml(changed) == expected:
            return changed
    raise ConfigError(f"{key} is written in a way that cannot be changed here.", remedy=BY_HAND)


def _entries(node: Any) -> dict[str, tuple[Any, Any]]:
    import yaml

    pairs: Sequence[tuple[Any, Any]] = node.value if isinstance(node, yaml.MappingNode) else ()
    return {key.value: (key, value) for key, value in pairs}
