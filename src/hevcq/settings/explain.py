"""Say what is wrong with settings or a profile, in words for the person who wrote them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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
"""User and password in an address: they are not repeated in an error."""


def explain(
    error: ValidationError,
    model: type[BaseModel],
    origin: Callable[[tuple[int | str, ...]], str] = lambda _place: "",
) -> str:
    """Return each problem as where it is and what is wrong, in one line.

    `origin` names the place in the sources of the value at a location.
    """
    lines = []
    for problem in error.errors(include_url=False):
        place = problem["loc"]
        if problem["type"] == "extra_forbidden":
            text = f"{_words(place)} is unknown; {hint(place, model)}"
        else:
            text = f"{_words(place)} {_problem(problem)}".strip()
        came_from = origin(place)
        lines.append(f"{text} ({came_from})" if came_from else text)
    return "; ".join(lines)


def problems_of(model: type[BaseModel], values: Mapping[str, object]) -> dict[str, str]:
    """Return what is wrong with each key of a table, such as `rules-0-codec`; "" is the whole table.

    The value of a secret is not repeated.
    """
    secret = {name for name, field in model.model_fields.items() if field.annotation is SecretStr}
    try:
        model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
        return {
            "-".join(map(str, each["loc"])): _problem(each).partition(
                ", got " if secret & set(each["loc"]) else "\n"
            )[0]
            for each in found
        }
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
    """Return the nearest right name as a question, or what to say where none is near."""
    near = difflib.get_close_matches(wrong, sorted(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


def hint(place: tuple[int | str, ...], model: type[BaseModel]) -> str:
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


def _words(place: tuple[int | str, ...]) -> str:
    """Return where a value is: `aws.table`, or in the second of a list `libraries no. 2: place`."""
    text = ""
    for part in place:
        joined = f".{part}" if text and not text.endswith(":") else f" {part}"
        text += f" no. {part + 1}:" if isinstance(part, int) else joined
    return text.strip().removesuffix(":")


def _problem(problem: ErrorDetails) -> str:
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
