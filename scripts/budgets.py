"""Check the size budgets of each room, file and function, and of the whole.

Run as `python scripts/budgets.py`; prints each total beside its budget and each breach, and exits 1
if there is a breach.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from hevcq.domain.profile import Profile
from hevcq.settings.model import Settings

MAX_ROOM_FILES = 14
MAX_FILE_LINES = 500
MIN_FILE_LINES = 60
MAX_FUNCTION_LINES = 40
MAX_PARAMETERS = 6
ROOT = Path(__file__).resolve().parent.parent
MAX_TOTALS = {
    "lines of src": 68_650,
    "modules": 251,
    "classes": 627,
    "class names used twice": 0,
    "lines of tests and benchmarks": 67_780,
    "words of docs": 37_700,
    "settings and keys of profiles": 163,
}
"""Lowered by each step of the diet; raised by a feature that an issue asks for, in a commit that names it."""
WAIVED: dict[str, str] = {}
"""At most two `file:function` waivers, each with its reason."""
SMALL: dict[str, str] = {
    "src/hevcq/__main__.py": "the entry point of `python -m hevcq`",
    "src/hevcq/cli/main.py": "the entry point of the program",
    "src/hevcq/domain/model.py": "the base of every model",
    "src/hevcq/web/api/openapi.py": "one decision: how the API is described",
}
"""Files below MIN_FILE_LINES that are a thing of their own, each with its reason."""


def breaches() -> Iterator[str]:
    """Yield one line for every breach."""
    for room in sorted({path.parent for path in ROOT.glob("src/hevcq/**/*.py")}):
        count = len([path for path in room.glob("*.py") if path.name != "__init__.py"])
        if count > MAX_ROOM_FILES:
            yield f"{_name(room)}: {count} files, at most {MAX_ROOM_FILES}"
    for path in sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("workers/*.py")]):
        yield from _file_breaches(path)
    for path in sorted(ROOT.glob("tests/**/*.py")):
        text = path.read_text(encoding="utf-8")
        yield from _too_long(path, text)
        if not {"e2e", "chaos"} & set(path.parts):
            for number, line in enumerate(text.splitlines(), 1):
                if "time.sleep(" in line:
                    yield f"{_name(path)}:{number}: a test sleeps; hand time in instead"
    for name in SMALL:
        if not (ROOT / name).is_file():
            yield f"{name}: listed as small, and not there"


def totals() -> dict[str, int]:
    """Count what MAX_TOTALS bounds."""
    modules = [path for path in ROOT.glob("src/**/*.py") if path.name != "__init__.py"]
    tests = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
    words = [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")]
    nodes = [node for path in modules for node in ast.walk(ast.parse(_text(path)))]
    classes = [node.name for node in nodes if isinstance(node, ast.ClassDef)]
    return {
        "lines of src": sum(len(_text(path).splitlines()) for path in ROOT.glob("src/**/*.py")),
        "modules": len(modules),
        "classes": len(classes),
        "class names used twice": len(classes) - len(set(classes)),
        "lines of tests and benchmarks": sum(len(_text(path).splitlines()) for path in tests),
        "words of docs": sum(len(_text(path).split()) for path in words),
        "settings and keys of profiles": _keys(Settings) + _keys(Profile),
    }


def _keys(model: type[BaseModel]) -> int:
    """Count the leaves of a model's tree of fields, each model once."""
    waiting, seen, count = [model], {model}, 0
    while waiting:
        for field in waiting.pop().model_fields.values():
            inner = set(_models(field.annotation)) - seen
            count += not list(_models(field.annotation))
            seen |= inner
            waiting.extend(inner)
    return count


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _too_long(path: Path, text: str) -> Iterator[str]:
    lines = len(text.splitlines())
    if lines > MAX_FILE_LINES:
        yield f"{_name(path)}:1: {lines} lines, at most {MAX_FILE_LINES}"


def _file_breaches(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    yield from _too_long(path, text)
    lines, small = len(text.splitlines()), _name(path) in SMALL
    if path.name != "__init__.py" and path.parent.name != "workers":
        if lines < MIN_FILE_LINES and not small:
            yield f"{_name(path)}:1: {lines} lines, at least {MIN_FILE_LINES} or a reason in SMALL"
        if lines >= MIN_FILE_LINES and small:
            yield f"{_name(path)}:1: {lines} lines; it needs no reason in SMALL any more"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if f"{_name(path)}:{node.name}" in WAIVED:
            continue
        length = _body_lines(node)
        if length > MAX_FUNCTION_LINES:
            yield f"{_name(path)}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"
        count = _parameters(node)
        if count > MAX_PARAMETERS and "cli" not in path.parts:
            yield f"{_name(path)}:{node.lineno}: {node.name} takes {count} parameters, at most {MAX_PARAMETERS}"


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and len(body) > 1:
        body = body[1:]
    return (node.end_lineno or node.lineno) - body[0].lineno + 1


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in {"self", "cls"}])


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


if __name__ == "__main__":
    over = list(breaches())
    for what, value in totals().items():
        print(f"{value:7,} {what}, at most {MAX_TOTALS[what]:,}")
        if value > MAX_TOTALS[what]:
            over.append(f"{what}: {value:,}, at most {MAX_TOTALS[what]:,}")
    for line in over:
        print(line)
    sys.exit(1 if over else 0)
