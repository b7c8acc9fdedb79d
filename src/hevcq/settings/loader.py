"""Read the settings once at the edge, and remember where each value came from.

Layers, strongest first: flags, `HEVCQ_*` variables (`HEVCQ_AWS__REGION` is `aws.region`), TOML
files, defaults. The file is `--config FILE`, else `HEVCQ_CONFIG`; without either it is `hevcq.toml`
in the user's config folder, and over it the one in the current folder. That one may have come with a
download, so only ANYWHERE is taken from it. Unknown keys are refused with the nearest right name.
Relative paths in a file are relative to the file's folder; `~` is the home folder.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import platformdirs
from pydantic import BaseModel, ValidationError

from hevcq.errors import ConfigError
from hevcq.settings.model import ANYWHERE, PROGRAMS, Settings
from hevcq.util.text import printable, reason_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX = "HEVCQ_"
FILE_NAME = "hevcq.toml"
OTHER_VARIABLES = ("HEVCQ_CONFIG", "HEVCQ_PROFILES")
"""Variables that are not settings: the settings file, and the profiles of workers/run.py."""
TEST_PREFIXES = ("HEVCQ_TEST_", "HEVCQ_CRASH_")
"""Variables of the fault campaign; they are never settings."""
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each dotted key where its value came from.

    An origin is `flag --name`, `environment HEVCQ_NAME`, `file /path/hevcq.toml` or `default`.
    `notices` are sentences for the user about a file of the current folder.
    """

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flag:
    """A value given on the command line; `name` is the flag as the person wrote it."""

    name: str
    value: object


def load(flags: Mapping[str, Flag] | None = None, *, config: Path | None = None) -> Loaded:
    """Return the checked settings of all layers; `flags` is by dotted key.

    Raises ConfigError naming the key, where it was set, what is wrong and the nearest right name.
    """
    values: dict[str, object] = {}
    origins = {key: DEFAULT for key, _ in leaves(Settings)}
    named, here = _find_files(config)
    local, notices = _from_current_folder(here)
    layers = [*_from_file(named), *local, *_from_environment(), *_from_flags(flags or {})]
    for key, value, origin in layers:
        values[key] = value
        origins[key] = origin
    try:
        settings = Settings.model_validate(_nested(values))
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from error
    return Loaded(_absolute(settings), origins, here or named, notices)


def _find_files(config: Path | None) -> tuple[Path | None, Path | None]:
    """Return the user's settings file and that of the current folder; either may be None.

    Raises ConfigError if a named file does not exist.
    """
    named = config or (Path(os.environ["HEVCQ_CONFIG"]) if os.environ.get("HEVCQ_CONFIG") else None)
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"No such settings file: {named}.")
        return named.absolute(), None
    here = Path.cwd() / FILE_NAME
    user = Path(platformdirs.user_config_dir("hevcq", appauthor=False)) / FILE_NAME
    own = user if user.is_file() else None
    if not here.is_file() or (own is not None and here.samefile(own)):
        return own, None
    return own, here


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting as its dotted key and pydantic field."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def variable(key: str) -> str:
    """Return the environment variable of a dotted key."""
    return PREFIX + key.replace(".", "__").upper()


Layer = Iterator[tuple[str, object, str]]


def _from_file(file: Path | None) -> Layer:
    if file is None:
        return
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Cannot read the settings file {file}: {reason_of(error)}.") from error
    known = dict(leaves(Settings))
    for key, value in _flat(raw):
        if (top := key.split(".")[0]) in known and top != key:
            raise ConfigError(f"{top} in {file} is a list: write [[{top}]], with two brackets.")
        if key not in known:
            raise ConfigError(f"Unknown setting {key!r} in {file}.", remedy=_hint(key, known))
        program = key in PROGRAMS and "/" in str(value)
        kind = Path if program else known[key].annotation
        yield key, _from_folder(value, kind, file.parent), f"file {file}"


def _from_current_folder(
    here: Path | None,
) -> tuple[list[tuple[str, object, str]], tuple[str, ...]]:
    """Return the settings that a file of the current folder may make, and what to say about it."""
    found = list(_from_file(here))
    taken = [each for each in found if each[0] in ANYWHERE]
    ignored = ", ".join(key for key, _, _ in found if key not in ANYWHERE)
    if here is None:
        return [], ()
    name = printable(here)
    notices = [f"Using the settings in {name} (current folder)."] if taken else []
    if ignored:
        notices.append(
            f"Ignored in {name}: {ignored}. A settings file found in the current folder can't choose"
            f" programs, folders or services; if you trust it, add --config {name}."
        )
    return taken, tuple(notices)


