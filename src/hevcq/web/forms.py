"""Build form fields from a settings model, and read their values back as the settings file has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

Options = Mapping[str, Sequence[tuple[str, str]]]
"""For each field with a choice of values: the values, each with its meaning."""
LABELS = {
    "path": "Folder",
    "place": "Where renditions go",
    "output": "Folder of the mirror",
    "keep_originals": "Days to keep originals",
    "include": "Only these files",
    "exclude": "Not these files",
    "min_age": "Minimum age",
    "min_saving": "Minimum saving",
    "settle": "Complete after",
    "schedule": "Hours",
    "max_hours_per_day": "Hours of encoding a day",
    "watch": "Watch for new files",
    "skip": "Skip these videos",
    "profile": "Profile",
    "crf": "CRF",
    "quality": "Quality (VMAF)",
    "url": "Address",
    "kbps_per_channel": "Audio kbit/s per channel",
    "target": "Folder of this machine",
    "folders": "Folders on the server",
    "limit": "Speed limit",
    "mode": "Copy or move",
    "at_end": "Running work when a window ends",
}
LIST_HELP = "One per line: "


@dataclass(frozen=True, slots=True)
class FormField:
    """One field. `kind` is text, number, lines, choice, radio, checks, flag or secret.

    `value` is the file's, or "" if the file has none. A secret's value is never shown, only `is_set`.
    """

    name: str
    label: str
    kind: str
    help: str
    value: Any = ""
    options: Sequence[tuple[str, str]] = ()
    usual: str = ""
    limits: tuple[float | None, float | None] = (None, None)
    problem: str = ""
    is_set: bool = False


def fields(
    model: type[BaseModel],
    names: Sequence[str],
    raw: Mapping[str, Any],
    problems: Mapping[str, str],
    options: Options | None = None,
    prefix: str = "",
) -> list[FormField]:
    """Return a field for each name; `problems` maps names of fields, `raw` keys of the file."""
    return [
        _field(f"{prefix}{name}", name, model.model_fields[name], raw, problems, options or {})
        for name in names
    ]


def _field(
    field_name: str,
    name: str,
    info: FieldInfo,
    raw: Mapping[str, Any],
    problems: Mapping[str, str],
    options: Options,
) -> FormField:
    kind = kind_of(info, options.get(name))
    value = raw.get(name, "" if kind != "flag" else bool(info.default))
    usual = info.get_default(call_default_factory=True) if not info.is_required() else ""
    if kind == "checks" and name not in raw:
        value = usual
    chosen = options.get(name) or [(each, each) for each in _choices(info)]
    if kind in {"choice", "radio"} and value == "":
        value = usual if not isinstance(usual, tuple) else ""
    if kind == "choice" and value not in dict(chosen):
        chosen = [(value, str(value)), *chosen]
    displayed: Any = value
    if kind in {"lines", "checks"}:
        listed = [value] if isinstance(value, str) and value else list(value or ())
        displayed = "\n".join(map(str, listed)) if kind == "lines" else listed
    help_text = (info.description or "")[:1].upper() + (info.description or "")[1:]
    if kind == "radio":  # each choice says what it means
        help_text = ""
    placeholder = f"{usual:g}" if isinstance(usual, float) else str(usual)
    return FormField(
        field_name,
        "Paths" if kind == "lines" and name == "path" else label_of(name),
        kind,
        LIST_HELP + (info.description or "") if kind == "lines" else help_text,
        "" if kind == "secret" else displayed,
        chosen,
        placeholder if kind in {"number", "text"} and usual not in (None, "", 0) else "",
        _limits(info),
        problems.get(field_name, ""),
        is_set=kind == "secret" and bool(value),
    )


def label_of(name: str) -> str:
    return LABELS.get(name, name.replace("_", " ").capitalize())


def error_summary(problems: Mapping[str, str]) -> str:
    """Return the message above a form: problems of the whole form, and which fields are wrong."""
    keys = [[part for part in key.split("-") if not part.isdecimal()] for key in problems if key]
    names = ", ".join(dict.fromkeys(label_of(parts[-1]) for parts in keys))
    return " ".join(
        filter(None, [problems.get("", ""), f"Not saved, see: {names}." if names else ""])
    )


def kind_of(info: FieldInfo, options: Sequence[object] | None) -> str:
    kinds = _kinds(info.annotation)
    if any(get_origin(each) is tuple for each in kinds):
        return "checks" if options is not None else "lines"
    if options is not None:
        return "radio" if get_origin(kinds[0]) is Literal else "choice"
    if bool in kinds:
        return "flag"
    if SecretStr in kinds:
        return "secret"
    if _choices(info):
        return "choice"
    written = any(isinstance(each, BeforeValidator) for each in info.metadata)
    return "number" if {int, float} & set(kinds) and not written else "text"


def read_fields(
    model: type[BaseModel],
    names: Sequence[str],
    form: Mapping[str, str],
    raw: Mapping[str, Any],
    options: Options | None = None,
    prefix: str = "",
) -> dict[str, Any]:
    """Return `raw` with the form's values. A key that `raw` lacks is added only if it is not the default.

    Text in a field for numbers stays text, so that the model refuses it.
    """
    table = dict(raw)
    for name in names:
        info, chosen = model.model_fields[name], (options or {}).get(name)
        value = _value(f"{prefix}{name}", kind_of(info, chosen), form, chosen or ())
        if value == "" and kind_of(info, chosen) == "secret":
            continue  # its value is never shown, so an empty field means unchanged
        usual = info.get_default(call_default_factory=True) if not info.is_required() else None
        usual = list(usual) if isinstance(usual, tuple) else usual
        if value in ("", []) or (name not in raw and value == usual):
            table.pop(name, None)
        elif not (isinstance(raw.get(name), str) and value == [raw[name]]):
            table[name] = value
    return table


def _value(
    name: str, kind: str, form: Mapping[str, str], options: Sequence[tuple[str, str]]
) -> Any:
    text = form.get(name, "").strip()
    match kind:
        case "flag":
            return bool(text)
        case "checks":
            return [value for value, _ in options if form.get(f"{name}-{value}")]
        case "lines":
            return [line.strip() for line in text.splitlines() if line.strip()]
        case "number":
            return _number(text)
    return text


def _number(text: str) -> int | float | str:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)


def _choices(info: FieldInfo) -> list[str]:
    kinds = _kinds(info.annotation)
    if get_origin(kinds[0]) is Literal:
        return [str(each) for each in get_args(kinds[0])]
    members = getattr(kinds[0], "__members__", {})
    return [str(each.value) for each in members.values()]


def _limits(info: FieldInfo) -> tuple[float | None, float | None]:
    least = next((each.ge for each in info.metadata if hasattr(each, "ge")), None)
    most = next((each.le for each in info.metadata if hasattr(each, "le")), None)
    return least, most
