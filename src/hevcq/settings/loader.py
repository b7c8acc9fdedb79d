"""Read the settings once at the edge, and remember where each value came from.

Layers, strongest first: flags, `HEVCQ_*` variables (`HEVCQ_AWS__REGION` is `aws.region`), one TOML
file, defaults. The file is `--config FILE`, else `HEVCQ_CONFIG`, else `hevcq.toml` in the user's
config folder. A file in the current folder is never read, because it may have come with a download.
An error about an unknown key names the nearest known one. Relative paths in a file are relative to the
file's folder; `~` is the home folder.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import platformdirs
from pydantic import BaseModel, SecretStr, ValidationError

from hevcq.errors import ConfigError
from hevcq.settings.model import PROGRAMS, TABLES, Settings
from hevcq.util.text import reason_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX = "HEVCQ_"
OTHER_VARIABLES = ("HEVCQ_CONFIG", "HEVCQ_PROFILES")
"""Variables that are not settings: the settings file, and the profiles of workers/run.py."""
TEST_PREFIXES = ("HEVCQ_TEST_", "HEVCQ_CRASH_")
"""Variables of the tests, which are never settings."""
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each dotted key where its value came from.

    An origin is `flag --name`, `environment HEVCQ_NAME`, `file /path/hevcq.toml` or `default`.
    """

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None


Flags = Mapping[str, tuple[str, object]]
"""For each dotted key the flag as the person wrote it, and its value."""


def load(flags: Flags | None = None, *, config: Path | None = None) -> Loaded:
    """Return the checked settings of all layers.

    Raises ConfigError naming the key, where it was set, what is wrong and the nearest known key.
    """
    file = settings_path(config)
    if not file.is_file() and file != _default_file():
        raise ConfigError(f"No such settings file: {file}.")
    flag_layer = [(key, value, f"flag {name}") for key, (name, value) in (flags or {}).items()]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value, origin in [*_from_file(file), *_from_environment(), *flag_layer]:
        *sections, name = key.split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
        table[name], origins[key] = value, origin

    def origin_of(place: tuple[int | str, ...]) -> str:
        key = ".".join(map(str, place))
        keys = (each for each in origins if each == key or each.startswith(f"{place[0]}."))
        return origins[str(place[0]) if str(place[0]) in origins else next(keys)]

    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"Invalid settings: {explain(error, Settings, origin_of)}.") from error
    all_origins = {key: origins.get(key, DEFAULT) for key, _ in leaves(Settings)}
    return Loaded(settings, all_origins, file if file.is_file() else None)


def settings_path(config: Path | None) -> Path:
    """Return the path of the settings file, which need not exist: `config`, HEVCQ_CONFIG or the user's."""
    named = config or (Path(os.environ["HEVCQ_CONFIG"]) if os.environ.get("HEVCQ_CONFIG") else None)
    return (named or _default_file()).expanduser().absolute()


def _default_file() -> Path:
    return Path(platformdirs.user_config_dir("hevcq", appauthor=False)) / "hevcq.toml"


def variable(key: str) -> str:
    return PREFIX + key.replace(".", "__").upper()


Layer = Iterator[tuple[str, object, str]]


def _from_file(file: Path) -> Layer:
    if not file.is_file():
        return
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Cannot read the settings file {file}: {reason_of(error)}.") from error
    fields = dict(leaves(Settings))
    for key, value in _flatten(raw):
        if (top := key.split(".")[0]) in fields and top != key:
            raise ConfigError(f"{top} in {file} is a list: write [[{top}]], with two brackets.")
        if any(each.startswith(f"{key}.") for each in fields):
            raise ConfigError(f"{key} in {file} is a table: write [{key}].")
        kind = fields[key].annotation if key in fields else None
        is_program = key in PROGRAMS and "/" in str(value)
        yield key, _resolve_paths(value, Path if is_program else kind, file.parent), f"file {file}"