def _from_environment() -> Layer:
    names = {variable(key): key for key, _ in leaves(Settings)}
    groups = {variable(key.split(".")[0]) for key in names.values() if "." in key}
    given = sorted(name for name in os.environ if name.upper().startswith(PREFIX))
    for name in given:
        upper = name.upper()
        if upper not in {*OTHER_VARIABLES, *names, *groups} and not upper.startswith(TEST_PREFIXES):
            raise ConfigError(
                f"Unknown setting {name}.",
                remedy=_hint(upper, {*names, *OTHER_VARIABLES}),
            )
    if not given:
        return
    for key, value in _flat(_variables()):
        yield key, value, f"environment {variable(key)}"


def _variables() -> Mapping[str, object]:
    from pydantic_settings import EnvSettingsSource  # takes longer than all else here

    try:
        return EnvSettingsSource(
            Settings,  # type: ignore[arg-type]  # it asks only for the model's fields
            case_sensitive=False,
            env_prefix=PREFIX,
            env_nested_delimiter="__",
        )()
    except ValueError as error:
        raise ConfigError(f"Cannot read the HEVCQ_* variables: {error}.") from error


def _from_flags(flags: Mapping[str, Flag]) -> Layer:
    for key, flag in flags.items():
        yield key, flag.value, f"flag {flag.name}"


def _flat(raw: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in raw.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _nested(values: Mapping[str, object]) -> dict[str, object]:
    nested: dict[str, object] = {}
    for key, value in values.items():
        *groups, name = key.split(".")
        level = nested
        for group in groups:
            level = level.setdefault(group, {})  # type: ignore[assignment]
        level[name] = value
    return nested


def _from_folder(value: object, kind: object, folder: Path) -> object:
    """Resolve paths in a file relative to the file, not to the current folder; also in its tables."""
    if kind in (Path, Path | None):
        return str(folder / Path(value).expanduser()) if isinstance(value, str) and value else value
    model = next(iter(get_args(kind)), None)
    if not (isinstance(model, type) and issubclass(model, BaseModel) and isinstance(value, list)):
        return value
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    return [
        {key: _from_folder(part, kinds.get(key), folder) for key, part in each.items()}
        if isinstance(each, Mapping)
        else each
        for each in value
    ]


def _absolute(settings: Settings) -> Settings:
    changes = {
        name: value.expanduser().absolute() for name, value in settings if isinstance(value, Path)
    }
    return settings.model_copy(update=changes)


def _hint(wrong: str, known: Mapping[str, object] | set[str]) -> str:
    near = difflib.get_close_matches(wrong, sorted(known), n=1)
    if not near:
        last = [
            key for key in sorted(known) if key.split(".")[-1] == wrong.rsplit(".", maxsplit=1)[-1]
        ]
        near = last[:1]
    return f"Did you mean {near[0]!r}?" if near else "`hevcq config show` lists all settings."


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        place = problem["loc"]
        key = ".".join(str(part) for part in place)
        origin = next(
            (origins[top] for top in (key, str(place[0])) if top in origins), "the settings"
        )
        lines.append(f"{_place_text(place, origins)} {problem_text(problem)} ({origin})")
    return f"Invalid settings: {'; '.join(lines)}."


def _place_text(place: tuple[int | str, ...], known: Mapping[str, str]) -> str:
    """Return where a value is: `aws.table`, or in the second of a list `libraries no. 2: place`."""
    if str(place[0]) not in known:
        return ".".join(str(part) for part in place)
    text = ""
    for part in place:
        text += f" no. {part + 1}:" if isinstance(part, int) else f" {part}"
    return text.strip().removesuffix(":")


_LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
    "literal_error": ("one of", "expected"),
}
_USERINFO = re.compile(r"//[^/\s]*@")
"""User and password in an address: they are not repeated in an error."""
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "model": "a table",
}


def problem_text(problem: ErrorDetails) -> str:
    """Return what is wrong with a value, to follow its key: `must be at least 0, got -1`."""
    kind, got = problem["type"], f", got {_USERINFO.sub('//…@', repr(problem.get('input')))}"
    if kind == "missing":
        return "is missing"
    if kind in _LIMITS:
        words, name = _LIMITS[kind]
        return f"must be {words} {problem.get('ctx', {}).get(name)}{got}"
    expected = _TYPES.get(kind.split("_")[0])
    if expected is not None and kind.endswith(("_type", "_parsing", "_from_float")):
        return f"must be {expected}{got}"
    message = problem["msg"].removeprefix("Value error, ")
    table = isinstance(problem.get("input"), dict | tuple | list)  # too long to repeat
    return f"{message[:1].lower()}{message[1:]}{'' if table and message != problem['msg'] else got}"