def _flatten(raw: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in raw.items():
        if isinstance(value, Mapping) and f"{prefix}{name}" not in TABLES:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _resolve_paths(value: object, kind: Any, folder: Path) -> object:
    """Resolve a value's paths, also those in tables, relative to the folder of the settings file."""
    if isinstance(value, str) and value and "Path" in str(kind):
        return str(folder / Path(value).expanduser())
    model = next(iter(get_args(kind)), None)
    if not (isinstance(model, type) and issubclass(model, BaseModel) and isinstance(value, list)):
        return value
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    return [
        {key: _resolve_paths(part, kinds.get(key), folder) for key, part in each.items()}
        if isinstance(each, Mapping)
        else each
        for each in value
    ]


def _from_environment() -> Layer:
    keys = {variable(key): key for key, _ in leaves(Settings)}
    for name, text in sorted(os.environ.items()):
        upper = name.upper()
        if upper in keys:
            yield keys[upper], _parse_json(name, text), f"environment {name}"
        elif (
            upper.startswith(PREFIX)
            and upper not in OTHER_VARIABLES
            and not upper.startswith(TEST_PREFIXES)
        ):
            every = "`hevcq config show` lists all settings."
            remedy = did_you_mean(upper, {*keys, *OTHER_VARIABLES}, every)
            raise ConfigError(f"Unknown setting {name}.", remedy=remedy)


def _parse_json(name: str, text: str) -> object:
    """Return the list or table that a variable holds as JSON; return other text as it is."""
    if not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON: {error}.") from error


_LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
    "literal_error": ("one of", "expected"),
}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "model": "a table",
    "dict": "a table",
}
_USERINFO = re.compile(r"//[^/\s]*@")
"""User and password in an address, which no error repeats."""


def explain(
    error: ValidationError,
    model: type[BaseModel],
    origin: Callable[[tuple[int | str, ...]], str] = lambda _place: "",
) -> str:
    """Return all problems in one line, each with its key and what is wrong.

    `origin` returns where the value at a location of the model came from.
    """
    lines = []
    for problem in error.errors(include_url=False):
        place = problem["loc"]
        if problem["type"] == "extra_forbidden":
            text = f"{_describe_place(place)} is unknown; {hint(place, model)}"
        else:
            text = f"{_describe_place(place)} {_describe_problem(problem)}".strip()
        came_from = origin(place)
        lines.append(f"{text} ({came_from})" if came_from else text)
    return "; ".join(lines)


def problems_of(model: type[BaseModel], values: Mapping[str, object]) -> dict[str, str]:
    """Return the problem of each wrong key of a table, such as `rules-0-codec`; "" is the whole table.

    The value of a secret is not repeated.
    """
    secret = {name for name, field in model.model_fields.items() if field.annotation is SecretStr}
    try:
        model.model_validate(values)
    except ValidationError as error:
        problems = {}
        for problem in error.errors(include_url=False):
            end = ", got " if secret & set(problem["loc"]) else "\n"
            key = "-".join(map(str, problem["loc"]))
            problems[key] = _describe_problem(problem).partition(end)[0]
        return problems
    return {}


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each key of a model and its sections as its dotted name and pydantic field."""
    for name, field in model.model_fields.items():
        section = _model(field.annotation, lists=False)
        if section is not None:
            yield from leaves(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def did_you_mean(wrong: str, known: Iterable[str], otherwise: str) -> str:
    """Return the known name nearest to a wrong one as a question, or `otherwise` if none is near."""
    near = difflib.get_close_matches(wrong, sorted(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


def hint(place: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Return the key nearest to the unknown one at `place`, or all keys of its section."""
    section, above = model, ""
    for part in place[:-1]:
        if isinstance(part, int):
            above = ""
            continue
        section = _model(section.model_fields[part].annotation) or section
        above += f"{part}."
    wrong = str(place[-1])
    near = [
        f"{above}{name}" for name in difflib.get_close_matches(wrong, section.model_fields, n=1)
    ] or [key for key, _ in leaves(model) if key.split(".")[-1] == wrong]
    known = ", ".join(section.model_fields)
    return f"did you mean {near[0]!r}?" if near else f"known: {known}"


def _model(annotation: Any, *, lists: bool = True) -> type[BaseModel] | None:
    inner = annotation
    if lists and get_args(annotation):
        inner = get_args(annotation)[0]
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _describe_place(place: tuple[int | str, ...]) -> str:
    """Return the place of a value, as `aws.table` or, in a list, `libraries no. 2: place`."""
    text = ""
    for part in place:
        joined = f".{part}" if text and not text.endswith(":") else f" {part}"
        text += f" no. {part + 1}:" if isinstance(part, int) else joined
    return text.strip().removesuffix(":")


def _describe_problem(problem: ErrorDetails) -> str:
    """Return what is wrong with a value, to be written after its key: `must be at least 0, got -1`."""
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
